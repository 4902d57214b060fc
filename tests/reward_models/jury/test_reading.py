"""What is saved predicts what was measured: a jury reads texts as those were read that it was fitted on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from trl.data_utils import apply_chat_template

from reward_models import (
    Judgements,
    JuryError,
    JuryRewardModel,
    JuryScorer,
    JuryState,
    ReadingSettings,
    ScalarRewardModel,
    export_scalar,
    fit_jury,
    pooled_features,
    render,
)
from reward_models.judgements.texts import Text, freeze_prompt
from tests.saved_juries import remember
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


PROMPT = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Which is best?"}]
USER = [{"role": "user", "content": "Which is best?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def bare():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    return tokenizer


def long_pairs(num_words=700) -> Judgements:
    """Pairs of responses of 700 tokens that differ at their ends, and two groups of raters who want opposite ones."""
    words = np.random.default_rng(0).choice(["city", "country", "space", "yes", "no", "too"], (6, 2, num_words))
    rows = []
    for item, pair in enumerate(words):
        a, b = (" ".join(response) for response in pair)
        rows += [
            {"rater_id": f"r{r}", "prompt": f"Is {item} it?", "response_a": a, "response_b": b, "choice": "ab"[r % 2]}
            for r in range(8)
        ]
    return Judgements.from_frame(pd.DataFrame(rows))


def scored(scorer, texts) -> np.ndarray:
    return scorer.cluster_rewards([text.prompt for text in texts], [text.response for text in texts]).numpy()


def jury_of(tokenizer, reading=None, **settings) -> JuryScorer:
    heads = np.random.default_rng(3).normal(size=(2, 32))
    model = JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), heads, np.zeros(2), [0.7, 0.3], reading=reading)
    return JuryScorer(model, tokenizer, **settings)


# ── rendering ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rendering_is_trls_own(tokenizer):
    completion = [{"role": "assistant", "content": "the city"}]
    theirs = apply_chat_template({"messages": PROMPT + completion}, tokenizer)["text"]
    assert theirs.endswith("the city<|im_end|>\n")
    assert render(PROMPT, completion, tokenizer) == theirs
    assert render(PROMPT, "the city", tokenizer) == theirs
    assert render(freeze_prompt(PROMPT), "the city", tokenizer) == theirs
    assert render("Which is best?", " the city", tokenizer) == "Which is best? the city"


def test_rendering_does_not_change_the_prompt(tokenizer):
    prompt = [dict(message) for message in PROMPT]
    render(prompt, "the city", tokenizer)
    assert prompt == PROMPT


def test_messages_after_a_plain_prompt_are_refused(tokenizer):
    with pytest.raises(JuryError, match=r"is a list of messages, but the prompt 'Which' is a string.*role"):
        render("Which", [{"role": "assistant", "content": "x"}], tokenizer)


def test_conversation_without_chat_template_is_refused():
    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(JuryError, match=r"has no chat template. Set tokenizer.chat_template"):
        render(PROMPT, "x", bare)


def test_strings_are_separated_where_nothing_separates_them(tokenizer):
    def joined(prompt, response):
        return render(prompt, response, tokenizer, separator="\n")

    assert joined("A wage in Seattle.", "It will kill jobs.") == "A wage in Seattle.\nIt will kill jobs."
    assert joined("A wage ", "in Seattle") == "A wage in Seattle"
    assert joined("A wage", " in Seattle") == "A wage in Seattle"
    assert joined("", "A wage") == "A wage"
    assert joined("A wage", "") == "A wage"


# ── length ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
@pytest.mark.parametrize("template", [True, False])
def test_texts_of_700_tokens_keep_their_remembered_rewards_through_saving(tokenizer, bare, template, tmp_path):
    judgements = long_pairs()
    texts = judgements.encode().texts
    tokenizer = tokenizer if template else bare
    backbone = tiny_causal_lm(tokenizer)
    lengths = [len(ids) for ids in tokenizer([text.response for text in texts])["input_ids"]]
    assert min(lengths) >= 700
    scorer = fit_jury(judgements, backbone, tokenizer, clusters=2, progress=False)
    before = scored(scorer, texts)
    features = pooled_features(backbone, tokenizer, texts, reading=scorer.reading, progress=False)
    fitted, _ = scorer.fitted.fit.rewards(texts, features)
    np.testing.assert_allclose(before, fitted, atol=1e-3)
    scorer.save_pretrained(tmp_path / "jury")
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    np.testing.assert_allclose(scored(loaded, texts), before, atol=1e-4)
    assert loaded.reading == scorer.reading
    conversations = [[{"role": "user", "content": text.prompt}] for text in texts]
    asked = loaded.cluster_rewards(conversations, [text.response for text in texts]).numpy()
    np.testing.assert_allclose(asked, before, atol=1e-4)


def test_features_and_scores_have_the_same_length_where_nothing_is_said(tokenizer):
    text = Text("", " city" * 900)
    backbone = tiny_causal_lm(tokenizer)
    features = pooled_features(backbone, tokenizer, [text], progress=False).astype(np.float64)
    heads = JuryRewardModel.from_fit(backbone, np.zeros((1, 32)), np.zeros(1), [1.0])
    model = remember(heads, features, np.array([[2.0]]))
    assert scored(JuryScorer(model, tokenizer), [text]).item() == pytest.approx(2.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_the_length_that_a_jury_was_fitted_with_is_used_when_it_is_loaded(tokenizer, tmp_path):
    with pytest.warns(UserWarning, match=r"^12 of 12 texts are longer than max_length=300 tokens"):
        scorer = fit_jury(
            long_pairs(), tiny_causal_lm(tokenizer), tokenizer, clusters=2, max_length=300, progress=False
        )
    scorer.save_pretrained(tmp_path / "jury")
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    assert loaded.reading.max_length == 300
    texts = long_pairs().encode().texts
    with pytest.warns(UserWarning, match=r"^12 of 12 texts are longer .*num_cut counts later ones"):
        np.testing.assert_allclose(scored(loaded, texts), scored(scorer, texts), atol=1e-4)
    assert loaded.num_cut == 12
    with pytest.warns(UserWarning, match=r"max_length=100, but the jury was fitted on texts of up to 300 tokens"):
        shorter = JuryScorer.from_pretrained(tmp_path / "jury", max_length=100)
    assert shorter.reading.max_length == 100


def test_texts_that_are_cut_are_counted_and_said_once(tokenizer, recwarn):
    scorer = jury_of(tokenizer, max_length=5)
    texts = [Text("", " city" * n) for n in (3, 9, 12)]
    scored(scorer, texts)
    scored(scorer, [*texts, Text("", " city" * 20)])
    assert [str(w.message)[:49] for w in recwarn if "max_length" in str(w.message)] == [
        "2 of 3 texts are longer than max_length=5 tokens "
    ]
    assert scorer.num_cut == 3


def test_an_objective_says_how_many_texts_it_cuts(tmp_path):
    scorer = jury_of(tiny_tokenizer())
    scorer.save_pretrained(tmp_path / "jury")
    export_scalar(tmp_path / "jury", tmp_path / "scalar")
    objective = ScalarRewardModel.from_pretrained(tmp_path / "scalar", max_length=5)
    with pytest.warns(UserWarning, match=r"^1 of 2 texts are longer than max_length=5 tokens"):
        objective(["", ""], [" city" * 9, " city"])


# ── format ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_a_jury_of_a_table_knows_its_format_without_its_state(tokenizer, tmp_path):
    judgements = long_pairs(num_words=5)
    texts = judgements.encode().texts
    scorer = fit_jury(judgements, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)
    JuryScorer(scorer.model, scorer.tokenizer).save_pretrained(tmp_path / "jury")
    assert JuryScorer.from_pretrained(tmp_path / "jury").state.fitted_on == {}
    found = scored(JuryScorer.from_pretrained(tmp_path / "jury"), texts)
    np.testing.assert_allclose(found, scored(scorer, texts), atol=1e-5)


def test_conversations_are_written_as_the_plain_texts_of_a_jury(tokenizer):
    scorer = jury_of(tokenizer, ReadingSettings(format="text", separator="\n"))
    plain = scorer.cluster_rewards(["Which is best?"], ["The city"])
    for completion in ("The city", [{"role": "assistant", "content": "The city"}]):
        assert torch.equal(scorer.cluster_rewards([USER], [completion]), plain)
    with pytest.raises(
        JuryError, match=r"roles system, user, assistant, but the jury was fitted on plain prompts.*Ask"
    ):
        scorer.cluster_rewards([PROMPT], ["The city"])


def test_plain_texts_of_trl_have_no_counterpart_among_conversations(tokenizer):
    scorer = jury_of(tokenizer, ReadingSettings(format="text", special_tokens=True))
    with pytest.raises(JuryError, match=r"was trained on plain chosen/rejected.*as_conversations=True"):
        scorer.cluster_rewards([USER], ["The city"])


def test_special_tokens_and_the_end_are_those_of_the_training(tokenizer):
    scorer = jury_of(tokenizer, ReadingSettings(special_tokens=True))
    without = jury_of(tokenizer)
    expected = without.cluster_rewards(["Which?"], [" tea<|im_end|>"])
    assert torch.equal(scorer.cluster_rewards(["Which?"], [" tea"]), expected)
    assert torch.equal(scorer.cluster_rewards(["Which?"], [" tea<|im_end|>"]), expected)
    assert torch.equal(scorer.cluster_rewards([USER], ["tea"]), without.cluster_rewards([USER], ["tea"]))


# ── what is stored ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_backbone_has_the_precision_in_which_it_was_saved(tokenizer, dtype, tmp_path):
    scorer = jury_of(tokenizer)
    scorer.model.model.to(dtype)
    before = scorer.cluster_rewards(["Which?"] * 2, [" tea", " milk"])
    scorer.save_pretrained(tmp_path)
    loaded = JuryScorer.from_pretrained(tmp_path, device="cpu")
    assert (loaded.model.model.dtype, loaded.model.score.weight.dtype) == (dtype, torch.float32)
    assert torch.equal(loaded.cluster_rewards(["Which?"] * 2, [" tea", " milk"]), before)


def test_a_folder_without_settings_is_read_as_its_version_read_it(tokenizer, tmp_path):
    for name, fitted_on in (("plain", {}), ("chats", {"conversations": 4})):
        JuryScorer(jury_of(tokenizer).model, tokenizer, state=JuryState(fitted_on=fitted_on)).save_pretrained(
            tmp_path / name
        )
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config.pop("reading")["format"] == ("conversations" if fitted_on else "any")
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        state = json.loads((tmp_path / name / "jury.json").read_text())
        del state["files"]["config.json"], state["sha256"]
        (tmp_path / name / "jury.json").write_text(json.dumps(state))
        reading = JuryScorer.from_pretrained(tmp_path / name).reading
        assert reading == ReadingSettings(1024, "conversations" if fitted_on else "any", dtype="float32")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pooling": "median"}, r"pooling='median' is no way of reading texts .*Upgrade|upgrade"),
        ({"stemmed": True}, r"reads texts by stemmed, which this version does not know.*Upgrade"),
        ({"max_length": 0}, r"max_length=0 leaves nothing to score"),
    ],
)
def test_settings_of_a_later_version_are_refused(tokenizer, setting, message, tmp_path):
    scorer = jury_of(tokenizer)
    scorer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["reading"] |= setting
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JuryError, match=message):
        JuryScorer.from_pretrained(tmp_path, verify=False)


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_cut_layers_are_those_of_the_saved_jury(tmp_path):
    judgements = long_pairs(num_words=5)
    texts = judgements.encode().texts
    scorer = fit_jury(judgements, save_tiny(tmp_path / "base"), clusters=2, layers=1, progress=False)
    scorer.save_pretrained(tmp_path / "jury")
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    assert loaded.model.config.get_text_config().num_hidden_layers == 1
    np.testing.assert_allclose(scored(loaded, texts), scored(scorer, texts), atol=1e-5)
