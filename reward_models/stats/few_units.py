"""Intervals of means over few units, such as five questions: Student's t corrected for skewness, Wilson's for shares.

A function of several means, such as a ratio of sums over groups, is read through its derivative (the delta method).

Percentiles of a bootstrap over n units are too narrow by sqrt((n - 1) / n) and by normal instead of t quantiles, and
of a skewed mean they miss on one side. Knows nothing of what the units are.

Shapes: `I` units, `D` numbers per unit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm, t

from reward_models.stats.shares import share_interval


__all__ = [
    "crossed_interval",
    "derivative",
    "mean_interval",
    "means_interval",
    "reads_as_share",
    "skewed_t_interval",
    "t_quantile",
    "units_moments",
    "widened_share_interval",
]


def units_moments(values: np.ndarray) -> tuple[float, float]:
    """Return the variance of the mean of (I,) units, and the skewness of that mean, without the bias of small samples.

    Example:
        >>> [round(number, 3) for number in units_moments(np.array([0.0, 0.0, 0.0, 4.0]))]
        [1.0, 1.0]
    """
    n = len(values)
    off = values - values.mean()
    variance = float((off**2).mean())
    if n < 3 or variance == 0:
        return variance / max(n - 1, 1), 0.0
    skewness = float((off**3).mean()) / variance**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    return variance / (n - 1), float(skewness / np.sqrt(n))


def t_quantile(freedom: float, level: float) -> float:
    """Return the quantile of Student's t for a two-sided interval; one degree of freedom at least.

    Example:
        >>> round(t_quantile(4, 0.95), 3)
        2.776
    """
    return float(t.ppf((1 + level) / 2, max(freedom, 1.0)))


def skewed_t_interval(
    value: float, variance: float, freedom: float, skewness: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Compute a t interval whose ends are moved by skewness (Hall 1992, https://doi.org/10.1111/j.2517-6161.1992.tb01876.x).

    With standard error s and skewness a of the estimate, `T + a T^2 / 3 + a^2 T^3 / 27 + a / 6` of the studentised
    error T is nearly symmetric. Its quantiles are those of Student's t; the cubic is then inverted.

    Args:
        value: The estimate.
        variance: Its variance.
        freedom: Degrees of freedom of the variance.
        skewness: Skewness of the estimate: of a mean, that of one unit over the root of their number.
        level: Coverage of the interval.

    Example:
        >>> [round(end, 2) for end in skewed_t_interval(1.0, 0.04, 9)]
        [0.55, 1.45]
        >>> [round(end, 2) for end in skewed_t_interval(1.0, 0.04, 9, skewness=0.2)]  # a long tail above
        [0.61, 1.56]
    """
    value, quantile, error = float(value), t_quantile(freedom, level), float(np.sqrt(variance))
    if abs(skewness) < 1e-6:
        return value - quantile * error, value + quantile * error
    ends = np.array([quantile, -quantile])
    studentised = 3 / skewness * (np.cbrt(np.maximum(1 + skewness * (ends - skewness / 6), 0.0)) - 1)
    low, high = value - error * studentised
    return float(low), float(high)


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Compute the interval of the mean of (I,) independent units.

    Units that are all 0 or 1, or all equal and between, say next to nothing of their spread: they are read as a share
    (Wilson). All others have `skewed_t_interval`, where the estimated skewness costs one degree of freedom.

    Returns:
        The ends; nan for fewer than two units.

    Example:
        >>> [round(end, 2) for end in mean_interval(np.array([0.2, 0.3, 0.2, 0.9, 0.4]))]
        [0.15, 0.88]
        >>> [round(end, 2) for end in mean_interval(np.array([1.0, 1.0, 1.0, 1.0, 1.0]))]
        [0.57, 1.0]
    """
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    if reads_as_share(values):
        low, high = share_interval(values.mean(), np.array(n), level)
        return float(low), float(high)
    variance, skewness = units_moments(values)
    return skewed_t_interval(float(values.mean()), variance, n - 2, skewness, level)


def crossed_interval(values: np.ndarray, most_parts: int | None = None, level: float = 0.95) -> tuple[float, float]:
    """Compute the interval of a mean over (I,) units of which each was predicted from the others.

    All predictions share nearly all of what they are made from, so that the values vary less than the mean over other
    units does: the variance is that of the mean times `1 + J / (J - 1)` for `J` parts held out in turn (Nadeau and
    Bengio 2003, https://doi.org/10.1023/A:1024068626366).

    Args:
        values: One number per unit.
        most_parts: Most parts that the units were divided into; None: each unit was one.
        level: Coverage of the interval.

    Returns:
        The ends; nan for fewer than two units.

    Example:
        >>> low, high = crossed_interval(np.array([-0.03, -0.01, -0.02, -0.03, -0.01, -0.02]))
        >>> round(low, 3), round(high, 3)
        (-0.035, -0.005)
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    parts, mean = min(len(values), most_parts or len(values)), float(values.mean())
    wider = float(np.sqrt(1 + parts / (parts - 1)))
    low, high = mean_interval(values, level)
    return mean - wider * (mean - low), mean + wider * (high - mean)


def means_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], level: float = 0.95
) -> tuple[float, float, float]:
    """Compute a function of means over independent units and its interval.

    Args:
        values: (I, D) numbers of each unit, e.g. a sum over its rows and their number.
        statistic: Maps means (..., D) to (...), smoothly.
        level: Coverage of the interval.

    Returns:
        The value and the ends; the ends are nan for fewer than two units, or where the value is.

    Example:
        The share of right answers, where answers to one question stand or fall together:

        >>> right, answers = np.array([4.0, 0.0, 5.0, 9.0, 2.0, 7.0]), np.array([5.0, 4.0, 5.0, 10.0, 6.0, 7.0])
        >>> share = means_interval(np.column_stack([right, answers]), lambda means: means[..., 0] / means[..., 1])
        >>> [round(number, 2) for number in share]
        [0.73, 0.05, 1.04]
    """
    means = values.mean(axis=0)
    value = float(statistic(means))
    if len(values) < 2 or not np.isfinite(value):
        return value, float("nan"), float("nan")
    variance, skewness = units_moments((values - means) @ derivative(statistic, means))
    return value, *skewed_t_interval(value, variance, len(values) - 2, skewness, level)


def derivative(statistic: Callable[[np.ndarray], np.ndarray], means: np.ndarray) -> np.ndarray:
    """Return the (D,) derivative of a function of means, by central differences.

    Example:
        >>> derivative(lambda means: means[..., 0] / means[..., 1], np.array([1.0, 2.0])).round(3).tolist()
        [0.5, -0.25]
    """
    steps = np.diag(np.maximum(1e-4 * np.abs(means), 1e-7))
    return np.asarray(statistic(means + steps) - statistic(means - steps)) / (2 * steps.diagonal())


def reads_as_share(values: np.ndarray) -> bool:
    """Return whether units are all 0 or 1, or all the same number between."""
    within = (values >= 0).all() and (values <= 1).all()
    return bool(within and (np.isin(values, (0, 1)).all() or np.ptp(values) == 0))


def widened_share_interval(share: float, n: int, extra: float, freedom: float, level: float) -> tuple[float, float]:
    """Compute Wilson's interval of a share of `n` units whose variance has a further part `extra`."""
    shrunk = (share * n + 2) / (n + 4)
    effective = 1 / (1 / (n - 1) + extra / (shrunk * (1 - shrunk)))
    wide = 2 * norm.cdf(t_quantile(freedom, level)) - 1
    low, high = share_interval(np.array(share), np.array(effective), float(wide))
    return float(low), float(high)
