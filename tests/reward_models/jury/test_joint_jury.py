"""What is saved is what was measured: a jury of a joint fit predicts held-out answers as the fit did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from reward_models import (
    FitConfig,
    Judgements,
    JuryError,
    JuryRewardModel,
    JuryScorer,
    ReadingSettings,
    export_scalar,
    fit_joint,
    planted_judgements,
    pooled_features,
)
from reward_models.evaluation.saved_jury import SavedJury, score_texts
from reward_models.judgements.texts import Text
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
WORDS = ("tea", "rain", "stone", "river", "glass", "lamp", "cloud", "bread", "paper", "salt", "wood", "wind")


def worded(judgements: Judgements) -> Judgements:
    """The same judgements with texts that a language model can tell apart."""
    frame = judgements.frame.copy()
    for column in ("response", "response_a", "response_b"):
        if column in frame:
            number = frame["prompt"].str.extract(r"(\d+)")[0].astype(int)
            of_answer = frame[column].astype(str).str[-1].map({"A": "more", "B": "less"}).fillna("some")
            frame[column] = [
                f"{a} {WORDS[n % 12]} and {WORDS[n // 12]}" for a, n in zip(of_answer, number, strict=True)
            ]
    levels = judgements.levels if judgements.kind == "rating" else None
    return Judgements.from_frame(frame.drop(columns="item_id"), kind=judgements.kind, levels=levels)


def features_of(backbone, texts):
    return pooled_features(backbone, TOKENIZER, texts, progress=False)


def halves(judgements: Judgements, new_items: int):
    """Judgements of known texts by half of the raters, and of the others: to adapt from, seen texts, unseen texts."""
    items, raters = judgements.items, judgements.raters
    unseen = judgements.frame["item_id"].isin(items[-new_items:]).to_numpy()
    known = judgements.frame["rater_id"].isin(raters[::2]).to_numpy()
    even = judgements.frame["item_id"].isin(items[::2]).to_numpy()
    parts = {"train": known & ~unseen, "adapt": ~known & ~unseen & even, "seen": ~unseen & ~even, "unseen": unseen}
    return {name: judgements.select(rows) for name, rows in parts.items()}


CASES = [
    ("rating", "mixture", 2),
    ("rating", "mixture", 1),
    ("rating", "simplex", 2),
    ("rating", "factor", 1),
    ("preference", "mixture", 2),
    ("choice", "mixture", 2),
]


@pytest.mark.parametrize(("kind", "membership", "size"), CASES)
def test_saved_jury_predicts_heldout_answers_as_the_fit_does(kind, membership, size, tmp_path):
    parts = halves(worded(planted_judgements(kind, num_raters=24, num_items=14, seed=3).judgements), 4)
    backbone = tiny_causal_lm(TOKENIZER)
    train = parts["train"].encode()
    fit = fit_joint(train, features_of(backbone, train.texts), membership, size, config=FitConfig(restarts=1))
    JuryScorer.from_joint_fit(fit, backbone, TOKENIZER, features_of(backbone, fit.texts)).save_pretrained(
        tmp_path / "jury", save_raters=True
    )
    jury = JuryScorer.from_pretrained(tmp_path / "jury")

    adapt = parts["adapt"].encode()
    adapted, raters = fit.adapt(adapt, features_of(backbone, adapt.texts)), jury.adapt(parts["adapt"])
    texts = list(dict.fromkeys(text for part in parts.values() for text in part.encode().texts))
    evaluated = SavedJury.unadapted(
        jury.state.rater_model, texts, score_texts(jury, texts, progress=False), jury.reward_variance(texts)
    ).adapt(adapt)
    known = jury.remembered(fit.rater_ids)
    strangers = fit.adapt(adapt.select(np.zeros(len(adapt), bool)), features_of(backbone, adapt.texts))
    for name in ("seen", "unseen"):
        test = parts[name].encode()
        features = features_of(backbone, test.texts)
        pairs = [(fit, known), (adapted, raters), (strangers, None)]
        for before, after in pairs:
            loaded = jury.log_probs(parts[name], after)
            assert loaded == pytest.approx(before.log_probs(test, features), abs=1e-4), name
        # And so does what `evaluate-jury` measures.
        assert evaluated.log_probs(test) == pytest.approx(jury.log_probs(parts[name], raters), abs=1e-6), name


@pytest.mark.slow
def test_votes_and_pairs_of_the_same_raters_together(tmp_path):
    votes = halves(worded(planted_judgements("rating", num_raters=24, num_items=14, seed=5).judgements), 4)
    pairs = halves(worded(planted_judgements("preference", num_raters=24, num_items=14, seed=5).judgements), 4)
    backbone = tiny_causal_lm(TOKENIZER)
    tables = [votes["train"].encode(), pairs["train"].encode()]
    fit = fit_joint(tables, [features_of(backbone, enc.texts) for enc in tables], config=FitConfig(restarts=1))
    scorer = JuryScorer.from_joint_fit(fit, backbone, TOKENIZER, features_of(backbone, fit.texts))
    scorer.save_pretrained(tmp_path / "jury")
    jury = JuryScorer.from_pretrained(tmp_path / "jury")

    adapt = [votes["adapt"].encode(), pairs["adapt"].encode()]
    adapted = fit.adapt(adapt, [features_of(backbone, enc.texts) for enc in adapt])
    raters = jury.adapt([votes["adapt"], pairs["adapt"]])
    for table in (votes["unseen"], pairs["unseen"], votes["seen"], pairs["seen"]):
        test = table.encode()
        expected = adapted.log_probs(test, features_of(backbone, test.texts))
        assert jury.log_probs(table, raters) == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def judged():
    judgements = worded(planted_judgements("rating", num_raters=20, num_items=14, seed=2).judgements)
    backbone = tiny_causal_lm(TOKENIZER)
    enc = judgements.encode()
    fit = fit_joint(enc, features_of(backbone, enc.texts), config=FitConfig(restarts=1))
    return fit, JuryScorer.from_joint_fit(fit, backbone, TOKENIZER, features_of(backbone, fit.texts)), enc


def test_judged_text_has_the_reward_that_was_fitted_to_it_and_a_new_one_that_of_the_heads(judged):
    fit, scorer, enc = judged
    rewards = scorer.cluster_rewards([t.prompt for t in enc.texts], [t.response for t in enc.texts])
    assert rewards.numpy() == pytest.approx(fit.rewards(enc.texts)[0], abs=1e-4)
    new = [Text(enc.texts[0].prompt, "something that nobody judged")]
    features = features_of(scorer.model.model, new)
    linear = fit.rewards(new, features)[0]
    assert scorer.cluster_rewards([new[0].prompt], [new[0].response]).numpy() == pytest.approx(linear, abs=1e-4)


def test_tokens_are_enough_to_know_a_judged_text_in_any_padding_precision_and_trainer(judged, tmp_path):
    _, scorer, enc = judged
    scorer.save_pretrained(tmp_path / "jury")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "jury", dtype=torch.float32)
    texts = [text.prompt + text.response for text in enc.texts]
    for side in ("left", "right"):
        batch = TOKENIZER(texts, return_tensors="pt", padding=True, padding_side=side, add_special_tokens=False)
        batch.pop("token_type_ids", None)
        found = model.judged(batch["input_ids"], batch["attention_mask"])
        assert torch.equal(found, model.judged.residual[model.judged.find(TOKENIZER(texts)["input_ids"])])
        assert found.abs().sum(1).min() > 0
    assert model.bfloat16().judged.residual.dtype == torch.float32
    assert torch.equal(model.judged(batch["input_ids"], batch["attention_mask"]), found)


def test_texts_that_read_the_same_with_different_rewards_are_refused(judged):
    fit, scorer, _ = judged
    short = ReadingSettings(max_length=1)
    features = features_of(scorer.model.model, fit.texts)
    with pytest.raises(JuryError, match=r"as the same tokens, but they have different rewards\. Fix: fit_jury"):
        JuryScorer.from_joint_fit(fit, scorer.model.model, TOKENIZER, features, reading=short)


def test_judged_texts_are_counted_where_they_are_lost(judged, tmp_path):
    _, scorer, enc = judged
    scorer.save_pretrained(tmp_path / "jury")
    with pytest.warns(UserWarning, match=rf"residual rewards of {len(enc.texts)} judged texts"):
        export_scalar(tmp_path / "jury", tmp_path / "scalar")
    model = JuryRewardModel.from_pretrained(tmp_path / "jury")
    assert model.forget_texts() == len(enc.texts)
    assert model.judged is None
    assert model.config.num_judged == 0
