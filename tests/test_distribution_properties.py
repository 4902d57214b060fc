"""The claims about distributions, proved by running them on problems small enough to enumerate.

Bandits and short token trees with tabular policies in plain torch; the trainers themselves are tested elsewhere. Where
a claim is made against a rival (GRPO with its group-std scaling and token-level KL, partition functions estimated
inside the group), the rival runs too and must fail.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from plural_rlhf.core.estimators import (
    exact_divergence,
    forward_kl_coefficients,
    js_coefficients,
    leave_one_out,
    residual,
    score_function_loss,
    trajectory_balance_loss,
    vargrad_loss,
)
from plural_rlhf.core.offsets import OffsetTracker, balance
from plural_rlhf.core.shares import cluster_shares, retention
from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities


SEVEN = torch.tensor([0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05], dtype=torch.float64)


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    m = (p + q) / 2
    return float((torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).sum() / 2)


def random_normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Tree:
    """All sequences of at most `length` tokens: `log_pi` of a tabular policy with one row of logits per prefix."""

    vocabulary: int
    length: int
    end: bool  # whether the last token of the vocabulary ends the sequence

    def __post_init__(self) -> None:
        ending = self.vocabulary - 1 if self.end else None
        prefixes: dict[tuple[int, ...], int] = {}
        paths: list[list[tuple[int, int]]] = []
        for tokens in itertools.product(range(self.vocabulary), repeat=self.length):
            stop = tokens.index(ending) + 1 if ending in tokens else self.length
            path = [(prefixes.setdefault(tokens[:t], len(prefixes)), tokens[t]) for t in range(stop)]
            if path not in paths:
                paths.append(path)
        pad = [path + [(0, 0)] * (self.length - len(path)) for path in paths]
        self.prefix, self.token = torch.tensor(pad).unbind(-1)
        self.used = torch.tensor([[t < len(path) for t in range(self.length)] for path in paths])
        self.n_prefixes, self.n_sequences = len(prefixes), len(paths)

    def token_log_pi(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)[self.prefix, self.token] * self.used

    def log_pi(self, logits: Tensor) -> Tensor:
        return self.token_log_pi(logits).sum(-1)


def grpo_loss(token_log_pi: Tensor, token_log_ref: Tensor, reward: Tensor, beta: float, scale: bool = True) -> Tensor:
    """GRPO as in TRL 1.16: group-standardised advantage, ratio-corrected k3 per token. Shapes (B, G, T), (B, G)."""
    advantage = reward - reward.mean(-1, keepdim=True)
    if scale:
        advantage = advantage / (reward.std(-1, keepdim=True) + 1e-4)
    log_ratio_ref = token_log_ref - token_log_pi
    k3 = log_ratio_ref.exp() - log_ratio_ref - 1
    ratio = (token_log_pi - token_log_pi.detach()).exp()
    return (ratio * (beta * k3 - advantage.unsqueeze(-1))).sum(-1).mean()


# 1. The estimated gradient is the gradient of the divergence that the estimator is named after.

BETA = 0.7


@pytest.fixture(scope="module")
def tree_gradients() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Per estimator: mean estimated gradient over 2e5 groups of 4, its standard error, and the exact gradient."""
    tree = Tree(vocabulary=3, length=3, end=True)
    assert (tree.n_sequences, tree.n_prefixes) == (1 + 2 + 4 + 8, 1 + 2 + 4)
    logits = random_normal(tree.n_prefixes, 3, seed=0).requires_grad_()
    ref = random_normal(tree.n_prefixes, 3, seed=1)
    reward = random_normal(tree.n_sequences, seed=2)
    log_ref, token_ref = tree.log_pi(ref), tree.token_log_pi(ref)
    assert torch.allclose(log_ref.exp().sum(), torch.ones((), dtype=torch.float64))
    log_p = (reward / BETA + log_ref).log_softmax(-1)
    log_z = torch.logsumexp(reward / BETA + log_ref, -1)

    def with_coefficients(make: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def loss(y: Tensor) -> Tensor:
            log_pi = tree.log_pi(logits)[y]
            d = residual(reward[y], BETA, log_ref[y], log_pi)
            return score_function_loss(make(d, log_z.expand(len(y))), log_pi).mean()

        return loss

    def live(loss_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda y: loss_of(residual(reward[y], BETA, log_ref[y], tree.log_pi(logits)[y])).mean()

    losses = {
        "vargrad": live(vargrad_loss),
        "tb": live(lambda d: trajectory_balance_loss(d, log_z.expand(len(d)))),
        "fkl": with_coefficients(forward_kl_coefficients),
        "js": with_coefficients(js_coefficients),
        "grpo": lambda y: grpo_loss(tree.token_log_pi(logits)[y], token_ref[y], reward[y], BETA),
    }
    exact = {}
    for kind in ("rkl", "fkl", "js"):
        value = exact_divergence(log_p[None], tree.log_pi(logits)[None], kind, other=False, floor=1e-12).sum()
        (exact[kind],) = torch.autograd.grad(value, logits)
    kinds = {"vargrad": "rkl", "tb": "rkl", "grpo": "rkl"}
    probs = tree.log_pi(logits).detach().exp()
    result = {}
    for seed, (name, loss) in enumerate(losses.items()):
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for _ in range(100):
            y = torch.multinomial(probs.expand(2000, -1), 4, replacement=True, generator=generator)
            parts.append(torch.autograd.grad(loss(y), logits)[0])
        stacked = torch.stack(parts)
        result[name] = (stacked.mean(0), stacked.std(0) / math.sqrt(len(parts)), exact[kinds.get(name, name)])
    return result


@pytest.mark.parametrize("estimator", ["vargrad", "tb", "fkl", "js"])
def test_estimated_gradient_is_the_exact_one(tree_gradients, estimator):
    mean, error, exact = tree_gradients[estimator]
    assert ((mean - exact).abs() / error).max() < 4
    assert exact.abs().max() > 20 * error.max()  # the comparison resolves the gradient


def test_grpo_gradient_is_not_even_parallel_to_the_exact_one(tree_gradients):
    mean, error, exact = tree_gradients["grpo"]
    scale = (mean * exact).sum() / exact.square().sum()
    assert ((mean - scale * exact).abs() / error).max() > 20


# 2. At the target nothing moves: not only the mean, every sample's coefficient is zero.


@pytest.mark.parametrize(("rho", "limit"), [(0.0, 1e-6), (1.0, 1e-5), (-math.inf, 1e-5), (0.3, 1e-5)])
def test_no_noise_at_the_optimum(rho, limit):
    rewards, log_ref = 3 * random_normal(1, 9, 3, seed=0), random_normal(1, 9, seed=1).log_softmax(-1)
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    log_pi = PoolTarget(rho=rho, beta=0.5).log_probs(rewards, weights, log_ref)
    log_z = log_partition(rewards, log_ref, 0.5)
    reward = pool_reward(rewards, weights, log_z.unsqueeze(1), 0.5, rho)
    y = torch.randint(0, 9, (50, 8), generator=torch.Generator().manual_seed(0))
    d = residual(reward, 0.5, log_ref, log_pi)[0][y]
    assert leave_one_out(d).abs().max() < limit
    advantage = reward[0][y] - reward[0][y].mean(-1, keepdim=True)
    assert (advantage / reward[0][y].std(-1, keepdim=True)).abs().max() > 1  # GRPO's do not vanish


# 3. The mixture has its own normaliser.


def test_mixture_reward_is_normalised_by_itself():
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


def test_indifference_is_continuous_and_grpo_is_not():
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


def test_grpo_says_seven_where_nobody_cares():
    reward = 0.02 * SEVEN / SEVEN.max()  # gaps of a hundredth of a logit, seven ahead
    assert grpo_fixed_point(reward, SEVEN, beta=0.04)[7] > 0.99
    target = PoolTarget(beta=1.0).log_probs(reward[None, :, None], [1.0], SEVEN.log()[None])[0].exp()
    assert target[7] == pytest.approx(0.19, abs=0.002)


# 5. D2: disjoint favourites keep their shares, and the group's own partition function extinguishes them.

WEIGHTS = torch.tensor([0.9, 0.08, 0.02], dtype=torch.float64)


@dataclass
class Bandit:
    """Twelve arms, four favourites per cluster, 8 logits apart; a policy trained on 16 groups of 8 a step."""

    seed: int

    def __post_init__(self) -> None:
        self.log_ref = (0.5 * random_normal(12, seed=self.seed)).log_softmax(-1)
        favourites = torch.block_diag(*[torch.full((4, 1), 8.0, dtype=torch.float64)] * 3)
        self.rewards = favourites + 0.3 * random_normal(12, 3, seed=self.seed + 1)
        self.log_z = log_partition(self.rewards[None], self.log_ref[None], 1.0)[0]
        self.target = PoolTarget().log_probs(self.rewards[None], WEIGHTS, self.log_ref[None])[0].exp()
        self.gamma = responsibilities(self.rewards, WEIGHTS, self.log_z, 1.0)

    def train(self, offsets: Callable[[Tensor, Tensor], Tensor], steps: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 2)
        logits = self.log_ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.05)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
        for _ in range(steps):
            log_pi = logits.log_softmax(-1)
            y = torch.multinomial(log_pi.detach().exp().expand(16, -1), 8, replacement=True, generator=generator)
            log_z = offsets(y, log_pi.detach())
            d = residual(pool_reward(self.rewards[y], WEIGHTS, log_z, 1.0, 1.0), 1.0, self.log_ref[y], log_pi[y])
            optimiser.zero_grad()
            vargrad_loss(d).mean().backward()
            optimiser.step()
            schedule.step()
        return logits.detach().softmax(-1)

    def shares(self, pi: Tensor) -> Tensor:
        return cluster_shares(pi, self.gamma)


@pytest.mark.parametrize("seed", [0, 10])
def test_responsibility_balancing_keeps_a_two_per_cent_cluster(seed):
    bandit = Bandit(seed)
    tracker = OffsetTracker(num_clusters=3)
    generator = torch.Generator().manual_seed(seed)
    reference_samples = torch.multinomial(bandit.log_ref.exp(), tracker.n_ref, replacement=True, generator=generator)
    tracker.initialise("arms", bandit.rewards[reference_samples], beta=1.0)

    def offsets(y: Tensor, log_pi: Tensor) -> Tensor:
        log_z = tracker.get(["arms"])[0]
        tracker.update("arms", responsibilities(bandit.rewards[y], WEIGHTS, log_z, 1.0).mean((0, 1)), WEIGHTS)
        return log_z

    pi = bandit.train(offsets, steps=1500)
    assert (bandit.shares(pi) / WEIGHTS - 1).abs().max() < 0.1
    assert retention(bandit.shares(pi), WEIGHTS) > 0.9
    assert jensen_shannon(pi, bandit.target) < 0.002
    error = tracker.get(["arms"])[0] - bandit.log_z
    assert (error - error.mean()).abs().max() < 0.15  # it ends at log Z + c, whatever it started from


def test_partition_function_of_the_group_extinguishes_minorities():
    bandit = Bandit(0)

    def self_normalised(y: Tensor, log_pi: Tensor) -> Tensor:
        log_weight = bandit.log_ref[y] - log_pi[y]
        scores = torch.logsumexp(log_weight.unsqueeze(-1) + bandit.rewards[y], 1, keepdim=True)
        return scores - torch.logsumexp(log_weight, 1, keepdim=True).unsqueeze(-1)

    shares = bandit.shares(bandit.train(self_normalised, steps=800))
    assert (shares[1:] < 0.5 * WEIGHTS.min()).all()  # 8 * .08 and 8 * .02 are both below one
    assert retention(shares, WEIGHTS) < 0.1


def test_grpo_on_the_weighted_mean_gives_everything_to_the_majority():
    bandit = Bandit(0)
    shares = bandit.shares(grpo_fixed_point(bandit.rewards @ WEIGHTS, bandit.log_ref.exp(), beta=0.04))
    assert retention(shares, WEIGHTS) < 0.01


# 6. Invariances of the loss; those of the target are in test_targets.py.


def test_loss_does_not_depend_on_order_or_split():
    d = random_normal(12, 8, seed=0)
    whole = vargrad_loss(d)
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(whole[permutation], vargrad_loss(d[permutation]))
    assert torch.allclose(whole, vargrad_loss(d[:, torch.randperm(8)]))
    assert torch.allclose(whole, torch.cat([vargrad_loss(part) for part in d.split(5)]))
    assert torch.allclose(whole, vargrad_loss(d + 3.0))  # a constant of the prompt


# 7. A tree of two tokens, where a KL per token forgets what the first token costs the second.


def test_token_level_kl_misses_the_sequence_target_and_ours_does_not():
    tree = Tree(vocabulary=6, length=2, end=False)  # of a few random trees, one where the first token matters
    beta = 0.2
    ref, reward = random_normal(tree.n_prefixes, 6, seed=20), random_normal(tree.n_sequences, seed=21)
    log_ref, token_ref = tree.log_pi(ref), tree.token_log_pi(ref)
    target = PoolTarget(beta=beta).log_probs(reward[None, :, None], [1.0], log_ref[None])[0].exp()
    everything = torch.arange(tree.n_sequences)

    def expected_token_kl(logits: Tensor) -> Tensor:
        # The whole tree instead of a sample, so that no noise can be blamed, and no division by the std.
        token_log_pi = tree.token_log_pi(logits)
        pi = token_log_pi.detach().sum(-1).exp()
        log_ratio_ref = token_ref - token_log_pi
        k3 = (log_ratio_ref.exp() - log_ratio_ref - 1) * (token_log_pi - token_log_pi.detach()).exp()
        return (
            pi.unsqueeze(-1) * (beta * k3 - (reward - (pi * reward).sum()).unsqueeze(-1) * token_log_pi)
        ).sum() / beta

    generator = torch.Generator().manual_seed(0)

    def sampled_vargrad(logits: Tensor) -> Tensor:
        log_pi = tree.log_pi(logits)
        y = everything[
            torch.multinomial(log_pi.detach().exp().expand(8, -1), 16, replacement=True, generator=generator)
        ]
        return vargrad_loss(residual(reward[y], beta, log_ref[y], log_pi[y])).mean()

    def train(loss: Callable[[Tensor], Tensor], steps: int = 1200) -> Tensor:
        logits = ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.05)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, steps)
        for _ in range(steps):
            optimiser.zero_grad()
            loss(logits).backward()
            optimiser.step()
            schedule.step()
        return tree.log_pi(logits.detach()).exp()

    ours, theirs = jensen_shannon(train(sampled_vargrad), target), jensen_shannon(train(expected_token_kl), target)
    assert ours < 1e-3
    assert theirs > 0.015


