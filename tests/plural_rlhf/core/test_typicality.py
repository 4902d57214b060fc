from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.core.typicality import debias, fit_typicality, matched_pairs


ALPHA = 0.57


def responses(seed: int, prompts: int = 60, per_prompt: int = 6, alpha: float = ALPHA, noise: float = 0.5):
    """Rewards `2 quality + alpha log pi_ref + c(prompt) + noise`, where good text also tends to be typical."""
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 3, (prompts, per_prompt)).astype(float)
    log_ref = -30 + 2 * quality + 4 * rng.standard_normal((prompts, per_prompt))
    rewards = 2 * quality + alpha * log_ref + 5 * rng.standard_normal((prompts, 1))
    rewards += noise * rng.standard_normal((prompts, per_prompt)) * np.abs(log_ref + 30)  # unequal
    group = np.repeat(np.arange(prompts), per_prompt)
    return rewards.ravel(), log_ref.ravel(), quality.ravel(), group


def test_slope_error_and_interval_by_hand():
    """alpha = (1*2 + 2*1) / (1 + 4) = .8; residuals 1.2 and -.6; scores 1.2 and -1.2."""
    fit = fit_typicality([2.0, 1.0], [1.0, 2.0], num_bootstrap=0)
    assert fit.alpha == pytest.approx(0.8)
    assert fit.standard_error == pytest.approx(np.sqrt((1.2**2 + 1.2**2) * 2 / 1) / 5)
    assert fit.ci_low == pytest.approx(0.8 - 1.959964 * fit.standard_error)
    assert fit.ci_high == pytest.approx(0.8 + 1.959964 * fit.standard_error)
    drawn = fit_typicality([2.0, 1.0], [1.0, 2.0])  # a bootstrap of two draws one twice: slopes 2, .8 or .5
    assert (drawn.ci_low, drawn.ci_high) == (0.5, 2.0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), alpha=st.floats(-1, 1))
def test_planted_alpha_is_found_exactly_where_nothing_else_differs(seed, alpha):
    rewards, log_ref, quality, group = responses(seed, prompts=8, alpha=alpha, noise=0.0)
    pairs = matched_pairs(rewards, log_ref, quality, group)
    fit = fit_typicality(pairs.reward_difference, pairs.log_prob_difference, groups=pairs.group, num_bootstrap=50)
    for value in (fit.alpha, fit.ci_low, fit.ci_high):
        assert value == pytest.approx(alpha, abs=1e-9)


def test_interval_covers_the_planted_alpha_and_matching_is_needed_for_it():
    covered = covered_normal = covered_pairwise = covered_unmatched = 0
    runs = 150
    for seed in range(runs):
        rewards, log_ref, quality, group = responses(seed)
        pairs = matched_pairs(rewards, log_ref, quality, group)
        differences = pairs.reward_difference, pairs.log_prob_difference
        fit = fit_typicality(*differences, groups=pairs.group, num_bootstrap=200)
        normal = fit_typicality(*differences, groups=pairs.group, num_bootstrap=0)
        pairwise = fit_typicality(*differences, num_bootstrap=0)
        everyone = matched_pairs(rewards, log_ref, quality, group, tolerance=2.0)
        unmatched = fit_typicality(*everyone[:2], groups=everyone.group, num_bootstrap=0)
        covered += fit.ci_low < ALPHA < fit.ci_high
        covered_normal += normal.ci_low < ALPHA < normal.ci_high
        covered_pairwise += pairwise.ci_low < ALPHA < pairwise.ci_high
        covered_unmatched += unmatched.ci_low < ALPHA < unmatched.ci_high
    assert covered / runs > 0.88
    assert covered_normal / runs > 0.88
    assert covered_pairwise < covered_normal  # pairs of one prompt are not independent
    assert covered_unmatched / runs < 0.5  # what is quality would count as typicality


