"""Steering towards attributes: gains, leaks and matching of matrices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.steerable.attributes import attribute_steering, percentile_ranks


def test_gains_leaks_and_the_worst_attribute():
    scores = np.array([[0.9, 0.4, 0.5], [0.5, 0.8, 0.5], [0.6, 0.6, 0.4]])
    result = attribute_steering(scores, [0.5, 0.5, 0.5], ["a", "b", "c"])
    assert result.gains == pytest.approx([0.4, 0.3, -0.1])
    assert (result.worst, result.worst_gain) == ("c", pytest.approx(-0.1))
    assert result.leaks[2, 0] == pytest.approx(0.1)
    assert result.leak == pytest.approx((-0.1 + 0 + 0 + 0 + 0.1 + 0.1) / 6)
    assert (result.sensitivity, result.specificity) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert np.isnan(np.diag(result.leaks)).all()


def test_a_model_that_is_only_good_at_everything_is_not_steerable():
    good = np.array([[0.9, 0.9], [0.9, 0.9]])
    result = attribute_steering(good, [0.9, 0.9])
    assert (result.gain.value, result.steerability) == (0.0, 0.5)


def test_random_scores_have_chance_steerability():
    rng = np.random.default_rng(0)
    results = [attribute_steering(rng.random((8, 8)), rng.random(8)) for _ in range(300)]
    assert np.mean([result.sensitivity for result in results]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([result.specificity for result in results]) == pytest.approx(0.5, abs=0.02)


def test_gains_have_intervals_over_items_where_items_are_given():
    rng = np.random.default_rng(0)
    items = rng.random((3, 3, 60)) < np.array([[0.8, 0.5, 0.5], [0.5, 0.8, 0.5], [0.5, 0.5, 0.5]])[..., None]
    base = rng.random((3, 60)) < 0.5
    result = attribute_steering(items, base)
    assert result.intervals[0].low > 0
    assert result.intervals[2].low < 0 < result.intervals[2].high
    assert result.gains == pytest.approx(items.mean(-1).diagonal() - base.mean(-1))
    assert np.isnan(attribute_steering(items.mean(-1), base.mean(-1)).intervals[0].low)


def test_ranks_in_column_and_row():
    scores = np.array([[3.0, 1.0, 1.0], [1.0, 2.0, 9.0], [2.0, 5.0, 4.0]])
    assert percentile_ranks(scores).tolist() == [1.0, 0.5, 0.5]
    assert percentile_ranks(scores.T).tolist() == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("shape", [((2, 3), (3,)), ((1, 1), (1,)), ((2, 2), (3,)), ((2, 2, 4), (2,))])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="scores have shape"):
        attribute_steering(np.zeros(shape[0]), np.zeros(shape[1]))
    with pytest.raises(ValueError, match="1 names for 2 attributes"):
        attribute_steering(np.zeros((2, 2)), np.zeros(2), ["a"])
