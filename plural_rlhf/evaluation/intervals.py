"""Intervals over items: paired bootstrap, BCa, Wilson, and their columns in a tidy row.

Knows nothing of what is measured.

Shapes: `M` models or rules, `R` items, `D` numbers per item, `B` resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval
from reward_models.stats.shares import share_interval
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = [
    "bca_interval",
    "bootstrap_means",
    "check_draws",
    "interval_columns",
    "percentile_interval",
    "sign_test",
    "wilson_interval",
]


def check_draws(draws: int) -> None:
    """Raise if there is nothing to resample.

    Raises:
        ValueError: No draw.

    Example:
        >>> check_draws(0)
        Traceback (most recent call last):
        ValueError: draws=0: an interval needs resamples. Fix: e.g. draws=2000.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: an interval needs resamples. Fix: e.g. draws=2000.")


def bootstrap_means(values: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Compute means over resampled items; all models see the same items in a draw.

    Args:
        values: (M, R, D) scores.
        draws: B.
        seed: Random seed.

    Returns:
        (B, M, D).

    Raises:
        ValueError: No draw.

    Example:
        >>> means = bootstrap_means(np.array([[[0.0], [1.0]], [[0.5], [1.5]]]), draws=1000)
        >>> means.shape, np.ptp(means[:, 1] - means[:, 0]).item()  # the pair differs by .5 in every draw
        ((1000, 2, 1), 0.0)
    """
    check_draws(draws)
    rng = seeded_rng(seed, "bootstrap of items")
    n_items = values.shape[1]
    # The items in the same order for every column, so that two equal columns have equal means to the last bit.
    return np.stack([values[:, rng.integers(n_items, size=n_items)].mean(axis=1) for _ in range(draws)])


def percentile_interval(
    value: np.ndarray,
    drawn: np.ndarray,
    n_items: int,
    *,
    n_raters: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> list[Interval]:
    """Compute percentile intervals, with the draws centred on the estimate.

    Args:
        value: (...) estimates.
        drawn: (B, ...) the statistic in each resample.
        n_items: Number of resampled items; one item has no spread, so its interval is NaN unless raters were
            resampled.
        n_raters: Number of resampled raters; 0 if raters were not resampled.
        level: Level of the intervals.
        bounds: Range of the statistic; intervals are clipped to it.

    Returns:
        One interval for each entry of `value`, in order.

    Raises:
        ValueError: If `level` is not in (0, 1).

    Example:
        >>> (interval,) = percentile_interval(np.array(0.5), np.linspace(0.0, 2.0, 201), n_items=9, level=0.9)
        >>> round(interval.low, 2), interval.value, round(interval.high, 2)  # the draws lie around 1
        (-0.4, 0.5, 1.4)
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not a probability between 0 and 1. Fix: e.g. level=0.95.")
    low, high = np.quantile(drawn - drawn.mean(axis=0), [(1 - level) / 2, (1 + level) / 2], axis=0) + value
    # For a statistic that hardly varies, both ends may fall on one side, by rounding or by a rare draw.
    low, high = np.minimum(np.clip(low, *bounds), value), np.maximum(np.clip(high, *bounds), value)
    if n_items < 2 and not n_raters:
        low = high = np.full_like(low, np.nan)
    ends = zip(np.ravel(value), np.ravel(low), np.ravel(high), strict=True)
    return [Interval(float(v), float(lo), float(hi), n_raters, n_items) for v, lo, hi in ends]


def interval_columns(interval: Interval) -> dict[str, Any]:
    """Return the columns of a tidy row for a value and its interval; None for an unavailable end.

    Example:
        >>> interval_columns(Interval(0.5, 0.4, 0.6, n_raters=0, n_items=12))
        {'value': 0.5, 'ci_low': 0.4, 'ci_high': 0.6, 'n': 12, 'n_raters': 0}
    """
    known = np.isfinite(interval.low)
    return {
        "value": interval.value,
        "ci_low": interval.low if known else None,
        "ci_high": interval.high if known else None,
        "n": interval.n_items,
        "n_raters": interval.n_raters,
    }


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Compute a share and its interval by Wilson's method; all nan for `n` = 0.

    Example:
        >>> interval = wilson_interval(50, 100)
        >>> interval.value, round(interval.low, 3), round(interval.high, 3)
        (0.5, 0.404, 0.596)
    """
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, 0)
    low, high = share_interval(np.array(successes / n), np.array(n), level)
    return Interval(successes / n, float(low), float(high), 0, n)


def bca_interval(
    values: np.ndarray,
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute a statistic of items and its bias-corrected and accelerated bootstrap interval (Efron 1987), by scipy.

    Args:
        values: (R,) one number per item; nan are left out. Or (R, D) rows, which are resampled whole.
        statistic: Maps rows of items to a number, e.g. `np.mean`, with an argument `axis` if values are (R,).
        level: Coverage of the interval.
        draws: Number of resamples.
        seed: Random seed.

    Returns:
        Without ends for fewer than 5 items, whose spread is not known. With ends at the value if the items are equal.

    Example:
        >>> interval = bca_interval(np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]))
        >>> interval.value, interval.low, interval.high
        (0.5, 0.125, 0.875)
        >>> bca_interval(np.array([0.2, 0.4])).low
        nan
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        values = values[~np.isnan(values)]
        value = float(statistic(values)) if len(values) else np.nan
        rows: tuple[np.ndarray, ...] = (values,)
        function: Callable[..., Any] = statistic
    else:
        value = float(statistic(values))
        rows = (np.arange(len(values)),)

        def function(index: np.ndarray) -> float:
            return float(statistic(values[index.astype(int)]))

    n = len(rows[0])
    if n < MIN_ITEMS:
        return Interval(value, np.nan, np.nan, 0, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal values have no acceleration: scipy warns and gives nan
        result = bootstrap(
            rows,
            function,
            confidence_level=level,
            n_resamples=draws,
            method="BCa",
            vectorized=values.ndim == 1,
            rng=seeded_rng(seed, "BCa bootstrap of items"),
        )
    low, high = result.confidence_interval
    if not np.isfinite(low) or not np.isfinite(high):
        low, high = np.quantile(result.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), 0, n)


def sign_test(up: int, down: int) -> float:
    """Compute the two-sided p-value that pairs move up as often as down; pairs that do not move do not count.

    Example:
        >>> sign_test(5, 0), sign_test(0, 0)
        (0.0625, 1.0)
    """
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0
