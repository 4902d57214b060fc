"""One rule for every verdict: when a difference is decided, and how much data an interval needs.

`headroom`, the choice of clusters, the comparison of groupings and `evaluate_jury` all decide by it, so that they
agree on the same data. A bootstrap over three raters or two items resamples next to nothing: its interval is far too
narrow, and may exclude 0 by chance. Below the sizes stated here there is no interval, and the verdict is "undecided".
Knows nothing of what was measured.
"""

from __future__ import annotations

from typing import Literal

from scipy.stats import norm


__all__ = [
    "MIN_ITEMS",
    "MIN_RATERS",
    "NEGLIGIBLE",
    "Outcome",
    "minimum_detectable",
    "outcome",
    "rules_out_gain",
    "shortage",
]

MIN_RATERS = 12
"""Fewest raters for an interval, or for holding some of them out."""
MIN_ITEMS = 5
"""Fewest items for an interval that resamples items."""
NEGLIGIBLE = 0.02
"""A gain, in nats per judgement, that is not worth a jury: an interval below it rules a gain out."""

Outcome = Literal["better", "undecided", "worse"]


def outcome(low: float, high: float) -> Outcome:
    """Decide a difference by its interval, where above 0 is better.

    Args:
        low: Lower end; nan where there is no interval.
        high: Upper end.

    Returns:
        `"better"` or `"worse"` if the whole interval is on that side (one end may be 0), else `"undecided"`.

    Example:
        >>> outcome(0.01, 0.2), outcome(-0.2, 0.0), outcome(-0.2, 1.06), outcome(float("nan"), float("nan"))
        ('better', 'worse', 'undecided', 'undecided')
    """
    if low >= 0 and high > 0:
        return "better"
    return "worse" if high <= 0 and low < 0 else "undecided"


def rules_out_gain(high: float) -> bool:
    """Return whether an interval that ends at `high` rules out a gain worth having; False without an interval.

    An interval that contains 0 is no evidence of "no gain": it must also end below `NEGLIGIBLE`.

    Example:
        >>> rules_out_gain(0.01), rules_out_gain(1.06), rules_out_gain(float("nan"))
        (True, False, False)
    """
    return high <= NEGLIGIBLE


def minimum_detectable(low: float, high: float, level: float = 0.95, power: float = 0.8) -> float:
    """Compute the smallest true difference that data like these would probably have shown.

    A difference of this size has an interval without 0 with probability `power`. Beside "undecided" it says what was
    ruled out: a large one means that the data are few, a small one that there is little to find. It is half the
    interval times `1 + z(power) / z(level)`, 1.43 at the usual values, and depends on the spread alone, not on the
    difference that was observed (Bloom 1995, https://doi.org/10.1177/0193841X9501900504).

    Args:
        low: Lower end of the interval of the difference; nan where there is no interval.
        high: Upper end.
        level: Coverage of the interval.
        power: Probability of noticing a difference of that size.

    Example:
        >>> round(minimum_detectable(-0.196, 0.196), 3)  # 2.8 standard errors of 0.1
        0.28
    """
    return float((high - low) / 2 * (1 + norm.ppf(power) / norm.ppf((1 + level) / 2)))


def shortage(n_raters: int, n_items: int | None = None) -> str | None:
    """Say why there are too few raters or items for an interval.

    Args:
        n_raters: Raters behind the difference.
        n_items: Items behind it; None if items are not resampled.

    Returns:
        The reason, without a full stop; None if there are enough.

    Example:
        >>> shortage(3, 40)
        '3 raters are too few to tell a difference from chance (at least 12 are needed)'
        >>> shortage(200, 2)
        '2 items are too few to tell a difference from chance (at least 5 are needed)'
        >>> shortage(12, 5) is None
        True
    """
    if n_raters < MIN_RATERS:
        return _too_few(n_raters, "rater", MIN_RATERS)
    if n_items is not None and n_items < MIN_ITEMS:
        return _too_few(n_items, "item", MIN_ITEMS)
    return None


def _too_few(count: int, noun: str, needed: int) -> str:
    are = f"{noun} is" if count == 1 else f"{noun}s are"
    return f"{count} {are} too few to tell a difference from chance (at least {needed} are needed)"
