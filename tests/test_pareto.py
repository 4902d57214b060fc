"""Trade-offs: hypervolumes worked out by hand, and by counting random points."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.pareto import hypervolume, pareto_front


GOLDEN = np.array([[0.2, 0.9], [0.5, 0.7], [0.8, 0.3], [0.4, 0.4]])


def test_the_golden_example():
    assert hypervolume(GOLDEN, [0.0, 0.0]) == pytest.approx(0.48)
    assert pareto_front(GOLDEN).tolist() == [True, True, True, False]


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_as_many_random_points_are_dominated(dimensions):
    rng = np.random.default_rng(dimensions)
    points = rng.random((12, dimensions))
    darts = rng.random((200_000, dimensions))
    hit = (darts[:, None] <= points[None]).all(axis=-1).any(axis=-1).mean()
    assert hypervolume(points, np.zeros(dimensions)) == pytest.approx(hit, abs=0.005)  # over four standard errors


def test_boxes_by_hand():
    corners = np.eye(3) + 1  # (2, 1, 1), (1, 2, 1), (1, 1, 2): three boxes of 2 that share one of 1
    assert hypervolume(corners, np.zeros(3)) == pytest.approx(3 * 2 - 2 * 1)
    assert hypervolume(corners, [1, 1, 1]) == 0  # flat boxes
    assert hypervolume(corners + 5, np.full(3, 5)) == pytest.approx(4)


def test_only_what_is_new_adds_volume():
    worse_or_equal = np.vstack([GOLDEN, GOLDEN[:2], [[0.1, 0.1], [-1.0, 5.0]]])
    assert hypervolume(worse_or_equal, [0, 0]) == pytest.approx(0.48)
    assert hypervolume(np.vstack([GOLDEN, [[0.9, 0.9]]]), [0, 0]) == pytest.approx(0.81)
    assert hypervolume(np.zeros((0, 2)), [0, 0]) == 0


def test_equal_points_do_not_push_each_other_off_the_front():
    assert pareto_front(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 1.0]])).tolist() == [True, True, False]


def test_points_that_have_no_volume_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 2\) and the reference \(3,\)"):
        hypervolume(GOLDEN, [0, 0, 0])
    with pytest.raises(ValueError, match="NaN or an infinity"):
        hypervolume(np.array([[np.nan, 1.0]]), [0, 0])
