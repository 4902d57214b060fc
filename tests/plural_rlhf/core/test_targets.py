from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities, saturate
from reward_models.errors import JuryError


RHOS = [-math.inf, -3.0, -1e-7, 0.0, 1e-7, 0.5, 1.0, 4.0, math.inf]
WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

# How people answer "pick a number from 0 to 10"; 7 is the favourite.
SEVEN = torch.tensor([0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05], dtype=torch.float64)

rhos = st.sampled_from(RHOS)
betas = st.sampled_from([0.05, 0.5, 1.0, 3.0])
seeds = st.integers(0, 10_000)
targets = st.builds(
    PoolTarget,
    rho=rhos,
    beta=betas,
    tie_margin=st.sampled_from([0.0, 0.5]),
    reference_power=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    tie_width=st.sampled_from([0.0, 0.2]),
    uniform_floor=st.sampled_from([0.0, 0.4, 1.0]),
    typicality_alpha=st.sampled_from([-0.3, 0.0, 0.6]),
)


def problem(seed: int, prompts: int = 2, answers: int = 7, clusters: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = 2 * torch.randn(prompts, answers, clusters, generator=generator, dtype=torch.float64)
    log_pi_ref = torch.randn(prompts, answers, generator=generator, dtype=torch.float64).log_softmax(-1)
    return rewards, log_pi_ref


def running_values(target: PoolTarget, rewards: Tensor, log_ref: Tensor) -> tuple[Tensor, Tensor]:
    """Best and anchor of every prompt and cluster, both `(B, 1, K)`, by loops over the definitions."""
    quality = rewards - target.typicality_alpha * log_ref.unsqueeze(-1)
    best = quality.max(1, keepdim=True).values
    anchor = torch.empty_like(best)
    for b in range(rewards.shape[0]):
        for k in range(rewards.shape[2]):
            ties = [n for n in range(rewards.shape[1]) if quality[b, n, k] >= best[b, 0, k] - target.tie_margin]
            anchor[b, 0, k] = max(log_ref[b, n] for n in ties)
    return best, anchor


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


@settings(max_examples=60)
@given(seed=seeds, target=targets)
def test_shaped_rewards_in_the_plain_pool_are_the_target(seed, target):
    """What a method that sees rewards only has to follow, for every option, behind padding and a gate."""
    rewards, log_ref = problem(seed)
    if target.reference_power > 0:
        log_ref[0, 4] = -math.inf
    mask = torch.tensor([[True] * 6 + [False], [True] * 7])
    valid = torch.tensor([[True] * 7, [True, False] * 3 + [True]])
    shaped = target.shaped(rewards, log_ref, mask=mask & valid)
    plain = PoolTarget(rho=target.rho, beta=target.beta).log_probs(shaped, WEIGHTS, log_ref, mask, valid)
    assert torch.allclose(plain, target.log_probs(rewards, WEIGHTS, log_ref, mask, valid), atol=1e-9)


@settings(max_examples=60)
@given(seed=seeds, target=targets)
def test_shaping_of_a_sample_is_that_of_the_support_given_best_and_anchor(seed, target):
    rewards, log_ref = problem(seed)
    best, anchor = running_values(target, rewards, log_ref)
    whole = target.shaped(rewards, log_ref)
    sample = [1, 3, 3, 6]
    part = target.shaped(rewards[:, sample], log_ref[:, sample], best, anchor=anchor)
    assert torch.allclose(part, whole[:, sample], atol=1e-12)
    # Rows of several prompts one after the other, as a trainer holds them.
    best, anchor = (value.squeeze(1).repeat_interleave(7, 0) for value in (best, anchor))
    flat = target.shaped(rewards.flatten(0, 1), log_ref.flatten(), best, anchor=anchor)
    assert torch.allclose(flat.view_as(whole), whole, atol=1e-12)


@pytest.mark.parametrize("rho", RHOS)
def test_near_ties_keep_the_reference_ratio(rho):
    """D4: within the margin the ratio is exactly pi_ref's, whatever beta."""
    generator = torch.Generator().manual_seed(0)
    rewards = 0.2 * torch.rand(1, 6, 3, generator=generator, dtype=torch.float64)
    rewards[0, 5] = -8.0
    log_ref = torch.randn(1, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    target = PoolTarget(rho=rho, beta=0.02, tie_margin=0.2).log_probs(rewards, WEIGHTS, log_ref)
    assert torch.allclose(target[0, :5] - target[0, 0], log_ref[0, :5] - log_ref[0, 0], atol=1e-9)
    assert target[0, 5] < -100


@pytest.mark.parametrize("beta", [1.0, 0.2, 0.02])
def test_quality_without_paying_in_diversity(beta):
    """Eleven near-ties with a spread of 0.2 logits, and two bad answers to which pi_ref gives 30%."""
    log_ref = torch.cat([0.7 * SEVEN, torch.tensor([0.15, 0.15], dtype=torch.float64)]).log()[None]
    good = 0.2 * torch.linspace(0, 1, 11, dtype=torch.float64).roll(-1)
    rewards = torch.cat([good, torch.tensor([-3.0, -3.0], dtype=torch.float64)])[None, :, None]

    def measure(**options: float) -> tuple[float, Tensor]:
        p = PoolTarget(beta=beta, **options).log_probs(rewards, [1.0], log_ref)[0].exp()
        return float(p[11:].sum()), p[:11] / p[:11].sum()

    bad_weight = 0.3 * math.exp(-3 / beta)
    bad, among_good = measure(tie_margin=0.2)
    assert bad == pytest.approx(bad_weight / (0.7 + bad_weight))
    assert torch.allclose(among_good, SEVEN, atol=1e-9)
    bad, among_good = measure(tie_margin=0.2, uniform_floor=1.0)
    # Every good answer counts like the most typical one, which has 0.7 * 0.19 of pi_ref.
    assert bad == pytest.approx(bad_weight / (11 * 0.7 * 0.19 + bad_weight))
    assert torch.allclose(among_good, torch.full_like(SEVEN, 1 / 11), atol=1e-9)
    between = measure(tie_margin=0.2, uniform_floor=0.25)[1]
    assert torch.allclose(between, SEVEN**0.75 / (SEVEN**0.75).sum(), atol=1e-9)
    plain = measure()[1]  # the plain target pays for quality: at beta .02 half of the samples are one near-tie
    assert torch.allclose(plain, (SEVEN.log() + good / beta).softmax(0), atol=1e-9)
    assert (plain.max() > 0.45) == (beta == 0.02)


def test_flattening_is_of_the_ties_alone_and_does_not_win_by_a_hair():
    """Without its anchor, MARA would pay a single best answer for being improbable, whatever its lead."""
    log_ref = torch.tensor([[0.9, 0.1 - 1e-6, 1e-6]], dtype=torch.float64).log()
    rewards = torch.tensor([0.0, 0.0, 0.001], dtype=torch.float64)[None, :, None]
    flattened = PoolTarget(uniform_floor=1.0).log_probs(rewards, [1.0], log_ref)
    assert torch.allclose(flattened, PoolTarget().log_probs(rewards, [1.0], log_ref), atol=1e-12)
    verifier = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[None, :, None]
    passed = PoolTarget(uniform_floor=1.0, beta=0.1).log_probs(verifier, [1.0], log_ref)[0].exp()
    assert passed[0].item() == pytest.approx(passed[2].item())
    assert passed[1].item() == pytest.approx((0.1 - 1e-6) / (1.8 * math.exp(10) + 0.1 - 1e-6))


def test_shares_stay_where_every_option_is_on():
    """D2: options act inside what one cluster wants, so disjoint favourites still get w_k."""
    generator = torch.Generator().manual_seed(0)
    favourites = 0.2 * torch.rand(1, 12, 3, generator=generator, dtype=torch.float64)
    rewards = favourites - 40.0 * (1 - torch.eye(3, dtype=torch.float64).repeat_interleave(4, 0))
    log_ref = torch.randn(1, 12, generator=generator, dtype=torch.float64).log_softmax(-1)
    target = PoolTarget(
        beta=0.5, tie_margin=0.2, reference_power=0.5, tie_width=0.05, uniform_floor=0.5, typicality_alpha=0.3
    )
    shares = target.log_probs(rewards, WEIGHTS, log_ref).exp().reshape(3, 4).sum(1)
    assert torch.allclose(shares, WEIGHTS, atol=1e-9)


@settings(max_examples=40)
@given(seed=seeds, rho=rhos, beta=betas)
def test_rounding_the_edge_of_the_ties_goes_over_into_the_hard_one(seed, rho, beta):
    rewards, log_ref = problem(seed)
    hard = PoolTarget(rho=rho, beta=beta, tie_margin=0.5, uniform_floor=0.6)
    expected = hard.log_probs(rewards, WEIGHTS, log_ref)
    smooth = replace(hard, tie_width=1e-7).log_probs(rewards, WEIGHTS, log_ref)
    assert torch.allclose(expected, smooth, atol=1e-3)
    rounded = replace(hard, tie_width=0.3, uniform_floor=0.0)
    by_hand = saturate(rewards, 0.5, smooth=0.3)
    assert torch.allclose(
        rounded.log_probs(rewards, WEIGHTS, log_ref),
        PoolTarget(rho=rho, beta=beta).log_probs(by_hand, WEIGHTS, log_ref),
        atol=1e-9,
    )


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


def test_typicality_is_taken_out_before_anything_else():
    """Planted in the reward, it disappears from every target, also where it would have changed who ties."""
    rewards, log_ref = problem(9)
    target = PoolTarget(beta=0.3, tie_margin=0.4, uniform_floor=0.5, reference_power=0.7)
    biased = rewards + 0.57 * log_ref.unsqueeze(-1)
    true = target.log_probs(rewards, WEIGHTS, log_ref)
    assert torch.allclose(replace(target, typicality_alpha=0.57).log_probs(biased, WEIGHTS, log_ref), true, atol=1e-12)
    assert (target.log_probs(biased, WEIGHTS, log_ref) - true).abs().max() > 0.1
    sharpened = PoolTarget(beta=0.05).log_probs(biased[..., :1], [1.0], log_ref)
    by_hand = (rewards[..., 0] / 0.05 + (1 + 0.57 / 0.05) * log_ref).log_softmax(-1)  # pi_ref to the power of 12.4
    assert torch.allclose(sharpened, by_hand, atol=1e-9)


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


def test_saturation_hard_and_smooth():
    rewards = torch.tensor([1.0, 0.9, 0.5, -3.0]).unsqueeze(-1)
    assert saturate(rewards, 0.2).squeeze().tolist() == pytest.approx([0.8, 0.8, 0.5, -3.0])
    assert torch.equal(saturate(rewards, 0.0), rewards)
    ceiling, s = 0.8, 0.1
    by_hand = [ceiling - s * math.log1p(math.exp((ceiling - r) / s)) for r in (1.0, 0.9, 0.5, -3.0)]
    assert saturate(rewards, 0.2, smooth=0.1).squeeze().tolist() == pytest.approx(by_hand, abs=1e-6)
    assert torch.allclose(saturate(rewards, 0.2, smooth=1e-6), saturate(rewards, 0.2), atol=1e-5)
    per_cluster = torch.tensor([[1.0, -5.0], [0.0, -5.1]])
    assert torch.allclose(saturate(per_cluster, 0.5), torch.tensor([[0.5, -5.5], [0.0, -5.5]]))
    assert saturate(rewards, 0.2, best=torch.tensor([2.0])).squeeze().tolist() == pytest.approx([1.0, 0.9, 0.5, -3.0])
    assert saturate(rewards.T, 0.2, dim=-1).squeeze().tolist() == pytest.approx([0.8, 0.8, 0.5, -3.0])
    wide = torch.tensor([[0.0], [-1e4]], requires_grad=True)
    saturate(wide, 0.2, smooth=0.01).sum().backward()
    assert torch.isfinite(wide.grad).all()


def test_reference_power():
    rewards, log_ref = problem(5)
    dropped = PoolTarget(reference_power=0.0).log_probs(rewards, WEIGHTS, log_ref).exp()
    assert torch.allclose(dropped, rewards.softmax(1) @ WEIGHTS, atol=1e-12)
    for power in (0.0, 0.5, 2.0):
        alone = PoolTarget(reference_power=power, beta=0.3).log_probs(rewards[..., :1], [1.0], log_ref)
        assert torch.allclose(alone, (rewards[..., 0] / 0.3 + power * log_ref).log_softmax(-1), atol=1e-12)
        for floor in (0.4, 1.0):  # of ties the ratio is pi_ref^(power (1 - floor)), uniform at 1 whatever the power
            everyone = PoolTarget(reference_power=power, uniform_floor=floor, tie_margin=99.0)
            flattened = everyone.log_probs(rewards, WEIGHTS, log_ref)
            assert torch.allclose(flattened, (power * (1 - floor) * log_ref).log_softmax(-1), atol=1e-12)
    log_ref[0, 2] = -math.inf  # unreachable under the reference, reachable without it
    assert PoolTarget().log_probs(rewards, WEIGHTS, log_ref)[0, 2] == -math.inf
    assert torch.allclose(PoolTarget(reference_power=0.0).log_probs(rewards, WEIGHTS, log_ref).exp(), dropped)
    unnormalised = PoolTarget().log_probs(rewards, WEIGHTS, log_ref - 3.0)
    assert torch.allclose(unnormalised, PoolTarget().log_probs(rewards, WEIGHTS, log_ref), atol=1e-12)


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


def test_a_sample_without_ties_or_without_a_known_best():
    rewards, log_ref = problem(10)
    target = PoolTarget(tie_margin=0.5, uniform_floor=1.0)
    far = rewards.amax(1, keepdim=True) + 9.0
    assert torch.equal(target.shaped(rewards, log_ref, far), rewards)  # nothing ties, nothing is shaped
    assert torch.isfinite(replace(target, tie_width=0.2).shaped(rewards, log_ref, far)).all()
    unknown = torch.full((2, 1, 3), -math.inf)
    assert torch.equal(target.shaped(rewards, log_ref, unknown), target.shaped(rewards, log_ref))


def test_what_reads_the_reference_says_so():
    rewards, log_ref = problem(11)
    assert torch.equal(
        PoolTarget(tie_margin=0.3).shaped(rewards, None), PoolTarget(tie_margin=0.3).shaped(rewards, log_ref)
    )
    for option in ({"reference_power": 0.5}, {"uniform_floor": 0.1}, {"typicality_alpha": 0.2}):
        with pytest.raises(ValueError, match=r"log_pi_ref: got None, but .*give the reference's log-probabilities"):
            PoolTarget(**option).shaped(rewards, None)
    with pytest.raises(
        ValueError, match=r"best: got one per answer.*uniform_floor=0\.5.*\(\.\.\., 1, K\), or give anchor"
    ):
        PoolTarget(uniform_floor=0.5).shaped(rewards, log_ref, best=rewards)
    dropped = PoolTarget(reference_power=0.0, uniform_floor=0.5, tie_margin=0.3)
    assert not dropped.reads_reference
    elsewhere = dropped.log_probs(rewards, WEIGHTS, torch.full_like(log_ref, math.nan))
    assert torch.equal(dropped.log_probs(rewards, WEIGHTS, log_ref), elsewhere)
    assert PoolTarget(reference_power=0.0, typicality_alpha=0.5).reads_reference
    log_ref[1, 3] = -math.inf
    with pytest.raises(ValueError, match=r"log_pi_ref: an answer of prompt 1 .*typicality_alpha at 0 \(got 0\.5\)"):
        PoolTarget(reference_power=0.0, typicality_alpha=0.5).log_probs(rewards, WEIGHTS, log_ref)


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
