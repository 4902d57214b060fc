"""Tasks of the shape `distribution` for inspect-ai: a model behind any of its providers states percentages.

Needs `pip install inspect-ai`. The questions, the reading of percentages and the measure are those of a suite with
`scoring: verbalised`; an answer that cannot be read counts as a uniform guess, and in `valid`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.suites.engine.option_answers import percentages_prompt, stated_shares
from plural_rlhf.suites.run import load_tasks
from plural_rlhf.suites.tasks.catalogue import make_tasks
from plural_rlhf.suites.tasks.distributions import DistributionTask, option_questions
from plural_rlhf.suites.tasks.protocol import TaskUnavailable
from plural_rlhf.suites.tasks.questions import option_request
from reward_models.errors import MissingExtraError
from reward_models.stats.answers import js_divergence, normalise


if TYPE_CHECKING:
    from inspect_ai import Task

__all__ = ["inspect_task", "stated_scores"]


def inspect_task(name: str, *, data: str | Path = "data", max_items: int | None = None, seed: int = 0) -> Task:
    """Return a task of ours as one of inspect-ai, for `inspect_ai.eval`.

    Args:
        name: A task with offered answers, e.g. `"urn"`.
        data: Folder of data sets.
        max_items: Most questions; None for all.
        seed: Random seed of their selection.

    Raises:
        MissingExtraError: inspect-ai is not installed.
        ValueError: There is no such task, or it has no offered answers.
        TaskUnavailable: Its data is not there.

    Example:
        >>> inspect_task("personas")
        Traceback (most recent call last):
        ValueError: 'personas' has no offered answers. Fix: name a task of the shape distribution, e.g. urn
    """
    [task] = make_tasks([name])
    if not isinstance(task, DistributionTask):
        raise ValueError(f"{name!r} has no offered answers. Fix: name a task of the shape distribution, e.g. urn")
    try:
        from inspect_ai import Task
        from inspect_ai.dataset import MemoryDataset, Sample
        from inspect_ai.scorer import Score, Target, mean, scorer, stderr
        from inspect_ai.solver import TaskState, generate
    except ImportError as error:
        raise MissingExtraError("inspect-ai is not installed: pip install inspect-ai") from error
    loaded, skipped = load_tasks([task], data, max_items=max_items, seed=seed)
    if not loaded:
        raise TaskUnavailable(skipped[0].reason)
    [one] = loaded
    requests = [option_request(question) for question in option_questions(one.items, "list")]
    samples = [
        Sample(
            input=percentages_prompt(request.prompt),
            target=item.options[int(np.argmax(item.people))],
            id=item.name,
            metadata={"options": list(request.options), "people": normalise(item.people).tolist()},
        )
        for item, request in zip(one.items, requests, strict=True)
    ]

    @scorer(metrics={"*": [mean(), stderr()]}, name="distance_to_people")
    def distance_to_people() -> Any:
        async def score(state: TaskState, target: Target) -> Score:
            numbers = stated_scores(state.output.completion, state.metadata["options"], state.metadata["people"])
            return Score(value=dict(numbers), answer=state.output.completion)

        return score

    dataset = MemoryDataset(samples, name=f"plural_{name}")
    return Task(dataset=dataset, solver=generate(), scorer=distance_to_people(), name=f"plural_{name}")


def stated_scores(text: str, options: list[str], people: list[float]) -> dict[str, float]:
    r"""Measure stated percentages: their divergence from people, that of a uniform guess, and whether they were read.

    Example:
        >>> stated_scores("yes: 75\nno: 25", ["yes", "no"], [0.75, 0.25])
        {'jsd_nats': 0.0, 'uniform_jsd_nats': 0.0338..., 'valid': 1.0}
        >>> stated_scores("It depends.", ["yes", "no"], [0.75, 0.25])["valid"]
        0.0
    """
    of_people, uniform = np.array(people), np.full(len(options), 1 / len(options))
    shares = stated_shares(text, options)
    return {
        "jsd_nats": float(js_divergence(of_people, uniform if shares is None else shares)),
        "uniform_jsd_nats": float(js_divergence(of_people, uniform)),
        "valid": float(shares is not None),
    }
