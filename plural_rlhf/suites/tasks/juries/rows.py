"""Rows of tasks from the flat rows of `reward_models.evaluation`. Knows no task."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from plural_rlhf.suites.tasks.protocol import Direction, TaskRow


__all__ = ["jury_rows"]

_OF_CLUSTER = re.compile(r"(?P<metric>[^\[]+)\[(?P<cluster>.*)\]")


def jury_rows(
    rows: Sequence[Mapping[str, Any]], method: str, headline: str = "", rivals: Sequence[str] = ()
) -> list[TaskRow]:
    """Return the rows of one method that have a value; the same metric of its rivals stands in the baselines.

    Args:
        rows: Flat rows with `case`, `method`, `metric`, `value`, `ci_low`, `ci_high`, `n`, `counted`, `unit` and
            `direction`; a metric `name[cluster]` is about one cluster.
        method: The method that is measured.
        headline: The metric that the overview shows.
        rivals: Methods that stand beside it.

    Example:
        >>> flat = {"case": "all", "ci_low": None, "ci_high": None, "n": 9, "counted": "raters", "unit": "nats"}
        >>> of_both = [
        ...     {**flat, "method": method, "metric": "nll_nats[city]", "value": value, "direction": "lower"}
        ...     for method, value in (("jury", 0.5), ("uniform", 0.7))
        ... ]
        >>> [row] = jury_rows(of_both, "jury", rivals=["uniform"])
        >>> row.metric, row.group, row.value, row.baselines
        ('nll_nats', 'city', 0.5, {'uniform': 0.7})
    """
    values = {(row["case"], row["method"], row["metric"]): row.get("value") for row in rows}
    return [
        _row(row, {rival: values.get((row["case"], rival, row["metric"])) for rival in rivals}, headline)
        for row in rows
        if row["method"] == method and row.get("value") is not None and math.isfinite(row["value"])
    ]


def _row(row: Mapping[str, Any], rivals: Mapping[str, float | None], headline: str) -> TaskRow:
    named = _OF_CLUSTER.fullmatch(row["metric"])
    metric, cluster = (named["metric"], named["cluster"]) if named else (row["metric"], "all")
    raters = int(row["n"]) if row["counted"] == "raters" else 0
    low, high = (None if end is None or not math.isfinite(end) else end for end in (row["ci_low"], row["ci_high"]))
    direction = row["direction"] if row["direction"] in ("lower", "higher", "zero") else "none"
    return TaskRow(
        metric,
        float(row["value"]),
        low,
        high,
        n_items=int(row["n"]),
        n_raters=raters,
        unit=row["unit"],
        direction=cast(Direction, direction),
        kind=f"over {row['counted']}",
        group=cluster,
        baselines={name: value for name, value in rivals.items() if value is not None},
        headline=metric == headline and cluster == "all",
    )