# 8. The offsets descend a convex function to log Z + c.


def free_energy(offsets: Tensor, rewards: Tensor, log_ref: Tensor, weights: Tensor) -> Tensor:
    mixture = torch.logsumexp(weights.log() + rewards - offsets, -1)
    return torch.logsumexp(log_ref + mixture, -1) + (weights * offsets).sum()


def policy_of(offsets: Tensor, bandit: Bandit) -> Tensor:
    return (bandit.log_ref + pool_reward(bandit.rewards, WEIGHTS, offsets, 1.0, 1.0)).softmax(-1)


def test_balance_is_gradient_descent_on_a_convex_function():
    bandit = Bandit(3)
    start = bandit.log_z + random_normal(3, seed=6)
    offsets = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(free_energy(offsets, bandit.rewards, bandit.log_ref, WEIGHTS), offsets)
    gamma = responsibilities(bandit.rewards, WEIGHTS, start, 1.0)
    gamma_mean = (policy_of(start, bandit).unsqueeze(-1) * gamma).sum(0)
    assert torch.allclose(gradient, WEIGHTS - gamma_mean, atol=1e-12)
    hessian = torch.autograd.functional.hessian(
        lambda o: free_energy(o, bandit.rewards, bandit.log_ref, WEIGHTS), start
    )
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12


