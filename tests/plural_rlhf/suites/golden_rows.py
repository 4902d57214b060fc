"""All rows of a task word for word: values, intervals, units, which values are better, baselines, what is counted.

Properties are tested elsewhere; this is the net below them. After a change that is meant, write the files again and
read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/plural_rlhf/suites`, then `git diff`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from plural_rlhf.report.suite.results import SuiteResults
from plural_rlhf.suites.tasks.protocol import TaskResult, TaskRow


GOLDEN = Path(__file__).parent / "golden"


def check_rows(name: str, result: TaskResult) -> None:
    """Compare the rows of a task and the shape of its records with those that are stored under a name."""
    text = "\n".join([*map(line_of, result.rows), *records_of(result.records)]) + "\n"
    stored = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


def check_results(name: str, results: SuiteResults) -> None:
    """Compare all that a suite publishes, but for versions, times and folders, with what is stored under a name."""
    whole = {key: value for key, value in results.to_dict().items() if key not in ("meta", "config")}
    for model in whole["models"]:
        del model["identity"]  # of a function: its source
    rows = {f"{model}, {task}": rows for model, of in whole.pop("results").items() for task, rows in of.items()}
    text = "".join(f"# {key}\n{lines_of(value)}" for key, value in (whole | rows).items())
    stored = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


def lines_of(value: Any) -> str:
    """A line for a value, or for each of a list, numbers to four digits."""
    lines = [json.dumps(rounded(one)) for one in (value if isinstance(value, list) else [value])]
    return "".join(f"{line}\n" for line in lines)


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{round(value, 12):.4g}") + 0.0 if isinstance(value, float) else value


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
    return [
        f"{len(records)} records of {', '.join(records[0])}",
        f"{json.dumps(str(first.get('item')))}: {scores}",
        f"mean: {means_of(records)}",
    ]


def means_of(records: list[dict[str, Any]]) -> dict[str, str]:
    """The mean of each score that is a number over the records that have it."""
    scores = [record.get("scores") or {} for record in records]
    names = {name: None for of_record in scores for name in of_record}
    known = {name: [s[name] for s in scores if isinstance(s.get(name), int | float)] for name in names}
    return {name: number(fmean(values)) for name, values in known.items() if values}


def number(value: Any) -> str:
    """Four digits, without the noise of the last bits around 0."""
    return f"{round(float(value), 12) + 0.0:.4g}"
