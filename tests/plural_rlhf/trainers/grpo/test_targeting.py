"""From scored completions to targets and coefficients, worked out by hand; no model takes part."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plural_rlhf.core.offsets import OffsetTracker
from plural_rlhf.core.rules import Rule
from plural_rlhf.core.targets import PoolTarget, pool_reward
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.rewards.validity_gate import ValidityGate
from plural_rlhf.trainers.grpo.generation_batch import RewardTable, Rollouts
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from plural_rlhf.trainers.grpo.targeting import Targeting
from plural_rlhf.trainers.grpo.token_credit.token_kl import completion_logits, rao_blackwell_loss, reward_to_go_loss
from tests.juries import TableJury


JURY = TableJury({"x": [2.0, 0.0], "y": [0.0, 1.0]}, ["left", "right"], [0.75, 0.25])


def table(r, scores=None, keys=None, w=(0.75, 0.25)) -> RewardTable:
    r = torch.tensor(r, dtype=torch.float64)
    keys = ["p"] * len(r) if keys is None else keys
    return RewardTable(
        r=r,
        w=torch.tensor(w, dtype=torch.float64).expand(len(r), -1),
        scores=torch.zeros(len(r), 1, dtype=torch.float64) if scores is None else torch.tensor(scores).double(),
        keys=keys,
        shown=keys,
        drawn=list(range(len(r))),
        rules=[None] * len(r),
    )


def aiming(reward: JuryReward, *others, weights=None, prompts=None) -> Targeting:
    prompts = PromptState(reward.offsets) if prompts is None else prompts
    return Targeting(reward, OtherRewards(reward, [reward, *others], weights), prompts)


R = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.5], [0.0, 0.0]]
REF, PI = torch.tensor([-1.0, -2.0, -1.5, -3.0]), torch.tensor([-1.2, -1.5, -1.5, -2.0])


def test_the_first_visit_starts_offsets_by_importance_weights():
    reward = JuryReward(JURY, offset_learning_rate=0.0)
    found = aiming(reward)(table(R), REF, PI, 4, training=True)
    r = torch.tensor(R, dtype=torch.float64)
    log_z = torch.logsumexp(r + (REF - PI).double()[:, None], 0) - math.log(4)
    expected = pool_reward(r, torch.tensor([0.75, 0.25]), log_z, 1.0, 1.0)
    torch.testing.assert_close(found.reward, expected)
    d = expected + (REF - PI).double()
    torch.testing.assert_close(found.log_z, (d.exp().mean().log()).expand(4))
    assert found.metrics["residual_std"] == pytest.approx((float(d.std()), 1))
    assert found.metrics["entropy"] == pytest.approx((-float(PI.sum()), 4))
    assert found.metrics["effective_answers"] == pytest.approx((4.0, 1))
    assert found.metrics["share/left"][0] + found.metrics["share/right"][0] == pytest.approx(4.0)


def test_rows_under_a_rule_get_its_score_and_leave_the_offsets_alone():
    reward = JuryReward(JURY, calibrated=False)
    scored = table(R + R, keys=["p"] * 4 + ["q"] * 4)
    scored.rules = [None] * 4 + [Rule("borda")] * 4
    found = aiming(reward)(scored, REF.repeat(2), PI.repeat(2), 4, training=True)
    # Left (.75) puts 2 > 1 > 0 = 0, right puts 1 > .5 > 0 = 0: shares of duels won, ties half.
    left, right = [1.0, 1 / 6, 2 / 3, 1 / 6], [1 / 6, 1.0, 2 / 3, 1 / 6]
    assert found.reward[4:].tolist() == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(left, right, strict=True)])
    alone = aiming(JuryReward(JURY))(table(R), REF, PI, 4, training=True)
    torch.testing.assert_close(found.reward[:4], alone.reward)
    before = reward.offsets.get(["q"])
    aiming(reward)(scored, REF.repeat(2), PI.repeat(2), 4, training=True)
    assert torch.equal(reward.offsets.get(["q"]), before)  # balancing would move them to where borda's shares are


def test_what_another_function_gives_every_cluster_leaves_their_shares_alone():
    """r_k + f: the clusters' optima tilt alike, and the weights of the pool stay what they were."""
    reward = JuryReward(JURY, offset_learning_rate=0.0)
    other = lambda prompts, completions, **columns: []  # noqa: E731  (its values are in the table)
    scores = [[0.0, 1.0], [0.0, -1.0], [0.0, math.nan], [0.0, 0.0]]
    found = aiming(reward, other, weights=[1.0, 2.0])(table(R, scores), REF, REF, 4, training=False)
    tilted = torch.tensor(R, dtype=torch.float64) + torch.tensor([2.0, -2.0, 0.0, 0.0])[:, None]
    log_z = torch.logsumexp(tilted, 0) - math.log(4)
    torch.testing.assert_close(found.reward, pool_reward(tilted, torch.tensor([0.75, 0.25]), log_z, 1.0, 1.0))


