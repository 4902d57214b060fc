"""Paired bootstrap intervals over items, and their columns in a tidy row. Knows nothing of what is measured.

Shapes: `M` models or rules, `R` items, `D` numbers per item, `B` resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval


__all__ = ["bootstrap_means", "interval_columns", "percentile_interval"]


def bootstrap_means(values: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Compute means over resampled items; all models see the same items in a draw.

    Args:
        values: (M, R, D) scores.
        draws: B.
        seed: Random seed.

    Returns:
        (B, M, D).

    Example:
        >>> means = bootstrap_means(np.array([[[0.0], [1.0]], [[0.5], [1.5]]]), draws=1000)
        >>> means.shape, np.ptp(means[:, 1] - means[:, 0]).item()  # the pair differs by .5 in every draw
        ((1000, 2, 1), 0.0)
    """
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
    """Compute percentile intervals, with the draws centred on the estimate (as in `Resamples.interval`).

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
