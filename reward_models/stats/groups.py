"""Arithmetic within groups of rows. Knows nothing of what the rows are."""

from __future__ import annotations

import numpy as np


__all__ = ["centre_within_groups", "differences"]


def centre_within_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Subtract from each row the mean of its group.

    Args:
        values: (N, C) rows.
        group: (N,) group of each row, from 0.

    Returns:
        (N, C) rows that average zero within each group.

    Example:
        >>> centre_within_groups(np.array([[1.0], [3.0], [7.0]]), np.array([0, 0, 1])).ravel().tolist()
        [-1.0, 1.0, 0.0]
    """
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    means = sums / np.maximum(np.bincount(group), 1)[:, None]
    return values - means[group]


def differences(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return differences of rows from the mean of their group, each with the variance that a single row has.

    The differences within a group of n have (n - 1) / n of the variance. Groups of one tell nothing and are dropped.

    Args:
        values: (N,) or (N, C) rows.
        group: (N,) group of each row, from 0.

    Returns:
        (N',) or (N', C) scaled differences.

    Example:
        >>> differences(np.array([3.0, 1.0, 9.0]), np.array([0, 0, 1])).round(3).tolist()
        [1.414, -1.414]
    """
    size = np.bincount(group)[group].astype(float)
    lost = np.sqrt(size / np.maximum(size - 1, 1))
    columns = values[:, None] if values.ndim == 1 else values
    rows = (lost[:, None] * centre_within_groups(columns, group))[size > 1]
    return rows[:, 0] if values.ndim == 1 else rows
