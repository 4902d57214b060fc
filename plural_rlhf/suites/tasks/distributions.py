"""Tasks of the shape `distribution`: how far is a model's distribution over offered answers from that of people?

Knows no data set: a task of this family is a name, a source and a function that loads items.

Shapes: `I` items, `A` options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.intervals import bootstrap_means, percentile_interval
from plural_rlhf.suites.tasks.protocol import Shape, Task, TaskData, TaskResult, TaskRow
from plural_rlhf.suites.tasks.questions import OptionAnswer, OptionQuestion
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import entropy_gap, js_divergence, noise_floor_js, normalise, total_variation


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["DistributionItem", "DistributionTask"]


@dataclass(frozen=True)
class DistributionItem:
    """A question with the distribution of people over its options.

    Attributes:
        name: Name of the item, unique in its task.
        text: Everything before the answer, without the options.
        options: `A` different answers.
        people: `(A,)` shares of the people.
        n: People behind the shares; None where they are exact, e.g. computed.
        group: Group of people, e.g. a country.
        ordinal: Whether the options are in an order.
        listed: Whether the options are listed below the text (`OptionQuestion`).

    Raises:
        ValueError: The shares do not sum to one, are negative, or are not as many as the options.

    Example:
        >>> DistributionItem("q1", "Parks?", ("yes", "no"), np.array([0.7, 0.7]))
        Traceback (most recent call last):
        ValueError: item 'q1': the shares of people are [0.7, 0.7] and sum to 1.4, not 1. Fix: divide counts by ...
    """

    name: str
    text: str
    options: tuple[str, ...]
    people: np.ndarray
    n: int | None = None
    group: str = "all"
    ordinal: bool = False
    listed: bool = True

    def __post_init__(self) -> None:
        shares = np.asarray(self.people, dtype=np.float64)
        if shares.shape != (len(self.options),) or not np.isfinite(shares).all() or (shares < 0).any():
            raise ValueError(
                f"item {self.name!r}: {len(self.options)} options have the shares {shares.tolist()}. Fix: give one "
                "share of at least 0 per option"
            )
        if abs(shares.sum() - 1) > 1e-6:
            raise ValueError(
                f"item {self.name!r}: the shares of people are {shares.tolist()} and sum to {shares.sum():.4g}, "
                "not 1. Fix: divide counts by their sum"
            )


@dataclass(frozen=True)
class DistributionTask(Task):
    """A task of this family.

    Attributes:
        name: See `Task`.
        source: See `Task`.
        licence: See `Task`.
        title: See `Task`.
        items: Loads the items from `TaskData`; may raise `TaskUnavailable`.

    Example:
        >>> from plural_rlhf.suites.engine.context import Context
        >>> from plural_rlhf.suites.models.pseudo import PseudoModel
        >>> items = [DistributionItem(f"q{i}", "Parks?", ("yes", "no"), np.array([0.9, 0.1])) for i in range(3)]
        >>> task = DistributionTask("parks", "generated", "Apache-2.0", "Parks.", lambda data: items)
        >>> rows = task.measure(task.load(TaskData()), Context(PseudoModel("gold"))).rows
        >>> {row.metric: round(row.value, 3) for row in rows if row.metric in ("jsd_nats", "skill_uniform")}
        {'jsd_nats': 0.0, 'skill_uniform': 1.0}
    """

    name: str
    source: str
    licence: str
    title: str
    items: Callable[[TaskData], Sequence[DistributionItem]]
    shape: Shape = "distribution"

    def load(self, data: TaskData) -> Sequence[DistributionItem]:
        """Load the items; if there are more than `data.max_items`, a random selection in their own order."""
        items = self.items(data)
        if data.max_items is None or len(items) <= data.max_items:
            return items
        chosen = seeded_rng(data.seed, "items of a task").choice(len(items), size=data.max_items, replace=False)
        return [items[position] for position in sorted(chosen)]

    def measure(self, items: Sequence[DistributionItem], context: Context) -> TaskResult:
        """Ask for the distribution over the options of every item and measure it against people's."""
        marginals = _marginals(items)
        questions = [
            OptionQuestion(item.text, item.options, item.people, marginal, item.listed)
            for item, marginal in zip(items, marginals, strict=True)
        ]
        answers = context.option_answers(questions)
        scores = [_scores(item, answer) for item, answer in zip(items, answers, strict=True)]
        uniform = [js_divergence(np.full(len(item.options), 1 / len(item.options)), item.people) for item in items]
        jsd = np.array([score["jsd_nats"] for score in scores])
        baselines = {"uniform": float(np.mean(uniform))}
        of_marginals = [
            js_divergence(marginal, item.people)
            for marginal, item in zip(marginals, items, strict=True)
            if marginal is not None
        ]
        if len(of_marginals) == len(items):
            baselines["marginal"] = float(np.mean(of_marginals))
        if all(item.n is not None for item in items):
            floors = [noise_floor_js(item.people[None], np.array([item.n]), context.seed) for item in items]
            baselines["floor"] = float(np.mean(floors))
        directions = {"jsd_nats": "lower", "total_variation": "lower", "entropy_gap": "zero", "coverage": "higher"}
        units = {"jsd_nats": "nats", "total_variation": "share", "entropy_gap": "nats", "coverage": "share"}
        rows = [
            _row(metric, np.array([s[metric] for s in scores]), context, units[metric], directions[metric], baselines)
            for metric in directions
        ]
        rows.append(_skill(jsd, np.array(uniform), context))
        records = [_record(item, answer, score) for item, answer, score in zip(items, answers, scores, strict=True)]
        return TaskResult(rows, records)


