"""Distances from people's texts: zero on average for one distribution, a second method, and sizes of one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plural_rlhf.evaluation import (
    classes_covered,
    classifier_two_sample,
    covering,
    median_distance,
    mmd_squared,
)


def test_mmd_agrees_with_sums_over_pairs():
    rng = np.random.default_rng(0)
    x, y, s = rng.normal(size=(5, 3)), rng.normal(size=(7, 3)) + 1, 1.3

    def k(a, b):
        return math.exp(-((a - b) ** 2).sum() / (2 * s**2))

    xx = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    yy = sum(k(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    xy = sum(k(a, b) for a in x for b in y) / 35
    assert mmd_squared(x, y, s) == pytest.approx(xx + yy - 2 * xy)
    assert mmd_squared(x[::-1], y[rng.permutation(7)], s) == pytest.approx(mmd_squared(x, y, s))


def test_mmd_is_zero_on_average_where_the_samples_are_of_one_distribution():
    rng = np.random.default_rng(1)
    values = [mmd_squared(rng.normal(size=(8, 2)), rng.normal(size=(20, 2)), 1.5) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0 < max(values)
    shifted = [mmd_squared(rng.normal(size=(8, 2)) + 1, rng.normal(size=(20, 2)), 1.5) for _ in range(50)]
    assert np.mean(shifted) > 0.1


def test_median_distance_of_points_at_one_place_is_a_width():
    assert median_distance(np.zeros((4, 2))) == 1.0
    assert median_distance(np.array([[0.0, 0.0], [3.0, 4.0]])) == 5.0


def test_a_classifier_cannot_tell_one_distribution_from_itself():
    rng = np.random.default_rng(2)
    same = [classifier_two_sample(rng.normal(size=(40, 8)), rng.normal(size=(200, 8))) for _ in range(20)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.04)
    assert classifier_two_sample(rng.normal(size=(40, 8)) + 1.5, rng.normal(size=(200, 8))) > 0.9


@pytest.mark.parametrize("n", [0, 1])
def test_one_text_has_no_distance(n):
    few, many = np.zeros((n, 2)), np.ones((30, 2))
    assert math.isnan(mmd_squared(few, many, 1.0))
    assert math.isnan(mmd_squared(many, few, 1.0))
    assert math.isnan(classifier_two_sample(few, many))


def test_classes_covered_agrees_with_all_choices_of_k():
    rng = np.random.default_rng(3)
    covers, shares = rng.random((7, 4)) < 0.3, np.array([0.4, 0.3, 0.2, 0.1])
    for k in range(1, 8):
        chosen = [covers[list(c)].any(axis=0) @ shares for c in itertools.combinations(range(7), k)]
        assert classes_covered(covers, shares, k) == pytest.approx(np.mean(chosen))
    assert math.isnan(classes_covered(covers, shares, 8))


def test_a_text_covers_a_class_that_it_would_join():
    people = ["More parks.", "more parks now", "Lower taxes!", "lower the taxes"]
    covers, shares = covering(["MORE PARKS", "lower taxes", "nobody asked"], people)
    assert shares.tolist() == [0.5, 0.5]
    assert covers.tolist() == [[True, False], [False, True], [False, False]]
    one, everybody = covering(["parks"], ["parks"])
    assert one.tolist() == [[True]]
    assert everybody.tolist() == [1.0]
