from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from plural_rlhf.core.duals import KLBudget, MaxMinWeights
from reward_models.errors import JuryError


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boltzmann(reward: Tensor, log_ref: Tensor, beta: float) -> Tensor:
    return (log_ref + reward / beta).log_softmax(-1)


def kl(log_p: Tensor, log_q: Tensor) -> float:
    return float((log_p.exp() * (log_p - log_q)).sum())


# A KL budget


def test_one_step_by_hand():
    budget = KLBudget(budget=2.0, beta=0.5, learning_rate=0.2)
    assert budget.update(3.0) == pytest.approx(0.5 * math.exp(0.2 * 0.5))
    assert budget.update(2.0) == budget.beta  # on budget nothing moves
    before = budget.beta
    assert budget.update(1e9) == pytest.approx(before * math.exp(0.2))  # a spike moves no further than 100 %
    before = budget.beta
    assert budget.update(-0.3) == pytest.approx(before * math.exp(-0.2))


@pytest.mark.parametrize("beta", [0.05, 20.0])
@pytest.mark.parametrize("nats", [0.1, 1.0])
def test_policy_settles_on_the_budget_from_either_side(beta, nats):
    reward, log_ref = normal(40, seed=0), normal(40, seed=1).log_softmax(-1)
    budget = KLBudget(budget=nats, beta=beta)
    generator = torch.Generator().manual_seed(2)
    for _ in range(400):
        log_pi = boltzmann(reward, log_ref, budget.beta)
        y = torch.multinomial(log_pi.exp(), 64, replacement=True, generator=generator)
        budget.update(float((log_pi - log_ref)[y].mean()))
    # The temperature itself by bisection: KL(p_beta || pi_ref) falls as beta rises.
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if kl(boltzmann(reward, log_ref, middle), log_ref) > nats else (low, middle)
    assert budget.beta == pytest.approx(low, rel=0.15)
    assert kl(boltzmann(reward, log_ref, budget.beta), log_ref) == pytest.approx(nats, rel=0.2)


def test_budget_that_cannot_be_spent_ends_at_the_bound():
    budget = KLBudget(budget=1.0, beta=0.5, minimum=0.1, maximum=2.0)
    for _ in range(100):
        budget.update(0.0)  # no answer is better than another
    assert budget.beta == 0.1
    for _ in range(100):
        budget.update(50.0)
    assert budget.beta == 2.0


def test_resumed_budget_equals_the_unbroken_one():
    one, two = KLBudget(1.5, beta=0.7), KLBudget(1.5, beta=0.7)
    for step in range(10):
        one.update(step / 2)
        two.update(step / 2)
        if step == 4:
            state = json.loads(json.dumps(two.state_dict()))
            two = KLBudget(1.5, beta=0.7)
            two.load_state_dict(state)
    assert one.beta == two.beta
    assert one.beta != 0.7


def test_unusable_budgets_are_refused():
    with pytest.raises(ValueError, match=r"budget: got 0; give the KL of a whole response in nats"):
        KLBudget(budget=0.0)
    with pytest.raises(ValueError, match=r"beta: got 0\.5 with minimum 1 and maximum 100"):
        KLBudget(budget=1.0, beta=0.5, minimum=1.0)
    with pytest.raises(ValueError, match=r"learning_rate: got 0"):
        KLBudget(budget=1.0, learning_rate=0.0)
    with pytest.raises(ValueError, match=r"kl: got nan; check the log-probabilities"):
        KLBudget(budget=1.0).update(math.nan)


# Max-min weights

BETA = 0.5


def bandit(seed: int) -> tuple[Tensor, Tensor]:
    """Rewards (30, 4) gained over the reference, and its log-probabilities; the fourth cluster likes everything."""
    log_ref = normal(30, seed=seed).log_softmax(-1)
    rewards = normal(30, 4, seed=seed + 1) * torch.tensor([2.0, 1.0, 1.5, 0.3], dtype=torch.float64)
    rewards[:, 3] = rewards[:, 3] + 3.0 * (rewards[:, 0] - rewards[:, 0].mean()) + 2.0
    return rewards, log_ref


def dual(weights: Tensor, rewards: Tensor, log_ref: Tensor) -> Tensor:
    return BETA * torch.logsumexp(log_ref + rewards @ weights / BETA, 0)


