"""An evaluation changes nothing of any trainer, and offsets of prompts that are not met again are forgotten.

`test_evaluation_state.py` has the modes of `PluralGRPOTrainer`; here are its other kinds of state and other trainers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from plural_rlhf.rewards.jury_reward import JuryReward
from tests.juries import CPU
from tests.jury_training import make_trainer, planted
from tests.opposed_pairs import build, opposed, policy
from tests.policies import TOKENIZER, rows, sampled_trainer, three_answers


OFTEN = {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1}


def weights_of(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def same(evaluated, plain) -> None:
    torch.testing.assert_close(weights_of(evaluated), weights_of(plain), atol=0, rtol=0)
    assert sum("eval_loss" in row for row in evaluated.state.log_history) >= 3


@pytest.mark.parametrize(
    "settings",
    [
        {"n_ref": 4, "estimator": "tb", "offsets": "ema"},
        {"tie_margin": 0.5, "uniform_floor": 1.0},
    ],
    ids=["offsets and normalisers", "best rewards and anchors"],
)
def test_sampled_training_goes_on_as_without_evaluations(lopsided, tmp_path, settings):
    """Prompts of the evaluation are those of training and others."""
    common = {"num_generations": 4, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, **settings}
    plain = sampled_trainer(lopsided, three_answers(), tmp_path / "plain", 4, **common)
    plain.train()
    evaluated = sampled_trainer(lopsided, three_answers(), tmp_path / "often", 4, **common, **OFTEN, eval_dataset="ac")
    evaluated.train()
    same(evaluated, plain)
    assert evaluated.prompts.state_dict() == plain.prompts.state_dict()
    before = evaluated.prompts.state_dict()
    numbers = evaluated.evaluate()
    assert evaluated.prompts.state_dict() == before
    assert np.isfinite(numbers["eval_plural/kl"])


@pytest.mark.parametrize("robust", [False, True])
def test_training_on_pairs_goes_on_as_without_evaluations(tmp_path, robust):
    settings = {"max_steps": 4, "per_device_train_batch_size": 2, "robust": robust}
    plain = build(opposed(), tmp_path, policy(), **settings)
    plain.train()
    evaluated = build(opposed(), tmp_path, policy(), eval_dataset=opposed(), **settings, **OFTEN)
    evaluated.train()
    same(evaluated, plain)
    assert evaluated.balance.state_dict() == plain.balance.state_dict()


def test_learning_a_jury_goes_on_as_without_evaluations(tmp_path):
    data = planted(n_raters=6, per_rater=4, n_items=8)[0]
    settings = {"max_steps": 4, "num_clusters": 2, "memberships_from": "random", "deviation_scale": 0.5}
    plain = make_trainer(data, tmp_path, **settings)
    plain.train()
    evaluated = make_trainer(data, tmp_path, data, **settings, **OFTEN)
    evaluated.train()
    same(evaluated, plain)
    for name, value in plain.memberships.state().items():
        np.testing.assert_array_equal(value, evaluated.memberships.state()[name], err_msg=name)


def test_a_jury_reward_in_a_stock_trainer_leaves_its_offsets_alone(lopsided, tmp_path):
    settings = {"max_steps": 1, "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4}
    args = RLOOConfig(str(tmp_path), beta=1.0, per_device_eval_batch_size=2, **settings, **CPU)
    reward, data = JuryReward(three_answers()), Dataset.from_list([*rows("a", None), *rows("z", None)])
    trainer = RLOOTrainer(lopsided, reward, args, rows("ab", None), data, processing_class=TOKENIZER)
    trainer.train()
    before = reward.offsets.state_dict()
    assert len(before["log_z"]) == 1
    trainer.evaluate()
    assert reward.offsets.state_dict() == before


# ── prompts that are forgotten ──────────────────────────────────────────────────────────────────────────────────────


def test_prompts_that_were_not_visited_for_longest_are_forgotten(lopsided, tmp_path):
    settings = {"num_generations": 4, "per_device_train_batch_size": 4, "shuffle_dataset": False, "max_prompts": 2}
    settings |= {"uniform_floor": 1.0, "tie_margin": 0.1, "estimator": "tb", "data": rows("abcd", None)}
    settings |= {"save_strategy": "steps", "save_steps": 3}
    trainer = sampled_trainer(lopsided, three_answers(), tmp_path, 4, **settings)
    trainer.train()
    state = trainer.prompts.state_dict()
    for kept in (state["offsets"]["log_z"], state["offsets"]["log_normaliser"], state["offsets"]["best"]):
        assert list(kept) == state["offsets"]["visited"]
        assert len(kept) == 2
    assert list(state["targeting"]["anchors"]) == list(state["targeting"]["reference_averages"])
    resumed = sampled_trainer(lopsided, three_answers(), tmp_path / "resumed", 4, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.prompts.state_dict() == state


def test_a_reward_in_a_stock_trainer_forgets_too_and_weights_that_never_come_again_are_no_burden(monkeypatch):
    reward = JuryReward(three_answers(), max_prompts=3)
    for n in range(10):
        reward(prompts=[f"prompt {n}"] * 2, completions=["1", "3"])
    assert len(reward.offsets) == 3
    reward(prompts=[f"prompt {n}" for n in range(5)], completions=["1"] * 5)  # a batch is never forgotten in part
    assert len(reward.offsets) == 5
    monkeypatch.setattr("plural_rlhf.rewards.jury_reward._PARSED", 4)
    for n in range(10):
        reward.row_weights([[0.1 + n / 100, 0.9 - n / 100]], 1)
    assert len(reward._parsed) <= 4
