"""The numbers of a suite as tables. Knows nothing of plots or files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count

from rich.table import Table

from plural_rlhf.report.suite.results import DECIDED, SKILL, Difference, FrontMember, MetricResult, SuiteResults
from plural_rlhf.report.tables import DASH, TextTable, format_nats, rich_table


__all__ = [
    "all_numbers",
    "comparison_table",
    "data_table",
    "endpoint_sentences",
    "front_table",
    "overview",
    "overview_table",
    "skipped_table",
    "undecidable_sentence",
]

SELDOM = 0.05
"""Probability below which a model is not named among those that another is better than in all objectives."""
BETTER = {"lower": "lower", "higher": "higher", "zero": "near 0", "none": ""}


def overview(results: SuiteResults, *, intervals: bool = True) -> TextTable:
    """Tabulate one row per task, and the headline number of every model; pseudo-models only where one has a number.

    What a task itself puts beside its headline, such as a jury that knows nothing of its raters, is the last column.

    Args:
        results: The results.
        intervals: Whether to show those of the models.

    Example:
        >>> row = MetricResult(metric="skill_uniform", value=0.4, headline=True, unit="skill")
        >>> models = [{"name": "base", "kind": "causal-lm", "identity": "1"}]
        >>> overview(SuiteResults(models=models, results={"base": {"urn": [row]}})).rows
        [['urn', 'skill_uniform', '0.400']]
    """
    real, tasks = results.real_models(), results.tasks()
    models = [
        model.name
        for model in results.models
        if model.name in real or any(results.headline(model.name, task) is not None for task in tasks)
    ]
    body, beside = [], []
    for task in tasks:
        rows = {model: row for model in models if (row := results.headline(model, task)) is not None}
        cells = {
            model: _with_interval(row) if intervals and model in real else format_nats(row.value)
            for model, row in rows.items()
        }
        body.append([task, next(iter(rows.values())).metric, *(cells.get(model, DASH) for model in models)])
        marks = next((row.baselines for model, row in rows.items() if model in real), {})
        beside.append(_listed({name: value for name, value in marks.items() if name not in cells}))
    shown = {row[1] for row in body}
    notes = [
        "skill_uniform: 1 is what people themselves answer, 0 a uniform guess, below 0 worse than that."
        * (SKILL in shown),
        "yield_share: 1 is the yield of a uniform choice among the valid answers." * ("yield_share" in shown),
        "skill_mmd: 1 is people's own texts, 0 their texts on another question." * ("skill_mmd" in shown),
        "In brackets the 95 % interval.",
        "gold, uniform, marginal and mode are no models: they mark the scale." * (len(models) > len(real)),
    ]
    header = ["task", "metric", *models]
    if any(marks != DASH for marks in beside):
        header, body = [*header, "beside it"], [[*row, marks] for row, marks in zip(body, beside, strict=True)]
    return TextTable(header, body, " ".join(filter(None, notes)))


def overview_table(results: SuiteResults) -> Table:
    """Return the overview for a terminal, without intervals if there are several models.

    Example:
        >>> overview_table(SuiteResults()).row_count
        0
    """
    return rich_table(overview(results, intervals=len(results.real_models()) < 2), title=results.name)


def all_numbers(results: SuiteResults) -> TextTable:
    """Tabulate every number with its interval, baselines and counts."""
    body = [
        [
            model,
            task,
            row.group,
            row.metric,
            _with_interval(row),
            BETTER.get(row.direction, ""),
            row.unit,
            _listed(row.baselines),
            str(row.n_items),
            str(row.n_raters) if row.n_raters else DASH,
            row.kind,
        ]
        for model, by_task in results.results.items()
        for task, rows in by_task.items()
        for row in rows
    ]
    return TextTable(
        ["model", "task", "group", "metric", "value", "better", "unit", "baselines", "items", "people", "interval"],
        body,
        f"All {len(body):,} numbers. Floor: what a perfect model would score, because people are few. Uniform and "
        "marginal: what needs no model.",
        filterable=True,
    )


def comparison_table(differences: list[Difference]) -> TextTable:
    """Tabulate paired differences, the smallest corrected p-values first."""
    body = [
        [
            one.task,
            one.metric,
            f"{one.model} − {one.base}",
            _between(one.value, one.ci_low, one.ci_high),
            format_nats(one.p_holm),
            format_nats(one.minimum_detectable),
            str(one.n_items),
            one.outcome,
        ]
        for one in sorted(differences, key=lambda one: one.p_holm if math.isfinite(one.p_holm) else 2.0)
    ]
    return TextTable(
        ["task", "metric", "difference", "value", "p (Holm)", "detectable", "items", "outcome"],
        body,
        "Paired by item. p: signs of the items flipped at random, corrected for all rows of this table (Holm). "
        "Detectable: the smallest true difference that these items would show four times in five.",
    )


def undecidable_sentence(differences: Sequence[Difference]) -> str:
    """Say how many differences no items like these could decide, and what would; empty if each could be decided.

    Flipping the signs of n items gives no p-value below 2^(1 − n), which Holm multiplies by the number of differences
    that are not decided before it: at best those with as many items or fewer.

    Example:
        >>> few = Difference(task="urn", metric="jsd_nats", model="b", base="a", value=-0.1, n_items=5, p_value=0.07,
        ...     p_holm=0.14, direction="lower", outcome="undecided", minimum_detectable=0.1)
        >>> undecidable_sentence([few] * 2)
        '2 of 2 differences rest on too few items to be decided, however large: 2 differences need 7 items each.'
        >>> undecidable_sentence([few.model_copy(update={"n_items": 12})])
        ''
    """
    sizes = [one.n_items for one in differences]
    stuck = [n for n in sizes if 2.0 ** (1 - n) * sum(other <= n for other in sizes) >= DECIDED]
    if not stuck:
        return ""
    needed = next(n for n in count(1) if 2.0 ** (1 - n) * len(sizes) < DECIDED)
    return (
        f"{len(stuck)} of {len(sizes)} differences rest on too few items to be decided, however large: {len(sizes)} "
        f"differences need {needed} items each."
    )


def front_table(members: list[FrontMember]) -> TextTable:
    """Tabulate the models in their objectives, and which is better than which in all of them.

    Example:
        >>> better = {"task": "talk", "n_items": 5, "objectives": {"brief": 0.7}, "on_front": 1.0}
        >>> front_table([FrontMember(model="ours", improves_on={"people": 0.98}, **better)]).rows
        [['talk', 'ours', 'brief 0.700', '1.000', 'people 0.980', '5']]
    """
    body = [
        [
            one.task,
            one.model,
            _listed(one.objectives),
            format_nats(one.on_front),
            _listed({name: value for name, value in one.improves_on.items() if value >= SELDOM}),
            str(one.n_items),
        ]
        for one in members
    ]
    return TextTable(
        ["task", "model", "objectives", "on the front", "better in all than", "items"],
        body,
        "Objectives: higher is better; .5 is people's own mean where an objective is a share of people's answers. On "
        "the front: probability that no other is better in all objectives. Better in all than: probability, from .05. "
        "Both are over resampled items, the same for all.",
    )


def skipped_table(results: SuiteResults) -> TextTable:
    """Tabulate what was not measured, and why."""
    body = [[one.task, one.model or "all models", one.reason] for one in results.skipped]
    return TextTable(["task", "model", "reason"], body)


def data_table(results: SuiteResults) -> TextTable:
    """Tabulate the data of every task."""
    body = [[task.id, task.title, task.shape, str(task.n), task.source, task.licence] for task in results.data]
    return TextTable(["task", "what it measures", "shape", "items", "source", "licence"], body)


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {format_nats(value)}" for name, value in numbers.items()) or DASH


def _with_interval(row: MetricResult) -> str:
    return _between(row.value, row.ci_low, row.ci_high)


def _between(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return format_nats(value)
    return f"{format_nats(value)} [{format_nats(low)}, {format_nats(high)}]"


def endpoint_sentences(results: SuiteResults) -> list[str]:
    """Say what each endpoint was asked now, and how many of its texts were refused or empty.

    Example:
        >>> usage = {"requests": 11, "retries": 2, "refusals": 40, "empty": 0, "cost": 0.0018}
        >>> models = [{"name": "api", "kind": "endpoint", "identity": "1", "usage": usage}]
        >>> endpoint_sentences(SuiteResults(models=models))
        ['api: 11 requests, 2 tries that failed, cost 0.0018; 40 texts were refused, which count as empty answers.']
    """
    sentences = []
    for model in results.models:
        usage = model.usage
        if usage.get("requests"):
            failed = f", {usage['retries']:,} tries that failed" if usage.get("retries") else ""
            cost = f", cost {usage['cost']:.2g}" if usage.get("cost") else ""
            kinds = {"refused": usage.get("refusals", 0), "empty": usage.get("empty", 0)}
            silent = " and ".join(f"{count:,} texts were {kind}" for kind, count in kinds.items() if count)
            counted = f"; {silent}, which count as empty answers" if silent else ""
            sentences.append(f"{model.name}: {usage['requests']:,} requests{failed}{cost}{counted}.")
    return sentences
