"""Proofs 3, 4, 5, 8 and 10: what the target distribution keeps, on problems small enough to enumerate.

The other half of the eleven proofs that test_distribution_proofs.py lists. In this file:

3. the mixture is normalised by itself;
4. indifference: as rewards become equal the target becomes the reference, without a jump;
5. disjoint favourites keep their shares, whatever estimator follows the target;
8. the offsets descend a convex function to `log Z + c`;
10. ties keep the reference's ratio where beta is small.

Bandits with tabular policies in plain torch. Where a claim is made against a rival (GRPO with its group-std scaling,
partition functions estimated inside the group), the rival runs too and must fail.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from plural_rlhf.core.estimators import (
    forward_kl_coefficients,
    js_coefficients,
    score_function_loss,
    trajectory_balance_loss,
    vargrad_loss,
)
from plural_rlhf.core.offsets import OffsetTracker, balance
from plural_rlhf.core.shares import retention
from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities
from tests.enumerable import Bandit, jensen_shannon, mean_vargrad, random_normal


SEVEN = torch.tensor([0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05], dtype=torch.float64)


# 3. The mixture has its own normaliser.


def test_3_mixture_reward_is_normalised_by_itself():
    rewards, log_ref = 4 * random_normal(6, 20, 3, seed=3), random_normal(6, 20, seed=4).log_softmax(-1)
    weights = random_normal(6, 3, seed=5).softmax(-1)
    log_z = log_partition(rewards, log_ref, 0.8).unsqueeze(1)
    mixture = pool_reward(rewards, weights.unsqueeze(1), log_z, 0.8, rho=1.0)
    expectation = (log_ref + mixture / 0.8).exp().sum(-1)
    assert torch.allclose(expectation, torch.ones_like(expectation), atol=1e-12)
    log_pool = pool_reward(rewards, weights.unsqueeze(1), log_z, 0.8, rho=0.0)
    assert ((log_ref + log_pool / 0.8).exp().sum(-1) < 0.9).all()  # Jensen: only the mixture's is one


# 4. D1: as the rewards become equal, the target becomes the reference, quadratically in the spread.


def grpo_fixed_point(reward: Tensor, pi_ref: Tensor, beta: float, steps: int = 800) -> Tensor:
    """Follow GRPO's expected update in the limit of large groups (no sampling noise) until it stands."""
    logits = pi_ref.log().clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(steps):
        log_pi = logits.log_softmax(-1)
        pi = log_pi.detach().exp()
        mean = (pi * reward).sum()
        std = (pi * (reward - mean).square()).sum().sqrt()
        kl = (log_pi.exp() * (log_pi - pi_ref.log())).sum()
        loss = beta * kl - (pi * (reward - mean) / (std + 1e-4) * log_pi).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return logits.detach().softmax(-1)


def slope(x: list[float], y: list[float]) -> float:
    log_x, log_y = (torch.tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float(((log_x - log_x.mean()) * (log_y - log_y.mean())).sum() / (log_x - log_x.mean()).square().sum())


def test_4_indifference_is_continuous_and_grpo_is_not():
    shape = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64).roll(3)
    spreads = [0.4, 0.2, 0.1, 0.05]
    beta = 0.5
    ours, grpo = [], []
    for spread in spreads:
        rewards = (spread * shape)[None, :, None].expand(1, 11, 2) * torch.tensor([1.0, -0.4], dtype=torch.float64)
        target = PoolTarget(beta=beta).log_probs(rewards, torch.tensor([0.8, 0.2]), SEVEN.log()[None])[0].exp()
        ours.append(jensen_shannon(target, SEVEN))
        grpo.append(jensen_shannon(grpo_fixed_point(spread * shape, SEVEN, beta), SEVEN))
    assert slope(spreads, ours) == pytest.approx(2.0, abs=0.1)
    # Small spreads: the mixture's log-ratio to the reference is the mean of the centred rewards over beta.
    mean_reward = spreads[-1] * shape * (0.8 - 0.4 * 0.2)
    variance = float((SEVEN * mean_reward.square()).sum() - (SEVEN * mean_reward).sum() ** 2)
    assert ours[-1] == pytest.approx(variance / (8 * beta**2), rel=0.1)
    assert abs(slope(spreads, grpo)) < 0.1
    assert min(grpo) > 0.1


def test_4_grpo_says_seven_where_nobody_cares():
    reward = 0.02 * SEVEN / SEVEN.max()  # gaps of a hundredth of a logit, seven ahead
    assert grpo_fixed_point(reward, SEVEN, beta=0.04)[7] > 0.99
    target = PoolTarget(beta=1.0).log_probs(reward[None, :, None], [1.0], SEVEN.log()[None])[0].exp()
    assert target[7] == pytest.approx(0.19, abs=0.002)


# 5. D2: disjoint favourites keep their shares, and the group's own partition function extinguishes them.


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "seed"), [("vargrad", 10), ("tb", 0), ("fkl", 0), ("js", 0)])
def test_5_responsibility_balancing_keeps_a_two_per_cent_cluster(estimator, seed):
    bandit = Bandit(seed)
    tracker = OffsetTracker(num_clusters=3)
    tracker.initialise("arms", bandit.rewards[bandit.reference_samples(16)], beta=1.0)

    def offsets(y: Tensor, log_pi: Tensor) -> Tensor:
        log_z = tracker.get(["arms"])[0]
        rewards = bandit.rewards[y].flatten(0, 1)
        gamma = responsibilities(rewards, bandit.weights, log_z, 1.0)
        tracker.observe("arms", rewards, gamma, bandit.weights, beta=1.0)
        return log_z

    def loss(d: Tensor, log_pi: Tensor) -> Tensor:
        if estimator == "vargrad":
            return vargrad_loss(d).mean()
        tracker.observe_normaliser("arms", d.flatten())
        log_z = tracker.log_normaliser(["arms"]).expand(len(d))
        if estimator == "tb":
            return trajectory_balance_loss(d, log_z).mean()
        make = forward_kl_coefficients if estimator == "fkl" else js_coefficients
        return score_function_loss(make(d, log_z), log_pi).mean()

    pi = bandit.train(offsets, steps=1500, loss=loss)
    assert (bandit.shares(pi) / bandit.weights - 1).abs().max() < 0.1
    assert retention(bandit.shares(pi), bandit.weights) > 0.9
    assert jensen_shannon(pi, bandit.target) < 0.002
    error = tracker.get(["arms"])[0] - bandit.log_z
    assert (error - error.mean()).abs().max() < 0.15  # it ends at log Z + c, whatever it started from


