"""Arithmetic within groups of rows. Knows nothing of what the rows are."""

from __future__ import annotations

import numpy as np


__all__ = ["centre_within_groups"]


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
