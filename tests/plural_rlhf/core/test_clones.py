"""Clone-robust weights: copies share one weight, and nothing jumps where two alternatives drift apart."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.core.clones import clone_robust_weights, clone_sets, kernel_similarity


def with_copies(points: np.ndarray, of: int, copies: int) -> np.ndarray:
    return np.concatenate([points, np.repeat(points[of : of + 1], copies, axis=0)])


@pytest.mark.parametrize("copies", [1, 2, 50])
def test_copies_of_an_alternative_buy_it_nothing(copies):
    points = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [0.0, 4.3]])  # the last two are somewhat alike
    prior = np.array([1.0, 2.0, 3.0, 4.0])
    before = clone_robust_weights(kernel_similarity(points, 1.0), prior=prior)
    more = kernel_similarity(with_copies(points, 0, copies), 1.0)
    after = clone_robust_weights(more, prior=np.append(prior, np.ones(copies)))
    np.testing.assert_allclose(after[1:4], before[1:4])
    np.testing.assert_allclose(after[0] + after[4:].sum(), before[0])
    np.testing.assert_allclose(after[4:], after[0])  # copies share alike
    assert 1 / len(after) * (copies + 1) > before[0] + 0.05  # equal weights, the rival, are bought


@pytest.mark.parametrize("copies", [1, 7])
def test_with_a_threshold_the_set_keeps_its_weight_whatever_is_around_it(copies):
    line = np.array([[0.0], [0.3], [0.6], [5.0]])  # a chain: the ends are alike only through the middle
    similarity = kernel_similarity(line, 0.5)
    assert similarity[0, 2] == 0
    before = clone_robust_weights(similarity, threshold=0.3)
    np.testing.assert_allclose(before, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    after = clone_robust_weights(kernel_similarity(with_copies(line, 0, copies), 0.5), threshold=0.3)
    np.testing.assert_allclose(after[[0, 1, 2, *range(4, 4 + copies)]].sum(), 1 / 2)
    by_degrees = clone_robust_weights(kernel_similarity(with_copies(line, 0, copies), 0.5))
    assert abs(by_degrees[3] - clone_robust_weights(similarity)[3]) > 1e-3  # why the module says where it is exact


def test_weights_are_continuous_as_two_points_drift_apart():
    apart = np.linspace(0.0, 1.5, 3001)
    weights = np.array([clone_robust_weights(kernel_similarity([[0.0], [d], [9.0]], 1.0)) for d in apart])
    assert np.abs(np.diff(weights, axis=0)).max() < 1e-3
    np.testing.assert_allclose(weights[0], [1 / 4, 1 / 4, 1 / 2])
    np.testing.assert_allclose(weights[-1], np.full(3, 1 / 3))
    assert (np.diff(weights[:, 2]) <= 1e-12).all()
    jumps = [clone_robust_weights(kernel_similarity([[0.0], [d], [9.0]], 1.0), threshold=0.5)[2] for d in (0.54, 0.55)]
    np.testing.assert_allclose(jumps, [1 / 2, 1 / 3])


def test_by_hand():
    # 1 − 0.25² = 0.9375, squared 0.87890625; densities 1.8789, 1.8789, 1.
    similarity = kernel_similarity([[0.0, 0.0], [0.15, 0.2], [2.0, 2.0]], 1.0)
    assert similarity[0, 1] == pytest.approx(0.87890625)
    weights = clone_robust_weights(similarity)
    np.testing.assert_allclose(weights, np.array([1, 1, 1.87890625]) / 3.87890625)
    assert clone_sets(similarity, 0.87).tolist() == [0, 0, 1]
    assert clone_sets(similarity, 0.88).tolist() == [0, 1, 2]


def test_clones_of_unequal_prior_weigh_their_mean():
    weights = clone_robust_weights([[1, 1, 0], [1, 1, 0], [0, 0, 1]], prior=[1, 3, 2])
    np.testing.assert_allclose(weights, [1 / 8, 3 / 8, 1 / 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clone_robust_weights([[1, 0.5], [0.4, 1]]), "not symmetric"),
        (lambda: clone_robust_weights([[1, -0.5], [-0.5, 1]]), "from 0 to 1"),
        (lambda: clone_robust_weights([[1.0, 0.5]]), r"shape \(1, 2\)"),
        (lambda: clone_robust_weights(np.eye(2), prior=[0, 0]), "prior: got"),
        (lambda: clone_robust_weights(np.eye(2), prior=[2, -1]), "prior: got"),
        (lambda: clone_robust_weights(np.eye(2), prior=[1, float("nan")]), "prior: got"),
        (lambda: clone_robust_weights(np.eye(2), prior=[1, float("inf")]), "prior: got"),
        (lambda: clone_robust_weights(np.eye(2), prior=[1, 1, 1]), "give 2 numbers"),
        (lambda: clone_robust_weights(np.eye(2), threshold=0.0), "threshold: got 0"),
        (lambda: kernel_similarity([[0.0]], 0.0), "bandwidth: got 0"),
        (lambda: kernel_similarity([[float("nan")]], 1.0), "NaN"),
    ],
)
def test_what_cannot_be_used_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
