"""Trade-offs: hypervolumes worked out by hand and by counting random points, and how sure a front is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from plural_rlhf.evaluation.intervals import bootstrap_means, percentile_interval
from plural_rlhf.evaluation.steerable.pareto import (
    dominance,
    front_membership,
    hypervolume,
    hypervolume_interval,
    pareto_front,
)


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


def test_a_model_that_is_better_on_every_item_dominates_for_sure():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(30, 2))
    found = dominance([good, good - np.array([0.5, 0.1]), good + np.array([1.0, -1.0])], draws=200)
    assert found.probability[0].tolist() == [0, 1, 0]
    assert found.dominates.tolist() == [[False, True, False], [False] * 3, [False] * 3]
    assert found.on_front.tolist() == [1, 0, 1]
    assert found.means[0] == pytest.approx(good.mean(0))
    assert found.n_items == 30


def test_a_paired_bootstrap_knows_what_an_unpaired_one_does_not():
    """The models differ by a tenth, the items by ten: only because both see the same items is the tenth seen."""
    items = np.random.default_rng(0).normal(scale=10, size=(50, 1))
    assert dominance([items + 0.1, items], draws=200).probability[0, 1] == 1


def test_the_probability_of_dominance_is_the_normal_one():
    rng = np.random.default_rng(1)
    other = rng.normal(size=(400, 1))
    gains = rng.normal(size=(400, 1))
    gains = (gains - gains.mean()) / gains.std() + 0.05  # one standard error above 0
    found = dominance([other + gains, other], draws=4000).probability
    assert found[0, 1] == pytest.approx(norm.cdf(1.0), abs=0.03)
    assert found[0, 1] + found[1, 0] == pytest.approx(1)


def test_equal_objectives_do_not_hide_dominance():
    """Two equal columns stay equal in every resample, to the last bit."""
    rng = np.random.default_rng(2)
    scores = rng.random((5, 33, 3))
    scores[1:] = scores[0]
    scores[0, :, 2] += 0.1
    found = dominance(scores, draws=100)
    assert found.probability[0].tolist() == [0, 1, 1, 1, 1]
    assert found.probability[1:].sum() == 0
    assert front_membership(scores, draws=100).tolist() == [1, 0, 0, 0, 0]


def test_the_hypervolume_interval():
    rng = np.random.default_rng(3)
    noise = rng.normal(scale=0.3, size=(1, 200, 2))
    scores = GOLDEN[:, None] + noise - noise.mean(axis=1, keepdims=True)
    found = hypervolume_interval(scores, [0.0, 0.0], draws=200)
    assert found.value == pytest.approx(0.48)
    assert 0.3 < found.low < 0.47
    assert 0.49 < found.high < 0.7
    assert (found.n_items, found.n_raters) == (200, 0)
    assert np.isnan(hypervolume_interval(GOLDEN[:, None], [0, 0], draws=10).low)  # one item has no spread


def test_the_interval_of_a_mean_is_its_standard_error():
    scores = np.random.default_rng(4).normal(size=(1, 400, 1))
    (found,) = percentile_interval(scores.mean(axis=1)[:, 0], bootstrap_means(scores)[..., 0], 400)
    half = 1.96 * scores.std() / 20
    assert found.low == pytest.approx(found.value - half, abs=0.01)
    assert found.high == pytest.approx(found.value + half, abs=0.01)


def test_an_interval_holds_its_estimate_and_keeps_to_its_bounds():
    drawn = np.array([0.5] * 99 + [0.0])  # one draw in a hundred pulls the mean away from all others
    (found,) = percentile_interval(np.array(0.5), drawn, 10)
    assert (found.low, found.high) == (0.5, pytest.approx(0.505))
    (bounded,) = percentile_interval(np.array(0.0), np.linspace(0, 1, 101), 10, bounds=(0.0, 0.3))
    assert (bounded.low, bounded.high) == (0, 0.3)


def test_scores_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="the same items"):
        dominance([np.zeros((3, 2)), np.zeros((4, 2))])
    with pytest.raises(ValueError, match=r"\(M, R, D\)"):
        dominance(np.zeros((3, 2)))
    missing = np.zeros((2, 3, 1))
    missing[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="model 1 has no score of item 2 in objective 0"):
        dominance(missing)
    with pytest.raises(ValueError, match="level=95"):
        hypervolume_interval(np.zeros((2, 3, 2)), [-1, -1], draws=5, level=95)


@pytest.mark.parametrize(("points", "words"), [([[1.0, float("nan")]], "and hold NaN"), ([1.0, 2.0], r"shape \(2,\)")])
def test_points_that_cannot_be_compared_are_not_on_the_front(points, words):
    with pytest.raises(ValueError, match=words):
        pareto_front(np.array(points))
    assert pareto_front(np.array([[-np.inf, 1.0], [0.0, 0.0]])).all()
