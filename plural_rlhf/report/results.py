"""What a run found, as typed models: the recipe makes them, `results.json` stores them, the report reads them.

A stage of a run leaves one of `JuryResults`, `TrainingResults` and `EvaluationResults`; `RunResults` holds all of them
and is what `results.json` contains. Rules for files of other versions:

- `schema_version` counts changes that an older reader would misunderstand. A file without the number has version 1.
  A file with a higher number than `SCHEMA_VERSION` is refused.
- Unknown keys are kept, and written again. Keys that a run has not reached are absent.
- A number that could not be computed is null in the file and NaN in memory.

Units: distances, losses and gains are in nats; shares and probabilities lie between 0 and 1; times are in seconds.
Knows nothing of how anything was measured, drawn or printed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from plural_rlhf.report.names import EVERYBODY, SkippedPart
from reward_models.whole_file import write_json


__all__ = [
    "SCHEMA_VERSION",
    "Budget",
    "Change",
    "Cluster",
    "ClusterAnswers",
    "ClusterCount",
    "ClusterSelection",
    "DataSummary",
    "Difference",
    "DistinctiveAnswer",
    "EvaluationResults",
    "Grouping",
    "Groupings",
    "HeadroomSummary",
    "Heads",
    "JuryResults",
    "LoggedStep",
    "Meta",
    "PolicyAnswers",
    "QuestionResult",
    "ResultsError",
    "Row",
    "RuleResult",
    "RunRecord",
    "RunResults",
    "Rung",
    "Skipped",
    "SteeringResult",
    "TrainingResults",
    "faults",
]

SCHEMA_VERSION = 1
"""Version of the layout that this code writes, and the highest one that it reads."""


class ResultsError(ValueError):
    """A file of results that cannot be read."""


def faults(error: ValidationError, most: int = 5) -> str:
    """List what a model refused: the key and the reason of each fault, at most so many.

    Example:
        >>> try:
        ...     Budget.model_validate({"steps": "many", "seconds": 1})
        ... except ValidationError as error:
        ...     faults(error)
        'steps: Input should be a valid integer, unable to parse string as an integer'
    """
    lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
    return "; ".join(lines[:most]) + (f" and {len(lines) - most} more" if len(lines) > most else "")


def _nan_for_none(value: Any) -> Any:
    return math.nan if value is None else value


def _as_list(values: Any) -> Any:
    values = values.tolist() if hasattr(values, "tolist") else values
    return [_nan_for_none(value) for value in values] if isinstance(values, list) else values


Number = Annotated[float, BeforeValidator(_nan_for_none)]
"""A float; null in JSON and NaN in memory where it could not be computed."""
Shares = Annotated[list[float], BeforeValidator(_as_list)]
"""One probability per offered answer; numpy arrays are taken too."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the keys that were set, unknown ones included, with null for NaN."""
        values: dict[str, Any] = json.loads(self.model_dump_json(exclude_unset=True))
        return values

    def parts(self) -> dict[str, Any]:
        """Return the fields that were set, as they are: models stay models."""
        return {name: getattr(self, name) for name in self.model_fields_set}


# ── what was run ────────────────────────────────────────────────────────────────────────────────────────────────────


class DataSummary(_Part):
    """Counts of the judgements, and how they were split."""

    source: str = Field(description="Name of the survey or release, or path of the table.")
    kind: str = Field(description="Kind of the judgements.")
    n_judgements: int = Field(description="Judgements in all.")
    n_raters: int = Field(description="Raters in all.")
    n_items: int = Field(description="Questions in all.")
    train_raters: int = Field(description="Raters that the jury was fitted to.")
    heldout_raters: int = Field(description="Raters that everything is measured against.")
    train_questions: list[str] = Field(description="Item ids of the questions used for training.")
    heldout_questions: list[str] = Field(description="Item ids of the questions used for the test only.")