def test_fit_does_not_depend_on_direction_scale_or_empty_pairs():
    rewards, log_ref, quality, group = responses(0)
    pairs = matched_pairs(rewards, log_ref, quality, group)
    y, x, g = pairs
    fit = fit_typicality(y, x, groups=g)
    flip = np.random.default_rng(1).choice([-1.0, 1.0], len(x))
    turned = fit_typicality(flip * y, flip * x, groups=g)
    assert (turned.alpha, turned.standard_error) == pytest.approx((fit.alpha, fit.standard_error))
    doubled = fit_typicality(2 * y, x, groups=g)
    assert (doubled.alpha, doubled.ci_low) == pytest.approx((2 * fit.alpha, 2 * fit.ci_low))
    padded = fit_typicality(np.append(y, [9.0, 9.0]), np.append(x, [0.0, 1.0]), np.append(np.ones(len(x)), [1, 0]))
    assert padded == fit_typicality(y, x)
    twice = fit_typicality(y, x, np.where(g < 5, 2.0, 1.0), groups=g, num_bootstrap=0)
    repeated = [np.concatenate([column, column[g < 5]]) for column in pairs]
    assert twice.alpha == pytest.approx(fit_typicality(*repeated[:2], num_bootstrap=0).alpha)


def test_pairs_by_loops():
    rewards, log_ref, quality, _ = responses(3, prompts=5, per_prompt=4)
    names = np.array(["b", "a", "d", "c", "e"])[np.random.default_rng(0).integers(0, 5, len(rewards))]
    pairs = matched_pairs(torch.tensor(rewards), log_ref, quality, names, tolerance=1.0)
    expected = set()
    for i in range(len(rewards)):
        for j in range(i + 1, len(rewards)):
            if names[i] == names[j] and abs(quality[i] - quality[j]) <= 1.0:
                expected.add((rewards[i] - rewards[j], log_ref[i] - log_ref[j], "abcde".index(names[i])))
    assert len(pairs.group) == len(expected)
    assert set(zip(*(column.tolist() for column in pairs), strict=True)) == expected


def test_fitted_debias_brings_back_the_target_of_the_true_reward():
    """From scored responses to the policy's target: the planted preference is gone up to the error of the fit."""
    rewards, log_ref, quality, group = responses(7, prompts=400)
    pairs = matched_pairs(rewards, log_ref, quality, group)
    fit = fit_typicality(pairs.reward_difference, pairs.log_prob_difference, groups=pairs.group)
    assert fit.ci_low < ALPHA < fit.ci_high
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(1, 8, 2, generator=generator, dtype=torch.float64)
    log_pi_ref = (3 * torch.randn(1, 8, generator=generator, dtype=torch.float64)).log_softmax(-1)
    biased = true + ALPHA * log_pi_ref.unsqueeze(-1)
    assert torch.allclose(debias(biased, log_pi_ref, ALPHA), true, atol=1e-12)

    def distance(typicality_alpha: float) -> float:
        target = PoolTarget(beta=0.5, typicality_alpha=typicality_alpha)
        wanted = PoolTarget(beta=0.5).log_probs(true, [0.7, 0.3], log_pi_ref).exp()
        return float((target.log_probs(biased, [0.7, 0.3], log_pi_ref).exp() - wanted).abs().sum() / 2)

    assert distance(ALPHA) < 1e-12
    assert distance(fit.alpha) < 0.1 * distance(0.0)


def test_unusable_columns_are_refused():
    with pytest.raises(
        ValueError, match=r"log_prob_difference: got shape \(3,\) beside reward_difference of shape \(2,\)"
    ):
        fit_typicality([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"reward_difference: row 1 is nan, .*leave the row out"):
        fit_typicality([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"weights: row 0 has -1; a weight is 0 \(left out\) or more"):
        fit_typicality([1.0, 1.0], [1.0, 2.0], [-1.0, 1.0])
    with pytest.raises(ValueError, match=r"confidence: got 95; .*between 0 and 1"):
        fit_typicality([1.0, 1.0], [1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match=r"1 of the groups have pairs .* needs 2: bring more prompts"):
        fit_typicality([1.0, 1.0], [1.0, 2.0], groups=["a", "a"])
    with pytest.raises(ValueError, match=r"0 of the groups"):
        fit_typicality([1.0, 1.0], [0.0, 0.0])
    with pytest.raises(ValueError, match=r"group: got shape \(1,\) for 2 rows"):
        matched_pairs([1.0, 2.0], [-1.0, -2.0], [0, 0], [1])
    with pytest.raises(ValueError, match=r"tolerance: got -1; .*0 \(equal\) or more"):
        matched_pairs([1.0, 2.0], [-1.0, -2.0], [0, 0], [1, 1], tolerance=-1)
    with pytest.raises(ValueError, match=r"none of the 2 responses has another one .* at most 0\.5: raise tolerance"):
        matched_pairs([1.0, 2.0], [-1.0, -2.0], [0, 1], [1, 1], tolerance=0.5)
