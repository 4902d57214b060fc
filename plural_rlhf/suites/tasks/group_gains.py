"""What is gained by saying whom a question is put to: distances with the group named less those without it.

Knows no data set and no model; a task asks and hands the answers on.

Shapes: `I` items, `A` options.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from plural_rlhf.evaluation.distribution.distances import DISTANCES
from plural_rlhf.evaluation.distribution.items import DistributionItem, positions_by
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.grouped import grouped_interval
from plural_rlhf.suites.tasks.protocol import TaskRow
from plural_rlhf.suites.tasks.questions import OptionAnswer, OptionQuestion
from reward_models.stats.answers import normalise


__all__ = ["gain_rows", "gains", "questions_without_group"]


def questions_without_group(
    items: Sequence[DistributionItem], told: Sequence[OptionQuestion], preface: str
) -> tuple[list[OptionQuestion], list[int]]:
    """Return the questions as they are put when nobody's group is named, each once.

    What is known of people is the mean over the groups that are asked, so that the pseudo-model `gold` gains what can
    be gained.

    Args:
        items: `I` items.
        told: The questions of the items with their groups.
        preface: What stands before each question in place of the item's own.

    Returns:
        The questions, and for each item the place of its question.

    Example:
        >>> items = [
        ...     DistributionItem(f"q-{g}", "Parks?", ("yes", "no"), np.array([p, 1 - p]), group=g, question="q")
        ...     for g, p in (("left", 0.9), ("right", 0.3))
        ... ]
        >>> told = [OptionQuestion(item.asked, item.options, item.people) for item in items]
        >>> [question], places = questions_without_group(items, told, "A survey asks:")
        >>> question.text.splitlines(), question.people.round(2).tolist(), places
        (['A survey asks:', 'Parks?'], [0.6, 0.4], [0, 0])
    """
    questions: list[OptionQuestion] = []
    places = [0] * len(items)
    for _, positions in positions_by(items, _question):
        of = [told[position] for position in positions]
        marginals = [question.marginal for question in of if question.marginal is not None]
        for position in positions:
            places[position] = len(questions)
        questions.append(
            replace(
                of[0],
                text=replace(items[positions[0]], preface=preface).asked,
                people=np.mean([items[position].people for position in positions], axis=0),
                marginal=np.mean([normalise(np.asarray(m)) for m in marginals], axis=0) if marginals else None,
            )
        )
    return questions, places


def gains(
    items: Sequence[DistributionItem],
    told: Sequence[OptionAnswer],
    untold: Sequence[OptionAnswer],
    metric: str = "jsd_nats",
) -> tuple[np.ndarray, np.ndarray]:
    """Compute how much nearer to people answers come when their group is named, and when another group is.

    Args:
        items: `I` items.
        told: Answers with the group of each item.
        untold: Answers to the same questions without a group.
        metric: One of `DISTANCES`.

    Returns:
        (I,) gain: positive where the answer is nearer to the people of the item with their group than without one; and
        (I,) leak: the same of the answers with the question's other groups, their mean, nan without another group.

    Example:
        A model that answers as each group does, and as the first one where none is named:

        >>> items = [
        ...     DistributionItem(f"q-{g}", "Parks?", ("yes", "no"), np.array([p, 1 - p]), group=g, question="q")
        ...     for g, p in (("left", 1.0), ("right", 0.0))
        ... ]
        >>> told = [OptionAnswer(item.people, 1.0) for item in items]
        >>> gain, leak = gains(items, told, [told[0], told[0]], "total_variation")
        >>> gain.tolist(), leak.tolist()
        ([0.0, 1.0], [-1.0, 0.0])
    """
    measure = DISTANCES[metric]

    def better(item: DistributionItem, answer: OptionAnswer, other: OptionAnswer) -> float:
        of_answer, of_other = (float(measure.compute(item.people, of.shares)) for of in (answer, other))
        return of_answer - of_other if measure.direction == "higher" else of_other - of_answer

    gain = np.array([better(*parts) for parts in zip(items, told, untold, strict=True)])
    leak = np.full(len(items), np.nan)
    for _, positions in positions_by(items, _question):
        for position in positions:
            others = [other for other in positions if items[other].group != items[position].group]
            if others:
                leak[position] = np.mean([better(items[position], told[o], untold[position]) for o in others])
    return gain, leak


def gain_rows(
    items: Sequence[DistributionItem],
    gain: np.ndarray,
    leak: np.ndarray,
    metric: str = "jsd_nats",
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[TaskRow]:
    """Return the gain over all items and by group, and the leak; intervals resample questions, groups together.

    Example:
        >>> items = [
        ...     DistributionItem(f"q{n}-{g}", "?", ("yes", "no"), np.array([0.5, 0.5]), group=g, question=f"q{n}")
        ...     for n in range(5)
        ...     for g in "ab"
        ... ]
        >>> rows = gain_rows(items, np.arange(10.0) % 2, np.full(10, -0.5), draws=50)
        >>> [(row.metric, row.group, row.value, row.ci_low) for row in rows][:3]
        [('steering_gain[jsd_nats]', 'all', 0.5, 0.5), ('steering_gain[jsd_nats]', 'a', 0.0, 0.0), ...]
    """
    everyone = np.arange(len(items))
    by_group = {str(group): positions for group, positions in positions_by(items, lambda item: item.group)}
    parts = [("steering_gain", gain, "all", everyone)]
    parts += [("steering_gain", gain, group, of) for group, of in by_group.items()]
    known = np.flatnonzero(np.isfinite(leak))
    if len(known):
        parts.append(("steering_leak", leak, "all", known))
    return [
        interval_row(
            f"{name}[{metric}]",
            grouped_interval(values[of], [items[int(place)].question for place in of], draws=draws, seed=seed),
            unit=DISTANCES[metric].unit,
            direction="higher" if name == "steering_gain" else "none",
            kind="questions resampled",
            group=group,
            uniform=0.0,
        )
        for name, values, group, of in parts
    ]


def _question(item: DistributionItem) -> Hashable:
    return item.question, item.text, item.options
