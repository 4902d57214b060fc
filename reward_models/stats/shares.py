"""Shares of people and their intervals, also of people who count unequally.

Knows nothing of judgements or clusters.

Shapes: `R` raters, `C` columns (clusters).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from reward_models.stats.verdicts import MIN_RATERS


__all__ = ["kish_n", "share_interval", "weighted_shares"]


def kish_n(weights: np.ndarray) -> np.ndarray:
    """Return the number of equally weighted people of the same precision, `(Σw)² / Σw²` over the first axis (Kish).

    Example:
        >>> float(kish_n([1, 1, 1, 1])), float(kish_n([2, 1, 1]))
        (4.0, 2.6666666666666665)
    """
    weights = np.asarray(weights, dtype=np.float64)
    squared = (weights**2).sum(axis=0)
    return np.where(squared > 0, weights.sum(axis=0) ** 2 / np.where(squared > 0, squared, 1.0), 0.0)


def share_interval(share: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Compute the interval of a share by Wilson's method, which stays within 0 and 1 and has a width at both.

    Args:
        share: (...) shares.
        n: (...) people behind each; for unequal weights the effective number (`kish_n`).
        level: Coverage of the interval.

    Returns:
        Lower and upper ends (...); nan where nobody is behind the share.

    Example:
        >>> low, high = share_interval([0.5, 0.0, 1.0], [100, 100, 10])
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.404, 0.0, 0.722], [0.596, 0.037, 1.0])
    """
    share, n = np.asarray(share, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = norm.ppf((1 + level) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        known = n > 0
        low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
        # Exact at both ends, where rounding would leave 1 - 1e-16.
        return (
            np.where(known, np.where(share == 0, 0.0, low), np.nan),
            np.where(known, np.where(share == 1, 1.0, high), np.nan),
        )


def weighted_shares(
    values: np.ndarray, weights: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute weighted means of numbers between 0 and 1 with their intervals over people.

    The variance is that of a ratio of two sums over people (linearised, the delta method). It gives the number of
    people of equal weight of the same precision, at most Kish's, for which Wilson's interval is taken.

    Args:
        values: (R,) or (R, C): 0 or 1, or a probability; those of corrected memberships may lie a little outside.
        weights: (R,) or (R, C) weight of each person, at most a few of them negative.
        level: Coverage of the interval.

    Returns:
        Shares (C,), lower and upper ends (C,). The ends are nan with fewer than `verdicts.MIN_RATERS` people of
        positive weight, counted by Kish; all are nan where the weights sum to 0 or less.

    Example:
        >>> share, low, high = weighted_shares(np.repeat([1, 0], [30, 70])[:, None], np.ones((100, 1)))
        >>> share.round(2).tolist(), low.round(3).tolist(), high.round(3).tolist()
        ([0.3], [0.219], [0.396])
    """
    weights = np.atleast_2d(np.asarray(weights, dtype=np.float64).T).T
    values = np.atleast_2d(np.asarray(values, dtype=np.float64).T).T
    total = weights.sum(axis=0)
    usable = total > 0
    scale = np.where(usable, total, 1.0)
    share = np.where(usable, np.clip((weights * values).sum(axis=0) / scale, 0.0, 1.0), np.nan)
    influence = weights * (values - share) / scale
    n_people = (weights != 0).sum(axis=0)
    variance = (influence**2).sum(axis=0) * n_people / np.maximum(n_people - 1, 1)
    effective = kish_n(np.maximum(weights, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        implied = np.where(variance > 0, share * (1 - share) / variance, np.inf)
    low, high = share_interval(share, np.where(implied > 0, np.minimum(effective, implied), effective), level)
    enough = usable & (effective >= MIN_RATERS)
    return share, np.where(enough, low, np.nan), np.where(enough, high, np.nan)
