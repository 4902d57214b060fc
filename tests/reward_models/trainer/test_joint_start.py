"""Trainings that start from a joint fit of texts and raters, stop early on held-out texts, and keep the best model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from reward_models.errors import JudgementError, JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.fit import fit_joint
from reward_models.judgements.records import Judgements
from reward_models.jury.features import pooled_features
from reward_models.jury.scorer import JuryScorer
from reward_models.raters.observation import TERM_SD
from reward_models.trainer.data import hold_out_texts, read_data
from reward_models.trainer.kept_change import SHARES, best_share_kept, keep_start
from tests.jury_training import make_trainer, planted, votes


def sparse(n_raters=30, per_rater=12, seed=0) -> tuple[Judgements, np.ndarray]:
    """Nobody judges a text that another judged: clusters can be told apart by what texts have in common alone."""
    rng = np.random.default_rng(seed)
    says_no = np.arange(n_raters) % 3 == 0
    rows = [
        (f"r{rater}", f"Question {rater}-{i}? ", "yes", "no", "a" if says_no[rater] == (rng.random() < 0.1) else "b")
        for rater in range(n_raters)
        for i in range(per_rater)
    ]
    return Judgements.from_frame(
        pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    ), says_no


def losses(trainer) -> list[float]:
    return [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_clusters_are_there_before_the_first_step_where_no_text_is_judged_twice(tmp_path):
    judgements, says_no = sparse()
    trainer = make_trainer(judgements, tmp_path, num_clusters=2, max_steps=1, learning_rate=0.0)
    assert trainer._memberships_from == "joint"
    trainer.train()
    found = trainer.memberships.posterior().argmax(1) == 1  # the smaller cluster is the second
    assert (found == says_no).mean() > 0.9
    rival = make_trainer(
        judgements, tmp_path, num_clusters=2, max_steps=1, learning_rate=0.0, memberships_from="random"
    )
    rival.train()
    by_chance = rival.memberships.posterior().argmax(1) == 1
    assert max((by_chance == says_no).mean(), (by_chance != says_no).mean()) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, LoraConfig(target_modules=["q_proj"], task_type="SEQ_CLS")])
def test_the_start_is_the_joint_fit_on_the_features_of_the_backbone(tmp_path, adapter):
    judgements, _ = planted(n_raters=16, n_items=16)
    trainer = make_trainer(
        judgements, tmp_path, num_clusters=2, max_steps=1, learning_rate=0.0, rater_terms=None, peft_config=adapter
    )
    enc = trainer.train_dataset.enc
    features = pooled_features(trainer.jury.model, trainer.processing_class, enc.texts, reading=trainer.reading)
    fit = fit_joint(enc, features, "mixture", 2, config=FitConfig(seed=trainer.args.seed))
    trainer.train()
    rewards = trainer.predict(judgements).predictions
    assert np.allclose(rewards, features @ fit.heads.T + fit.bias @ fit.mixing, atol=1e-4)
    assert trainer.memberships.prevalence == pytest.approx(fit.prevalence, abs=2e-3)
    assert trainer.memberships.posterior().argmax(1).tolist() == fit.responsibilities.argmax(1).tolist()


def test_a_training_that_makes_it_worse_stops_and_ends_where_it_started(tmp_path):
    judgements, _ = planted()
    settings = {"num_clusters": 2, "heldout_texts": 0.25, "patience": 2, "num_train_epochs": 9, "learning_rate": 30.0}
    trainer = make_trainer(judgements, tmp_path, **settings)
    with pytest.warns(UserWarning, match=r"better than its start \(0\.\d+ nats .*fit_jury\(judgements, backbone\)"):
        trainer.train()
    first, *later = losses(trainer)
    assert len(later) == 2  # and not nine
    assert min(later) > first
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-0")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(first, abs=1e-6)


@pytest.mark.slow
def test_the_best_of_the_epochs_is_kept_with_its_memberships(tmp_path):
    judgements, says_no = planted()
    trainer = make_trainer(judgements, tmp_path, num_clusters=2, heldout_texts=0.25, patience=9)
    trainer.train()
    best = trainer.state.best_metric
    assert best <= min(losses(trainer)) < losses(trainer)[0]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-6)
    assert (trainer.memberships.posterior().argmax(1) == says_no).mean() > 0.9


@pytest.mark.parametrize("judgements", [planted()[0], votes(n_items=30)], ids=["pairs", "votes"])
def test_no_text_that_is_held_out_is_trained_on(tmp_path, judgements):
    trainer = make_trainer(judgements, tmp_path, heldout_texts=0.2, max_steps=1)
    train, heldout = trainer.train_dataset.enc, trainer.eval_dataset.enc
    assert not set(train.texts) & set(heldout.texts)
    assert len(train) + len(heldout) == len(judgements)


def test_margins_go_with_their_judgements(tmp_path):
    pairs = [
        {"prompt": f"Q{i}?", "chosen": f"yes {i}", "rejected": "no", "margin": float(i)}
        for i in np.r_[9:30, 0:9].tolist()
    ]
    train, heldout = hold_out_texts(read_data(Dataset.from_list(pairs)), 0.3, seed=0)
    for part in (train, heldout):
        numbers = [float(part.enc.texts[a].response.split()[1]) for a in part.enc.alternatives[:, 0]]
        assert part.margin.tolist() == numbers


def test_evaluation_data_beside_held_out_texts_are_refused(tmp_path):
    judgements, _ = planted()
    with pytest.raises(JuryError, match=r"heldout_texts=0\.2 makes evaluation data .* leave one out"):
        make_trainer(judgements, tmp_path, evaluation=judgements, heldout_texts=0.2)
    with pytest.raises(JudgementError, match="one side is empty"):
        make_trainer(planted(n_items=1, per_rater=1)[0], tmp_path, heldout_texts=0.2)
    with pytest.raises(JuryError, match="leaves no text to train on"):
        make_trainer(judgements, tmp_path, heldout_texts=1.0)


def test_the_fitted_spread_of_rater_terms_is_stored_and_survives_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (f"r{rater}", "Vote: ", f"text {item}", int(np.searchsorted([-1, 1], leniency + rng.logistic())) - 1)
        for rater, leniency in enumerate(rng.normal(scale=4.0, size=40))
        for item in range(12)
    ]
    table = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"]))
    settings = {"num_clusters": 2, "max_steps": 2, "rater_terms": None, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(table, tmp_path, **settings)
    trainer.train()
    trainer.save_model(tmp_path / "jury")
    spread = JuryScorer.from_pretrained(tmp_path / "jury").state.rater_model.term_sd["intercept"]
    assert spread > 1.5 * TERM_SD["intercept"]
    resumed = make_trainer(table, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.terms.spread["intercept"] == pytest.approx(spread)


@pytest.mark.slow
def test_raters_are_stored_on_request_as_the_finished_jury_would_adapt_them(tmp_path):
    judgements, says_no = planted()
    trainer = make_trainer(judgements, tmp_path, num_clusters=2, save_raters=True)
    trainer.train()
    trainer.save_model(tmp_path / "jury")
    scorer = JuryScorer.from_pretrained(tmp_path / "jury")
    remembered, adapted = scorer.remembered(judgements.raters), scorer.adapt(judgements)
    order = [adapted.rater_ids.index(rater) for rater in remembered.rater_ids]
    assert np.allclose(remembered.memberships, adapted.memberships[order], atol=1e-3)
    assert (remembered.memberships.argmax(1) == says_no).mean() > 0.9
    frame = judgements.frame
    a_wins = frame["choice"] == "a"
    nameless = pd.DataFrame(
        {
            "prompt": frame["prompt"],
            "chosen": frame["response_a"].where(a_wins, frame["response_b"]),
            "rejected": frame["response_b"].where(a_wins, frame["response_a"]),
        }
    )
    with pytest.raises(JuryError, match="do not say who judged"):
        make_trainer(nameless, tmp_path, save_raters=True)


def test_tables_of_every_form_are_taken_for_training_evaluation_and_prediction(tmp_path):
    judgements, _ = planted(n_raters=8, per_rater=6, n_items=10)
    frame = judgements.frame
    trainer = make_trainer(frame, tmp_path, evaluation={"frame": frame, "table": judgements}, max_steps=1)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_frame_loss"] == metrics["eval_table_loss"]
    assert np.array_equal(trainer.predict(judgements).predictions, trainer.predict(frame).predictions)


def test_weights_between_start_and_end_are_kept_where_they_predict_held_out_texts_best(tmp_path):
    judgements, _ = planted()
    trainer = make_trainer(judgements, tmp_path, num_clusters=2, heldout_texts=0.25, max_steps=1, learning_rate=0.0)
    trainer.train()
    heads, good = trainer.jury.score.weight, trainer.jury.score.weight.detach().clone()

    def loss_at(scale):
        heads.data.copy_(scale * good)
        return trainer.evaluate()["eval_loss"]

    at_end, at_start = loss_at(4.0), loss_at(0.0)
    keep_start(trainer)
    trainer.state.best_metric = at_start
    heads.data.copy_(4.0 * good)  # the last model
    with best_share_kept(trainer):
        heads.data.zero_()  # the best model that was evaluated is the start
    assert trainer.state.log_history[-1]["jury/kept_share"] in SHARES
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, abs=1e-6)
    assert trainer.state.best_metric < min(at_start, at_end)


class Killed(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.epoch and state.epoch >= 1:
            raise KeyboardInterrupt


def test_a_resumed_training_keeps_the_share_that_an_unbroken_one_keeps(tmp_path):
    judgements, _ = planted(n_raters=12)
    settings = {"num_clusters": 2, "heldout_texts": 0.25, "patience": 9, "num_train_epochs": 2, "learning_rate": 0.02}
    whole = make_trainer(judgements, tmp_path / "whole", **settings)
    whole.train()
    broken = make_trainer(judgements, tmp_path / "broken", **settings)
    broken.add_callback(Killed())
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = make_trainer(judgements, tmp_path / "broken", **settings)
    resumed.train(resume_from_checkpoint=True)
    (one,), (other,) = (
        [entry for entry in trainer.state.log_history if "jury/kept_share" in entry] for trainer in (whole, resumed)
    )
    assert one["jury/kept_share"] == other["jury/kept_share"]
    assert torch.allclose(whole.jury.score.weight, resumed.jury.score.weight)
    assert not (tmp_path / "broken" / "start_weights.safetensors").exists()


def test_heads_that_are_not_trained_stay_those_of_the_joint_fit(tmp_path):
    judgements, _ = planted(n_raters=12)
    weights = []
    for adapter, steps in (
        (None, 0.0),
        (None, 0.02),
        (LoraConfig(target_modules=["q_proj"], task_type="SEQ_CLS"), 0.02),
    ):
        settings = {"num_clusters": 2, "max_steps": 2, "train_heads": False, "learning_rate": steps}
        trainer = make_trainer(judgements, tmp_path, peft_config=adapter, **settings)
        trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
        assert trained
        assert not any("score" in name for name in trained)
        trainer.train()
        weights.append(trainer.jury.score.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_a_quiet_training_shows_no_bar_of_its_start(tmp_path, capsys, monkeypatch):
    for pause in ("DELAY", "PAUSE_IN_A_FILE"):
        monkeypatch.setattr(f"reward_models.progress.{pause}", 0.0)
    make_trainer(sparse(16, 6)[0], tmp_path, num_clusters=2, max_steps=1).train()
    assert "%|" not in capsys.readouterr().err
