"""The pool of the clusters' optima: its definitions, invariances, limits and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities, saturate
from reward_models.errors import JuryError
from tests.pools import RHOS, WEIGHTS, betas, problem, rhos, seeds, targets


def test_mixture_is_the_weighted_sum_of_the_clusters_own_optima():
    rewards, log_ref = problem(0)
    own = (rewards / 0.7 + log_ref.unsqueeze(-1)).softmax(1)
    target = PoolTarget(rho=1.0, beta=0.7).log_probs(rewards, WEIGHTS, log_ref).exp()
    assert torch.allclose(target, own @ WEIGHTS, atol=1e-12)


def test_consensus_egalitarian_and_union_by_their_definitions():
    rewards, log_ref = problem(1)
    own = (rewards + log_ref.unsqueeze(-1)).softmax(1)
    log_pool = (rewards @ WEIGHTS + log_ref).softmax(1)
    for rho, expected in [
        (0.0, log_pool),
        (-math.inf, own.amin(-1) / own.amin(-1).sum(1, keepdim=True)),
        (math.inf, own.amax(-1) / own.amax(-1).sum(1, keepdim=True)),
        (-1.0, 1 / (1 / own @ WEIGHTS) / (1 / (1 / own @ WEIGHTS)).sum(1, keepdim=True)),
    ]:
        target = PoolTarget(rho=rho).log_probs(rewards, WEIGHTS, log_ref).exp()
        assert torch.allclose(target, expected, atol=1e-12), rho


def test_limits_of_rho_are_continuous():
    rewards, log_ref = problem(2)
    exact = {rho: PoolTarget(rho=rho).log_probs(rewards, WEIGHTS, log_ref) for rho in (0.0, math.inf, -math.inf)}
    for tiny in (1e-4, 1e-8, 1e-14):
        for sign in (1, -1):
            near = PoolTarget(rho=sign * tiny).log_probs(rewards, WEIGHTS, log_ref)
            assert (near - exact[0.0]).abs().max() < 100 * tiny + 1e-12
    for sign in (1, -1):
        far = PoolTarget(rho=sign * 1e6).log_probs(rewards, WEIGHTS, log_ref)
        assert (far - exact[sign * math.inf]).abs().max() < 1e-4
    single = PoolTarget(rho=1e-7).log_probs(rewards.float(), WEIGHTS, log_ref.float())
    assert (single - exact[0.0]).abs().max() < 1e-5  # float32 does not lose the pool to cancellation


def test_disjoint_favourites_get_their_weights():
    """D2, and the consensus vetoing the same minorities."""
    rewards = torch.full((1, 12, 3), 0.0)
    for k in range(3):
        rewards[0, 4 * k : 4 * k + 4, k] = 30.0
    log_ref = torch.full((1, 12), 1 / 12).log()
    mixture = PoolTarget(rho=1.0).log_probs(rewards, WEIGHTS, log_ref).exp().reshape(3, 4).sum(1)
    assert torch.allclose(mixture, WEIGHTS.float(), atol=1e-5)
    assert PoolTarget(rho=0.0).log_probs(rewards, WEIGHTS, log_ref).exp().reshape(3, 4).sum(1)[2] < 1e-6


@settings(max_examples=60)
@given(seed=seeds, target=targets)
def test_constants_per_cluster_and_prompt_change_nothing(seed, target):
    """D3: Bradley-Terry rewards are identified only up to c_k(x), and a support may miss mass of pi_ref."""
    rewards, log_ref = problem(seed)
    shift = 5 * torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = target.log_probs(rewards + shift, WEIGHTS, log_ref - 4.0)
    assert torch.allclose(target.log_probs(rewards, WEIGHTS, log_ref), moved, atol=1e-7)


@settings(max_examples=60)
@given(seed=seeds, target=targets, scale=st.floats(0.1, 10))
def test_only_reward_over_beta_matters(seed, target, scale):
    rewards, log_ref = problem(seed)
    in_other_units = replace(
        target,
        beta=target.beta * scale,
        tie_margin=target.tie_margin * scale,
        tie_width=target.tie_width * scale,
        typicality_alpha=target.typicality_alpha * scale,
    )
    one = target.log_probs(rewards, WEIGHTS, log_ref)
    assert torch.allclose(one, in_other_units.log_probs(rewards * scale, WEIGHTS, log_ref), atol=1e-7)


@settings(max_examples=60)
@given(seed=seeds, target=targets, clusters=st.permutations(range(3)), answers=st.permutations(range(7)))
def test_order_of_clusters_and_answers_does_not_matter(seed, target, clusters, answers):
    rewards, log_ref = problem(seed)
    one = target.log_probs(rewards, WEIGHTS, log_ref)
    other = target.log_probs(rewards[:, answers][..., clusters], WEIGHTS[clusters], log_ref[:, answers])
    assert torch.allclose(one[:, answers], other, atol=1e-9)


@given(seed=seeds, rho=rhos, beta=betas)
def test_one_cluster_is_boltzmann_for_every_rho(seed, rho, beta):
    rewards, log_ref = problem(seed, clusters=1)
    target = PoolTarget(rho=rho, beta=beta).log_probs(rewards, [1.0], log_ref)
    assert torch.allclose(target, (rewards[..., 0] / beta + log_ref).log_softmax(-1), atol=1e-9)


@settings(max_examples=60)
@given(seed=seeds, target=targets)
def test_splitting_a_cluster_into_two_clones_changes_nothing(seed, target):
    rewards, log_ref = problem(seed)
    cloned = torch.cat([rewards, rewards[..., :1]], -1)
    one = target.log_probs(rewards, WEIGHTS, log_ref)
    assert torch.allclose(one, target.log_probs(cloned, [0.2, 0.3, 0.1, 0.4], log_ref), atol=1e-9)


@settings(max_examples=40)
@given(seed=seeds, rho=rhos, beta=betas)
def test_gate_is_the_target_of_the_valid_answers_alone(seed, rho, beta):
    rewards, log_ref = problem(seed)
    valid = torch.tensor([True, False, True, True, False, True, False])
    target = PoolTarget(rho=rho, beta=beta, tie_margin=0.3, uniform_floor=0.5)
    poisoned = torch.where(valid[:, None], rewards, math.nan)  # what is not valid is not read either
    gated = target.log_probs(poisoned, WEIGHTS, log_ref, valid=valid.expand(2, -1))
    assert (gated[:, ~valid] == -math.inf).all()
    alone = target.log_probs(rewards[:, valid], WEIGHTS, log_ref[:, valid])
    assert torch.allclose(gated[:, valid], alone, atol=1e-12)
    log_z = log_partition(poisoned, log_ref, beta, valid.expand(2, -1))
    assert torch.allclose(log_z, log_partition(rewards[:, valid], log_ref[:, valid], beta), atol=1e-12)


def test_gate_keeps_the_shares_among_what_is_valid():
    """The favourite of the majority is shut out: the majority keeps its share, on its second choice."""
    rewards = torch.tensor([[60.0, 0.0], [30.0, 0.0], [0.0, 30.0]], dtype=torch.float64)[None]
    log_ref = torch.full((1, 3), 1 / 3, dtype=torch.float64).log()
    valid = torch.tensor([[False, True, True]])
    gated = PoolTarget().log_probs(rewards, [0.9, 0.1], log_ref, valid=valid).exp()
    assert torch.allclose(gated, torch.tensor([[0.0, 0.9, 0.1]], dtype=torch.float64), atol=1e-9)
    with pytest.raises(ValueError, match=r"valid: none of the 2 answers of prompt 1 of the batch is valid.*a refusal"):
        PoolTarget().log_probs(
            rewards.expand(2, -1, -1),
            [0.9, 0.1],
            log_ref.expand(2, -1),
            torch.tensor([[True] * 3, [True, True, False]]),
            torch.tensor([[True] * 3, [False, False, True]]),
        )


@pytest.mark.parametrize("rho", RHOS)
def test_padding_is_never_read(rho):
    rewards, log_ref = problem(3, answers=5)
    rewards = rewards - 20.0  # so that a padding read as zero would be the best answer
    padded_rewards = torch.cat([rewards, torch.full((2, 3, 3), math.nan, dtype=torch.float64)], 1).requires_grad_()
    padded_ref = torch.cat([log_ref, torch.full((2, 3), math.nan, dtype=torch.float64)], 1)
    mask = torch.tensor([[True] * 5 + [False] * 3] * 2)
    target = PoolTarget(rho=rho, tie_margin=0.5)
    log_p = target.log_probs(padded_rewards, WEIGHTS, padded_ref, mask)
    assert torch.allclose(log_p[:, :5], target.log_probs(rewards, WEIGHTS, log_ref), atol=1e-12)
    assert (log_p[:, 5:] == -math.inf).all()
    (gradient,) = torch.autograd.grad(log_p[:, 0].sum(), padded_rewards)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 5:] == 0).all()
    clean = torch.where(mask.unsqueeze(-1), padded_rewards.detach(), 0.0)
    assert torch.equal(
        log_partition(padded_rewards, padded_ref, 1.0, mask), log_partition(clean, padded_ref, 1.0, mask)
    )


@settings(max_examples=20)
@given(rho=st.floats(-4, 4), beta=st.floats(0.2, 3))
def test_gradient_of_the_pool_is_the_responsibility(rho, beta):
    rewards, log_ref = problem(4)
    log_z = log_partition(rewards, log_ref, beta).unsqueeze(1)
    r = rewards.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pool_reward(r, WEIGHTS, log_z, beta, rho).sum(), r)
    assert torch.allclose(gradient, responsibilities(rewards, WEIGHTS, log_z, beta, rho), atol=1e-9)


def test_responsibilities_at_the_limits():
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    zero = torch.zeros(3)
    assert torch.allclose(responsibilities(x, WEIGHTS, zero, 1.0, 0.0), WEIGHTS.float().expand(2, 3))
    union = responsibilities(x, WEIGHTS, zero, 1.0, math.inf)  # the tie of 1 and 3 is shared .6 : .1
    assert torch.allclose(union, torch.tensor([[6 / 7, 0, 1 / 7], [0, 1, 0]]))
    worst = responsibilities(x, WEIGHTS, zero, 1.0, -math.inf)
    assert torch.allclose(worst, torch.tensor([[0, 1.0, 0], [6 / 7, 0, 1 / 7]]))
    by_hand = 0.6 * math.e / (0.6 * math.e + 0.3 + 0.1 * math.e)
    assert responsibilities(x, WEIGHTS, zero, 1.0)[0, 0].item() == pytest.approx(by_hand)
    silent = responsibilities(torch.tensor([0.0, 0.0, 900.0]), [0.5, 0.5, 0.0], zero, 1.0)
    assert torch.allclose(silent, torch.tensor([0.5, 0.5, 0.0]))


def test_weights_per_prompt_and_leading_axes():
    rewards, log_ref = problem(6)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    both = PoolTarget().log_probs(rewards, weights, log_ref)
    for b in range(2):
        alone = PoolTarget().log_probs(rewards[b : b + 1], weights[b], log_ref[b : b + 1])
        assert torch.allclose(both[b], alone[0], atol=1e-12)
    assert torch.allclose(both[0], (rewards[0, :, 0] + log_ref[0]).log_softmax(-1), atol=1e-12)
    deeper = PoolTarget().log_probs(rewards[None], weights[None], log_ref[None])
    assert torch.allclose(deeper[0], both)
    assert log_partition(rewards, log_ref, 1.0).shape == (2, 3)


@pytest.mark.parametrize("rho", RHOS)
def test_large_log_ratios_stay_finite(rho):
    rewards, log_ref = problem(7)
    r = (8 * rewards.float()).requires_grad_()
    log_p = PoolTarget(rho=rho, beta=0.02).log_probs(r, WEIGHTS, log_ref.float())  # hundreds of nats
    assert torch.isfinite(log_p).all()
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(2), atol=1e-5)
    (gradient,) = torch.autograd.grad((log_p.exp() * log_p).sum(), r)
    assert torch.isfinite(gradient).all()


@settings(max_examples=60)
@given(
    rho=st.sampled_from([-math.inf, -1e6, -37.0, -1e-9, 0.0, 1e-12, 1e-3, 1.0, 250.0, 1e6, math.inf]),
    beta=st.sampled_from([0.02, 1.0]),
    rewards=st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6),
)
def test_extreme_rewards_and_dials_against_arbitrary_precision(rho, beta, rewards):
    log_ref = torch.tensor([0.98, 0.02 - 1e-9, 1e-9], dtype=torch.float64).log()
    r = torch.tensor(rewards, dtype=torch.float64).reshape(1, 3, 2)
    log_p = PoolTarget(rho=rho, beta=beta).log_probs(r, [0.999, 0.001], log_ref[None])[0]
    with mpmath.workdps(60):
        pi_ref = [mpmath.exp(mpmath.mpf(x)) for x in log_ref.tolist()]
        boost = [[mpmath.exp(mpmath.mpf(x) / mpmath.mpf(beta)) for x in row] for row in r[0].tolist()]
        z = [sum(p * row[k] for p, row in zip(pi_ref, boost, strict=True)) for k in range(2)]
        pooled = [
            p * mp_power_mean([row[k] / z[k] for k in range(2)], rho) for p, row in zip(pi_ref, boost, strict=True)
        ]
        expected = [float(mpmath.log(v / sum(pooled))) for v in pooled]
    # float64 resolves a logarithm of 1e6 nats to 1e-10, and -log p itself may be as large.
    assert log_p.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-8)
    single = PoolTarget(rho=rho, beta=beta, tie_margin=0.2, uniform_floor=1.0).log_probs(
        r.float(), [0.999, 0.001], log_ref[None].float()
    )
    assert torch.isfinite(single).all()
    assert single.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def mp_power_mean(values: list, rho: float) -> mpmath.mpf:
    weights = [mpmath.mpf(0.999) / (mpmath.mpf(0.999) + mpmath.mpf(0.001)), None]
    weights[1] = 1 - weights[0]
    if math.isinf(rho):
        return max(values) if rho > 0 else min(values)
    if rho == 0:
        return values[0] ** weights[0] * values[1] ** weights[1]
    power = mpmath.mpf(rho)
    return sum(w * v**power for w, v in zip(weights, values, strict=True)) ** (1 / power)


def test_unusable_settings_are_refused():
    rewards, log_ref = problem(8)
    for beta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"beta: got .*must be positive and finite: 1\.0 keeps"):
            PoolTarget(beta=beta)
    with pytest.raises(ValueError, match=r"beta: got 0"):
        log_partition(rewards, log_ref, 0.0)
    with pytest.raises(ValueError, match=r"beta: got -2"):
        pool_reward(rewards, WEIGHTS, torch.zeros(3), -2.0, 1.0)
    with pytest.raises(ValueError, match=r"rho: got nan"):
        PoolTarget(rho=math.nan)
    with pytest.raises(ValueError, match=r"rho: got nan"):
        responsibilities(rewards, WEIGHTS, torch.zeros(3), 1.0, math.nan)
    with pytest.raises(ValueError, match=r"tie_margin: got -0\.1.*0 \(off\) or more"):
        PoolTarget(tie_margin=-0.1)
    with pytest.raises(ValueError, match=r"reference_power: got -1"):
        PoolTarget(reference_power=-1.0)
    with pytest.raises(ValueError, match=r"tie_margin: got -1"):
        saturate(rewards, -1.0)
    with pytest.raises(ValueError, match=r"smooth: got -1"):
        saturate(rewards, 0.1, smooth=-1.0)
    with pytest.raises(ValueError, match=r"tie_width: got inf; .*finite"):
        PoolTarget(tie_width=math.inf)
    with pytest.raises(ValueError, match=r"uniform_floor: got 1\.5; it goes from 0 .* to 1 \(uniform\)"):
        PoolTarget(uniform_floor=1.5)
    with pytest.raises(ValueError, match=r"typicality_alpha: got nan; .*logits per nat"):
        PoolTarget(typicality_alpha=math.nan)
    with pytest.raises(JuryError, match=r"got 2, but the jury has 3 clusters"):
        PoolTarget().log_probs(rewards, [0.5, 0.5], log_ref)
    with pytest.raises(ValueError, match=r"prompt 1 of the batch has no answer"):
        PoolTarget().log_probs(rewards, WEIGHTS, log_ref, torch.tensor([[True] * 7, [False] * 7]))
    log_ref[1] = -math.inf
    with pytest.raises(ValueError, match=r"every answer of prompt 1 of the batch probability 0.*reference_power=0"):
        PoolTarget().log_probs(rewards, WEIGHTS, log_ref)


@pytest.mark.parametrize("rho", [-math.inf, -1.0, 0.0, 2.0, math.inf])
def test_groups_of_prompts_have_the_responsibilities_of_each_by_itself(rho):
    """(G, B, K) rewards and (G, 1, K) offsets: the clusters are the last dimension, whatever stands before."""
    rewards = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_z = rewards.logsumexp(1, keepdim=True)
    together = responsibilities(rewards, [0.25, 0.75], log_z, 0.5, rho)
    for group in range(3):
        for answer in range(4):
            alone = responsibilities(rewards[group, answer], [0.25, 0.75], log_z[group, 0], 0.5, rho)
            torch.testing.assert_close(together[group, answer], alone)
    torch.testing.assert_close(together.sum(-1), torch.ones(3, 4, dtype=torch.float64))
