"""Reward functions beside the jury count wherever a reward does: for samples, answers of a support and draws of π₀."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from datasets import Dataset

from plural_rlhf.core.targets import PoolTarget, log_partition
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.rewards.validity_gate import ValidityGate
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers.grpo.exact import row_key
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from tests.juries import CPU, TableJury
from tests.policies import THREE, TOKENIZER, distribution, load, rows, sampled_trainer, three_answers


def likes_two(prompts, completions, **columns) -> list[float]:
    return [3.0 * (text.strip() == "2") for text in completions]


def not_one(prompts, completions, **columns) -> list[float]:
    return [float(text.strip() != "1") for text in completions]


def with_others(jury: TableJury, jury_weight: float, verifier_weight: float) -> torch.Tensor:
    """`(3, K)` rewards of the three answers, the verifier's added."""
    added = torch.tensor([[0.0], [3.0], [0.0]], dtype=torch.float64)
    return jury_weight * torch.tensor([jury.table[a] for a in THREE]).double() + verifier_weight * added


def exact_trainer(policy: str, functions: list, folder, data: Dataset | None = None, **settings) -> PluralGRPOTrainer:
    common = {**CPU, "exact": True, "learning_rate": 1e-2, "per_device_train_batch_size": 2, **settings}
    args = PluralGRPOConfig(str(folder), **common)
    data = rows("ab", THREE) if data is None else data
    return PluralGRPOTrainer(load(policy), functions, args, data, processing_class=TOKENIZER)


# ── what a function says ────────────────────────────────────────────────────────────────────────────────────────────


def test_functions_are_called_as_trl_calls_them():
    seen = {}

    def plain(prompts, completions, completion_ids, colour, trainer_state, **columns):
        seen.update(prompts=prompts, ids=completion_ids, colour=colour, state=trainer_state, columns=columns)
        return [1.0, None]

    async def awaited(prompts, completions, **columns):
        await asyncio.sleep(0)
        return [2.0, 3.0]

    reward = JuryReward(three_answers())
    others = OtherRewards(reward, [plain, reward, awaited], context=lambda: {"trainer_state": "now"})
    found = others.scores({"prompt": "p", "completion": "gold", "colour": "red"}, ["1", "2"], [[5], [6]])
    torch.testing.assert_close(
        found, torch.tensor([[1.0, math.nan, 2.0], [math.nan, math.nan, 3.0]]).double(), equal_nan=True
    )
    assert seen == {
        "prompts": ["p", "p"], "ids": [[5], [6]], "colour": ["red", "red"], "state": "now", "columns": {}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"'other' returned 1 values for 2 completions"),
        ([0.0, -math.inf], r"'other' gives -inf to .*'2'.*None"),
    ],
)
def test_values_from_which_no_target_follows_are_refused(values, message):
    def other(**columns):
        return values

    reward = JuryReward(three_answers())
    with pytest.raises(ValueError, match=message):
        OtherRewards(reward, [reward, other]).scores({"prompt": "p"}, ["1", "2"], [[5], [6]])


def test_an_infinite_value_is_refused_when_it_is_given(lopsided, tmp_path):
    def broken(prompts, completions, **columns):
        return [math.inf] * len(completions)

    with pytest.raises(ValueError, match=r"'broken' gives inf to the completion"):
        sampled_trainer(lopsided, [three_answers(), broken], tmp_path, 1).train()


# ── the exact mode ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, [0.5, 1.0]])
def test_exact_targets_are_those_of_all_functions_together(lopsided, tmp_path, weights):
    jury = three_answers()
    trainer = exact_trainer(lopsided, [jury, likes_two], tmp_path, max_steps=50, reward_weights=weights)
    reference = distribution(trainer.model, "ab", THREE).double()
    trainer.train()
    r = with_others(jury, *(weights or [1.0, 1.0])).expand(2, -1, -1)
    target = PoolTarget().log_probs(r, torch.as_tensor(jury.prevalence), reference.log()).exp()
    alone = PoolTarget().log_probs(
        with_others(jury, 1.0, 0.0).expand(2, -1, -1), torch.as_tensor(jury.prevalence), reference.log()
    )
    pi = distribution(trainer.model, "ab", THREE).double()
    torch.testing.assert_close(pi, target, atol=0.02, rtol=0)
    assert float((alone.exp() - target).abs().max()) > 0.1  # the jury's own target is another


