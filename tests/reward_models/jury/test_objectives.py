"""Scalar rewards in the place of a jury: conventions and texts of TRL, one scale, refusals with the objective."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification
from trl import apply_chat_template

from plural_rlhf.rewards.jury_reward import JuryReward
from reward_models.errors import JuryError
from reward_models.jury.objectives import Objectives, ScalarRewardModel
from reward_models.jury.protocol import ClusterScorer
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


def long(completions, **columns):
    return [float(len(c)) for c in completions]


def polite(completions, **columns):
    return [float("please" in c) for c in completions]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def classifier(tokenizer, num_labels=1, seed=0):
    config = tiny_causal_lm(tokenizer).config
    config.num_labels = num_labels
    config.pad_token_id = None
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(config)


def as_trl_scores(model, tokenizer, texts):
    """What TRL's trainers do with a reward model, on one padded batch."""
    inputs = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    with torch.no_grad():
        return model(**inputs).logits[:, 0].tolist()


# ── scorers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reward_model_scores_as_in_trl(tokenizer, tmp_path):
    saved = classifier(tokenizer)
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompts, answers = ["Parks?", "Roads? Trams?", "Parks?"], [" yes", " not at all", " no"]
    plain = [p + a for p, a in zip(prompts, answers, strict=True)]
    chats = [[{"role": "user", "content": p}] for p in prompts]
    replies = [[{"role": "assistant", "content": a}] for a in answers]
    rendered = [
        apply_chat_template({"messages": p + a}, tokenizer)["text"] for p, a in zip(chats, replies, strict=True)
    ]
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path, pad_token_id=tokenizer.pad_token_id)

    objectives = Objectives({"loaded": tmp_path, "given": (saved, tokenizer)})
    for conversation, texts in ((False, plain), (True, rendered)):
        scores = objectives.cluster_rewards(*((chats, replies) if conversation else (prompts, answers)))
        expected = as_trl_scores(reference, tokenizer, texts)
        assert scores[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
        assert scores[:, 1].tolist() == pytest.approx(expected, abs=1e-6)
        assert len(set(expected)) == 3


def test_a_reward_model_reads_each_different_text_once_and_batches_change_nothing(tokenizer):
    model = classifier(tokenizer)
    read = []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True)
    prompts, answers = ["Parks?"] * 5, ["yes", "no", "yes", "perhaps", "no"]
    scores = ScalarRewardModel(model, tokenizer, batch_size=2)(prompts, answers)
    assert read == [2, 1]
    assert (scores[0], scores[1]) == (scores[2], scores[4])
    assert scores == pytest.approx(ScalarRewardModel(model, tokenizer)(prompts, answers), abs=1e-6)


def test_a_language_model_is_no_reward_model(tmp_path):
    folder = save_tiny(tmp_path / "lm")
    with pytest.raises(JuryError, match=r"objective 'safe'.*random numbers"):
        Objectives({"safe": folder})


def test_models_that_cannot_be_an_objective_are_refused(tokenizer, tmp_path):
    with pytest.raises(JuryError, match=r"objective 'a': .* has 3 labels"):
        Objectives({"a": (classifier(tokenizer, num_labels=3), tokenizer)})
    with pytest.raises(JuryError, match=r"'a' is a LlamaForSequenceClassification. .*\(model, tokenizer\)"):
        Objectives({"a": classifier(tokenizer)})
    with pytest.raises(JuryError, match="no folder at"):
        Objectives({"a": tmp_path / "nowhere"})
    with pytest.raises(JuryError, match="no objective to score"):
        Objectives({})


def test_columns_reach_the_reward_functions():
    def right(completions, solution, **columns):
        return [float(c == s) for c, s in zip(completions, solution, strict=True)]

    scores = Objectives({"right": right, "long": long}).cluster_rewards(["2+2?"] * 2, ["4", "55"], solution=["4", "4"])
    assert scores.tolist() == [[1.0, 1.0], [0.0, 2.0]]


# ── in the place of a jury ───────────────────────────────────────────────────────────────────────────────────────────


def test_objectives_go_where_a_jury_goes():
    both = Objectives({"long": long, "polite": polite}, weights={"polite": 3, "long": 1})
    assert isinstance(both, ClusterScorer)
    reward = JuryReward(both, rule="mean")
    assert reward(prompts=["Ask."] * 2, completions=["Go.", "Go please."]) == [0.75, 0.25 * 10 + 0.75]
    one = reward(prompts=["Ask."], completions=["Go please."], weights=["polite"])
    assert one == [1.0]


