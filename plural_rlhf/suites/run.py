"""Every task asked of every model: what was found, what was skipped and why.

Knows no command, no file of results and no page.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plural_rlhf.suites.engine.answers import AnswerStore
from plural_rlhf.suites.engine.asking import LEAST_DRAWS, Asking, Scoring
from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported
from plural_rlhf.suites.models.rewards import TextReward
from plural_rlhf.suites.tasks.protocol import KEPT, Task, TaskData, TaskResult, TaskUnavailable
from plural_rlhf.suites.tasks.questions import Layout
from reward_models.content_hashes import arrays_hash, value_hash
from reward_models.progress import track


__all__ = [
    "AskedModel",
    "LoadedTask",
    "Skipped",
    "SuiteFindings",
    "TaskFindings",
    "load_tasks",
    "run_loaded",
    "run_tasks",
]

LONGEST_NAME = 64
"""Characters of the name of a folder of answers."""


@dataclass(frozen=True)
class LoadedTask:
    """A task with its items.

    Attributes:
        task: The task.
        items: Its items.
        files: SHA-256 of the files they were read from, by path below the data folder.
        content: Hash of the items themselves, which generated ones have too.
    """

    task: Task
    items: Sequence[Any]
    files: Mapping[str, str]
    content: str


@dataclass(frozen=True)
class TaskFindings:
    """What a task found of a model."""

    model: str
    task: str
    result: TaskResult
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Skipped:
    """A task that was not measured, of one model or (`model=""`) of all, and why."""

    task: str
    reason: str
    model: str = ""


@dataclass(frozen=True)
class AskedModel:
    """Name, kind and identity of a model that was asked, and what an endpoint counted."""

    name: str
    kind: str
    identity: str
    usage: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass
class SuiteFindings:
    """What a suite found.

    Attributes:
        models: The models.
        tasks: The tasks that were loaded.
        findings: Results by model and task.
        skipped: What was not measured, and why.
    """

    models: list[AskedModel] = field(default_factory=list)
    tasks: list[LoadedTask] = field(default_factory=list)
    findings: list[TaskFindings] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def load_tasks(
    tasks: Iterable[Task],
    data: str | Path = "data",
    *,
    max_items: int | None = None,
    items_of: Mapping[str, int] | None = None,
    seed: int = 0,
    kept: str | Path = KEPT,
    rewards: Sequence[TextReward] = (),
) -> tuple[list[LoadedTask], list[Skipped]]:
    """Load the items of tasks.

    Args:
        tasks: The tasks.
        data: Folder of data sets.
        max_items: Most items per task; None for all.
        items_of: The same for single tasks, by name.
        seed: Random seed of their selection.
        kept: Folder for what tasks compute once from their data, e.g. a jury that judges.
        rewards: What texts are worth, for tasks that ask for it.

    Returns:
        The tasks with their items, and those whose data is not there.

    Example:
        >>> from plural_rlhf.suites.tasks.catalogue import make_tasks
        >>> [loaded], skipped = load_tasks(make_tasks(["urn"]), max_items=5)
        >>> len(loaded.items), skipped
        (5, [])
    """
    loaded, skipped = [], []
    for task in track(list(tasks), "loading tasks"):
        most = (items_of or {}).get(task.name, max_items)
        files = TaskData(data, max_items=most, seed=seed, kept=kept, rewards=rewards)
        try:
            items = task.load(files)
        except TaskUnavailable as reason:
            skipped.append(Skipped(task.name, str(reason)))
            continue
        if items:
            loaded.append(LoadedTask(task, items, files.files, arrays_hash(list(items))))
        else:
            skipped.append(Skipped(task.name, "its data holds no item"))
    return loaded, skipped


def run_tasks(
    models: Iterable[EvaluatedModel],
    tasks: Iterable[Task],
    *,
    data: str | Path = "data",
    max_items: int | None = None,
    seed: int = 0,
    draws: int = 1000,
    scoring: Scoring = "log_probability",
    option_samples: int = 32,
    permutations: bool = False,
    layout: Layout = "list",
    answers_dir: str | Path | None = None,
) -> SuiteFindings:
    """Ask every model every task, one model after another.

    Args:
        models: The models; a generator may load each when its turn comes.
        tasks: The tasks.
        data: Folder of data sets.
        max_items: Most items per task; None for all.
        seed: Random seed.
        draws: Bootstrap draws of intervals, at least 20.
        scoring: How options are scored.
        option_samples: Samples per question, with `scoring="sampling"`.
        permutations: Ask listed options in another order and under letters too.
        layout: How listed options are shown: `list`, one per line; `line`, as in the training of a survey run; or
            `sentence`, “Choose one answer: ...”.
        answers_dir: Folder in which the answers of models are kept, so that a second call asks nothing twice; None
            keeps them in memory.

    Raises:
        ValueError: Fewer draws, of which no interval can be made.

    Example:
        >>> from plural_rlhf.suites.models.pseudo import PseudoModel
        >>> from plural_rlhf.suites.tasks.catalogue import make_tasks
        >>> models = [PseudoModel("gold"), PseudoModel("uniform")]
        >>> found = run_tasks(models, make_tasks(["urn"]), max_items=20, draws=50)
        >>> rows = {f.model: f.result.rows for f in found.findings}
        >>> {name: round(next(r.value for r in rows[name] if r.headline), 6) for name in rows}
        {'gold': 1.0, 'uniform': 0.0}
    """
    if draws < LEAST_DRAWS:
        raise ValueError(f"draws={draws}: 95 % intervals need at least {LEAST_DRAWS} resamples. Fix: e.g. draws=1000")
    loaded, skipped = load_tasks(tasks, data, max_items=max_items, seed=seed, kept=answers_dir or KEPT)
    asking = Asking(
        seed=seed,
        draws=draws,
        scoring=scoring,
        option_samples=option_samples,
        permutations=permutations,
        layout=layout,
    )
    found = run_loaded(models, loaded, asking, answers_dir=answers_dir)
    found.skipped[:0] = skipped
    return found


def run_loaded(
    models: Iterable[EvaluatedModel],
    loaded: Sequence[LoadedTask],
    asking: Asking,
    *,
    answers_dir: str | Path | None = None,
) -> SuiteFindings:
    """Ask every model tasks that `load_tasks` loaded; `answers_dir` as for `run_tasks`."""
    found = SuiteFindings(tasks=list(loaded))
    for model in models:
        for one in loaded:
            store = AnswerStore(answers_path(answers_dir, model, one.task))
            context = Context(model, store, f"{model.name}: {one.task.name}", **asdict(asking))
            begun = time.perf_counter()
            try:
                result = one.task.measure(one.items, context)
            except NotSupported as reason:
                if model.kind != "pseudo":  # which marks a scale where there is one
                    found.skipped.append(Skipped(one.task.name, str(reason), model.name))
            else:
                seconds = time.perf_counter() - begun
                found.findings.append(TaskFindings(model.name, one.task.name, result, seconds))
        found.models.append(AskedModel(model.name, model.kind, model.identity, model.usage_record()))
    return found


def answers_path(folder: str | Path | None, model: EvaluatedModel, task: Task) -> Path | None:
    """Return the file of the kept answers of a model to a task."""
    if folder is None:
        return None
    name = re.sub(r"[^\w.-]", "_", model.identity)
    if name != model.identity or len(name) > LONGEST_NAME:  # what is cut or replaced may be what tells it apart
        name = f"{name[: LONGEST_NAME - 25]}-{value_hash(model.identity)[:24]}"
    return Path(folder) / name / f"{task.name}.jsonl"