def test_5_partition_function_of_the_group_extinguishes_minorities():
    bandit = Bandit(0)

    def self_normalised(y: Tensor, log_pi: Tensor) -> Tensor:
        log_weight = bandit.log_ref[y] - log_pi[y]
        scores = torch.logsumexp(log_weight.unsqueeze(-1) + bandit.rewards[y], 1, keepdim=True)
        return scores - torch.logsumexp(log_weight, 1, keepdim=True).unsqueeze(-1)

    def softmax_of_the_group(d: Tensor, log_pi: Tensor) -> Tensor:
        return score_function_loss(d.shape[-1] * d.softmax(-1) - 1, log_pi).mean()

    for loss in (mean_vargrad, softmax_of_the_group):  # reverse and forward KL
        shares = bandit.shares(bandit.train(self_normalised, steps=600, loss=loss))
        assert (shares[1:] < 0.5 * bandit.weights.min()).all()  # 8 * .08 and 8 * .02 are both below one
        assert retention(shares, bandit.weights) < 0.2


def test_5_grpo_on_the_weighted_mean_gives_everything_to_the_majority():
    bandit = Bandit(0)
    shares = bandit.shares(grpo_fixed_point(bandit.rewards @ bandit.weights, bandit.log_ref.exp(), beta=0.04))
    assert retention(shares, bandit.weights) < 0.01


# 8. The offsets descend a convex function to log Z + c.


def free_energy(offsets: Tensor, rewards: Tensor, log_ref: Tensor, weights: Tensor) -> Tensor:
    mixture = torch.logsumexp(weights.log() + rewards - offsets, -1)
    return torch.logsumexp(log_ref + mixture, -1) + (weights * offsets).sum()


def test_8_balance_is_gradient_descent_on_a_convex_function():
    bandit = Bandit(3)
    start = bandit.log_z + random_normal(3, seed=6)
    offsets = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(free_energy(offsets, bandit.rewards, bandit.log_ref, bandit.weights), offsets)
    gamma = responsibilities(bandit.rewards, bandit.weights, start, 1.0)
    gamma_mean = (bandit.policy_of(start).unsqueeze(-1) * gamma).sum(0)
    assert torch.allclose(gradient, bandit.weights - gamma_mean, atol=1e-12)
    hessian = torch.autograd.functional.hessian(
        lambda o: free_energy(o, bandit.rewards, bandit.log_ref, bandit.weights), start
    )
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12


def test_8_expected_balance_decreases_free_energy_to_log_z():
    bandit = Bandit(3)
    offsets = bandit.log_z + torch.tensor([1.5, -1.0, 0.5], dtype=torch.float64)
    energies = []
    for _ in range(200):
        energies.append(float(free_energy(offsets, bandit.rewards, bandit.log_ref, bandit.weights)))
        gamma = responsibilities(bandit.rewards, bandit.weights, offsets, 1.0)
        gamma_mean = (bandit.policy_of(offsets).unsqueeze(-1) * gamma).sum(0)
        offsets = balance(offsets, gamma_mean, bandit.weights, learning_rate=0.5)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(energies))
    assert energies[0] - energies[-1] > 0.01
    assert (offsets - bandit.log_z).std() < 1e-6


def test_8_sampled_balance_ends_at_log_z():
    bandit = Bandit(3)
    tracker = OffsetTracker(num_clusters=3, learning_rate=0.5, decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        offsets = tracker.get(["arms"])[0]
        y = torch.multinomial(bandit.policy_of(offsets), 256, replacement=True, generator=generator)
        gamma = responsibilities(bandit.rewards[y], bandit.weights, offsets, 1.0)
        tracker.observe("arms", bandit.rewards[y], gamma, bandit.weights, beta=1.0)
    assert (tracker.get(["arms"])[0] - bandit.log_z).std() < 0.02


# 10. Ties: a small beta for quality and pi_ref's ratios among the good answers.


def test_10_ties_keep_the_reference_ratio_at_small_beta():
    log_ref = torch.cat([0.7 * SEVEN, torch.tensor([0.2, 0.1], dtype=torch.float64)]).log()
    good = 0.2 * torch.linspace(0, 1, 11, dtype=torch.float64).roll(4)
    reward = torch.cat([good, torch.tensor([-4.0, -5.0], dtype=torch.float64)])[None, :, None]

    def measure(tie_margin: float) -> tuple[float, float]:
        target = PoolTarget(beta=0.02, tie_margin=tie_margin).log_probs(reward, [1.0], log_ref[None])[0].exp()
        return jensen_shannon(target[:11] / target[:11].sum(), SEVEN), float(target[11:].sum())

    js, bad = measure(0.2)
    assert js < 1e-3
    assert bad < 1e-3
    js_plain, bad_plain = measure(0.0)
    assert js_plain > 0.1  # without the margin quality costs the distribution
    assert bad_plain < 1e-3
