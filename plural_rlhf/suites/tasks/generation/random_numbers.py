"""The task `random-number`: has a model a favourite number?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.side_effects.random_numbers import (
    RANDOM_NUMBER_WORDINGS,
    favourite_number,
    said_number,
)
from plural_rlhf.suites.models.protocol import END_OF_ANSWER, NotSupported
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["RandomNumberTask"]


class RandomNumberTask(Task):
    """The "7" check: a random number from 1 to 10, asked for in several wordings.

    Args:
        n: Answers per wording.

    Example:
        >>> len(RandomNumberTask().load(TaskData()))
        5
    """

    name, shape, source, licence = "random-number", "generation", "generated", "Apache-2.0"
    title = "A random number from 1 to 10, asked for in five wordings."

    def __init__(self, n: int = 100) -> None:
        self.n = n

    def load(self, data: TaskData) -> Sequence[str]:
        """Return the wordings; there are so few that `max_items` leaves them all."""
        return RANDOM_NUMBER_WORDINGS

    def measure(self, items: Sequence[str], context: Context) -> TaskResult:
        """Sample answers and compare them with the uniform distribution."""
        drawn = context.sample(items, self.n, max_new_tokens=8, stop=END_OF_ANSWER, purpose="random number")
        try:
            check = favourite_number(drawn, draws=context.draws, seed=context.seed)
        except ValueError as error:
            raise NotSupported(str(error)) from error
        most, over = math.log(10), "bootstrap of answers"
        rows = [
            interval_row(
                "jsd_nats_to_uniform",
                check.js_to_uniform,
                unit="nats",
                direction="lower",
                kind=over,
                headline=True,
                floor=check.js_floor,
            ),
            interval_row("entropy_nats", check.entropy, unit="nats", kind=over, uniform=most),
            interval_row(
                f"share_of_{check.favourite}", check.mode_share, direction="lower", kind="Wilson", uniform=0.1
            ),
            interval_row("validity", check.validity, kind="Wilson", ceiling=1.0),
        ]
        records = [
            {
                "item": f"wording-{i}",
                "scores": {"validity": sum(said_number(text) is not None for text in texts) / len(texts)},
                "prompt": prompt,
                "texts": texts,
            }
            for i, (prompt, texts) in enumerate(zip(items, drawn, strict=True))
        ]
        return TaskResult(rows, records)
