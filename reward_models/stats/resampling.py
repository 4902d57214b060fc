"""Random splits of judgements, and the interval of a statistic that has to be computed anew in every resample.

Means over judgements have `judgement_means.two_way_intervals`. Knows nothing of the models.

Shapes: `N` judgements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


__all__ = ["halve_labels", "heldout_labels", "label_parts", "resampled_interval"]


def resampled_interval(
    statistic: Callable[[np.ndarray], float],
    n_rows: int,
    rng: np.random.Generator,
    *,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute a percentile interval of a statistic of rows that are drawn with replacement.

    Args:
        statistic: Maps the numbers (n_rows,) of the drawn rows to the statistic, or to nan where there is none.
        n_rows: Number of rows.
        rng: Random generator.
        draws: Resamples.
        level: Coverage of the interval.

    Returns:
        The ends; nan where no resample has the statistic.

    Example:
        >>> x = np.arange(30.0)
        >>> low, high = resampled_interval(lambda rows: np.median(x[rows]), 30, np.random.default_rng(0))
        >>> bool(7 < low < 11), bool(18 < high < 22)
        (True, True)
    """
    drawn = np.array([statistic(rng.integers(n_rows, size=n_rows)) for _ in range(draws)])
    if not np.isfinite(drawn).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def halve_labels(rater: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Halve each rater's judgements at random: one half to adapt to the rater, the other to score.

    Args:
        rater: (N,) rater index.
        rng: Random generator.

    Returns:
        (N,) True for the half to adapt to. Of an odd number the larger half is scored, so that a single judgement is
        scored with the rater unknown.

    Example:
        >>> rater = np.array([0, 0, 0, 0, 1])
        >>> np.bincount(rater, halve_labels(rater, np.random.default_rng(0))).tolist()
        [2.0, 0.0]
    """
    rank, size = _random_rank(rater, rng)
    return rank < size // 2


def label_parts(rater: np.ndarray, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Deal each rater's judgements at random into parts of nearly equal size.

    Args:
        rater: (N,) rater index.
        parts: Number of parts.
        rng: Random generator.

    Returns:
        (N,) part of each judgement. Of a rater with fewer judgements than parts, some parts have none.

    Example:
        >>> sorted(label_parts(np.zeros(5, dtype=int), 2, np.random.default_rng(0)).tolist())
        [0, 0, 0, 1, 1]
    """
    return _random_rank(rater, rng)[0] % parts


def heldout_labels(rater: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out a share of each rater's judgements, leaving everybody at least two.

    Args:
        rater: (N,) rater index.
        share: Share to hold out; rounded at random per rater, so that the share holds on average.
        rng: Random generator.

    Returns:
        (N,) True where held out.

    Example:
        >>> rater = np.repeat([0, 1], [10, 2])
        >>> heldout = heldout_labels(rater, 0.2, np.random.default_rng(0))
        >>> np.bincount(rater, heldout).tolist()
        [2.0, 0.0]
    """
    rank, size = _random_rank(rater, rng)
    dither = rng.random(rater.max(initial=-1) + 1)[rater]
    return rank < np.minimum(np.floor(share * size + dither), size - 2)


def _random_rank(rater: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the rank of each judgement in a random order of its rater's judgements, and (N,) their number."""
    order = np.lexsort((rng.random(len(rater)), rater))
    size = np.bincount(rater)
    start = np.cumsum(size) - size
    rank = np.empty(len(rater), dtype=np.int64)
    rank[order] = np.arange(len(rater)) - start[rater[order]]
    return rank, size[rater]
