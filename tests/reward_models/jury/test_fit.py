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
    fit_joint,
    fit_jury,
    fit_vector_jury,
    planted_judgements,
    pooled_features,
)
from reward_models.judgements import records
from reward_models.jury.backbones import feature_cache
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()


def tiny_jury(judgements, **settings):
    settings = {"progress": False, **settings}
    return fit_jury(judgements, tiny_causal_lm(TOKENIZER), TOKENIZER, **settings)


@pytest.fixture(scope="module")
def choices():
    return planted_judgements("choice", num_raters=20, num_items=6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["preference", "rating", "choice"])
@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_every_kind_of_judgement_makes_a_jury_that_can_be_saved(kind, tmp_path):
    planted = planted_judgements(kind, num_raters=60, num_items=16, seed=2)
    scorer = tiny_jury(planted.judgements)
    assert scorer.fitted.selection.num_clusters > 1
    prompts, completions = zip(*planted.texts, strict=True)
    before = scorer.cluster_rewards(prompts, completions)
    assert before.shape == (len(planted.texts), len(scorer.cluster_names))
    scorer.save_pretrained(tmp_path / "jury", save_raters=True)
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    assert torch.allclose(loaded.cluster_rewards(prompts, completions), before, atol=1e-5)
    assert loaded.cluster_names == [c["name"] for c in scorer.fitted.clusters]
    stored = loaded.remembered(scorer.fitted.label_fit.rater_ids).memberships
    assert stored == pytest.approx(scorer.fitted.label_fit.placement.memberships(), abs=1e-5)


