"""The sections of a run file about rivals from the same pi_0: stock trainers, best of n, and prompting alone.

Knows nothing of files, overrides or other sections.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from plural_rlhf.settings.base import AtLeastOne, AtLeastTwo, Count, Positive, Section, not_a_switch


__all__ = ["BestOfNSection", "GrpoSection", "PromptingSection", "RlooSection", "StockSection"]

Steps = Annotated[Count, Field(description="Optimiser steps; 0 skips the comparison.")]
LearningRate = Annotated[Positive, Field(description="Learning rate of AdamW, above 0.")]
PromptsPerStep = Annotated[AtLeastOne, Field(description="Prompts per step, 1 or more.")]
Generations = Annotated[AtLeastTwo, Field(description="Completions per prompt, 2 or more, because they are compared.")]


class StockSection(Section):
    """A stock TRL trainer on a reward of the same jury, for comparison.

    Example:
        >>> StockSection(rule="pool", beta=0.5).steps  # not compared
        0
    """

    steps: Steps = 0
    learning_rate: LearningRate = 2e-4
    prompts_per_step: PromptsPerStep = 1
    num_generations: Generations = 16
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(not_a_switch)] = Field(
        default=0.0, description="Weight of the KL term to pi_0, 0 or more."
    )
    rule: Literal["mean", "pool"] = Field(
        default="mean",
        description="Where policies write text: the reward, mean for one weighted sum of the clusters, as usual; pool "
        "for the target of ours at the temperature beta (`JuryReward` as the two-line drop-in).",
    )

    @model_validator(mode="after")
    def _pool_has_temperature(self) -> StockSection:
        if self.rule == "pool" and self.beta == 0:
            raise ValueError("rule is pool, whose temperature is beta, and beta is 0; set beta to that of plural")
        return self


class GrpoSection(StockSection):
    """Stock TRL GRPO.

    Example:
        >>> GrpoSection(steps=4).num_generations
        8
    """

    steps: Steps = 8
    learning_rate: LearningRate = 5e-4
    prompts_per_step: PromptsPerStep = 2
    num_generations: Generations = 8
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="TRL's scale_rewards; the other trainings always use none."
    )


class RlooSection(StockSection):
    """Stock TRL RLOO.

    Example:
        >>> RlooSection().steps  # not compared
        0
    """


class BestOfNSection(Section):
    """Best of n completions of pi_0 under the mean reward of the same jury, for comparison.

    Example:
        >>> BestOfNSection(n=16).n
        16
    """

    n: Count = Field(default=0, description="Completions of pi_0 of which the best is kept; 0 skips the comparison.")


class PromptingSection(Section):
    """Pi_0 with an instruction before every prompt, for comparison: what can be had by asking alone?

    Example:
        >>> PromptingSection(instruction="Say only what people on every side can agree with.").instruction[:8]
        'Say only'
    """

    instruction: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The instruction, e.g. to say what all can agree with; null skips the comparison."
    )
