"""The task `noveltybench`: how many different answers a model gives to prompts with many good ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.diversity.equivalence import EQUIVALENCE_RULES, EquivalenceRule
from plural_rlhf.evaluation.diversity.novelty import mean_novelty, prompt_novelty
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["NoveltyTask"]


class NoveltyTask(Task):
    """NoveltyBench's curated prompts, with classes by a rule that was calibrated on people's judgements.

    Args:
        n: Texts per prompt; 10 as published.
        max_new_tokens: Longest text.
        rule: When two texts say the same. The published classifier is a fine-tuned model, so that numbers are near the
            published ones, not the same.

    Example:
        >>> NoveltyTask().name
        'noveltybench'
    """

    name, shape, licence = "noveltybench", "generation", "MIT"
    source = "https://arxiv.org/abs/2504.05228"
    title = "Different answers among ten to prompts with many good ones (NoveltyBench, curated)."

    def __init__(
        self,
        n: int = 10,
        max_new_tokens: int = 128,
        rule: EquivalenceRule = EQUIVALENCE_RULES["order of words"],
    ) -> None:
        self.n, self.max_new_tokens, self.rule = n, max_new_tokens, rule

    def load(self, data: TaskData) -> Sequence[tuple[str, str]]:
        """Read names and prompts, evenly selected over the categories if there are too many."""
        import pandas as pd

        frame = pd.read_parquet(data.file("noveltybench", "curated.parquet"))
        prompts = list(zip(frame["id"], frame["prompt"], strict=True))
        most = min(data.max_items or len(prompts), len(prompts))
        return [prompts[i * len(prompts) // most] for i in range(most)]

    def measure(self, items: Sequence[tuple[str, str]], context: Context) -> TaskResult:
        """Sample texts and count their classes."""
        drawn = context.sample(
            [prompt for _, prompt in items], self.n, max_new_tokens=self.max_new_tokens, purpose="novelty"
        )
        numbers = [prompt_novelty(texts, self.rule) for texts in drawn]
        means = mean_novelty(numbers)
        rows = [
            interval_row(
                "distinct", means["distinct"], unit="classes", floor=1.0, ceiling=float(self.n), headline=True
            ),
            interval_row("effective_classes", means["effective_classes"], unit="classes", floor=1.0, ceiling=self.n),
            interval_row("largest_3", means["largest_3"], direction="lower", floor=3 / self.n, ceiling=1.0),
        ]
        records = [
            {"item": name, "scores": scores, "prompt": prompt, "texts": texts}
            for (name, prompt), scores, texts in zip(items, numbers, drawn, strict=True)
        ]
        return TaskResult(rows, records)