def saddle(rewards: Tensor, log_ref: Tensor) -> tuple[Tensor, float]:
    """Minimiser and minimum of beta log Z(w) over the simplex, found by SLSQP."""

    def value_and_gradient(w: list[float]) -> tuple[float, list[float]]:
        weights = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        value = dual(weights, rewards, log_ref)
        (gradient,) = torch.autograd.grad(value, weights)
        return value.item(), gradient.tolist()

    found = minimize(
        value_and_gradient,
        [0.25] * 4,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: sum(w) - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return torch.tensor(found.x, dtype=torch.float64), float(found.fun)


def worst_off(log_pi: Tensor, rewards: Tensor, log_ref: Tensor) -> float:
    """The primal objective, min_k E_pi[r_k] - beta KL(pi || pi_ref)."""
    return float((log_pi.exp() @ rewards).min()) - BETA * kl(log_pi, log_ref)


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_max_min_weights_reach_the_saddle_point_and_a_minimum_per_response_does_not(seed):
    rewards, log_ref = bandit(seed)
    optimum, value = saddle(rewards, log_ref)
    assert optimum[3] < 1e-6  # outside the support: always served better than another
    weights = MaxMinWeights(num_clusters=4, learning_rate=0.2)
    for _ in range(3000):
        log_pi = boltzmann(rewards @ weights.weights, log_ref, BETA)
        weights.update(log_pi.exp() @ rewards)
    assert torch.allclose(weights.weights, optimum, atol=1e-4)
    expected = log_pi.exp() @ rewards
    support = optimum > 1e-3
    assert 2 <= support.sum() < 4
    assert expected[support].max() - expected[support].min() < 1e-3
    assert expected[~support].min() > expected[support].max()
    # No duality gap: what the worst-off cluster gets is what the dual says nobody can exceed.
    assert worst_off(log_pi, rewards, log_ref) == pytest.approx(value, abs=1e-3)
    cautious = boltzmann(rewards.amin(-1), log_ref, BETA)
    uniform = boltzmann(rewards.mean(-1), log_ref, BETA)
    assert worst_off(cautious, rewards, log_ref) < value - 0.05
    assert worst_off(uniform, rewards, log_ref) < value - 0.05


def test_one_step_by_hand_and_a_common_level_changes_nothing():
    weights = MaxMinWeights(num_clusters=3, learning_rate=0.5, prior=[2, 1, 1])
    shifted = MaxMinWeights(num_clusters=3, learning_rate=0.5, prior=[2, 1, 1])
    moved = weights.update(torch.tensor([2.0, 0.0, 1.0]))
    unnormalised = [0.5 * math.exp(-1.0), 0.25, 0.25 * math.exp(-0.5)]
    assert moved.tolist() == pytest.approx([u / sum(unnormalised) for u in unnormalised])
    assert torch.allclose(shifted.update(torch.tensor([502.0, 500.0, 501.0])), moved, atol=1e-12)


def test_floor_holds_exactly_and_leaves_the_ratios_of_the_others():
    floored, free = (MaxMinWeights(3, learning_rate=1.0, floor=f, prior=[1, 1, 2]) for f in (0.05, 0.0))
    gap = torch.tensor([8.0, 0.0, 0.0])
    floored.update(gap)
    free.update(gap)
    assert free.weights[0] < 1e-3
    assert floored.weights.tolist() == pytest.approx([0.05, 0.95 / 3, 0.95 * 2 / 3])
    # A floor does not move an optimum above it, and a forgotten cluster is back in a few steps.
    for _ in range(200):
        floored.update(gap)
    for _ in range(5):
        floored.update(-gap)
    assert floored.weights.tolist() == pytest.approx([0.9, 0.05, 0.05])


def test_cluster_without_weight_stays_out():
    weights = MaxMinWeights(3, floor=0.1, prior=[0.5, 0.5, 0.0])
    weights.update(torch.tensor([5.0, 0.0, -50.0]))
    assert weights.weights[2] == 0
    assert weights.weights.sum().item() == pytest.approx(1.0)
    assert (weights.weights[:2] >= 0.1).all()


def test_resumed_weights_equal_the_unbroken_ones():
    one, two = MaxMinWeights(3, floor=0.01), MaxMinWeights(3, floor=0.01)
    for step in range(10):
        mean_rewards = normal(3, seed=step)
        one.update(mean_rewards)
        two.update(mean_rewards)
        if step == 4:
            state = json.loads(json.dumps(two.state_dict()))
            two = MaxMinWeights(3, floor=0.01)
            two.load_state_dict(state)
    assert torch.equal(one.weights, two.weights)


def test_unusable_max_min_weights_are_refused():
    with pytest.raises(ValueError, match=r"floor: got 0\.5 for 2 clusters.*below 0\.5"):
        MaxMinWeights(2, floor=0.5)
    with pytest.raises(ValueError, match=r"learning_rate: got -1"):
        MaxMinWeights(2, learning_rate=-1.0)
    with pytest.raises(JuryError, match=r"cluster 1 has weight -1"):
        MaxMinWeights(2, prior=[1.0, -1.0])
    weights = MaxMinWeights(2)
    with pytest.raises(JuryError, match=r"mean_rewards: got shape \(3,\), but the weights are of 2 clusters"):
        weights.update(torch.zeros(3))
    with pytest.raises(JuryError, match=r"mean_rewards: got nan for cluster 1"):
        weights.update(torch.tensor([0.0, math.nan]))
    with pytest.raises(JuryError, match=r"saved state is of 3 clusters and the jury has 2"):
        weights.load_state_dict(MaxMinWeights(3).state_dict())
    assert weights.weights.tolist() == [0.5, 0.5]
