"""`fit_jury`, the front door: every kind of judgement, one encoding, and a saved jury that scores as it did."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models import (
    FitConfig,
    Judgements,
    JuryError,
    JuryScorer,
    describe_clusters,
    fit_features,
    fit_jury,
    fit_mixture,
    planted_judgements,
    pooled_features,
)
from reward_models.fitting.selection import select_num_clusters
from reward_models.judgements import records
from reward_models.jury.backbones import feature_cache
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()


def tiny_jury(judgements, **settings):
    settings = {"progress": False, "l2": 0.01, **settings}
    return fit_jury(judgements, tiny_causal_lm(TOKENIZER), TOKENIZER, **settings)


@pytest.fixture(scope="module")
def choices():
    return planted_judgements("choice", num_raters=20, num_items=6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["preference", "rating", "choice"])
@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_every_kind_of_judgement_makes_a_jury_that_can_be_saved(kind, tmp_path):
    planted = planted_judgements(kind, num_raters=40, num_items=12, seed=2)
    scorer = tiny_jury(planted.judgements)
    assert scorer.fitted.selection.num_clusters == 2
    prompts, completions = zip(*planted.texts, strict=True)
    before = scorer.cluster_rewards(prompts, completions)
    assert before.shape == (len(planted.texts), 2)
    scorer.save_pretrained(tmp_path / "jury", save_raters=True)
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    assert torch.allclose(loaded.cluster_rewards(prompts, completions), before, atol=1e-5)
    assert loaded.cluster_names == [c["name"] for c in scorer.fitted.clusters]
    stored = loaded.remembered(scorer.fitted.label_fit.rater_ids).memberships
    assert stored == pytest.approx(scorer.fitted.label_fit.placement.memberships(), abs=1e-5)


def test_a_fit_that_was_stopped_while_it_computed_features_goes_on_to_the_same_jury(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_SECONDS", 0)  # each batch is kept
    judgements = planted_judgements("choice", num_raters=20, num_items=20, seed=1).judgements  # 60 texts: 4 batches
    settings = {"clusters": select_num_clusters(judgements, (1, 2)), "cache_dir": tmp_path}
    unbroken = tiny_jury(judgements, clusters=(1, 2))
    backbone, rows = tiny_causal_lm(TOKENIZER), []

    def stop(module, args, kwargs):
        rows.append(len(kwargs["input_ids"]))
        if len(rows) == 3:
            raise KeyboardInterrupt

    backbone.model.register_forward_pre_hook(stop, with_kwargs=True)
    with pytest.raises(KeyboardInterrupt):
        fit_jury(judgements, backbone, TOKENIZER, progress=False, l2=0.01, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(JuryScorer, "calibrate", lambda *_: None)  # which scores some texts again
        resumed = fit_jury(judgements, backbone, TOKENIZER, progress=False, l2=0.01, **settings)
    assert rows == [16, 16, 16, 16, 12]
    np.testing.assert_array_equal(resumed.fitted.heads.weight, unbroken.fitted.heads.weight)
    assert resumed.fitted.selection == unbroken.fitted.selection


def test_shares_without_raters_make_one_reward():
    shares = {"q1": 0.9, "q2": 0.5, "q3": 0.2}
    rows = [{"prompt": q, "options": ["yes", "no"], "probs": [p, 1 - p], "n": 50} for q, p in shares.items()]
    scorer = tiny_jury(Judgements.from_dataset(rows))
    assert scorer.cluster_names == ["everyone"]
    assert scorer.fitted.selection is None
    assert scorer.state.raters is None


@pytest.mark.slow
def test_the_jury_is_the_same_as_of_its_steps_by_hand(choices):
    config = FitConfig(seed=3)
    scorer = tiny_jury(choices.judgements, clusters=2, config=config, l2="auto")
    enc = choices.judgements.encode()
    label_fit = fit_mixture(enc, 2, config)
    model = tiny_causal_lm(TOKENIZER)
    texts = [text._replace(prompt=(("user", text.prompt),)) for text in enc.texts]
    heads = fit_features(enc, pooled_features(model, TOKENIZER, texts, progress=False), 2, init=label_fit, seed=3)
    assert scorer.fitted.heads.weight == pytest.approx(heads.weight)
    labels = {
        item: enc.texts[first].prompt for item, first in zip(enc.item_ids, enc.item_alternatives[:, 0], strict=True)
    }
    assert scorer.cluster_names == [c["name"] for c in describe_clusters(label_fit, enc, labels=labels)]
    assert scorer.prevalence == pytest.approx(heads.prevalence)


def test_a_table_is_encoded_once(choices, monkeypatch):
    calls = []
    real = records.encode
    monkeypatch.setattr(records, "encode", lambda *args: calls.append(args) or real(*args))
    tiny_jury(choices.judgements.select(np.arange(len(choices.judgements))))
    assert len(calls) == 1


def test_a_backbone_can_be_a_path_and_layers_can_be_cut(choices, tmp_path):
    path = save_tiny(tmp_path / "base")
    scorer = fit_jury(choices.judgements, path, clusters=2, layers=1, l2=0.01, progress=False)
    assert scorer.model.config.get_text_config().num_hidden_layers == 1


def test_steps_are_announced(choices):
    steps = []
    tiny_jury(choices.judgements, on_step=steps.append)
    assert len(steps) == 4
    assert "held-out raters" in steps[0]


def test_scores_are_logits_until_a_rule_asks_for_one_scale(choices):
    scorer = tiny_jury(choices.judgements, clusters=2)
    assert not scorer.calibrated
    assert scorer.state.calibration is not None


def test_heads_without_a_scale_are_said_to_be_so():
    planted = planted_judgements("rating", num_raters=20, num_items=8)
    with pytest.warns(UserWarning, match=r"not on one scale.*no prompt has two"):
        scorer = tiny_jury(planted.judgements, clusters=2)
    assert scorer.state.calibration is None
    assert "no prompt has two" in scorer.fitted.uncalibrated


def test_clusters_of_pairs_and_ratings_are_named_by_texts_and_not_by_ids():
    frame = planted_judgements("rating", num_raters=20, num_items=8).judgements.frame
    frame = pd.DataFrame({**frame, "prompt": "Which statement?", "response": "Statement " + frame["prompt"].str[9:]})
    scorer = tiny_jury(Judgements.from_frame(frame.drop(columns="item_id"), levels=(-1, 0, 1)), clusters=2)
    assert all(name.startswith("Statement ") for name in scorer.cluster_names)


def test_a_model_without_its_tokenizer_is_refused(choices):
    with pytest.raises(JuryError, match=r"without its tokenizer.*Pass tokenizer="):
        fit_jury(choices.judgements, tiny_causal_lm(TOKENIZER))


def test_a_path_that_is_no_model_is_refused(choices, tmp_path):
    with pytest.raises(JuryError, match=r"no language model at .*Correct the path"):
        fit_jury(choices.judgements, tmp_path / "nothing")


def test_clusters_are_named_by_the_wordings_of_questions_with_and_without_ids(choices):
    frame = choices.judgements.frame.drop(columns="item_id")
    made = Judgements.from_frame(frame)
    assert all(name.startswith("Question ") for name in tiny_jury(made, clusters=2).cluster_names)
    given = Judgements.from_frame(frame.assign(item_id=frame["prompt"].str.replace("Question ", "q").str.rstrip("?")))
    assert all(name.startswith("Question ") for name in tiny_jury(given, clusters=2).cluster_names)
