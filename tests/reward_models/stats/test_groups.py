"""Rows are centred within their group, and an empty group is no division by zero."""

from __future__ import annotations

import numpy as np

from reward_models.stats.groups import centre_within_groups


def test_rows_lose_the_mean_of_their_group_and_an_empty_group_is_skipped():
    values = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 9.0]])
    assert centre_within_groups(values, np.array([0, 0, 2])).tolist() == [[-1.0, -2.0], [1.0, 2.0], [0.0, 0.0]]
