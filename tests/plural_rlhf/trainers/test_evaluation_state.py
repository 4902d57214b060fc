"""Evaluation moves no state: a training that is evaluated at each step ends where one that never is does."""

from __future__ import annotations

import pytest
import torch

from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from tests.juries import CPU
from tests.policies import THREE, TOKENIZER, load, rows, three_answers


SAMPLED = {"num_generations": 8, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
MODES = {
    "exact": {"exact": True, "per_device_train_batch_size": 2},
    "sampled": SAMPLED | {"max_completion_length": 4},
    "sampled, a KL budget": SAMPLED | {"max_completion_length": 4, "kl_budget": 0.5},
    "sampled, replayed": SAMPLED | {"max_completion_length": 4, "replay_size": 16},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_training_that_is_evaluated_on_the_way_is_the_one_that_is_not(lopsided, tmp_path, mode):
    """Weights, offsets, memories, multipliers and what is drawn next, all to the last bit."""
    trained = []
    for evaluated in ("no", "steps"):
        settings = {"max_steps": 3, "learning_rate": 1e-3, "eval_strategy": evaluated, "eval_steps": 1, "seed": 3}
        args = PluralGRPOConfig(str(tmp_path / evaluated), **CPU, **settings, **MODES[mode])
        support = THREE if mode == "exact" else None
        policy = load(lopsided) if mode == "exact" else lopsided
        data, other = rows("abcd", support), rows("efab", support)
        trainer = PluralGRPOTrainer(policy, three_answers(), args, data, other, processing_class=TOKENIZER)
        trainer.train()
        trained.append(trainer)
    never, often = trained
    assert len([row for row in often.state.log_history if "eval_loss" in row]) == 3
    for name, value in never.model.state_dict().items():
        torch.testing.assert_close(often.model.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert state_of(often) == state_of(never)
    before = state_of(often)
    often.evaluate()
    assert state_of(often) == before


def state_of(trainer):
    """What a checkpoint would hold, without the evaluations' own numbers."""
    replay = trainer.prompts.replay
    return {
        "prompts": trainer.prompts.state_dict(),
        "multipliers": repr(trainer.multipliers.state_dict()),
        "replay": None if replay is None else repr(replay.state_dict()),
    }
