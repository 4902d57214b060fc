"""Proofs 1, 2, 6, 7 and 9: how an estimator moves a policy, on problems small enough to enumerate.

Eleven claims about distributions are proved by running them, numbered alike in comments and test names. In this file:

1. the estimated gradient is that of the divergence which the estimator is named after;
2. at the target every sample's coefficient is zero;
6. neither the split of a batch nor the constants, scale and order of the clusters matter;
7. sequences reach the sequence-level target, where a KL per token does not;
9. off-policy samples leave the fixed point where it is.

In test_distribution_properties.py: 3 (normaliser), 4 (indifference), 5 (minorities), 8 (offsets), 10 (ties). Proof 11,
that a sequence's log-probability counts its end token and neither padding nor tool answers, needs a language model:
see the tests of the trainer and of completion scoring. Where a claim is made against a rival (GRPO with its group-std
scaling, token-level KL, statistics made afresh in each micro-batch), the rival runs too and must fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
from plural_rlhf.core.offsets import OFFSET_MODES, OffsetTracker
from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities
from tests.enumerable import Tree, jensen_shannon, random_normal


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
def test_1_estimated_gradient_is_the_exact_one(tree_gradients, estimator):
    mean, error, exact = tree_gradients[estimator]
    assert ((mean - exact).abs() / error).max() < 4
    assert exact.abs().max() > 20 * error.max()  # the comparison resolves the gradient


def test_1_grpo_gradient_is_not_even_parallel_to_the_exact_one(tree_gradients):
    mean, error, exact = tree_gradients["grpo"]
    scale = (mean * exact).sum() / exact.square().sum()
    assert ((mean - scale * exact).abs() / error).max() > 20


# 2. At the target nothing moves: not only the mean, every sample's coefficient is zero.


@pytest.mark.parametrize(("rho", "limit"), [(0.0, 1e-6), (1.0, 1e-5), (-math.inf, 1e-5), (0.3, 1e-5)])
def test_2_no_noise_at_the_optimum(rho, limit):
    rewards, log_ref = 3 * random_normal(1, 9, 3, seed=0), random_normal(1, 9, seed=1).log_softmax(-1)
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    log_pi = PoolTarget(rho=rho, beta=0.5).log_probs(rewards, weights, log_ref)
    log_z = log_partition(rewards, log_ref, 0.5)
    reward = pool_reward(rewards, weights, log_z.unsqueeze(1), 0.5, rho)
    y = torch.randint(0, 9, (50, 8), generator=torch.Generator().manual_seed(0))
    d = residual(reward, 0.5, log_ref, log_pi)[0][y]
    normaliser = torch.logsumexp(log_ref + reward / 0.5, -1).expand(50)
    coefficients = {
        "vargrad": leave_one_out(d),
        "tb": d - normaliser.unsqueeze(-1),
        "fkl": forward_kl_coefficients(d, normaliser),
        "js": js_coefficients(d, normaliser),
    }
    for name, values in coefficients.items():
        assert values.abs().max() < limit, name
    advantage = reward[0][y] - reward[0][y].mean(-1, keepdim=True)
    assert (advantage / reward[0][y].std(-1, keepdim=True)).abs().max() > 1  # GRPO's do not vanish


# 6. Invariances of what a batch does; those of the target are in test_targets.py.

ESTIMATORS = ["vargrad", "tb", "fkl", "js"]


def test_6_loss_does_not_depend_on_order_or_split():
    d = random_normal(12, 8, seed=0)
    whole = vargrad_loss(d)
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(whole[permutation], vargrad_loss(d[permutation]))
    assert torch.allclose(whole, vargrad_loss(d[:, torch.randperm(8)]))
    assert torch.allclose(whole, torch.cat([vargrad_loss(part) for part in d.split(5)]))
    assert torch.allclose(whole, vargrad_loss(d + 3.0))  # a constant of the prompt


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_6_shuffled_micro_batches_add_up_to_the_batch(estimator):
    """Rows carry what was known of their group, so they may be dealt anywhere; statistics made afresh may not."""
    reward, log_ref = random_normal(9, seed=0), random_normal(9, seed=1).log_softmax(-1)
    logits = random_normal(9, seed=2).requires_grad_()
    y = torch.randint(0, 9, (6, 4), generator=torch.Generator().manual_seed(3))
    d = residual(reward, BETA, log_ref, logits.log_softmax(-1))[y]
    log_z = torch.logsumexp(reward / BETA + log_ref, -1)
    centres = (d - leave_one_out(d)).detach() if estimator == "vargrad" else log_z.expand_as(d)

    def gradient(batches: list[Tensor], centre_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        total = torch.zeros_like(logits)
        for rows in batches:
            arms = y.flatten()[rows]
            log_pi = logits.log_softmax(-1)[arms]
            row_d = residual(reward[arms], BETA, log_ref[arms], log_pi).unsqueeze(-1)
            centre = centre_of(rows, row_d.detach())
            if estimator == "fkl":
                coefficients = forward_kl_coefficients(row_d, centre)
            elif estimator == "js":
                coefficients = js_coefficients(row_d, centre)
            else:
                coefficients = row_d - centre.unsqueeze(-1)
            loss = score_function_loss(coefficients, log_pi.unsqueeze(-1)).sum() / y.numel()
            total += torch.autograd.grad(loss, logits)[0]
        return total

    def stored(rows: Tensor, _: Tensor) -> Tensor:
        return centres.flatten()[rows]

    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(4))
    whole = gradient([torch.arange(24)], stored)
    assert torch.allclose(gradient(list(shuffled.split(5)), stored), whole, atol=1e-12)
    if estimator == "vargrad":
        assert torch.allclose(torch.autograd.grad(vargrad_loss(d).mean(), logits)[0], whole, atol=1e-12)
    afresh = gradient(list(shuffled.split(5)), lambda _, row_d: row_d.mean().expand(len(row_d)))
    assert (afresh - whole).abs().max() > 1e-3


UNIFORM = torch.full((12,), 1 / 12, dtype=torch.float64).log()


def coefficients_after(
    tracker: OffsetTracker, rewards: Tensor, weights: Tensor, beta: float, visits: list[Tensor]
) -> Tensor:
    """Leave-one-out coefficients (2, 12) of two prompts with rewards (2, 12, K), after the offsets saw some visits."""
    for x, prompt in enumerate(("a", "b")):
        if tracker.mode == "exact":
            tracker.set_exact(prompt, log_partition(rewards[x : x + 1], UNIFORM[None], beta)[0])
        elif prompt not in tracker:
            tracker.initialise(prompt, rewards[x], beta)
    for y in visits:
        for x, prompt in enumerate(("a", "b")):
            r, log_z = rewards[x, y], tracker.get([prompt])
            gamma = responsibilities(r, weights, log_z, beta)
            tracker.observe(prompt, r, gamma, weights, beta, torch.zeros(len(y)))
    reward = pool_reward(rewards, weights, tracker.get(["a", "b"]).unsqueeze(1), beta, 1.0)
    return leave_one_out(residual(reward, beta, UNIFORM, random_normal(12, seed=9).log_softmax(-1)))


@pytest.mark.parametrize("mode", OFFSET_MODES)
def test_6_constants_scale_and_order_of_the_clusters_do_not_matter(mode):
    rewards = 3 * random_normal(2, 12, 3, seed=0)
    weights = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    visits = [torch.randint(0, 12, (8,), generator=torch.Generator().manual_seed(s)) for s in range(20)]

    def after(rewards: Tensor, weights: Tensor, beta: float) -> Tensor:
        return coefficients_after(OffsetTracker(num_clusters=3, mode=mode), rewards, weights, beta, visits)

    plain = after(rewards, weights, 0.8)
    assert torch.allclose(after(rewards + random_normal(3, seed=1), weights, 0.8), plain, atol=1e-10)
    assert torch.allclose(after(5 * rewards, weights, 5 * 0.8), plain, atol=1e-10)
    order = [2, 0, 1]
    assert torch.allclose(after(rewards[..., order], weights[order], 0.8), plain, atol=1e-10)
    # A constant that differs between the prompts is what one set of offsets for all of them cannot follow.
    per_prompt = after(rewards + 2 * random_normal(2, 1, 3, seed=2), weights, 0.8)
    assert torch.allclose(per_prompt, plain, atol=1e-10) == (mode != "global")
    # The comparison can fail: beta alone is no scale.
    assert not torch.allclose(after(rewards, weights, 1.6), plain, atol=0.1)


@pytest.mark.parametrize("mode", ["responsibility", "ema"])
def test_6_gathered_rows_of_any_number_of_processes_give_the_same_offsets(mode):
    rewards, log_weights = random_normal(3, 8, 3, seed=0), random_normal(3, 8, seed=1)
    weights = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)

    def offsets(prompts: list[int], order: list[int], seen: slice) -> Tensor:
        tracker = OffsetTracker(num_clusters=3, mode=mode)
        for _ in range(5):
            for x in prompts:
                r = rewards[x, order][seen]
                gamma = responsibilities(r, weights, tracker.get([str(x)]), 1.0)
                tracker.observe(str(x), r, gamma, weights, 1.0, log_weights[x, order][seen])
        return tracker.get(["0", "1", "2"])

    one = offsets([0, 1, 2], list(range(8)), slice(None))
    assert torch.allclose(offsets([2, 0, 1], [4, 5, 6, 7, 0, 1, 2, 3], slice(None)), one, atol=1e-12)
    assert not torch.allclose(offsets([0, 1, 2], list(range(8)), slice(4)), one, atol=1e-3)  # its own half only


# 7. A tree of two tokens, where a KL per token forgets what the first token costs the second.


@pytest.fixture(scope="module")
def two_tokens() -> tuple[Tree, Tensor, Tensor, float]:
    """Tree, reference logits, rewards, beta: of a few random trees one where the first token matters."""
    tree = Tree(vocabulary=6, length=2, end=False)
    return tree, random_normal(tree.n_prefixes, 6, seed=20), random_normal(tree.n_sequences, seed=21), 0.2


def distance_after(two_tokens: tuple[Tree, Tensor, Tensor, float], loss: Callable[[Tensor], Tensor]) -> float:
    """Jensen-Shannon divergence from the sequence-level target, in nats, after 1200 steps."""
    tree, ref, reward, beta = two_tokens
    target = PoolTarget(beta=beta).log_probs(reward[None, :, None], [1.0], tree.log_pi(ref)[None])[0].exp()
    logits = ref.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, 1200)
    for _ in range(1200):
        optimiser.zero_grad()
        loss(logits).backward()
        optimiser.step()
        schedule.step()
    return jensen_shannon(tree.log_pi(logits.detach()).exp(), target)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_7_sampled_sequences_reach_the_sequence_target(two_tokens, estimator):
    tree, ref, reward, beta = two_tokens
    log_ref = tree.log_pi(ref)
    log_z = torch.logsumexp(log_ref + reward / beta, -1).expand(8)
    generator = torch.Generator().manual_seed(0)

    def loss(logits: Tensor) -> Tensor:
        every = tree.log_pi(logits)
        y = torch.multinomial(every.detach().exp().expand(8, -1), 16, replacement=True, generator=generator)
        d = residual(reward[y], beta, log_ref[y], every[y])
        if estimator == "vargrad":
            return vargrad_loss(d).mean()
        if estimator == "tb":
            return trajectory_balance_loss(d, log_z).mean()
        make = forward_kl_coefficients if estimator == "fkl" else js_coefficients
        return score_function_loss(make(d, log_z), every[y]).mean()

    assert distance_after(two_tokens, loss) < 1e-3


def test_7_token_level_kl_misses_it(two_tokens):
    tree, ref, reward, beta = two_tokens
    token_ref = tree.token_log_pi(ref)

    def expected_token_kl(logits: Tensor) -> Tensor:
        # The whole tree instead of a sample, so that no noise can be blamed, and no division by the std.
        token_log_pi = tree.token_log_pi(logits)
        pi = token_log_pi.detach().sum(-1).exp()
        log_ratio_ref = token_ref - token_log_pi
        k3 = (log_ratio_ref.exp() - log_ratio_ref - 1) * (token_log_pi - token_log_pi.detach()).exp()
        return (
            pi.unsqueeze(-1) * (beta * k3 - (reward - (pi * reward).sum()).unsqueeze(-1) * token_log_pi)
        ).sum() / beta

    assert distance_after(two_tokens, expected_token_kl) > 0.015


# 9. Off-policy samples move the fixed point of neither vargrad nor trajectory balance with the right log Z.


def test_9_off_policy_gradient_is_zero_at_the_target_and_only_there():
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


@pytest.mark.parametrize("sampler", ["reference", "temperature 1.5"])
def test_9_off_policy_training_ends_at_the_target(sampler):
    """Expected losses, so that where they end is no matter of luck: E over y ~ mu, mu not the policy."""
    log_ref, reward = random_normal(6, seed=7).log_softmax(-1), random_normal(6, seed=8)
    target, log_z = (reward + log_ref).softmax(-1), torch.logsumexp(reward + log_ref, -1)

    def end(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
        logits = log_ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.05)
        for _ in range(400):
            log_pi = logits.log_softmax(-1)
            mu = log_ref.exp() if sampler == "reference" else (log_pi.detach() / 1.5).softmax(-1)
            optimiser.zero_grad()
            loss(mu, residual(reward, 1.0, log_ref, log_pi), log_pi).backward()
            optimiser.step()
        return jensen_shannon(logits.detach().softmax(-1), target)

    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))

    def vargrad(mu: Tensor, d: Tensor, _: Tensor) -> Tensor:
        return mu[pairs].prod(-1) @ vargrad_loss(d[pairs])

    def balance_with(log_z: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda mu, d, _: mu @ trajectory_balance_loss(d.unsqueeze(-1), log_z.expand(6))

    def k3_in_the_loss(mu: Tensor, d: Tensor, log_pi: Tensor) -> Tensor:
        log_ratio_ref = log_ref - log_pi
        k3 = log_ratio_ref.exp() - log_ratio_ref - 1
        return (mu * (k3 - (reward - (mu * reward).sum()) * log_pi)).sum()

    assert end(vargrad) < 1e-8
    assert end(balance_with(log_z)) < 1e-8
    assert end(balance_with(log_z - 1.0)) > 1e-3  # off-policy log Z is more than a baseline
    assert end(k3_in_the_loss) > 3e-4
