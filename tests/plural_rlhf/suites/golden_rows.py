"""All rows of a task word for word: values, intervals, units, which values are better, baselines, what is counted.

Properties are tested elsewhere; this is the net below them. After a change that is meant, write the files again and
read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/plural_rlhf/suites`, then `git diff`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plural_rlhf.suites.tasks.protocol import TaskResult, TaskRow


GOLDEN = Path(__file__).parent / "golden"


def check_rows(name: str, result: TaskResult) -> None:
    """Compare the rows of a task and the shape of its records with those that are stored under a name."""
    text = "\n".join([*map(line_of, result.rows), *records_of(result.records)]) + "\n"
    stored = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


def line_of(row: TaskRow) -> str:
    ends = "" if row.ci_low is None else f" [{number(row.ci_low)}, {number(row.ci_high)}]"
    beside = ", ".join(f"{name} {number(value)}" for name, value in row.baselines.items())
    counts = f"{row.n_items} items, {row.n_raters} raters"
    mark = "* " if row.headline else ""
    parts = (f"{mark}{row.metric}", row.group, f"{number(row.value)}{ends}", counts, row.unit, row.direction, row.kind)
    return " | ".join((*parts, beside))


def records_of(records: Iterable[dict[str, Any]]) -> list[str]:
    records = list(records)
    if not records:
        return []
    first = {key: value for key, value in records[0].items() if key in ("item", "scores")}
    scores = {key: number(value) for key, value in (first.get("scores") or {}).items()}
    return [f"{len(records)} records of {', '.join(records[0])}", f"{json.dumps(str(first.get('item')))}: {scores}"]


def number(value: Any) -> str:
    return f"{value:.4g}".replace("-0", "0") if value == 0 else f"{value:.4g}"