def test_a_gate_puts_what_is_invalid_below_all_that_is_valid_for_every_cluster():
    reward = JuryReward(JURY, offset_learning_rate=0.0)
    gate = ValidityGate(lambda **columns: [])
    scores = [[0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, math.nan]]
    targeting = aiming(reward, gate)
    found = targeting(table(R, scores), REF, REF, 4, training=False)
    assert float(found.reward[1]) < float(found.reward[[0, 2, 3]].min()) - 8
    assert found.metrics["valid"] == (3.0, 4.0)


def test_the_uniform_floor_measures_from_the_likeliest_tie_of_all_visits():
    """Two visits show the two tied answers one each: shaped rewards are those of a visit that shows both."""
    target = PoolTarget(tie_margin=0.5, uniform_floor=1.0)
    rewards, log_ref = torch.tensor([[1.0], [0.8]]).double(), torch.tensor([-1.0, -3.0]).double()
    expected = target.shaped(rewards, log_ref)
    one = TableJury({}, ["all"], [1.0])
    reward = JuryReward(one, tie_margin=0.5)
    reward.target = target
    prompts = PromptState(reward.offsets)
    targeting = aiming(reward, prompts=prompts)
    for n in (0, 1):
        targeting(table([rewards[n].tolist()], w=(1.0,)), log_ref[[n]], log_ref[[n]], 1, training=True)
    both = table(rewards.tolist(), w=(1.0,))
    anchor = prompts.anchors(both.keys, both.r, log_ref, target.tie_margin)
    torch.testing.assert_close(reward.shaped(both.r, both.keys, log_ref, anchor, update=False), expected)
    restored = PromptState(OffsetTracker(1))
    restored.load_state_dict(prompts.state_dict())
    assert restored.state_dict() == prompts.state_dict()


def test_a_floor_reaches_the_rewards_of_a_group_and_without_one_they_are_as_they_were():
    """One cluster has the pool's reward: the two answers within the margin share the mass, the third keeps its own."""
    rewards, log_ref = torch.tensor([[1.0], [0.8], [-1.0]]).double(), torch.tensor([-1.0, -3.0, -2.0]).double()
    found = {}
    for floor in (0.0, 1.0):
        reward = JuryReward(TableJury({}, ["all"], [1.0]), offset_learning_rate=0.0)
        reward.target = PoolTarget(tie_margin=0.5, uniform_floor=floor)
        prompts = PromptState(reward.offsets)
        found[floor] = aiming(reward, prompts=prompts)(table(rewards.tolist(), w=(1.0,)), log_ref, log_ref, 3, True)
        expected = reward.target.shaped(rewards, log_ref)[:, 0]
        torch.testing.assert_close(found[floor].reward.diff(), expected.diff())  # a pool is known up to a constant
        assert (prompts.state_dict()["targeting"]["anchors"] != {}) == (floor > 0)
    alike = (found[1.0].reward + log_ref)[:2]
    assert float(alike[0]) == pytest.approx(float(alike[1]))  # as probable as one another under the target


