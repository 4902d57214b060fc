"""The sections of a run file that only open prompts read: prompts, pi_0 and sampling.

Knows nothing of files, overrides or other sections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from plural_rlhf.settings.base import AtLeastOne, AtLeastTwo, Count, Positive, Section, Share, not_a_switch


__all__ = ["IMITATION_RATE", "PromptsSection", "SampledSection", "SftSection"]

IMITATION_RATE = 2e-4
"""Learning rate where a policy imitates chosen texts or learns from pairs (mode distil, dpo) and none is set."""
BelowOne = Annotated[float, Field(ge=0, lt=1), BeforeValidator(not_a_switch)]


class PromptsSection(Section):
    """Which prompts the policies are trained and measured on, where they write text.

    Example:
        >>> PromptsSection().path is None  # the prompts of the judgements
        True
    """

    path: Path | None = Field(
        default=None,
        description="JSONL, CSV, Excel or Parquet file of prompts, each a text or a list of chat messages; null for "
        "the prompts of the judgements.",
    )
    column: Annotated[str, Field(min_length=1)] = Field(
        default="prompt", description="Column (or key) of that file that holds the prompts."
    )
    heldout: Share = Field(
        default=0.2, description="Share of the prompts of that file that the policies are tested on only, 0 to 1."
    )
    limit: AtLeastOne | None = Field(default=None, description="Read at most this many prompts; null for all.")


class SftSection(Section):
    """Supervised training that gives pi_0, the policy from which all others start and which they are measured to.

    Example:
        >>> SftSection(texts="none").steps
        100
    """

    texts: Literal["written", "preferred", "none"] = Field(
        default="written",
        description="Texts to imitate: written, by people (see data.written); preferred, the better response of each "
        "pair, or texts rated above their prompt's mean; none, the base model as it is.",
    )
    steps: Count = Field(default=100, description="Optimiser steps, 0 or more.")
    learning_rate: Positive = Field(default=5e-4, description="Learning rate of AdamW, above 0.")
    texts_per_step: AtLeastOne = Field(default=16, description="Texts per step, 1 or more.")


class SampledSection(Section):
    """How the distribution-preserving training samples, where policies write text (`PluralGRPOConfig`).

    Example:
        >>> SampledSection(num_generations=8).offsets
        'ema'
    """

    steps: Count = Field(default=60, description="Batches of completions that are drawn, 0 or more.")
    learning_rate: Positive = Field(
        default=5e-5, description="Learning rate of AdamW, above 0; with mode distil or dpo 2e-4 unless it is set."
    )
    prompts_per_step: AtLeastOne = Field(default=1, description="Prompts per batch, 1 or more.")
    num_generations: AtLeastTwo = Field(default=16, description="Completions per prompt, 2 or more.")
    num_iterations: AtLeastOne = Field(
        default=1, description="Optimiser steps per batch, 1 or more; above 1 with replay of earlier completions."
    )
    estimator: Literal["vargrad", "tb", "js", "fkl"] = Field(
        default="vargrad", description="Estimator of the gradient; see docs/training.md."
    )
    variance_reduction: Literal["none", "reward_to_go", "rao_blackwell", "prefix_rewards"] = Field(
        default="none", description="Credit for single tokens; see docs/training.md."
    )
    offsets: Literal["ema", "responsibility", "reference", "global"] = Field(
        default="ema", description="How the normaliser of each prompt and cluster is estimated."
    )
    n_ref: Count = Field(default=0, description="Completions of pi_0 that start the offsets of a prompt; 0 for none.")
    reference_share: BelowOne = Field(
        default=0.0, description="Share of each group that pi_0 draws in place of the policy; at least 0, below 1."
    )
    given_share: BelowOne = Field(
        default=0.0, description="Share of each group that people wrote (data.written); at least 0, below 1."
    )
    replay_size: Count = Field(default=10_000, description="Completions remembered for replay; 0 for none.")
    replay_share: Annotated[float, Field(gt=0, le=1), BeforeValidator(not_a_switch)] = Field(
        default=0.5, description="Share of a group that comes from replay, above 0 and at most 1."
    )
    kl_budget: Positive | None = Field(
        default=None, description="KL to pi_0 in nats per completion at which beta settles; null for a fixed beta."
    )
    max_grad_norm: Positive = Field(default=1.0, description="Gradients longer than this are cut, above 0.")
    kept_samples: Count = Field(
        default=96,
        description="Texts to training prompts that say how much of the change of weights is kept, so that a rate "
        "that is too large does no harm; 0 keeps all of it.",
    )
