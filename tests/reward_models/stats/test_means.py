"""Means over units with Student's interval, and spreads of effects that are chosen by a held-out loss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from reward_models.stats.means import UnitMean
from reward_models.stats.spreads import choose_spreads
from reward_models.stats.verdicts import MIN_ITEMS


def test_the_interval_is_students_and_missing_units_do_not_count():
    values = np.random.default_rng(0).normal(0.3, 1, size=12)
    mean = UnitMean.of([*values, np.nan], level=0.9)
    expected = t.interval(0.9, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (mean.value, mean.n) == (pytest.approx(values.mean()), 12)
    assert (mean.low, mean.high) == pytest.approx(expected)
    row = mean.row("case", "jury", "accuracy", "share", "higher", "prompts")
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (mean.value, mean.low, mean.high, 12)
    assert (row["case"], row["method"], row["metric"]) == ("case", "jury", "accuracy")
    assert (row["unit"], row["direction"], row["counted"]) == ("share", "higher", "prompts")


def test_too_few_units_have_a_mean_and_no_interval():
    enough = UnitMean.of(np.arange(MIN_ITEMS))
    assert np.isfinite([enough.low, enough.high, enough.detectable]).all()
    few = UnitMean.of(np.arange(MIN_ITEMS - 1))
    assert few.value == (MIN_ITEMS - 2) / 2
    assert np.isnan([few.low, few.high, few.detectable]).all()
    assert few.outcome == "undecided"
    assert np.isnan(UnitMean.of([]).value)


def test_verdicts_need_the_whole_interval_on_one_side():
    values = np.array([-0.1, 0.1] * 4)
    assert [UnitMean.of(values + shift).outcome for shift in (1, -1, 0)] == ["better", "worse", "undecided"]


def test_effects_that_help_are_added_with_their_best_spread_and_others_are_left_out():
    asked = []

    def losses(spreads):
        asked.append(tuple(spreads))
        first, second, third = spreads
        return np.full(40, 5 * (first - 0.2) ** 2 + (second - 0.4) ** 2 + 0.1 * third)

    grid = (0.1, 0.2, 0.4, 0.8)
    assert choose_spreads(losses, 3, grid).tolist() == [0.2, 0.4, 0.0]
    assert len(asked) == len(set(asked))  # nothing is fitted twice
    assert not any(first == 0.8 for first, _, _ in asked)  # the loss rose at .4 already


@pytest.mark.parametrize(("size", "added"), [(1.2, True), (0.8, False)])
def test_a_gain_must_exceed_one_standard_error(size, added):
    noise = np.tile([-1.0, 1.0], 50)  # its standard error is .1
    spreads = choose_spreads(lambda s: np.where(s[0] > 0, noise - 0.1 * size, 0.0), 1, (0.5,))
    assert (spreads[0] > 0) == added
