"""A jury that refers to its backbone: small, the same scores, an error where the backbone is gone or another one."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from reward_models import JuryError, JuryScorer, fit_jury, planted_judgements
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


QUESTIONS, ANSWERS = ["Question 1?"] * 3, ["answer A", "answer B", "answer C"]


def fitted(tmp_path, layers=None):
    tokenizer = tiny_tokenizer()
    tiny_causal_lm(tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    table = planted_judgements("choice", num_raters=20, num_items=6).judgements
    return fit_jury(table, tmp_path / "base", clusters=2, layers=layers, progress=False)


@pytest.mark.parametrize("layers", [None, 1])
def test_a_reference_scores_as_the_copy_does_and_is_small(tmp_path, layers):
    scorer = fitted(tmp_path, layers)
    expected = scorer.cluster_rewards(QUESTIONS, ANSWERS)
    scorer.save_pretrained(tmp_path / "copy")
    scorer.save_pretrained(tmp_path / "small", include_backbone=False)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("copy", "small")}
    heads = sum(t.nbytes for name, t in scorer.model.state_dict().items() if not name.startswith("model."))
    assert size["small"] < heads + 2000 < size["copy"]
    for name in ("copy", "small"):
        loaded = JuryScorer.from_pretrained(tmp_path / name)
        assert torch.equal(loaded.cluster_rewards(QUESTIONS, ANSWERS).cpu(), expected.cpu())
        assert loaded.model.config.backbone is None
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small", dtype=torch.bfloat16)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small", num_labels=1)
    assert type(plain) is JuryRewardModel
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), scorer.model.cpu().parameters(), strict=True))


def test_a_jury_with_a_reference_can_be_saved_whole_again(tmp_path):
    fitted(tmp_path).save_pretrained(tmp_path / "small", include_backbone=False)
    scorer = JuryScorer.from_pretrained(tmp_path / "small")
    expected = scorer.cluster_rewards(QUESTIONS, ANSWERS)
    scorer.save_pretrained(tmp_path / "small")
    shutil.rmtree(tmp_path / "base")
    assert torch.equal(JuryScorer.from_pretrained(tmp_path / "small").cluster_rewards(QUESTIONS, ANSWERS), expected)


def test_a_backbone_that_is_gone_or_changed_is_named_with_the_fix(tmp_path):
    scorer = fitted(tmp_path)
    expected = scorer.cluster_rewards(QUESTIONS, ANSWERS)
    scorer.save_pretrained(tmp_path / "small", include_backbone=False)
    (tmp_path / "base").rename(tmp_path / "moved")
    for load in (JuryScorer.from_pretrained, AutoModelForSequenceClassification.from_pretrained):
        with pytest.raises(JuryError, match=r"saved without its backbone.*base' is not there.*backbone=.*True"):
            load(tmp_path / "small")
    moved = JuryScorer.from_pretrained(tmp_path / "small", backbone=tmp_path / "moved")
    assert torch.equal(moved.cluster_rewards(QUESTIONS, ANSWERS).cpu(), expected.cpu())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "moved")
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(JuryError, match=r"base' has other weights than the one that the jury was fitted on"):
        JuryScorer.from_pretrained(tmp_path / "small")


def test_a_backbone_that_was_trained_or_has_no_place_is_not_referred_to(tmp_path):
    scorer = fitted(tmp_path)
    with torch.no_grad():
        next(scorer.model.model.parameters()).mul_(1.01)
    with pytest.raises(JuryError, match=r"has other weights.*include_backbone=True"):
        scorer.save_pretrained(tmp_path / "small", include_backbone=False)
    tokenizer = tiny_tokenizer()
    table = planted_judgements("choice", num_raters=20, num_items=6).judgements
    made = fit_jury(table, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)
    with pytest.raises(JuryError, match=r"was not loaded from a folder.*include_backbone=True"):
        made.save_pretrained(tmp_path / "small", include_backbone=False)
    assert not (tmp_path / "small").exists()
