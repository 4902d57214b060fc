"""Tasks on a jury and candidate texts: the landscape of its rewards, and published benchmarks of reward models.

Shapes: `U` texts, `K` clusters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.suites.models.protocol import NotSupported
from plural_rlhf.suites.tasks.free_text import OpenQuestion, polarized_questions
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.juries.rows import jury_rows
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult
from reward_models.evaluation.benchmarks.items import Benchmark, BenchmarkItem, Schema, read_benchmark
from reward_models.evaluation.benchmarks.scores import MEAN, score_benchmark
from reward_models.evaluation.candidates.landscape import landscape
from reward_models.evaluation.candidates.pools import pools_of
from reward_models.judgements.texts import Text
from reward_models.stats.answers import Interval
from reward_models.stats.shares import share_interval


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["CANDIDATE_TASKS", "BenchmarkTask", "LandscapeTask"]


class LandscapeTask(Task):
    """The diagnostic of the reward landscape: on how many questions would one answer please every cluster?

    Candidates are what people wrote to ten questions on protests.

    Example:
        >>> LandscapeTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/...
    """

    name, shape, licence, source = "jury-landscape", "ratings", LICENCE, SOURCE
    title = "Whether one answer would please every cluster of a jury, among what people wrote to ten questions."

    def load(self, data: TaskData) -> Sequence[OpenQuestion]:
        """Read the questions with people's answers, evenly selected if there are too many."""
        questions = polarized_questions(data)
        most = min(data.max_items or len(questions), len(questions))
        return [questions[position * len(questions) // most] for position in range(most)]

    def measure(self, items: Sequence[OpenQuestion], context: Context) -> TaskResult:
        """Score all candidates and describe the landscape, question by question and on average."""
        scorer = context.model.scorer
        written = {item.text: list(dict.fromkeys(t for t in item.people if t.strip())) for item in items}
        texts = [Text(prompt, response) for prompt, responses in written.items() for response in responses]
        pools = pools_of(texts, context.cluster_rewards(texts))
        result = landscape(pools, scorer.prevalence, names=scorer.cluster_names, seed=context.seed)
        records = [
            {
                "item": str(one.pool.prompt),
                "scores": {"one_answer": float(one.one_answer()), "worst_regret": float(one.regrets.max())},
                "compromise": one.pool.responses[one.compromise],
                "favourites": {
                    name: one.pool.responses[place]
                    for name, place in zip(scorer.cluster_names, one.favourites, strict=True)
                },
            }
            for one in result.prompts
        ]
        return TaskResult(jury_rows(result.rows(), "jury", "one_answer_share"), records)


class BenchmarkTask(Task):
    """A published benchmark of reward models, by subset, for each cluster of a jury and for their weighted mean.

    RewardBench 2 includes its subset Ties. `max_items` selects evenly within each subset; prompts of Ties all stay,
    because they are scored in pairs.

    Args:
        schema: "rewardbench", "rewardbench-2" or "rm-bench".

    Example:
        >>> BenchmarkTask("rewardbench-2").name
        'jury-rewardbench-2'
    """

    shape = "ratings"

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.name = f"jury-{schema}"
        self.source, self.licence = _RELEASED[schema]
        self.title = f"Whether the better response is rewarded more ({schema})."

    def load(self, data: TaskData) -> Sequence[BenchmarkItem]:
        """Read the items of the benchmark's own file."""
        path = data.file(self.schema, "test.parquet", source=f"{self.source} (save its split as test.parquet)")
        benchmark = read_benchmark(path)
        if data.max_items is None or len(benchmark.items) <= data.max_items:
            return benchmark.items
        tied = [item for item in benchmark.items if item.id.startswith(("ref:", "tied:"))]
        others = sorted((item for item in benchmark.items if item not in tied), key=lambda item: item.subset)
        most = min(data.max_items, len(others))
        return [others[i * len(others) // most] for i in range(most)] + tied

    def measure(self, items: Sequence[BenchmarkItem], context: Context) -> TaskResult:
        """Score every response."""
        scorer = context.model.scorer
        benchmark = Benchmark(self.schema, list(items))
        texts = benchmark.texts
        rewards = dict(zip(texts, context.cluster_rewards(texts), strict=True))
        scores = score_benchmark(benchmark, rewards, scorer.cluster_names, scorer.prevalence)
        whole = np.array([credit for credit in scores.credits[:, -1] if np.isfinite(credit)])  # without Ties
        if not len(whole):
            raise NotSupported(f"{self.schema}: there is no item besides those of Ties")
        low, high = share_interval(whole.mean(), np.array(len(whole)))  # as of the subsets: with a width at 0 and 1
        accuracy = Interval(float(whole.mean()), float(low), float(high), 0, len(whole))
        rows = [interval_row("accuracy", accuracy, kind="Wilson over items", headline=True, ceiling=1.0)]
        for row in scores.rows():
            of = row["case"] if row["method"] == MEAN else f"{row['case']}, {row['method']}"
            rows += jury_rows([{**row, "metric": f"{row['metric']}[{of}]"}], row["method"])
        records = [
            {"item": item.id, "scores": {"credit": float(credit)}, "subset": item.subset}
            for item, credit in zip(benchmark.items, scores.credits[:, -1], strict=True)
            if np.isfinite(credit)
        ]
        return TaskResult(rows, records)


_RELEASED: dict[Schema, tuple[str, str]] = {
    "rewardbench": ("https://huggingface.co/datasets/allenai/reward-bench", "ODC-BY"),
    "rewardbench-2": ("https://huggingface.co/datasets/allenai/reward-bench-2", "ODC-BY"),
    "rm-bench": ("https://huggingface.co/datasets/THU-KEG/RM-Bench", "ODC-BY"),
}
CANDIDATE_TASKS: dict[str, Callable[[], Task]] = {
    "jury-landscape": LandscapeTask,
    **{f"jury-{schema}": functools.partial(BenchmarkTask, schema) for schema in _RELEASED},
}
"""A function that makes the task, by its name."""
