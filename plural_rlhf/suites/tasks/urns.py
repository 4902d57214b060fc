"""A generated task whose true distribution is known exactly: the colour of a ball drawn from an urn."""

from __future__ import annotations

import numpy as np

from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.suites.tasks.distributions import DistributionTask
from plural_rlhf.suites.tasks.protocol import TaskData
from reward_models.seeds import seeded_rng


__all__ = ["urn_items", "urn_task"]

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "pink")


def urn_items(data: TaskData, count: int = 1000) -> list[DistributionItem]:
    """Fill urns with two to five colours, and up to ten balls of each.

    Example:
        >>> [urn] = urn_items(TaskData(), count=1)
        >>> urn.text.startswith("An urn holds"), urn.people.sum().round(6).item()
        (True, 1.0)
    """
    rng = seeded_rng(42, "urns")
    items = []
    for number in range(count):
        colours = [COLOURS[c] for c in rng.choice(len(COLOURS), size=rng.integers(2, 6), replace=False)]
        balls = np.array([rng.integers(1, rng.integers(1, 11) + 1) for _ in colours])
        inside = ", ".join(f"{n} {colour}" for n, colour in zip(balls, colours, strict=True))
        text = f"An urn holds these balls: {inside}. One ball is drawn at random. Its colour is"
        items.append(DistributionItem(f"urn-{number}", text, tuple(colours), balls / balls.sum(), listed=False))
    return items


def urn_task() -> DistributionTask:
    """Return the task `urn`.

    Example:
        >>> urn_task().shape
        'distribution'
    """
    return DistributionTask(
        "urn", "generated", "Apache-2.0", "The colour of a ball drawn from an urn whose balls are named.", urn_items
    )
