"""The tasks `coverage-...`: validity, uniqueness and yield on 22 generation tasks that a rule can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.coverage.measures import CoverageResult, coverage_of, mean_coverage
from plural_rlhf.evaluation.coverage.tasks import GENERATION_TASKS, GenerationTask, Setting
from plural_rlhf.suites.models.protocol import END_OF_ANSWER
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskRow


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["CoverageTask"]


class CoverageTask(Task):
    """Generations of tasks whose answers can be checked, under one setting of the prompt.

    Args:
        setting: What prompts show: "description", "examples" or "both".
        n: Generations per task.

    Example:
        >>> CoverageTask("both").name
        'coverage-both'
    """

    shape, source, licence = "generation", "generated", "Apache-2.0"

    def __init__(self, setting: Setting = "both", n: int = 100) -> None:
        self.setting, self.n = setting, n
        self.name = f"coverage-{setting}"
        self.title = f"Valid and different answers to 22 tasks that a rule checks; prompts show {_SHOWN[setting]}."

    def load(self, data: TaskData) -> Sequence[GenerationTask]:
        """Return the tasks, evenly selected if there are too many."""
        tasks = list(GENERATION_TASKS.values())
        most = min(data.max_items or len(tasks), len(tasks))
        return [tasks[i * len(tasks) // most] for i in range(most)]

    def measure(self, items: Sequence[GenerationTask], context: Context) -> TaskResult:
        """Sample generations and measure them, task by task and on average."""
        results, records = [], []
        for tokens in sorted({task.max_new_tokens for task in items}):
            alike = [task for task in items if task.max_new_tokens == tokens]
            prompts = [task.prompt(self.setting) for task in alike]
            drawn = context.sample(prompts, self.n, max_new_tokens=tokens, stop=END_OF_ANSWER, purpose="coverage")
            for task, prompt, texts in zip(alike, prompts, drawn, strict=True):
                result = coverage_of(task, texts)
                results.append(result)
                records.append({"item": task.name, "scores": _scores(result), "prompt": prompt, "texts": texts})
        means = mean_coverage(results)
        rows = [
            interval_row("yield_share", means["yield_share"], unit="skill", ceiling=1.0, headline=True),
            interval_row("validity", means["validity"], ceiling=1.0),
            interval_row("uniqueness", means["uniqueness"], ceiling=1.0),
            interval_row(
                "yield",
                means["yield"],
                unit="values",
                ceiling=sum(result.uniform_yield for result in results) / len(results),
            ),
            *(_task_row(result) for result in results),
        ]
        return TaskResult(rows, records)


_SHOWN = {"description": "the description", "examples": "three examples", "both": "the description and three examples"}


def _scores(result: CoverageResult) -> dict[str, float]:
    return {
        "validity": result.validity.value,
        "uniqueness": result.uniqueness,
        "yield_share": result.yield_share.value,
    }


def _task_row(result: CoverageResult) -> TaskRow:
    interval = result.yielded
    return interval_row(
        "yield",
        interval,
        unit="values",
        group=result.task,
        kind="repetitions of the draws (Chao et al.)",
        ceiling=result.uniform_yield,
    )
