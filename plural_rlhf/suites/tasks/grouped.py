"""Means of numbers that come in groups, such as rows about one value. Knows no task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from reward_models.stats.answers import Interval
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["grouped_interval"]


def grouped_interval(
    values: np.ndarray | Sequence[float], groups: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Compute a mean whose interval resamples whole groups, since numbers of one group share their errors.

    Args:
        values: (N,) numbers.
        groups: (N,) group of each.
        draws: Bootstrap draws.
        seed: Random seed.

    Returns:
        The mean of the numbers; the ends are nan with fewer groups than an interval needs.

    Example:
        >>> interval = grouped_interval([1.0, 1.0, 0.0, 0.0, 1.0, 0.0], ["a", "a", "b", "c", "d", "e"])
        >>> interval.value, interval.n_items, 0 <= interval.low < 0.5 < interval.high <= 1
        (0.5, 6, True)
    """
    numbers = np.asarray(values, dtype=np.float64)
    _, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, 2))
    np.add.at(sums, group, np.column_stack([numbers, np.ones(len(numbers))]))
    resamples = resample_prompts(len(sums), draws=draws, level=0.95, seed=seed)
    value, low, high = resamples.interval(sums, lambda means: means[..., 0] / means[..., 1])
    if len(sums) < MIN_ITEMS:
        low = high = float("nan")
    return Interval(value, low, high, 0, len(numbers))