@pytest.mark.slow
def test_a_gate_holds_for_answers_of_a_support_as_for_completions(lopsided, tmp_path):
    trainer = exact_trainer(lopsided, [three_answers(), ValidityGate(not_one)], tmp_path, max_steps=50)
    trainer.train()
    pi = distribution(trainer.model, "ab", THREE)
    assert float(pi[:, 0].max()) < 5e-3
    # Left, whose favourite is forbidden, has no taste among the others: .7 of the mass as π₀ has it, .3 mostly on 3.
    assert float(pi.sum(-1).min()) > 0.98
    assert float(pi[:, 1].min()) > 0.3


# ── what starts offsets ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("jury_weight", [1.0, 2.0])
def test_exact_offsets_are_those_of_all_functions_together(lopsided, tmp_path, jury_weight):
    jury = three_answers()
    settings = {"exact": False, "offsets": "exact", "reward_weights": [jury_weight, 1.0]}
    trainer = sampled_trainer(lopsided, [jury, likes_two], tmp_path, 1, data=rows("ab", THREE), **settings)
    trainer._before_training()
    log_ref = distribution(trainer.model, "ab", THREE).double().log()
    r = with_others(jury, jury_weight, 1.0).expand(2, -1, -1)
    kept = trainer.jury_reward.offsets.get([row_key(row) for row in rows("ab", THREE)])
    torch.testing.assert_close(kept, log_partition(r, log_ref, 1.0), atol=1e-4, rtol=0)


def test_offsets_that_the_reference_starts_know_the_other_functions(lopsided, tmp_path):
    """Right, to whom all answers are equal, gains most by the verifier."""
    jury = TableJury({"1": [4.0, 0.0], "2": [0.0, 0.0], "3": [0.0, 0.0]}, ["left", "right"], [0.7, 0.3], otherwise=0.0)
    settings = {"offsets": "reference", "n_ref": 300, "per_device_train_batch_size": 16}
    trainer = sampled_trainer(lopsided, [jury, likes_two], tmp_path, 1, data=rows("a", None), **settings)
    trainer.train()
    log_ref = distribution(load(lopsided), "a", THREE).double().log()
    true = log_partition(with_others(jury, 1.0, 1.0)[None], log_ref, 1.0)[0]
    without = log_partition(with_others(jury, 1.0, 0.0)[None], log_ref, 1.0)[0]
    kept = trainer.jury_reward.offsets.get([row_key(rows("a", None)[0])])[0]
    assert float(kept[0] - kept[1]) == pytest.approx(float(true[0] - true[1]), abs=0.35)
    assert float(without[0] - without[1]) > float(true[0] - true[1]) + 1


def test_one_prompt_with_two_supports_has_offsets_for_each(lopsided, tmp_path):
    data = Dataset.from_list([{"prompt": "Item a: ", "support": support} for support in (["1", "2"], ["2", "3"])])
    jury = three_answers()
    trainer = sampled_trainer(lopsided, jury, tmp_path, 1, exact=False, offsets="exact", data=data)
    trainer._before_training()
    log_ref = distribution(load(lopsided), "a", THREE).double().log()
    r = with_others(jury, 1.0, 0.0)
    for row, held in zip(data, ([0, 1], [1, 2]), strict=True):
        kept = trainer.jury_reward.offsets.get([row_key(row)])[0]
        torch.testing.assert_close(kept, log_partition(r[held][None], log_ref[:, held], 1.0)[0], atol=1e-4, rtol=0)


def test_reward_models_that_only_see_what_the_policy_says_are_refused():
    class Scores(torch.nn.Module):
        pass

    reward = JuryReward(three_answers())
    with pytest.raises(ValueError, match=r"reward_funcs\[1\] is the reward model 'Scores'.*pass a function"):
        OtherRewards(reward, [reward, Scores()]).check_callable()
    OtherRewards(reward, [reward, likes_two]).check_callable()
