"""Rows are centred within their group, and an empty group is no division by zero."""

from __future__ import annotations

import numpy as np

from reward_models.stats.groups import centre_within_groups, differences


def test_rows_lose_the_mean_of_their_group_and_an_empty_group_is_skipped():
    values = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 9.0]])
    assert centre_within_groups(values, np.array([0, 0, 2])).tolist() == [[-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]]


def test_a_difference_has_the_variance_of_a_single_row_whatever_the_size_of_its_group():
    """Of independent rows of variance one a weighted sum has the sum of the squared weights as its variance."""
    group = np.repeat([0, 1, 2, 3], [1, 2, 3, 5])
    weights = differences(np.eye(11), group)
    assert weights.shape == (10, 11)  # the group of one is dropped
    np.testing.assert_allclose((weights**2).sum(1), 1.0)
    np.testing.assert_allclose(weights.sum(1), 0.0, atol=1e-12)
