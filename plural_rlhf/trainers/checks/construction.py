"""Everything that is checked when a `PluralGRPOTrainer` is made, in two calls: before TRL loads anything, and after.

Each check stands in the module of what it is about; this one only says which are due and in which order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.policies.sampling_settings import check_model_sampling
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.checks.batches import (
    check_batches,
    check_draws,
    check_enough_prompts,
    check_groups,
)
from plural_rlhf.trainers.checks.datasets import check_datasets
from plural_rlhf.trainers.checks.given_completions import check_given
from plural_rlhf.trainers.checks.policy import check_reloadable, check_tokenizer, warn_of_dropout, warn_of_other_start
from plural_rlhf.trainers.checks.weight_sampler import check_steering_tokens
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.weights.sampler import WeightSampler


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_after_loading", "check_before_loading"]

_RELOADABLE = (
    "save it and pass its path, pass a peft_config (the base model is then the reference), or use the exact mode"
)


def check_before_loading(
    args: PluralGRPOConfig,
    reward: JuryReward,
    *,
    model: str | PreTrainedModel | PeftModel,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any,
    peft_config: Any,
    mixed: bool,
) -> None:
    """Raise if what a trainer was given would make the result something else than the target.

    Args:
        args: The settings; `args.exact` says whether nothing is sampled.
        reward: The jury.
        model: As it was passed.
        train_dataset: As it was passed.
        eval_dataset: As it was passed, one or a dictionary of them.
        processing_class: As it was passed; None where it is loaded with the model.
        peft_config: As it was passed.
        mixed: Whether rows with and rows without a support are in one data set.

    Raises:
        ValueError: Settings, a policy, a data set or a tokenizer that cannot work.
        JuryError: Weights or a rule in a row that the jury cannot carry out.
    """
    if not args.exact:
        check_groups(args)
        check_reloadable(model, peft_config, args.model_init_kwargs, _RELOADABLE)
    check_datasets(train_dataset, eval_dataset, args, bool(args.exact), reward)
    check_tokenizer(processing_class)
    if mixed:
        check_batches(args, args.world_size)
    if not args.exact:
        check_enough_prompts(train_dataset, args)
    check_given(train_dataset, args)


def check_after_loading(
    args: PluralGRPOConfig,
    *,
    model: PreTrainedModel,
    reference: torch.nn.Module | None,
    tokenizer: PreTrainedTokenizerBase,
    sampler: WeightSampler | None,
    generation_kwargs: Mapping[str, Any] | None,
    tools: bool,
    rollout_func: bool,
    given: bool = False,
) -> None:
    """Raise if the loaded models or the tokenizer cannot work; warn if the policy is not what it seems.

    Args:
        args: The settings.
        model: The policy.
        reference: The second model that is π₀, if there is one.
        tokenizer: Of both.
        sampler: Draws the weights of a steerable policy, if it is one.
        generation_kwargs: What the trainer sets on top of the policy's generation config; None where that is not used.
        tools: Whether the policy uses tools.
        rollout_func: Whether a function of the user draws the completions.
        given: Whether the data set brings completions along.

    Raises:
        ValueError: The tokenizer lacks an end or padding token, the generation config changes the distribution of
            samples, or nobody but the policy can draw, but `args` ask for it.
        JuryError: Tokens of the weight sampler are missing.
    """
    check_tokenizer(tokenizer)
    warn_of_dropout(model)
    if reference is not None:
        warn_of_other_start(model, reference)
    check_steering_tokens(sampler, tokenizer, model, reference)
    if generation_kwargs is not None:
        check_model_sampling(model.generation_config, generation_kwargs)
    check_draws(args, tools=tools, rollout_func=rollout_func, given=given)
