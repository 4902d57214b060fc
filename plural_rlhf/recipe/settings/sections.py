"""The sections of a run file about training, evaluation and checkpoints: each setting, its meaning and valid values.

A rule that concerns one section is checked here, by pydantic. Knows nothing of files, overrides or other sections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from plural_rlhf.recipe.settings.texts import IMITATION_RATE, SampledSection
from plural_rlhf.settings.base import (
    AnyNumber,
    AtLeastOne,
    AtLeastTwo,
    Count,
    OpenUnit,
    Positive,
    RuleText,
    Section,
    not_a_switch,
)


__all__ = ["CheckpointSection", "EvaluateSection", "PluralSection", "RehearsalSection", "WarmupSection"]


class WarmupSection(Section):
    """Exact training towards uniform answers: teaches the answer format; its policy is pi_ref of the others.

    Example:
        >>> WarmupSection(steps=0).steps  # no warm-up: pi_ref is the base model
        0
    """

    steps: Count = Field(default=20, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=1e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=4, description="Questions per step, 1 or more.")


class RehearsalSection(Section):
    """What keeps a policy as it is elsewhere: a divergence to itself on texts that the training is not about.

    Example:
        >>> RehearsalSection(weight=0).texts  # off; the texts are not drawn
        64
    """

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(not_a_switch)] = Field(
        default=1.0,
        description="Where answers are offered: factor of KL(pi_0 || pi) per token on conversations that the "
        "language model makes up by itself, in the warm-up and in ours; without it a policy that has learnt the "
        "answers gives them everywhere. 0 for none.",
    )
    texts: AtLeastOne = Field(default=64, description="How many conversations are made up, 1 or more.")
    per_step: AtLeastOne = Field(default=4, description="Conversations per step, 1 or more.")
    max_tokens: AtLeastOne = Field(default=48, description="Tokens of each answer that count, 1 or more.")


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
    reference_power: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(not_a_switch)] = Field(
        default=0.0,
        description="Exponent of pi_ref in the target, 0 or more; at 0, pi_ref counts as uniform over the answers.",
    )
    steps: Count = Field(default=60, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=2e-3, description="Learning rate of AdamW, above 0.")
    prompts_per_step: AtLeastOne = Field(default=12, description="Rows per step, 1 or more.")
    mode: Literal["rl", "rerank", "distil", "dpo"] = Field(
        default="rl",
        description="Where policies write text: rl, sampled training; rerank, no training, each text is chosen among "
        "candidates of pi_0; distil, supervised training on texts that are chosen so; dpo, on the pairs of the "
        "judgements, a prompt for each cluster.",
    )
    candidates: AtLeastTwo = Field(
        default=16, description="With mode rerank or distil: texts of pi_0 among which one is chosen, 2 or more."
    )
    candidate_pool: AtLeastTwo | None = Field(
        default=None,
        description="With mode rerank or distil: texts of pi_0 per prompt from which candidates are dealt, all of "
        "them before one comes again. null: eight per text that is chosen, or fewer where none is dealt twice.",
    )
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

    sampled: SampledSection = Field(
        default=SampledSection(), description="How completions are drawn and learnt from, where policies write text."
    )

    @model_validator(mode="before")
    @classmethod
    def _rate_of_mode(cls, values: Any) -> Any:
        """Imitation and pairs bear a larger rate than rewards of single samples, whose noise moves a policy as far."""
        if not isinstance(values, Mapping) or values.get("mode") not in ("distil", "dpo"):
            return values
        sampled = values.get("sampled") or {}
        if not isinstance(sampled, Mapping) or sampled.get("learning_rate") is not None:
            return values
        return {**values, "sampled": {**sampled, "learning_rate": IMITATION_RATE}}

    @field_serializer("rho", when_used="json")
    def _infinity_is_text(self, rho: float) -> float | str:
        return rho if math.isfinite(rho) else ("Infinity" if rho > 0 else "-Infinity")


class EvaluateSection(Section):
    """Intervals of the reported numbers, the welfare rules that are compared, and how much text is measured.

    Example:
        >>> EvaluateSection(rules=["mean", "cvar(share=0.3)"]).level
        0.95
    """

    draws: Annotated[int, Field(ge=20), BeforeValidator(not_a_switch)] = Field(
        default=1000, description="Bootstrap draws over raters and questions, 20 or more."
    )
    level: OpenUnit = Field(default=0.95, description="Level of the intervals, between 0 and 1.")
    rules: list[RuleText] = Field(
        default=["mean", "nash", "min", "median", "borda", "maximal_lottery"],
        description="Welfare rules to compare with the first: which answer each picks, which clusters gain and lose.",
    )
    samples: AtLeastTwo = Field(
        default=32, description="Where policies write text: texts per prompt, policy and weights, 2 or more."
    )
    reference_samples: AtLeastTwo | None = Field(
        default=None,
        description="Where policies write text: texts of pi_0 per prompt for the population, on which the estimate of "
        "the KL to the target rests (some hundreds); null for as many as of the others.",
    )
    along: Count = Field(
        default=4,
        description="Where policies write text: so many checkpoints of each training are measured too, a few texts "
        "each, so that the page has gain against divergence as a curve; 0 for none.",
    )
    along_samples: AtLeastTwo = Field(
        default=8, description="Where policies write text: texts per prompt and checkpoint, 2 or more."
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="Where policies write text: which policy of a training is measured, that of its last step, or "
        "that of the checkpoint whose texts the held-out jury approves the most on training prompts. best makes that "
        "jury's numbers on training prompts a little too good.",
    )
    raters: list[str] = Field(
        default=[],
        description="Where policies write text: ids of raters; policies that follow weights are also asked for each "
        "of them, by what the jury infers of the rater from the rater's judgements.",
    )
    mixed_decoding: Literal["mixture", "log_linear"] | None = Field(
        default=None,
        description="Where policies write text: also measure ours mixed at decoding time (MixedDecoder): the policy "
        "under each cluster's prompt, mixed token by token under the weights; mixture keeps shares, log_linear seeks "
        "consensus; null for not.",
    )
    rivals: dict[str, Path] = Field(
        default={},
        description="Where policies write text: policies of other runs to measure beside, by a name of your own, each "
        "the folder of a policy, e.g. {dpo: runs/dpo/plural}.",
    )
    prompts: AtLeastOne = Field(
        default=10,
        description="Where policies write text: measure at most so many training and so many held-out prompts.",
    )
    embedder: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Where policies write text: sentence embedder (path or Hub id) by which texts are compared; null "
        "for the backbone of the jury, its hidden states averaged over the text.",
    )
    heldout_backbone: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Where policies write text: model (path or Hub id) whose features the second jury reads, which is "
        "fitted to the held-out raters and measures what the policies were not trained on; null for that of the first "
        "jury.",
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
