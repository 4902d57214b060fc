"""Every task asked of every model: what was found, what was skipped and why, and the records of every item.

Knows no command and no page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.engine.context import Context, Scoring
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskUnavailable


__all__ = ["Skipped", "SuiteFindings", "TaskFindings", "run_tasks"]


@dataclass(frozen=True)
class TaskFindings:
    """What a task found of a model."""

    model: str
    task: str
    result: TaskResult


@dataclass(frozen=True)
class Skipped:
    """A task that was not measured, of one model or (`model=""`) of all, and why."""

    task: str
    reason: str
    model: str = ""


@dataclass
class SuiteFindings:
    """What a suite found.

    Attributes:
        findings: Results by model and task.
        skipped: What was not measured, and why.
        data: Per task its source, licence, number of items and files with their SHA-256.
    """

    findings: list[TaskFindings] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    data: list[Mapping[str, Any]] = field(default_factory=list)


def run_tasks(
    models: Sequence[EvaluatedModel],
    tasks: Sequence[Task],
    *,
    data: str | Path = "data",
    max_items: int | None = None,
    seed: int = 0,
    draws: int = 1000,
    scoring: Scoring = "log_probability",
    answers_dir: str | Path | None = None,
) -> SuiteFindings:
    """Ask every model every task.

    Args:
        models: The models.
        tasks: The tasks.
        data: Folder of data sets.
        max_items: Most items per task; None for all.
        seed: Random seed.
        draws: Bootstrap draws of intervals.
        scoring: How options are scored.
        answers_dir: Folder in which the answers of models are kept, so that a second call asks nothing twice; None
            keeps them in memory.

    Example:
        >>> from plural_rlhf.suites.models.pseudo import PseudoModel
        >>> from plural_rlhf.suites.tasks.urns import urn_task
        >>> found = run_tasks([PseudoModel("gold"), PseudoModel("uniform")], [urn_task()], max_items=20, draws=50)
        >>> {f.model: round(f.result.rows[-1].value, 6) for f in found.findings}
        {'gold': 1.0, 'uniform': 0.0}
    """
    found = SuiteFindings()
    for task in tasks:
        files = TaskData(data, max_items=max_items, seed=seed)
        try:
            items = task.load(files)
        except TaskUnavailable as reason:
            found.skipped.append(Skipped(task.name, str(reason)))
            continue
        found.data.append(
            {"id": task.name, "source": task.source, "licence": task.licence, "n": len(items), "sha256": files.files}
        )
        for model in models:
            store = AnswerStore(answers_path(answers_dir, model, task))
            context = Context(model, seed, draws, scoring, store=store, label=f"{task.name}: {model.name}")
            try:
                found.findings.append(TaskFindings(model.name, task.name, task.measure(items, context)))
            except NotSupported as reason:
                found.skipped.append(Skipped(task.name, str(reason), model.name))
    return found


def answers_path(folder: str | Path | None, model: EvaluatedModel, task: Task) -> Path | None:
    """Return the file of the kept answers of a model to a task."""
    if folder is None:
        return None
    return Path(folder) / re.sub(r"[^\w.-]", "_", model.identity)[:64] / f"{task.name}.jsonl"
