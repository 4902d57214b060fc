"""Paired differences of two models on the same items: interval, p-value, Holm's correction, what could be detected.

Works on the records of items, so that two runs made at different times can be compared. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plural_rlhf.evaluation.intervals import bootstrap_means, percentile_interval
from plural_rlhf.report.suite.results import DECIDED, Difference, SuiteResults
from reward_models.evaluation.comparisons import flipped_totals_p_value, holm
from reward_models.stats.verdicts import MIN_ITEMS, minimum_detectable, outcome
from reward_models.whole_file import json_lines


__all__ = ["ScoredItems", "compare_runs", "differences", "read_scored_items"]

SAMPLES = "samples"


@dataclass(frozen=True)
class ScoredItems:
    """The scores of a model on the items of a task.

    Attributes:
        model: Name of the model.
        task: Name of the task.
        content: Hash of the items of the task; only equal ones are compared.
        scores: Number by metric, by name of the item.
        directions: Which values are better, by metric.

    Example:
        >>> ScoredItems("a", "urn", "3f", {"urn-0": {"jsd_nats": 0.1}}, {"jsd_nats": "lower"}).first_metric
        'jsd_nats'
    """

    model: str
    task: str
    content: str
    scores: Mapping[str, Mapping[str, float]]
    directions: Mapping[str, str]

    @property
    def first_metric(self) -> str | None:
        """The first metric of the items of which higher or lower values are better: the one that is compared."""
        names = dict.fromkeys(metric for scores in self.scores.values() for metric in scores)
        return next((name for name in names if self.directions.get(name) in ("lower", "higher")), None)


def differences(
    pairs: Sequence[tuple[ScoredItems, ScoredItems]], *, draws: int = 2000, seed: int = 0
) -> list[Difference]:
    """Compare pairs of models; Holm's family is all of them.

    Args:
        pairs: The model that is compared and its base, each on the same task.
        draws: Bootstrap draws of the intervals.
        seed: Random seed.

    Returns:
        One difference per pair that shares a metric and items. Its outcome is `better` or `worse` only if the interval
        excludes 0, the corrected p-value is below 5 %, and there are items enough.

    Example:
        >>> items = [f"q{n}" for n in range(20)]
        >>> a = ScoredItems("a", "urn", "3f", {q: {"jsd_nats": 0.1} for q in items}, {"jsd_nats": "lower"})
        >>> b = ScoredItems("b", "urn", "3f", {q: {"jsd_nats": 0.2} for q in items}, {"jsd_nats": "lower"})
        >>> [one] = differences([(a, b)])
        >>> round(one.value, 3), one.outcome, one.n_items
        (-0.1, 'better', 20)
    """
    found = [one for model, base in pairs if (one := _difference(model, base, draws, seed)) is not None]
    corrected = holm([one.p_value for one in found])
    return [
        one.model_copy(update={"p_holm": float(p), "outcome": one.outcome if p < DECIDED else "undecided"})
        for one, p in zip(found, corrected, strict=True)
    ]


def _difference(model: ScoredItems, base: ScoredItems, draws: int, seed: int) -> Difference | None:
    metric = model.first_metric
    if metric is None:
        return None
    both = [item for item in model.scores if metric in model.scores[item] and metric in base.scores.get(item, {})]
    values = np.array([model.scores[item][metric] - base.scores[item][metric] for item in both], dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    drawn = bootstrap_means(values[None, :, None], draws, seed)[:, 0, 0]
    [interval] = percentile_interval(np.array(values.mean()), drawn, len(values))
    low, high = (interval.low, interval.high) if len(values) >= MIN_ITEMS else (np.nan, np.nan)
    lower_is_better = model.directions[metric] == "lower"
    return Difference(
        task=model.task,
        metric=metric,
        model=model.model,
        base=base.model,
        value=interval.value,
        ci_low=None if np.isnan(low) else low,
        ci_high=None if np.isnan(high) else high,
        n_items=len(values),
        p_value=flipped_totals_p_value(values, seed=seed),
        p_holm=np.nan,
        minimum_detectable=minimum_detectable(low, high),
        direction=model.directions[metric],
        outcome=outcome(-high, -low) if lower_is_better else outcome(low, high),
    )


def compare_runs(
    run: str | Path, base: str | Path, *, model: str | None = None, base_model: str | None = None, seed: int = 0
) -> tuple[list[Difference], list[str]]:
    """Compare a model of one evaluation with a model of another, paired by item.

    Args:
        run: Folder of an evaluation.
        base: Folder of the evaluation to compare with; may be the same.
        model: Name of the model in `run`; None: its first that is no pseudo-model.
        base_model: The same in `base`.
        seed: Random seed.

    Returns:
        The differences, and notes about tasks that cannot be compared.

    Raises:
        FileNotFoundError: A folder holds no results.json.
        ValueError: Unknown model, or nothing to compare.
    """
    model_items, base_items = _items_of(Path(run), model), _items_of(Path(base), base_model)
    notes = [f"{task}: only one of the two evaluations has it" for task in sorted(set(model_items) ^ set(base_items))]
    pairs = []
    for task in (task for task in model_items if task in base_items):
        if model_items[task].content == base_items[task].content:
            pairs.append((model_items[task], base_items[task]))
        else:
            notes.append(f"{task}: the items differ (other data, max_items or seed), so it is not compared")
    found = differences(pairs, seed=seed)
    if not found:
        raise ValueError(f"nothing to compare between {run} and {base}: {'; '.join(notes) or 'no task has scores'}")
    return found, notes


def read_scored_items(folder: str | Path, model: str) -> dict[str, ScoredItems]:
    """Read the scores of a model from the folder of an evaluation, by task.

    Raises:
        ValueError: A file of records is damaged, e.g. cut off; the message names file and line.
    """
    results = SuiteResults.read(Path(folder) / "results.json")
    contents = {task.id: task.content for task in results.data}
    out = {}
    for task, rows in results.results.get(model, {}).items():
        path = Path(folder) / SAMPLES / f"{task}.jsonl"
        records = [record for record in _records(path) if record["model"] == model] if path.is_file() else []
        directions = {row.metric: row.direction for row in rows}
        out[task] = ScoredItems(model, task, contents.get(task, ""), item_scores(records), directions)
    return out


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in json_lines(path):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "model" not in record:
            raise ValueError(
                f"{path}, line {number}: {line[:60]!r}... is no record of an item; was the file cut off? Fix: "
                "evaluate again with the settings in results.json, which asks nothing that is in `answers_dir`"
            )
        records.append(record)
    return records


def item_scores(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the scores of records by item and metric; null counts as missing."""
    return {
        str(record["item"]): {
            metric: float(value) for metric, value in record.get("scores", {}).items() if value is not None
        }
        for record in records
        if "item" in record
    }


def _items_of(folder: Path, model: str | None) -> dict[str, ScoredItems]:
    results = SuiteResults.read(folder / "results.json")
    names = [one.name for one in results.models]
    name = model or next(iter(results.real_models() or names), None)
    if name not in names:
        raise ValueError(f"{folder} has no model {name!r}. Fix: one of {', '.join(names)}")
    return read_scored_items(folder, name)
