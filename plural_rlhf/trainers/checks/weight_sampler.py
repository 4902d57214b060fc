"""The weight sampler of a trainer: the one that was passed, or one made from the settings, and its checks.

A prompt names weights by the names of the sampler's clusters, and rewards are weighted in the jury's order: both must
be the same, and nothing else may choose weights. Knows nothing of targets, losses or generation.

Shapes: `K` clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.checks.datasets import columns_of
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from plural_rlhf.weights.sampler import WeightSampler
from reward_models.errors import JuryError


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_steering_tokens", "weight_sampler_of"]


def weight_sampler_of(
    sampler: WeightSampler | None, args: PluralGRPOConfig, reward: JuryReward, train_dataset: Any
) -> WeightSampler | None:
    """Return the sampler that was passed, or the one that `args` describe if `args.steerable`, or None.

    Args:
        sampler: As it was passed to the trainer.
        args: The settings.
        reward: The jury.
        train_dataset: As it was passed to the trainer.

    Raises:
        ValueError: Something else chooses the weights, too: `max_min`, or a column of the training data.
        JuryError: The sampler has other clusters than the jury, or the same in another order.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["warm", "cold"], prevalence=np.array([0.7, 0.3]), cluster_rewards=None
        ... )
        >>> args = PluralGRPOConfig("out", steerable=True, use_cpu=True, bf16=False)
        >>> weight_sampler_of(None, args, JuryReward(scorer), None).cluster_names
        ['warm', 'cold']
        >>> weight_sampler_of(WeightSampler(["cold", "warm"], [0.3, 0.7]), args, JuryReward(scorer), None)
        Traceback (most recent call last):
        reward_models.errors.JuryError: weight_sampler has the clusters ['cold', 'warm'] and the jury ['warm',
        'cold']: ...
    """
    if sampler is None and not args.steerable:
        return None
    if args.max_min:
        raise ValueError("max_min and weight_sampler both choose the weights: turn one of them off.")
    if "weights" in columns_of(train_dataset):
        raise ValueError(
            "the training data have a column 'weights', and a steerable policy draws the weights at every visit of a "
            "prompt: remove the column (dataset.remove_columns('weights')), or set steerable=False, pass no "
            "weight_sampler, and write the weights into the prompts yourself (WeightSampler.render)."
        )
    scorer = reward.scorer
    if sampler is None:
        return WeightSampler(
            scorer.cluster_names,
            scorer.prevalence,
            args.steer_concentration,
            args.steer_vertex_share,
            args.steer_prevalence_share,
            args.seed,
        )
    if sampler.cluster_names != list(scorer.cluster_names):
        raise JuryError(
            f"weight_sampler has the clusters {sampler.cluster_names} and the jury {list(scorer.cluster_names)}: "
            "prompts would name one cluster where the rewards of another are weighted. Make it as "
            "WeightSampler(scorer.cluster_names, scorer.prevalence)."
        )
    return sampler


def check_steering_tokens(
    sampler: WeightSampler | None,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
) -> None:
    """Raise if weights are named in tokens that the tokenizer, the policy or its reference does not have.

    Args:
        sampler: The sampler of the trainer, if it has one.
        tokenizer: Of policy and reference.
        model: The policy.
        reference: The reference, if it is a second model.

    Raises:
        JuryError: One of the three lacks tokens.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> sampler = WeightSampler(["warm", "cold"], [0.7, 0.3], rendering="tokens", levels=3)
        >>> tokenizer = tiny_tokenizer()
        >>> model = tiny_causal_lm(tokenizer)
        >>> check_steering_tokens(sampler, tokenizer, model, None)
        Traceback (most recent call last):
        reward_models.errors.JuryError: weight_sampler has rendering='tokens' and the tokenizer lacks 7 of them, ...
        >>> _ = sampler.prepare(model, tokenizer)
        >>> check_steering_tokens(sampler, tokenizer, model, None)
    """
    if sampler is None or sampler.rendering != "tokens":
        return
    missing = sampler.missing_tokens(tokenizer)
    if missing:
        raise JuryError(
            f"weight_sampler has rendering='tokens' and the tokenizer lacks {len(missing)} of them, the first: "
            f"{missing[0]!r}, so each would be read as several ordinary tokens: call weight_sampler.prepare(model, "
            "tokenizer) first and pass both, or use rendering='text'."
        )
    needed = 1 + max(tokenizer.convert_tokens_to_ids(sampler.tokens()))
    for name, network in (("policy", model), ("reference policy", reference)):
        rows = needed if network is None else network.config.get_text_config().vocab_size
        if rows < needed:
            raise JuryError(
                f"the {name} has {rows} embeddings, and the tokens of weight_sampler need {needed}: call "
                "weight_sampler.prepare(model, tokenizer), save both in one folder and pass its path as model."
            )
