"""Rows of tasks from intervals of measures. Knows no task."""

from __future__ import annotations

import math
from typing import Any

from plural_rlhf.suites.tasks.protocol import Direction, TaskRow
from reward_models.stats.answers import Interval


__all__ = ["interval_row"]


def interval_row(
    metric: str,
    interval: Interval,
    *,
    unit: str = "share",
    direction: Direction = "higher",
    kind: str = "BCa over items",
    group: str = "all",
    headline: bool = False,
    **baselines: float,
) -> TaskRow:
    """Return the row of a value with its interval; ends that are nan are left out.

    Example:
        >>> row = interval_row("validity", Interval(0.9, 0.8, 0.95, 0, 22), ceiling=1.0)
        >>> row.value, row.ci_low, row.n_items, row.baselines
        (0.9, 0.8, 22, {'ceiling': 1.0})
    """
    ends: dict[str, Any] = {"ci_low": interval.low, "ci_high": interval.high} if math.isfinite(interval.low) else {}
    return TaskRow(
        metric,
        interval.value,
        n_items=interval.n_items,
        unit=unit,
        direction=direction,
        kind=kind,
        group=group,
        baselines=baselines,
        headline=headline,
        **ends,
    )