def _marginals(items: Sequence[DistributionItem]) -> list[np.ndarray | None]:
    """Shares of the people on the other items with the same options; None where there are no others."""
    totals: dict[tuple[str, ...], list[np.ndarray]] = {}
    for item in items:
        totals.setdefault(item.options, []).append(item.people)
    return [
        normalise(np.sum(totals[item.options], axis=0)) if len(totals[item.options]) > 1 else None for item in items
    ]


def _scores(item: DistributionItem, answer: OptionAnswer) -> dict[str, float]:
    return {
        "jsd_nats": float(js_divergence(answer.shares, item.people)),
        "total_variation": float(total_variation(answer.shares, item.people)),
        "entropy_gap": float(entropy_gap(answer.shares, item.people)),
        "coverage": answer.coverage,
    }


def _row(
    metric: str, values: np.ndarray, context: Context, unit: str, direction: Any, baselines: dict[str, float]
) -> TaskRow:
    drawn = bootstrap_means(values[None, :, None], context.draws, context.seed)[:, 0, 0]
    [interval] = percentile_interval(values.mean(), drawn, len(values))
    return TaskRow(
        metric,
        interval.value,
        interval.low if np.isfinite(interval.low) else None,
        interval.high if np.isfinite(interval.high) else None,
        n_items=len(values),
        unit=unit,
        direction=direction,
        baselines=baselines if metric == "jsd_nats" else {},
    )


def _skill(jsd: np.ndarray, uniform: np.ndarray, context: Context) -> TaskRow:
    """1 − JSD(model) / JSD(uniform): 1 is the people themselves, 0 a uniform guess."""
    means = bootstrap_means(np.stack([jsd, uniform])[:, :, None], context.draws, context.seed)[:, :, 0]
    value = np.array(1 - jsd.mean() / uniform.mean())
    [interval] = percentile_interval(value, 1 - means[:, 0] / means[:, 1], len(jsd))
    return TaskRow(
        "skill_uniform",
        interval.value,
        interval.low if np.isfinite(interval.low) else None,
        interval.high if np.isfinite(interval.high) else None,
        n_items=len(jsd),
        unit="skill",
        direction="higher",
        baselines={"uniform": 0.0, "ceiling": 1.0},
        headline=True,
    )


def _record(item: DistributionItem, answer: OptionAnswer, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "item": item.name,
        "group": item.group,
        "text": item.text,
        "options": list(item.options),
        "people": np.asarray(item.people).tolist(),
        "n": item.n,
        "model": answer.shares.tolist(),
        "valid": answer.valid,
        "scores": scores,
    }