class Meta(_Part):
    """Where, when and with which versions a run was made."""

    plural_rlhf_version: str = Field(description="Version of plural-rlhf.")
    versions: dict[str, str] = Field(description="Versions of Python and of the libraries, by name.")
    seed: int = Field(description="Random seed of the run.")
    command: str = Field(description="Command line; empty for a call from Python.")
    machine: dict[str, Any] = Field(description="Operating system, processor and number of cores.")
    started: str = Field(description="Time of the start, ISO 8601.")
    seconds: dict[str, float] = Field(description="Seconds per stage (`names.Stage`).")
    peak_memory_gb: float = Field(description="Largest resident memory of the process, GiB.")


class Skipped(_Part):
    """What a run left out, and why."""

    what: str = Field(description="Name of the part, one of `names.SkippedPart`.")
    reason: str = Field(description="Why it was left out, to be read after `because`.")


class RunRecord(_Part):
    """What is needed to repeat a run: settings, data, versions."""

    schema_version: int = Field(default=1, ge=1, description="Version of the layout; 1 where a file has none.")
    config: dict[str, Any] = Field(default={}, description="All settings of the run, as plain JSON.")
    data: DataSummary | None = Field(default=None, description="Counts of the judgements.")
    skipped: list[Skipped] = Field(default=[], description="What was left out, and why.")
    meta: Meta | None = Field(default=None, description="Versions, machine and times.")

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"is {version}, and this version of plural-rlhf reads up to {SCHEMA_VERSION}. Fix: update plural-rlhf"
            )
        return version

    @property
    def name(self) -> str:
        """Name of the run, `run` where the settings have none."""
        return str(self.config.get("name", "run"))

    def reason(self, part: SkippedPart) -> str | None:
        """Return why a part was left out, None if it was not."""
        return next((skipped.reason for skipped in self.skipped if skipped.what == part), None)


# ── the jury ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Rung(_Part):
    """One model of the headroom ladder."""

    name: str = Field(description="Name of the model.")
    nll: Number = Field(description="Loss, nats per held-out judgement.")
    info: Number = Field(description="Gain over the first rung, nats per held-out judgement.")
    low: Number = Field(description="Lower end of the 95 % interval of the gain.")
    high: Number = Field(description="Upper end of it.")


class HeadroomSummary(_Part):
    """What a jury could gain, as `reward_models.headroom` reports it."""

    rungs: list[Rung] = Field(description="The ladder, simplest model first.")
    verdict: str = Field(description="What to do, in words.")
    best: str = Field(description="Name of the rung with the lowest loss.")


class ClusterCount(_Part):
    """How well one number of clusters predicts held-out raters."""

    num_clusters: int = Field(description="Number of clusters.")
    nll: Number = Field(description="Loss, nats per held-out judgement.")
    se: Number = Field(description="Standard error of the loss over raters.")
    info: Number = Field(description="Gain over one cluster, nats.")
    behind: Number = Field(default=math.nan, description="Loss above the best candidate, nats.")
    behind_se: Number = Field(default=math.nan, description="Standard error of that paired difference.")


class ClusterSelection(_Part):
    """How the number of clusters was chosen."""

    table: list[ClusterCount] = Field(description="One row per candidate.")
    chosen: int = Field(description="The number of clusters of the jury.")
    reason: str = Field(description="Why, in words.")


class DistinctiveAnswer(_Part):
    """An answer that sets a cluster apart."""

    item: str = Field(description="Short name of the question.")
    option: str = Field(description="The answer.")
    p_cluster: Number = Field(description="Share of the cluster that gives it.")
    p_population: Number = Field(description="Share of all raters that gives it.")
    lift: Number = Field(description="The first share divided by the second.")


class Cluster(_Part):
    """A rater cluster of the jury."""

    name: str = Field(description="Unique name, from the answers that set it apart.")
    prevalence: Number = Field(description="Share of the raters.")
    top: list[DistinctiveAnswer] = Field(description="The answers that set it apart, most telling first.")


