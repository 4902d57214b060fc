"""Paired bootstrap intervals over items, and how a tidy row says them.

Knows nothing of what is measured.

Shapes: `M` models or rules, `R` items, `D` numbers an item, `B` resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reward_models.stats.answers import Interval


__all__ = ["bootstrap_means", "interval_columns", "percentile_interval"]


def bootstrap_means(values: np.ndarray, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Means over resampled items: (M, R, D) scores to (B, M, D). Every model sees the same items in a draw."""
    rng = np.random.default_rng(seed)
    n_items = values.shape[1]
    # Item after item in the same order for every column: two equal columns have equal means to the last bit.
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
    """Percentile intervals around the estimate, on which the draws are centred (as `Resamples.interval` does).

    Args:
        value: (...) estimates.
        drawn: (B, ...) what the resamples say.
        n_items: Items resampled; one item has no spread, so its interval is NaN unless raters were resampled.
        n_raters: Raters resampled; 0 where raters were not.
        level: Probability that an interval is to hold.
        bounds: What the statistic cannot leave, and so the interval does not.

    Returns:
        One interval for each entry of `value`, in order.

    Raises:
        ValueError: If `level` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not a probability between 0 and 1. Fix: e.g. level=0.95.")
    low, high = np.quantile(drawn - drawn.mean(axis=0), [(1 - level) / 2, (1 + level) / 2], axis=0) + value
    # Of a statistic that hardly ever changes both ends may fall on one side, by rounding or by a rare draw.
    low, high = np.minimum(np.clip(low, *bounds), value), np.maximum(np.clip(high, *bounds), value)
    if n_items < 2 and not n_raters:
        low = high = np.full_like(low, np.nan)
    ends = zip(np.ravel(value), np.ravel(low), np.ravel(high), strict=True)
    return [Interval(float(v), float(lo), float(hi), n_raters, n_items) for v, lo, hi in ends]


def interval_columns(interval: Interval) -> dict[str, Any]:
    """The columns of a tidy row that say how sure a value is; None for an interval that cannot be had."""
    known = np.isfinite(interval.low)
    return {
        "value": interval.value,
        "ci_low": interval.low if known else None,
        "ci_high": interval.high if known else None,
        "n": interval.n_items,
        "n_raters": interval.n_raters,
    }