@pytest.mark.slow
def test_a_fit_that_was_stopped_while_it_computed_features_goes_on_to_the_same_jury(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_SECONDS", 0)  # each batch is kept
    judgements = planted_judgements("choice", num_raters=20, num_items=20, seed=1).judgements  # 60 texts: 4 batches
    settings = {"clusters": (1, 2), "cache_dir": tmp_path}
    unbroken = tiny_jury(judgements, clusters=(1, 2))
    backbone, rows = tiny_causal_lm(TOKENIZER), []

    def stop(module, args, kwargs):
        rows.append(len(kwargs["input_ids"]))
        if len(rows) == 3:
            raise KeyboardInterrupt

    backbone.model.register_forward_pre_hook(stop, with_kwargs=True)
    with pytest.raises(KeyboardInterrupt):
        fit_jury(judgements, backbone, TOKENIZER, progress=False, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(JuryScorer, "calibrate", lambda *_: None)  # which scores some texts again
        resumed = fit_jury(judgements, backbone, TOKENIZER, progress=False, **settings)
    assert rows == [16, 16, 16, 16, 12]
    np.testing.assert_array_equal(resumed.fitted.fit.heads, unbroken.fitted.fit.heads)
    assert resumed.fitted.selection == unbroken.fitted.selection


def test_shares_without_raters_make_one_reward():
    shares = {"q1": 0.9, "q2": 0.5, "q3": 0.2}
    rows = [{"prompt": q, "options": ["yes", "no"], "probs": [p, 1 - p], "n": 50} for q, p in shares.items()]
    scorer = tiny_jury(Judgements.from_dataset(rows))
    assert scorer.cluster_names == ["everyone"]
    assert scorer.fitted.selection is None
    assert scorer.state.raters is None


def test_what_is_saved_is_what_was_measured(choices, tmp_path):
    scorer = tiny_jury(choices.judgements, clusters=2)
    scorer.save_pretrained(tmp_path / "jury", save_raters=True)
    fit, enc = scorer.fitted.fit, choices.judgements.encode()
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    raters = loaded.remembered(enc.rater_ids)
    assert loaded.log_probs(choices.judgements, raters) == pytest.approx(fit.log_probs(enc), abs=1e-4)
    new = Judgements.from_frame(choices.judgements.frame.assign(prompt="Another?", item_id="q9").iloc[::6])
    features = pooled_features(scorer.model.model, TOKENIZER, new.encode().texts, reading=scorer.reading)
    expected = fit.log_probs(new.encode(), features)
    assert loaded.log_probs(new, raters) == pytest.approx(expected, abs=1e-4)


def test_the_jury_is_the_joint_fit_of_its_texts(choices):
    config = FitConfig(seed=3)
    scorer = tiny_jury(choices.judgements, clusters=2, config=config)
    enc = choices.judgements.encode()
    features = pooled_features(scorer.model.model, TOKENIZER, enc.texts, progress=False, reading=scorer.reading)
    fit = fit_joint(enc, features, "mixture", 2, config=config)
    assert scorer.fitted.fit.heads == pytest.approx(fit.heads, abs=1e-6)
    labels = {
        item: enc.texts[first].prompt for item, first in zip(enc.item_ids, enc.item_alternatives[:, 0], strict=True)
    }
    assert scorer.cluster_names == [c["name"] for c in describe_clusters(fit, enc, labels=labels)]
    assert scorer.prevalence == pytest.approx(fit.prevalence)


@pytest.mark.slow
def test_tables_of_the_same_raters_are_fitted_together(tmp_path):
    votes = planted_judgements("rating", num_raters=20, num_items=8, seed=4).judgements
    pairs = planted_judgements("preference", num_raters=20, num_items=8, seed=4).judgements
    scorer = tiny_jury([votes, pairs], clusters=2)
    assert scorer.state.fitted_on["judgements"] == len(votes) + len(pairs)
    assert set(scorer.state.rater_model.terms) == {"rating", "preference"}
    scorer.save_pretrained(tmp_path / "jury")
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    fit = scorer.fitted.fit
    adapted = fit.adapt([votes.encode(), pairs.encode()])
    raters = loaded.adapt([votes, pairs])
    for table in (votes, pairs):
        expected = adapted.log_probs(table.encode())
        assert loaded.log_probs(table, raters) == pytest.approx(expected, abs=1e-4)


def test_responses_alone_share_one_reward_where_they_answer_two_questions():
    planted = planted_judgements("rating", num_raters=20, num_items=8)
    frame = planted.judgements.frame.drop(columns="item_id")
    frame["response"] = "Statement " + (frame["prompt"].str.extract(r"(\d+)")[0].astype(int) % 4).astype(str)
    steps = []
    scorer = tiny_jury(
        Judgements.from_frame(frame, levels=(-1, 0, 1)), clusters=1, read_prompt=False, on_step=steps.append
    )
    assert "4 texts read the same as others, and share their reward" in steps
    rewards = scorer.cluster_rewards(["Question 1?", "Question 5?", "Something else?"], ["Statement 1"] * 3)
    assert rewards[0] == rewards[1] == rewards[2]
    assert scorer.model.config.num_judged == 4
    # What describes the clusters knows every judged text, also those that another stands for.
    enc, described = Judgements.from_frame(frame, levels=(-1, 0, 1)).encode(), scorer.fitted.label_fit
    assert set(enc.texts) <= set(described.texts)
    assert np.isfinite(described.log_probs(enc)).all()
    of_text = dict(zip(described.texts, described.rewards[:, 0], strict=True))
    assert [of_text[text] for text in enc.texts] == pytest.approx(
        scorer.cluster_rewards([t.prompt for t in enc.texts], [t.response for t in enc.texts])[:, 0].tolist(), abs=1e-4
    )


@pytest.mark.slow
def test_ways_to_read_texts_are_compared_on_heldout_texts():
    judgements = planted_judgements("rating", num_raters=12, num_items=6).judgements
    scorer = tiny_jury(judgements, clusters=1, pooling="auto", read_prompt="auto")
    names = [row.features for row in scorer.fitted.features.table]
    assert names == ["last_token", "mean", "last_token, responses alone", "mean, responses alone"]
    assert scorer.fitted.features.name in names
    assert scorer.reading.read_prompt == ("alone" not in scorer.fitted.features.name)


def test_a_mean_of_layers_scores_as_its_features_were(tmp_path):
    judgements = planted_judgements("rating", num_raters=20, num_items=8).judgements
    scorer = tiny_jury(judgements, clusters=2, pooling="mean", hidden_layers=[1, 2])
    assert scorer.model.score.weight.shape == (2, 64)
    scorer.save_pretrained(tmp_path / "jury")
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    fit, texts = scorer.fitted.fit, judgements.encode().texts
    for jury in (scorer, loaded):
        rewards = jury.cluster_rewards([t.prompt for t in texts], [t.response for t in texts])
        assert rewards.numpy() == pytest.approx(fit.rewards(texts)[0], abs=1e-4)
    assert loaded.reading.layers == (1, 2)


def test_layers_that_the_backbone_does_not_have_are_refused(choices):
    with pytest.raises(JuryError, match=r"layers=\(9,\), but LlamaModel has 2 layers"):
        tiny_jury(choices.judgements, hidden_layers=[9])


def test_a_penalty_and_an_array_are_refused_with_the_way_to_go(choices):
    with pytest.raises(JuryError, match=r"l2=0\.1: the strengths of the heads are learnt.*leave l2 out"):
        tiny_jury(choices.judgements, l2=0.1)
    with pytest.raises(JuryError, match="fit_vector_jury"):
        fit_jury(choices.judgements, np.zeros((18, 4)))


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_raters_who_judged_one_thing_each_make_one_reward():
    frame = planted_judgements("rating", num_raters=40, num_items=10).judgements.frame
    first = frame[
        frame["prompt"].str.extract(r"(\d+)")[0].astype(int) == 1 + frame["rater_id"].str[1:].astype(int) % 10
    ]
    judgements = Judgements.from_frame(first, levels=(-1, 0, 1))
    scorer = tiny_jury(judgements)
    assert scorer.cluster_names == ["everyone"]
    assert "so no candidates were compared" in scorer.fitted.selection.reason
    with pytest.raises(JuryError, match=r"num_clusters=2, but every rater judged one thing only"):
        tiny_jury(judgements, clusters=2)


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_a_rater_who_agrees_with_everything_is_lenient_and_of_no_cluster():
    frame = planted_judgements("rating", num_raters=20, num_items=10).judgements.frame
    frame["rating"] = np.where(frame["rater_id"] == "r0", 1, frame["rating"])
    judgements = Judgements.from_frame(frame, levels=(-1, 0, 1))
    scorer = tiny_jury(judgements, clusters=2)
    adapted = scorer.adapt(judgements)
    assert adapted.memberships[0].max() < 0.95
    assert adapted.terms["intercept"][0] == adapted.terms["intercept"].max()


def test_constant_features_leave_what_the_judgements_say():
    planted = planted_judgements("rating", num_raters=20, num_items=6)
    with pytest.warns(UserWarning, match="the features of all texts are equal"):
        jury = fit_vector_jury(planted.judgements, np.ones((6, 3)), clusters=1)
    assert jury.cluster_rewards(np.ones((1, 3))).shape == (1, 1)
    with pytest.raises(JuryError, match="hold NaN or infinity"):
        fit_vector_jury(planted.judgements, np.full((6, 3), np.nan), clusters=1)


def test_a_jury_of_vectors_predicts_and_adapts_and_says_why_it_is_not_saved(tmp_path):
    planted = planted_judgements("preference", num_raters=30, num_items=10)
    jury = fit_vector_jury(planted.judgements, planted.rewards, clusters=2)
    adapted = jury.adapt(planted.judgements)
    assert jury.log_probs(planted.judgements, raters=adapted).shape == (300, 3)
    assert jury.log_probs(planted.judgements) == pytest.approx(jury.log_probs(planted.judgements, raters=adapted))
    with pytest.raises(JuryError, match="without the model that made the vectors it reads no text"):
        jury.save_pretrained(tmp_path)
    with pytest.raises(JuryError, match=r"features have shape \(1, 3\)"):
        jury.cluster_rewards(np.zeros((1, 3)))


@pytest.mark.slow
def test_a_table_is_encoded_once(choices, monkeypatch):
    calls = []
    real = records.encode
    monkeypatch.setattr(records, "encode", lambda *args: calls.append(args) or real(*args))
    tiny_jury(choices.judgements.select(np.arange(len(choices.judgements))))
    assert len(calls) == 1


def test_a_backbone_can_be_a_path_and_layers_can_be_cut(choices, tmp_path):
    path = save_tiny(tmp_path / "base")
    scorer = fit_jury(choices.judgements, path, clusters=2, layers=1, progress=False)
    assert scorer.model.config.get_text_config().num_hidden_layers == 1


@pytest.mark.slow
def test_steps_are_announced(choices):
    steps = []
    tiny_jury(choices.judgements, on_step=steps.append)
    assert len(steps) == 2
    assert "held-out raters" in steps[1]


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
