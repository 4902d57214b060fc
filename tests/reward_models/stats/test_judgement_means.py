"""Intervals of means over judgements, where judgements by one rater and of one item stand or fall together."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from reward_models.stats.design import SamplingDesign
from reward_models.stats.judgement_means import two_way_intervals
from tests.benchmark_modules import benchmark_module


benchmark = benchmark_module("interval_coverage")


def judged(raters=40, items=15, seed=0):
    """Gains of judgements, a fifth of the cells; returned with rater and item."""
    return benchmark.gains_panel("strong", raters, items, np.random.default_rng(seed))


def ends(interval):
    return interval.value, interval.low, interval.high


@pytest.mark.parametrize("items", [True, False])
def test_the_variance_is_that_of_two_way_clustered_regression(items):
    """The package statsmodels knows it for a regression on a constant."""
    rng = np.random.default_rng(0)
    rater, item = np.nonzero(rng.random((400, 300)) < 0.2)
    gains = rng.normal(0, 0.3, 400)[rater] + rng.normal(0, 0.3, 300)[item] + rng.normal(0, 0.5, len(rater))
    [interval] = two_way_intervals(gains[:, None], rater, item, items=items)
    groups = np.column_stack([rater, item]) if items else rater
    fit = sm.OLS(gains, np.ones(len(gains))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert interval.value == pytest.approx(fit.params[0])
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * fit.bse[0], rel=0.02)


@pytest.mark.parametrize("effects", ["usual", "strong"])
@pytest.mark.parametrize(("raters", "items"), [(12, 25), (30, 5), (100, 8), (100, 100)])
def test_intervals_of_sparse_skewed_gains_cover(effects, raters, items):
    """Of 400 panels a .95 interval misses 11 to 30; where an exponential effect has five values, up to 40."""
    rng = np.random.default_rng(raters + items)
    panels = [benchmark.gains_panel(effects, raters, items, rng) for _ in range(400)]
    intervals = [two_way_intervals(gains[:, None], rater, item)[0] for gains, rater, item in panels]
    covered = np.mean([of.low <= 0 <= of.high for of in intervals])
    assert 0.9 <= covered <= 0.99
    if items == 5:
        alone = [two_way_intervals(gains[:, None], rater, item, items=False)[0] for gains, rater, item in panels]
        assert np.mean([of.low <= 0 <= of.high for of in alone]) < covered - 0.03


def test_the_interval_over_both_holds_that_over_raters():
    for seed in range(20):
        gains, rater, item = judged(raters=12, items=6, seed=seed)
        [both], [raters] = (two_way_intervals(gains[:, None], rater, item, items=items) for items in (True, False))
        assert both.high - both.low >= 0.9 * (raters.high - raters.low)


def test_a_judgement_that_counts_twice_is_that_judgement_twice():
    gains, rater, item = judged()
    count = np.random.default_rng(1).integers(1, 4, len(gains))
    [weighted] = two_way_intervals(gains[:, None], rater, item, count=count)
    [repeated] = two_way_intervals(*(np.repeat(values, count, axis=0) for values in (gains[:, None], rater, item)))
    assert ends(weighted) == pytest.approx(ends(repeated))


def test_raters_of_one_unit_vary_together_and_within_their_stratum():
    rng = np.random.default_rng(2)
    rater, item = np.divmod(np.arange(40 * 10), 10)
    of_unit, of_stratum = rng.normal(size=20), np.array([-3.0, 3.0])
    gains = (of_unit[rater // 2] + of_stratum[rater // 20] + rng.normal(0, 0.1, len(rater)))[:, None]

    def width(**design):
        [interval] = two_way_intervals(gains, rater, item, items=False, design=SamplingDesign(np.ones(40), **design))
        return interval.high - interval.low

    unit, stratum = np.arange(40) // 2, np.arange(40) // 20
    assert width(psu=unit) > 1.3 * width()  # 20 units, not 40 raters
    assert width(psu=unit, stratum=stratum) < 0.5 * width(psu=unit)  # what differs between strata does not vary


def test_units_of_two_strata_differ_also_under_one_number():
    design = SamplingDesign(np.ones(4), stratum=np.array([0, 0, 1, 1]), psu=np.zeros(4, dtype=int))
    unit, stratum = design.units()
    assert unit.tolist() == [0, 0, 1, 1]
    assert stratum.tolist() == [0, 1]


def test_nothing_varies_and_nothing_counts():
    rater, item = np.divmod(np.arange(100), 5)
    [same] = two_way_intervals(np.full((100, 1), 0.3), rater, item)
    assert same.low == pytest.approx(0.3)
    assert same.high == pytest.approx(0.3)
    [none] = two_way_intervals(np.full((100, 1), 0.3), rater, item, count=np.zeros(100))
    assert np.isnan([none.value, none.low, none.high]).all()


def test_columns_do_not_know_of_each_other():
    gains, rater, item = judged()
    [alone] = two_way_intervals(gains[:, None], rater, item)
    [_, beside] = two_way_intervals(np.column_stack([gains**2, gains]), rater, item)
    assert ends(beside) == pytest.approx(ends(alone))