class Grouping(_Part):
    """What it is worth to know a rater's group in one grouping."""

    grouping: str = Field(description="Name: a trait, the clusters, or a control.")
    source: str = Field(default="", description="`clusters`, `trait`, `merged trait` or `control`.")
    n_groups: int = Field(description="Number of groups.")
    info: Number = Field(description="Gain over knowing the question only, nats per answer.")
    low: Number = Field(description="Lower end of the 95 % interval of the gain.")
    high: Number = Field(description="Upper end of it.")
    per_split: Shares = Field(default=[], description="The gain on each split of the raters.")


class Difference(_Part):
    """A difference of two gains on the same answers."""

    value: Number = Field(description="The difference, nats per answer.")
    low: Number = Field(description="Lower end of its 95 % interval.")
    high: Number = Field(description="Upper end of it.")


class Groupings(_Part):
    """Clusters of the jury beside demographic groups and controls."""

    rows: list[Grouping] = Field(description="All groupings.")
    clusters: Grouping = Field(description="The row of the clusters.")
    best_demographic: Grouping | None = Field(description="The best trait; null where the data has no traits.")
    paired_difference: Difference | None = Field(description="Clusters minus the best trait; null without traits.")


class Heads(_Part):
    """How the heads of the jury were fitted to the features."""

    l2: Number = Field(description="Ridge penalty.")
    cv: list[dict[str, Any]] = Field(description="Loss of held-out questions per penalty; empty for a fixed one.")
    prevalence: Shares = Field(description="Share of the raters per cluster, as the saved jury has it.")


class JuryResults(_Part):
    """What the jury's stage leaves."""

    headroom: HeadroomSummary | None = Field(default=None, description="What a jury could gain.")
    selection: ClusterSelection | None = Field(default=None, description="How the number of clusters was chosen.")
    clusters: list[Cluster] = Field(default=[], description="The rater clusters.")
    groupings: Groupings | None = Field(default=None, description="Clusters beside demographic groups.")
    features: Heads | None = Field(default=None, description="How the heads were fitted.")


# ── the policies ────────────────────────────────────────────────────────────────────────────────────────────────────


class LoggedStep(_Part):
    """One optimiser step of a training; other logged numbers are kept under their own names, null where NaN."""

    step: int = Field(description="Number of the step, from 1.")
    loss: float | None = Field(default=None, description="Loss; in nats for exact trainings.")
    reward: float | None = Field(default=None, description="Mean reward of the sampled completions.")


class Budget(_Part):
    """What a training was given."""

    steps: int = Field(description="Optimiser steps.")
    scored_sequences: int | None = Field(default=None, description="Answers whose probability was computed.")
    generated_sequences: int | None = Field(default=None, description="Completions that were sampled.")
    seconds: float = Field(description="Seconds of training.")


class TrainingResults(_Part):
    """What the stage of one policy leaves."""

    history: list[LoggedStep] = Field(description="One entry per step; empty where nothing was trained.")
    budget: Budget = Field(description="What was spent.")


# ── the evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────


class ClusterAnswers(_Part):
    """How one cluster answers a question."""

    human: Shares = Field(description="Shares of the held-out raters of the cluster.")
    jury: Shares = Field(description="Shares that the jury predicts.")


class PolicyAnswers(_Part):
    """How a policy answers a question under one weighting."""

    probs: Shares = Field(description="Probability of each offered answer; they sum to the coverage.")
    coverage: Number = Field(description="Probability of all offered answers together.")


class QuestionResult(_Part):
    """One question: what people say, what the jury predicts, what each policy says."""

    id: str = Field(description="Item id.")
    label: str = Field(default="", description="Short name; empty for none.")
    prompt: str = Field(description="The wording.")
    options: list[str] = Field(description="The offered answers.")
    split: str = Field(description="One of `names.Split`.")
    n: int = Field(description="Held-out raters that answered it.")
    human: Shares = Field(description="Shares of all held-out raters.")
    jury: Shares = Field(description="Shares that the jury predicts for the population.")
    clusters: dict[str, ClusterAnswers] = Field(description="The same per cluster.")
    policy: dict[str, dict[str, PolicyAnswers]] = Field(description="Answers by method, then by weighting.")

    def population_answers(self, method: str) -> list[float] | None:
        """Return what a policy answers for everybody, None if it was not measured."""
        answers = self.policy.get(method, {}).get(EVERYBODY)
        return None if answers is None else answers.probs


