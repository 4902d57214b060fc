"""What a suite found, as typed models: the suite makes them, `results.json` stores them, the page reads them.

Knows nothing of how anything was measured or drawn.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from plural_rlhf.report.results import Meta
from plural_rlhf.report.results_base import Number, ResultsFile, ResultsModel, Shares


__all__ = [
    "ClusterAgreement",
    "Difference",
    "FrontMember",
    "ItemResult",
    "MetricResult",
    "ModelRecord",
    "SkippedTask",
    "SuiteResults",
    "TaskRecord",
]

ALL = "all"
"""The group of everybody."""
SKILL = "skill_uniform"
"""The metric that is 0 for a uniform guess and 1 for people."""
PEOPLE = "people"
"""The name under which people stand among the models."""
DECIDED = 0.05
"""Corrected p-value below which a difference is decided."""


class MetricResult(ResultsModel):
    """One number of a model on a task.

    Example:
        >>> MetricResult(metric="jsd_nats", value=0.02, unit="nats", direction="lower").group
        'all'
    """

    metric: str = Field(description="Name of the metric, with its kind and base.")
    value: Number = Field(description="The estimate.")
    ci_low: float | None = Field(default=None, description="Lower end of the 95 % interval; null if there is none.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    n_items: int = Field(default=0, description="Items behind it.")
    n_raters: int = Field(default=0, description="People behind it; 0 if unknown.")
    unit: str = Field(default="", description="nats, share, skill, texts, ...")
    direction: str = Field(default="none", description="Better values: lower, higher, zero (the nearer to 0), none.")
    kind: str = Field(default="", description="What the interval resamples.")
    group: str = Field(default=ALL, description="Group of people or items.")
    baselines: dict[str, Number] = Field(
        default={}, description="Values of the metric for uniform, marginal, floor, ceiling, as far as they exist."
    )
    headline: bool = Field(default=False, description="Whether the overview shows it.")


class ModelRecord(ResultsModel):
    """A model that was evaluated."""

    name: str = Field(description="Its name in the suite.")
    kind: str = Field(description="causal-lm, endpoint, callable, recorded or pseudo.")
    identity: str = Field(description="Hash of all that its answers depend on.")
    usage: dict[str, Any] = Field(default={}, description="Of an endpoint: requests, retries, refusals, tokens, cost.")


class TaskRecord(ResultsModel):
    """A task that was loaded, and its data."""

    id: str = Field(description="Name of the task.")
    title: str = Field(description="What it measures.")
    shape: str = Field(description="distribution, sequences, generation or ratings.")
    source: str = Field(description="Where the data comes from.")
    licence: str = Field(description="Its licence.")
    n: int = Field(description="Items.")
    sha256: dict[str, str] = Field(default={}, description="Hash of each file that was read.")
    content: str = Field(default="", description="Hash of the items, generated ones included.")


class SkippedTask(ResultsModel):
    """A task that was not measured, and why."""

    task: str = Field(description="Name of the task.")
    reason: str = Field(description="Why.")
    model: str = Field(default="", description="Name of the model; empty for all.")


class ItemResult(ResultsModel):
    """People and a model side by side on one question."""

    model: str = Field(description="Name of the model.")
    task: str = Field(description="Name of the task.")
    item: str = Field(description="Name of the item.")
    text: str = Field(description="The question.")
    options: list[str] = Field(description="The offered answers.")
    people: Shares = Field(description="Shares of the people.")
    answer: Shares = Field(description="Shares of the model.")
    n: int | None = Field(default=None, description="People behind the shares; null if exact.")
    score: Number = Field(description="Distance in nats (JS divergence).")


class Difference(ResultsModel):
    """A paired difference of two models on the items of a task: `model` minus `base`."""

    task: str = Field(description="Name of the task.")
    metric: str = Field(description="Name of the metric.")
    model: str = Field(description="The model that is compared.")
    base: str = Field(description="The model that it is compared with.")
    value: Number = Field(description="Mean difference over the items that both answered.")
    ci_low: float | None = Field(default=None, description="Lower end of its 95 % interval, items resampled.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    n_items: int = Field(description="Items that both answered.")
    p_value: Number = Field(description="Two-sided, signs of the items flipped.")
    p_holm: Number = Field(description="The same, corrected for all differences of the table.")
    minimum_detectable: Number = Field(description="Smallest true difference that would show four times in five.")
    direction: str = Field(description="Which values are better.")
    outcome: str = Field(description="better, worse or undecided.")


class FrontMember(ResultsModel):
    """A model among others in several objectives."""

    task: str = Field(description="Name of the task.")
    model: str = Field(description="Name of the model; people for people themselves.")
    objectives: dict[str, Number] = Field(description="Mean of each objective.")
    on_front: Number = Field(description="Probability that no other is better in all objectives; items resampled.")
    improves_on: dict[str, Number] = Field(description="Probability that it is better in all objectives, by model.")
    n_items: int = Field(description="Items that all answered.")


class ClusterAgreement(ResultsModel):
    """With how many of the answers to a question a cluster of people agrees."""

    task: str = Field(description="Name of the task.")
    model: str = Field(description="Name of the model; people for people themselves.")
    question: str = Field(description="The question.")
    cluster: str = Field(description="Name of the cluster.")
    share: Number = Field(description="Share of the answers that represent the cluster.")
    n_answers: int = Field(description="Answers behind it.")


class SuiteResults(ResultsFile):
    """The results of a suite: what its `results.json` holds.

    Example:
        >>> row = MetricResult(metric="skill_uniform", value=0.4, headline=True)
        >>> results = SuiteResults(name="trial", results={"base": {"urn": [row]}})
        >>> results.headline("base", "urn").value, results.headline("base", "coin")
        (0.4, None)
    """

    KIND = "a suite"

    schema_version: int = Field(default=1, description="Version of the layout.")
    name: str = Field(default="evaluation", description="Name of the suite.")
    config: dict[str, Any] = Field(default={}, description="All settings.")
    meta: Meta | None = Field(default=None, description="Versions, machine, seed, command and seconds per task.")
    models: list[ModelRecord] = Field(default=[], description="The models, in order.")
    data: list[TaskRecord] = Field(default=[], description="The tasks that were loaded, and their data.")
    results: dict[str, dict[str, list[MetricResult]]] = Field(
        default={}, description="Numbers by model and task, those of groups included."
    )
    comparisons: list[Difference] = Field(default=[], description="Every model against the first.")
    fronts: list[FrontMember] = Field(default=[], description="Models among each other in several objectives.")
    agreement: list[ClusterAgreement] = Field(default=[], description="Who agrees with which share of the answers.")
    worst_items: list[ItemResult] = Field(default=[], description="Where people and model differ most.")
    skipped: list[SkippedTask] = Field(default=[], description="What was not measured, and why.")

    def headline(self, model: str, task: str) -> MetricResult | None:
        """Return the number of a model on a task that the overview shows."""
        rows = [row for row in self.results.get(model, {}).get(task, []) if row.group == ALL]
        return next((row for row in rows if row.headline), rows[0] if rows else None)

    def skill(self, model: str, task: str) -> MetricResult | None:
        """Return the skill of a model on a task, 0 for a uniform guess and 1 for people, if the overview shows it.

        Other headlines have the unit skill too, against other zeros: a share of the ceiling, or texts of people on
        another question.
        """
        row = self.headline(model, task)
        return row if row is not None and row.metric == SKILL else None

    def tasks(self) -> list[str]:
        """Return the tasks with any number, in order."""
        return list(dict.fromkeys(task for of_model in self.results.values() for task in of_model))

    def real_models(self) -> list[str]:
        """Return the models that are no pseudo-models."""
        return [model.name for model in self.models if model.kind != "pseudo"]
