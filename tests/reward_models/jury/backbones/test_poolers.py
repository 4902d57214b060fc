"""Encoders whose folder has no pooler, such as masked language models: a layer that no jury reads."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

from reward_models import Judgements, JuryError, JuryScorer, fit_jury
from reward_models.jury.backbones.feature_cache import backbone_identity
from reward_models.jury.backbones.loading import load_backbone
from tests.tiny import tiny_bert


PROMPTS, TEXTS = ["is it right ?"] * 4, ["yes", "no", "too little .", "yes yes"]


def votes():
    rows = [
        {"rater_id": f"rater {i}", "prompt": prompt, "response": text, "rating": 1 if (i + j) % 3 else -1}
        for i in range(12)
        for j, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True))
    ]
    return Judgements.from_frame(pd.DataFrame(rows), levels=(-1, 1))


@pytest.fixture
def folder(tmp_path):
    """A folder of an encoder without pooler; the vocabulary lies beside it."""
    backbone, tokenizer = tiny_bert(tmp_path, pooler=False)
    backbone.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("given", ["model", "path"])
@pytest.mark.parametrize("copied", [True, False])
def test_a_jury_on_an_encoder_without_pooler_is_loaded_as_it_was_saved(folder, tmp_path, given, copied):
    options = {"backbone": folder}
    if given == "model":
        model = BertModel.from_pretrained(folder, add_pooling_layer=False)
        options = {"backbone": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}
    scorer = fit_jury(votes(), clusters=1, progress=False, **options)
    expected = scorer.cluster_rewards(PROMPTS, TEXTS)
    scorer.save_pretrained(tmp_path / "jury", include_backbone=copied)
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    assert torch.equal(loaded.cluster_rewards(PROMPTS, TEXTS), expected)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "jury")
    assert plain.model.pooler is None
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(JuryScorer.from_pretrained(tmp_path / "again").cluster_rewards(PROMPTS, TEXTS), expected)


def test_features_of_an_encoder_without_pooler_are_found_again(folder):
    """A pooler of random numbers would make another backbone of each loading, and another cache of each run."""
    assert backbone_identity(load_backbone(folder)[0]) == backbone_identity(load_backbone(folder)[0])


def test_a_pooler_that_is_there_is_kept(tmp_path):
    backbone, tokenizer = tiny_bert(tmp_path)
    backbone.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    assert torch.equal(load_backbone(tmp_path / "encoder")[0].pooler.dense.weight, backbone.pooler.dense.weight)


def test_other_missing_weights_of_a_backbone_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(JuryError, match=r"lacks the weights \['encoder.layer.1.output.dense.bias'\]"):
        load_backbone(folder)
