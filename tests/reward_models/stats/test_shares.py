"""Shares and their intervals, against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from reward_models.stats.shares import kish_n, share_interval, weighted_shares
from reward_models.stats.verdicts import MIN_RATERS


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 20), (20, 20), (300, 1000)])
def test_wilson_intervals_are_those_of_scipy(successes, n):
    low, high = share_interval(np.array(successes / n), np.array(n))
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_unit_of_weights_does_not_matter_and_unequal_weights_widen_the_interval():
    rng = np.random.default_rng(1)
    values, weights = rng.integers(2, size=(400, 1)), rng.exponential(size=(400, 1))
    weighted = np.concatenate(weighted_shares(values, weights))
    assert np.concatenate(weighted_shares(values, 1000 * weights)) == pytest.approx(weighted)
    equal = np.concatenate(weighted_shares(values, np.ones((400, 1))))
    assert kish_n(weights)[0] < 280
    assert weighted[2] - weighted[1] > 1.15 * (equal[2] - equal[1])


def test_intervals_of_weighted_shares_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values, weights = rng.random((150, 1)) < 0.2, rng.uniform(0.2, 3.0, size=(150, 1))
        _, low, high = weighted_shares(values, weights)
        hits += low[0] <= 0.2 <= high[0]
    assert 0.91 < hits / 400 < 0.985


def test_few_people_have_a_share_but_no_interval():
    share, low, high = weighted_shares(np.ones((11, 1)), np.ones((11, 1)))
    assert share.tolist() == [1.0]
    assert np.isnan([low, high]).all()
    assert np.isnan(weighted_shares(np.ones((3, 1)), np.zeros((3, 1)))[0]).all()


def test_as_many_people_as_an_interval_needs_have_one_and_one_fewer_have_none():
    values = (np.arange(MIN_RATERS)[:, None] % 2).astype(float)
    _, low, high = weighted_shares(values, np.ones_like(values))
    assert 0 < low[0] < 0.5 < high[0] < 1
    _, low, high = weighted_shares(values[1:], np.ones_like(values[1:]))
    assert np.isnan([low[0], high[0]]).all()
