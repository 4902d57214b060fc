"""Intervals of means over few units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew, t

from reward_models.stats.few_units import (
    crossed_interval,
    mean_interval,
    means_interval,
    skewed_t_interval,
    units_moments,
)


def test_moments_are_those_of_the_mean():
    values = np.random.default_rng(0).exponential(size=9)
    variance, skewness = units_moments(values)
    assert variance == pytest.approx(values.var(ddof=1) / 9)
    assert skewness == pytest.approx(skew(values, bias=False) / 3)


@pytest.mark.parametrize("skewness", [-0.3, -0.1, 0.1, 0.3])
def test_the_transformed_error_of_both_ends_is_the_quantile(skewness):
    value, variance, freedom = 2.0, 0.25, 12
    ends = np.array(skewed_t_interval(value, variance, freedom, skewness))
    error = (value - ends) / 0.5
    transformed = error + skewness * error**2 / 3 + skewness**2 * error**3 / 27 + skewness / 6
    assert transformed == pytest.approx([t.ppf(0.975, freedom), -t.ppf(0.975, freedom)])


def test_an_extreme_skewness_has_a_bounded_interval():
    low, high = skewed_t_interval(0.0, 1.0, 3, skewness=1.0)
    assert -3 < low < 0 < high == pytest.approx(3)


def test_mean_of_few_skewed_units_is_covered_where_percentiles_miss():
    rng = np.random.default_rng(0)
    hits, naive = 0, 0
    for _ in range(1000):
        values = rng.exponential(size=6)
        low, high = mean_interval(values)
        hits += low <= 1 <= high
        drawn = values[rng.integers(6, size=(200, 6))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        naive += low <= 1 <= high
    assert 0.92 < hits / 1000 < 0.97
    assert naive / 1000 < 0.85


def test_equal_units_are_read_as_a_share_and_others_are_not():
    assert mean_interval(np.ones(5))[0] == pytest.approx(0.566, abs=1e-3)
    low, high = mean_interval(np.full(5, 0.5))
    assert 0.1 < low < 0.2 < 0.8 < high < 0.9
    assert mean_interval(np.full(5, 3.0)) == (3.0, 3.0)  # outside of 0 to 1 there is no share
    assert np.isnan(mean_interval(np.array([0.5]))[0])


def test_a_ratio_over_groups_is_covered_and_varies_as_its_bootstrap():
    """Rows of a group share its luck: intervals over rows miss."""
    rng = np.random.default_rng(0)
    hits, rows, n = 0, 0, 400
    for _ in range(n):
        sizes = rng.integers(1, 30, size=25)
        right = rng.binomial(sizes, rng.beta(2, 1, size=25))
        value, low, high = means_interval(np.column_stack([right, sizes]), lambda m: m[..., 0] / m[..., 1])
        assert value == pytest.approx(right.sum() / sizes.sum())
        hits += low <= 2 / 3 <= high
        rows += abs(value - 2 / 3) <= 1.96 * np.sqrt(value * (1 - value) / sizes.sum())
    assert 0.92 < hits / n < 0.98
    assert rows / n < 0.75
    times = rng.multinomial(25, np.full(25, 1 / 25), size=4000)
    assert (high - low) / 2 / t.ppf(0.975, 23) == pytest.approx((times @ right / (times @ sizes)).std(), rel=0.15)


@pytest.mark.parametrize(
    ("interval", "wider"),
    [
        (mean_interval, 1.0),
        (crossed_interval, np.sqrt(3)),  # each was predicted from the other one
        (lambda values: means_interval(values[:, None], lambda means: means[..., 0])[1:], 1.0),
    ],
)
def test_two_units_have_the_interval_of_one_degree_of_freedom_and_one_unit_has_none(interval, wider):
    """1 and 4: the mean is 2.5, its standard error 1.5."""
    assert np.isnan(interval(np.array([0.3]))).all()
    assert interval(np.array([1.0, 4.0])) == pytest.approx(2.5 + np.array([-1, 1]) * wider * 1.5 * t.ppf(0.975, 1))