class SteeringResult(_Part):
    """How a policy answers a question when it is asked for a weighting of the clusters."""

    weighting: str = Field(description="Name: the population, a cluster, or a jury of the run file.")
    weights: dict[str, Number] = Field(description="Weight per cluster; they sum to 1.")
    question: str = Field(description="Item id.")
    split: str = Field(description="One of `names.Split`.")
    predicted: Shares = Field(description="What the jury predicts under these weights.")
    achieved: Shares = Field(description="What the policy answers, normalised to the offered answers.")
    jsd_nats: Number = Field(description="Jensen-Shannon divergence of the two, nats.")


class Change(_Part):
    """The change of a cluster's reward between two rules."""

    value: Number = Field(description="Mean over questions, in standard deviations of the cluster's rewards.")
    ci_low: Number = Field(default=math.nan, description="Lower end of the interval over questions.")
    ci_high: Number = Field(default=math.nan, description="Upper end of it.")
    n: int = Field(description="Number of questions.")


class RuleResult(_Part):
    """What a welfare rule picks, and who gains by it."""

    rule: str = Field(description="The rule.")
    baseline: str = Field(description="The rule it is compared with.")
    agreement: Number = Field(description="Share of the questions on which the two pick the same answer.")
    picks: dict[str, str] = Field(description="The picked answer by item id.")
    clusters: dict[str, Change] = Field(description="Change of reward per cluster.")


class Row(_Part):
    """One number in tidy form."""

    case: str = Field(default="", description="Source of the judgements.")
    split: str = Field(description="One of `names.Split`.")
    cluster: str = Field(description="Whose answers: `all`, or the name of a cluster.")
    stage: str = Field(default="", description="Same as `method`.")
    method: str = Field(description="One of `names.Method`.")
    metric: str = Field(description="One of `names.Metric`.")
    value: Number = Field(description="Mean over the questions of the split.")
    ci_low: Number = Field(default=math.nan, description="Lower end of the interval over raters and questions.")
    ci_high: Number = Field(default=math.nan, description="Upper end of it.")
    n: int = Field(default=0, description="Number of questions.")
    n_raters: int = Field(default=0, description="Number of raters.")
    unit: str = Field(default="", description="`nats` or `probability`.")


class EvaluationResults(_Part):
    """What the evaluation's stage leaves."""

    questions: list[QuestionResult] = Field(default=[], description="Answers, question by question.")
    steering: list[SteeringResult] = Field(default=[], description="Predicted and achieved answers by weighting.")
    rules: list[RuleResult] = Field(default=[], description="Welfare rules, compared with the first.")
    rows: list[Row] = Field(default=[], description="All measured numbers in tidy form.")
    skipped: list[Skipped] = Field(default=[], description="What could not be measured, and why.")


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────────


class RunResults(EvaluationResults, JuryResults, RunRecord):
    """The results of a run: what `results.json` holds.

    Example:
        >>> import tempfile
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     RunResults(config={"name": "trial"}, rows=[row]).write(Path(folder) / "results.json")
        ...     results = RunResults.read(Path(folder) / "results.json")
        >>> results.name, results.rows[0].value, results.clusters
        ('trial', 0.02, [])
    """

    training: dict[str, list[LoggedStep]] = Field(default={}, description="Training curves by stage.")
    budgets: dict[str, Budget] = Field(default={}, description="What each training was given, by stage.")

    def to_dict(self) -> dict[str, Any]:
        """Return what `results.json` holds: plain JSON values, `schema_version` first."""
        return {"schema_version": self.schema_version, **super().to_dict()}

    def write(self, path: str | Path) -> None:
        """Write `results.json`; a reader never finds half a file."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read `results.json`, also one of an earlier version.

        Raises:
            FileNotFoundError: There is no such file.
            ResultsError: The file is not JSON, lacks a key, or is of a later version; the message names every fault.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            raise ResultsError(f"{path} holds no results of a run: {faults(error)}") from error