def test_only_training_moves_offsets_normalisers_and_means_of_a_prompt_that_is_known():
    reward = JuryReward(JURY, offset_learning_rate=0.5)
    prompts = PromptState(reward.offsets)
    targeting = aiming(reward, prompts=prompts)
    targeting(table(R), REF, REF, 4, training=True)
    other = table([[1.0, -1.0], [0.5, 2.0], [3.0, 0.0], [0.0, 1.0]])
    states = [prompts.state_dict()]
    for training in (False, True):
        targeting(other, REF, PI, 4, training=training)
        states.append(prompts.state_dict())
    before, evaluated, trained = states
    assert evaluated == before
    for part in ("log_z", "log_normaliser"):
        assert trained["offsets"][part] != before["offsets"][part], part
    assert trained["targeting"]["reference_averages"] != before["targeting"]["reference_averages"]


def test_gains_are_above_what_the_reference_gives():
    reward = JuryReward(JURY)
    prompts = PromptState(reward.offsets)
    targeting = aiming(reward, prompts=prompts)
    targeting(table(R), REF, REF, 4, training=True)
    later = table([[2.0, 0.0]] * 4)
    targeting(later, REF, PI, 4, training=True)
    # Four completions of π₀ itself, and four with the weights π₀/π.
    n = float((REF - PI).double().exp().sum())
    mean = (4 * torch.tensor([0.75, 0.375]) + n * torch.tensor([2.0, 0.0])) / (4 + n)
    every = torch.tensor([True] * len(later.r))
    torch.testing.assert_close(targeting.gains(later, every), torch.tensor([2.0, 0.0]).double() - mean)
    restored = PromptState(OffsetTracker(2))
    restored.load_state_dict(prompts.state_dict())
    torch.testing.assert_close(aiming(reward, prompts=restored).gains(later, every), targeting.gains(later, every))


def test_what_the_reference_gives_is_learnt_from_all_visits_and_not_the_first():
    """Groups of eight from a policy that is not π₀: max-min weights move by gains, so an error here would stay."""
    generator = torch.Generator().manual_seed(0)
    ref, pi = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    levels = torch.tensor([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]]).double()
    reward = JuryReward(JURY)
    errors, every = [], torch.tensor([True] * 8)
    for visits in (1, 300):
        found = []
        for _ in range(10):
            prompts = PromptState(reward.offsets)
            for _ in range(visits):
                drawn = torch.multinomial(pi, 8, replacement=True, generator=generator)
                prompts.observe_reference("p", levels[drawn], (ref / pi).log()[drawn])
            nothing = table([[0.0, 0.0]] * 8)
            found.append(-aiming(reward, prompts=prompts).gains(nothing, every) - ref @ levels)
        errors.append(float(torch.stack(found).square().mean().sqrt()))
    assert errors[0] > 0.4
    assert errors[1] < 0.08


def rollouts(**parts) -> Rollouts:
    zeros = torch.zeros(4)
    given = {name: zeros.clone() for name in ("reward", "log_pi_ref", "log_pi", "log_pi_drawn", "log_z")} | parts
    return Rollouts(**given, group_size=parts.get("group_size", 2))


def test_coefficients_vanish_at_the_target_whoever_drew_the_completions():
    log_pi = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    at_target = rollouts(reward=log_pi + 0.7, log_pi=log_pi, log_pi_drawn=log_pi - 1.0, log_z=torch.full((4,), 0.7))
    for estimator in ("vargrad", "tb", "js", "fkl"):
        assert float(at_target.coefficients(estimator).abs().max()) < 1e-6


def test_weights_of_old_completions_are_bounded():
    found = rollouts(reward=torch.tensor([9.0, 0.0, 0.0, 0.0]), log_pi_drawn=torch.tensor([-50.0, 0.0, 0.0, 0.0]))
    assert float(found.coefficients("fkl")[0]) == pytest.approx(10 * (2 - 1))  # ratio cut at 10, weight at G = 2


