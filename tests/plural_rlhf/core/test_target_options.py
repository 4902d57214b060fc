"""The options of `PoolTarget`: ties, flattening, typicality and the power of the reference, as shapings of rewards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from plural_rlhf.core.targets import PoolTarget, saturate
from tests.pools import RHOS, WEIGHTS, betas, problem, rhos, seeds, targets


# How people answer "pick a number from 0 to 10"; 7 is the favourite.
SEVEN = torch.tensor([0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05], dtype=torch.float64)


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
def test_shaped_rewards_are_zero_at_padding_whatever_lies_there(seed, target):
    rewards, log_ref = problem(seed)
    mask = torch.tensor([[True] * 5 + [False, False], [True] * 7])
    rewards[0, 5], rewards[0, 6] = math.nan, 1e30
    shaped = target.shaped(rewards, log_ref, mask=mask)
    assert (shaped[~mask] == 0).all()
    assert torch.allclose(shaped[0, :5], target.shaped(rewards[:1, :5], log_ref[:1, :5])[0], atol=1e-9)


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
