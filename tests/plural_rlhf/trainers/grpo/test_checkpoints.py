"""What a checkpoint of the sampled mode holds besides the model: `plural_rlhf.trainers.grpo.checkpoints`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plural_rlhf.core.duals import KLBudget, MaxMinWeights
from plural_rlhf.core.offsets import OffsetTracker
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.checkpoints import (
    REPLAY_FILE,
    STATE_FILE,
    check_scorer,
    load_generation,
    load_state,
    save_generation,
    save_state,
)
from plural_rlhf.trainers.grpo.generation_batch import RewardTable, Rollouts
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.replay import ReplayMemory
from reward_models.errors import JuryError
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.whole_file import write_json
from tests.juries import TableJury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


SCORER = TableJury({}, ["urban", "rural"], [0.7, 0.3])


def state(replay: ReplayMemory | None = None) -> PromptState:
    return PromptState(OffsetTracker(2), replay)


def memory_of_one_visit() -> ReplayMemory:
    memory, numbers = ReplayMemory(100, 0.5, 3), torch.arange(4, dtype=torch.float64)
    rewards, weights = torch.ones(4, 2, dtype=torch.float64), torch.full((4, 2), 0.5, dtype=torch.float64)
    keys = list("aabb")
    table = RewardTable(rewards, weights, rewards[:, :1], keys, keys, list(range(4)), [None] * 4)
    memory.add(table, [[1], [2], [3], [4]], -numbers, -numbers, numbers)
    return memory


def multipliers(**parts) -> Multipliers:
    return Multipliers(JuryReward(SCORER), **parts)


def save(folder, prompts, moved=None, micro_step=7):
    write_json(
        folder / STATE_FILE, save_state(folder, SCORER, prompts, moved or multipliers(), micro_step), exact=True
    )


def test_a_memory_is_saved_and_put_back_and_one_that_is_missing_on_either_side_starts_empty(tmp_path):
    memory = memory_of_one_visit()
    save(tmp_path, state(memory))
    restored = state(ReplayMemory(100, 0.5, 3))
    assert load_state(tmp_path, restored, multipliers()) == 7
    assert [c.tokens for c in restored.replay.draw(2).completions] == [c.tokens for c in memory.draw(2).completions]
    assert load_state(tmp_path, state(), multipliers()) == 7  # resumed without a memory
    (tmp_path / REPLAY_FILE).unlink()
    restored = state(ReplayMemory(100, 0.5, 3))
    assert load_state(tmp_path, restored, multipliers()) == 7
    assert restored.replay.state_dict() == ReplayMemory(100, 0.5, 3).state_dict()


def test_a_state_without_a_memory_writes_no_file_of_it_and_an_older_one_has_no_micro_step(tmp_path):
    save(tmp_path, state())
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    values = json.loads((tmp_path / STATE_FILE).read_text())
    assert {"cluster_names": ["urban", "rural"], "prevalence": [0.7, 0.3], "heads": None}.items() <= values.items()
    del values["micro_step"]
    write_json(tmp_path / STATE_FILE, values)
    assert load_state(tmp_path, state(), multipliers()) is None


def test_multipliers_come_back_and_those_that_the_checkpoint_lacks_start_afresh(tmp_path):
    moved = multipliers(kl_budget=KLBudget(2.0, 1.0, 0.05), max_min=MaxMinWeights(2, 0.5))
    assert moved.active
    moved.move(kl=5.0, gains=torch.tensor([1.0, -1.0]))
    save(tmp_path, state(), moved)
    same = multipliers(kl_budget=KLBudget(2.0, 1.0, 0.05), max_min=MaxMinWeights(2, 0.5))
    load_state(tmp_path, state(), same)
    assert same.kl_budget.beta == same._reward.target.beta == pytest.approx(moved.kl_budget.beta)
    assert same.kl_budget.beta > 1.0
    torch.testing.assert_close(same.weights, moved.weights)
    fixed = multipliers()
    load_state(tmp_path, state(), fixed)
    assert not fixed.active
    assert fixed.weights is None
    assert fixed._reward.target.beta == 1.0
    save(tmp_path, state())
    fresh = multipliers(kl_budget=KLBudget(2.0, 1.5, 0.05), max_min=MaxMinWeights(2, 0.5))
    load_state(tmp_path, state(), fresh)
    assert fresh.kl_budget.beta == 1.5
    assert fresh.weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("only", ["kl_budget", "max_min"])
def test_one_multiplier_moves_alone(only):
    parts = {"kl_budget": KLBudget(2.0, 1.0, 0.05), "max_min": MaxMinWeights(2, 0.5)}
    moved = multipliers(**{only: parts[only]})
    assert moved.active
    moved.move(kl=5.0, gains=torch.tensor([1.0, -1.0]))
    assert (moved._reward.target.beta > 1) is (only == "kl_budget")
    assert (moved.weights is not None) is (only == "max_min")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"prevalence": [0.7 + 5e-7, 0.3 - 5e-7]}, None),
        ({"prevalence": [0.7 + 3e-6, 0.3 - 3e-6]}, "of the prevalence 0.7, 0.3, and this one has 0.7, 0.3"),
        ({"cluster_names": ["urban", "remote"]}, "of the clusters urban, rural, and this one has urban, remote"),
    ],
)
def test_another_jury_is_refused_with_what_differs(tmp_path, changes, message):
    save(tmp_path, state())
    other = SimpleNamespace(**{"cluster_names": ["urban", "rural"], "prevalence": [0.7, 0.3], **changes})
    if message is None:
        check_scorer(tmp_path, other)
    else:
        with pytest.raises(JuryError, match=f"{message}: resume with the jury of that run"):
            check_scorer(tmp_path, other)


def test_other_heads_are_another_jury_unless_one_side_does_not_know_them(tmp_path):
    def jury(value: float) -> JuryScorer:
        heads = np.full((2, 32), value)
        model = JuryRewardModel.from_fit(tiny_causal_lm(), heads, np.zeros(2), [0.7, 0.3], ["urban", "rural"])
        return JuryScorer(model, tiny_tokenizer())

    write_json(tmp_path / STATE_FILE, save_state(tmp_path, jury(1.0), state(), multipliers(), 0), exact=True)
    check_scorer(tmp_path, jury(1.0))
    check_scorer(tmp_path, SCORER)  # a scorer without heads to hash
    with pytest.raises(JuryError, match=r"the same clusters .* and other reward heads"):
        check_scorer(tmp_path, jury(1.5))
    save(tmp_path, state())
    check_scorer(tmp_path, jury(1.5))  # the checkpoint does not say


def test_completions_in_use_are_kept_per_process(tmp_path):
    assert load_generation(tmp_path, 0, torch.device("cpu")) is None
    numbers = torch.arange(4.0)
    rollouts = Rollouts(numbers, numbers + 1, numbers + 2, numbers + 3, numbers + 4, 2)
    save_generation(tmp_path, 0, {"step": 3}, rollouts)
    save_generation(tmp_path, 1, {"step": 4}, None)
    buffer, back = load_generation(tmp_path, 0, torch.device("cpu"))
    assert buffer == {"step": 3}
    assert {k: v.tolist() if torch.is_tensor(v) else v for k, v in back.to_dict().items()} == {
        k: v.tolist() if torch.is_tensor(v) else v for k, v in rollouts.to_dict().items()
    }
    assert load_generation(tmp_path, 1, torch.device("cpu")) == ({"step": 4}, None)
    assert load_generation(tmp_path, 2, torch.device("cpu")) is None