class Tokens(torch.nn.Module):
    """Logits of two tokens out of three, from a table: the second depends on the first."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.randn(3, 3, generator=generator, dtype=torch.float64))

    def forward(self, input_ids, logits_to_keep, **unused):
        n = len(input_ids)
        rows = torch.stack([self.first.expand(n, -1), self.second[input_ids[:, 1]], torch.zeros(n, 3)], dim=1)
        return type("Out", (), {"logits": rows})

    def log_prob(self, pair):
        return self.first.log_softmax(-1)[pair[0]] + self.second[pair[0]].log_softmax(-1)[pair[1]]


def less_noisy_loss(
    loss: str, policy: Tokens, reference: Tokens, ids: torch.Tensor, reward: torch.Tensor
) -> torch.Tensor:
    """The loss of a group of completions `(G, 2)` of two tokens, with rewards `(G,)`."""
    at = [
        torch.stack(
            [m.first.log_softmax(-1)[ids[:, 0]], m.second[ids[:, 0]].log_softmax(-1).gather(-1, ids[:, 1:])[:, 0]], 1
        )
        for m in (policy, reference)
    ]
    log_pi, log_ref = at[0].sum(1).detach(), at[1].sum(1).detach()
    parts = Rollouts(reward, log_ref, log_pi, log_pi.clone(), torch.zeros(len(ids)), len(ids))
    if loss == "reward_to_go":
        return reward_to_go_loss(parts.coefficients("vargrad"), *at)
    ones = torch.ones_like(ids)
    rows = {
        "prompt_ids": torch.zeros(len(ids), 1, dtype=torch.long),
        "prompt_mask": ones[:, :1],
        "completion_ids": ids,
        "completion_mask": ones,
        "row": torch.arange(len(ids)),
    }
    at_ref = completion_logits(reference, rows).detach()
    return rao_blackwell_loss(policy, at_ref, rows, parts, lambda x: x)


@pytest.mark.parametrize("loss", ["reward_to_go", "rao_blackwell"])
def test_less_noisy_losses_have_the_exact_gradient_in_expectation(loss):
    """All 81 groups of two completions, each weighed by its probability, against autograd of KL(pi || p)."""
    policy, reference = Tokens(0), Tokens(1)
    pairs = list(itertools.product(range(3), repeat=2))
    reward = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    log_pi = torch.stack([policy.log_prob(pair) for pair in pairs])
    log_ref = torch.stack([reference.log_prob(pair) for pair in pairs]).detach()
    log_p = (reward + log_ref).log_softmax(0)
    exact = torch.autograd.grad((log_pi.exp() * (log_pi - log_p)).sum(), list(policy.parameters()))

    expected = [torch.zeros_like(p) for p in policy.parameters()]
    for i, j in itertools.product(range(9), repeat=2):
        value = less_noisy_loss(loss, policy, reference, torch.tensor([pairs[i], pairs[j]]), reward[[i, j]])
        probability = (log_pi[i] + log_pi[j]).exp().detach()
        for total, part in zip(expected, torch.autograd.grad(value, list(policy.parameters())), strict=True):
            total += probability * part
    for got, want in zip(expected, exact, strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", ["reward_to_go", "rao_blackwell"])
def test_what_all_completions_of_a_group_earn_alike_moves_nothing(loss):
    """A baseline that failed to take it out would still be right on average, and only noisier."""
    policy, reference = Tokens(0), Tokens(1)
    ids = torch.tensor([[0, 1], [2, 0], [1, 1]])
    reward = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(less_noisy_loss(loss, policy, reference, ids, reward + more), list(policy.parameters()))
        for more in (0.0, 7.0)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_prompt_is_started_from_the_reference_once():
    """Offsets are the log mean of exp r over completions of π₀; a prompt that is known keeps its own."""
    reward = JuryReward(JURY)
    targeting = aiming(reward)
    r = torch.tensor(R, dtype=torch.float64)
    nothing = torch.zeros(4, 1, dtype=torch.float64)
    assert "p" not in reward.offsets
    targeting.start("p", r, nothing, REF.double())
    expected = torch.logsumexp(r, 0) - math.log(4)
    torch.testing.assert_close(reward.offsets.get(["p"])[0], expected)
    torch.testing.assert_close(
        targeting.gains(table(R), torch.tensor([True] * 4)), torch.zeros(2, dtype=torch.float64)
    )
    targeting.start("p", r + 5, nothing, REF.double())
    torch.testing.assert_close(reward.offsets.get(["p"])[0], expected)