def test_weights_are_uniform_by_default_and_refused_when_they_mean_nothing():
    scorers = {"long": long, "polite": polite}
    assert Objectives(scorers).prevalence.tolist() == [0.5, 0.5]
    assert Objectives(scorers, weights={"polite": 2}).prevalence.tolist() == [0.0, 1.0]
    with pytest.raises(JuryError, match=r"'pollite', and there is no such cluster\. Did you mean 'polite'\?"):
        Objectives(scorers, weights={"pollite": 1})
    for wrong in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(JuryError, match="weight"):
            Objectives(scorers, weights=wrong)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([1.0, None], "'safe' gives None to row 1, 'no'"),
        ([float("nan"), 1.0], "'safe' gives nan to row 0, 'yes'"),
        (torch.tensor([1.0, torch.inf]), "'safe' gives inf to row 1, 'no'"),
        ([1.0], r"'safe' returned rewards of shape \(1,\) for 2 completions"),
        (["good", "bad"], r"'safe' returned \['good', 'bad'\]: a reward function returns a list of numbers"),
        (None, r"'safe' returned None: a reward function returns a list of numbers"),
    ],
)
def test_a_reward_that_is_no_number_is_refused_with_objective_and_row(returned, reason):
    objectives = Objectives({"long": long, "safe": lambda **given: returned})
    with pytest.raises(JuryError, match=reason):
        objectives.cluster_rewards(["Parks?"] * 2, ["yes", "no"])


def test_prompts_and_completions_must_be_lists_of_one_length():
    with pytest.raises(JuryError, match="a single string as prompts and 1 completions"):
        Objectives({"long": long}).cluster_rewards("Parks?", ["yes"])
    with pytest.raises(JuryError, match="2 prompts and 1 completions: give two lists of equal length"):
        Objectives({"long": long}).cluster_rewards(["Parks?"] * 2, ["yes"])


# ── one scale ────────────────────────────────────────────────────────────────────────────────────────────────────────

PROMPTS = ["a", "a", "a", "b", "b"]
ANSWERS = ["x" * n for n in (1, 3, 5, 10, 12)]


def test_calibrated_objectives_have_unit_spread_within_prompts():
    both = Objectives({"long": long, "loud": lambda completions, **c: [100.0 * len(x) + 7 for x in completions]})
    assert not both.calibrated
    found = both.calibrate(PROMPTS, ANSWERS)
    assert both.calibrated
    # Within prompts: (1, 3, 5) and (10, 12) deviate by (-2, 0, 2) and (-1, 1): (4 + 4 + 1 + 1) over 2 + 1.
    assert found.scale.tolist() == pytest.approx([np.sqrt(10 / 3), 100 * np.sqrt(10 / 3)])
    assert found.offset.tolist() == pytest.approx([(3 + 11) / 2, 700 + 7])
    scores = both.cluster_rewards(PROMPTS, ANSWERS)
    assert torch.allclose(scores[:, 0], scores[:, 1], atol=1e-5)
    assert scores[1, 0].item() == pytest.approx((3 - 7) / np.sqrt(10 / 3), abs=1e-6)


def test_a_calibration_is_read_back_whatever_the_order_of_the_objectives(tmp_path):
    file = tmp_path / "scale.json"
    shout = {"shout": lambda completions, **c: [3.0 * len(x) for x in completions]}
    first = Objectives({"long": long, **shout})
    with pytest.raises(JuryError, match="no calibration to save"):
        first.save_calibration(file)
    first.calibrate(PROMPTS, ANSWERS)
    first.save_calibration(file)
    assert [path.name for path in tmp_path.iterdir()] == ["scale.json"]

    second = Objectives({**shout, "long": long})
    second.load_calibration(file)
    assert second.calibrated
    expected = first.cluster_rewards(PROMPTS, ANSWERS)[:, [1, 0]]
    assert torch.equal(second.cluster_rewards(PROMPTS, ANSWERS), expected)


def test_a_calibration_of_something_else_is_refused(tmp_path):
    file = tmp_path / "scale.json"
    other = Objectives({"long": long})
    other.calibrate(PROMPTS, ANSWERS)
    other.save_calibration(file)
    with pytest.raises(JuryError, match=re.escape("calibrates ['long'], not ['polite']")):
        Objectives({"polite": polite}).load_calibration(file)
    for content in ("{", "[]", json.dumps({"objectives": ["long"]})):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(JuryError, match="holds no calibration of objectives"):
            other.load_calibration(file)
    with pytest.raises(FileNotFoundError):
        other.load_calibration(tmp_path / "nowhere.json")


def test_an_objective_without_spread_cannot_be_calibrated():
    with pytest.raises(JuryError, match="'polite' gives all reference samples of a prompt the same"):
        Objectives({"long": long, "polite": polite}).calibrate(PROMPTS, ANSWERS)
