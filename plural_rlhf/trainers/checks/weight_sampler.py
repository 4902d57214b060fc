"""The weight sampler of a trainer: made from its settings or taken, checked, and put to use on the rows of a batch.

A prompt says weights by the names of the sampler's clusters, and rewards are weighted in the jury's order: both must
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
    given: WeightSampler | None, args: PluralGRPOConfig, reward: JuryReward, train_dataset: Any
) -> WeightSampler | None:
    """The sampler that was passed, or the one that `args` describe where `args.steerable`, or none.

    Raises:
        ValueError: Weights that something else chooses, too: `max_min`, or a column of the training data.
        JuryError: A sampler of other clusters than the jury's, or of the same in another order.
    """
    if given is None and not args.steerable:
        return None
    if args.max_min:
        raise ValueError("max_min and weight_sampler both choose the weights: turn one of them off.")
    if "weights" in columns_of(train_dataset):
        raise ValueError(
            "the training data have a column 'weights', and a steerable policy draws the weights at every visit of a "
            "prompt: remove the column (dataset.remove_columns('weights')), or set steerable=False, pass no "
            "weight_sampler, and say the weights in the prompts yourself (WeightSampler.render)."
        )
    scorer = reward.scorer
    if given is None:
        return WeightSampler(
            scorer.cluster_names,
            scorer.prevalence,
            args.steer_concentration,
            args.steer_vertex_share,
            args.steer_prevalence_share,
            args.seed,
        )
    if given.cluster_names != list(scorer.cluster_names):
        raise JuryError(
            f"weight_sampler has the clusters {given.cluster_names} and the jury {list(scorer.cluster_names)}: "
            "prompts would name one cluster where the rewards of another are weighted. Make it as "
            "WeightSampler(scorer.cluster_names, scorer.prevalence)."
        )
    return given


def check_steering_tokens(
    sampler: WeightSampler | None,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
) -> None:
    """Refuses to say weights in tokens that the tokenizer, the policy or its reference does not have.

    Raises:
        JuryError: They lack some.
    """
    if sampler is None or sampler.rendering != "tokens":
        return
    missing = sampler.missing_tokens(tokenizer)
    if missing:
        raise JuryError(
            f"weight_sampler has rendering='tokens' and the tokenizer lacks {len(missing)} of them, the first: "
            f"{missing[0]!r}, so each would be read as several ordinary tokens: call weight_sampler.prepare(model, "
            "tokenizer) first and pass both, or take rendering='text'."
        )
    needed = 1 + max(tokenizer.convert_tokens_to_ids(sampler.tokens()))
    for name, network in (("policy", model), ("reference policy", reference)):
        rows = needed if network is None else network.config.get_text_config().vocab_size
        if rows < needed:
            raise JuryError(
                f"the {name} has {rows} embeddings, and the tokens of weight_sampler need {needed}: call "
                "weight_sampler.prepare(model, tokenizer), save both in one folder and pass its path as model."
            )