def test_expected_balance_decreases_free_energy_to_log_z():
    bandit = Bandit(3)
    offsets = bandit.log_z + torch.tensor([1.5, -1.0, 0.5], dtype=torch.float64)
    energies = []
    for _ in range(200):
        energies.append(float(free_energy(offsets, bandit.rewards, bandit.log_ref, WEIGHTS)))
        gamma = responsibilities(bandit.rewards, WEIGHTS, offsets, 1.0)
        gamma_mean = (policy_of(offsets, bandit).unsqueeze(-1) * gamma).sum(0)
        offsets = balance(offsets, gamma_mean, WEIGHTS, learning_rate=0.5)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(energies))
    assert energies[0] - energies[-1] > 0.01
    assert (offsets - bandit.log_z).std() < 1e-6


def test_sampled_balance_ends_at_log_z():
    bandit = Bandit(3)
    tracker = OffsetTracker(num_clusters=3, learning_rate=0.5, decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        offsets = tracker.get(["arms"])[0]
        y = torch.multinomial(policy_of(offsets, bandit), 256, replacement=True, generator=generator)
        tracker.update("arms", responsibilities(bandit.rewards[y], WEIGHTS, offsets, 1.0).mean(0), WEIGHTS)
    assert (tracker.get(["arms"])[0] - bandit.log_z).std() < 0.02


# 9. Off-policy samples move the fixed point of neither vargrad nor trajectory balance with the right log Z.


def test_off_policy_gradient_is_zero_at_the_target_and_only_there():
    log_ref, reward = random_normal(6, seed=7).log_softmax(-1), random_normal(6, seed=8)
    log_p, log_z = (reward + log_ref).log_softmax(-1), torch.logsumexp(reward + log_ref, -1)
    y = torch.multinomial(
        log_ref.exp().expand(64, -1), 8, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    for logits, at_target in ((log_p, True), (log_ref, False)):
        theta = logits.clone().requires_grad_()
        log_pi = theta.log_softmax(-1)
        d = residual(reward[y], 1.0, log_ref[y], log_pi[y])
        for loss in (vargrad_loss(d).mean(), trajectory_balance_loss(d, log_z.expand(64)).mean()):
            (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
            assert (gradient.abs().max() < 1e-12) == at_target


# 10. Ties: a small beta for quality and pi_ref's ratios among the good answers.


def test_ties_keep_the_reference_ratio_at_small_beta():
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
