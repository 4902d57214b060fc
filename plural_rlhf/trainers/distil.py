"""From a policy that can be steered to one that needs no steering: the population's mixture by imitation.

Draw a cluster k from the weights, let the steerable policy answer as that cluster alone, and imitate the answers
without saying who gave them: a random dictator, whose answers are distributed as `Σ_k w_k π(y | x, k)`. Maximum
likelihood on them is forward KL to that mixture, with no normaliser log Z_k to estimate anywhere. What it costs is
one generation an answer, and whatever the steerable policy misses of a cluster.

One departure from the plain random dictator: the clusters of a prompt's `n` answers are drawn together by systematic
sampling, so that each has w_k·n answers rounded up or down instead of a binomial number. This file knows nothing of
juries or rewards.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.trainers import _trl


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from plural_rlhf.policies.steerer import Steerer, WeightsLike
    from plural_rlhf.weights.wording import TRLPrompt

__all__ = ["dictators", "distil", "distil_rows"]

logger = logging.getLogger(__name__)


def dictators(weights: Sequence[float] | np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws whose answer each of `n` is, `(n,)` clusters in order, by systematic sampling from weights `(K,)`.

    Each is cluster k with probability w_k taken over a random place in the order, and cluster k occurs n·w_k times,
    rounded up or down.

    Example:
        >>> dictators([0.6, 0.3, 0.1], 10, np.random.default_rng(0)).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    """
    edges = np.cumsum(weights) / np.sum(weights)
    return np.searchsorted(edges[:-1], (np.arange(n) + rng.random()) / n, side="right")


def distil_rows(
    policy: Steerer,
    prompts: Sequence[TRLPrompt],
    weights: WeightsLike = "prevalence",
    n: int = 16,
    *,
    seed: int = 0,
    **generation: Any,
) -> Dataset:
    """Answers of a steerable policy, each given as one cluster that was drawn from the weights.

    Args:
        policy: Steered to one cluster alone by its prompt.
        prompts: What the distilled policy will be asked, without any word on weights.
        weights: Of the mixture.
        n: Answers a prompt.
        seed: Of the draws of clusters; answers are drawn from torch's own random state.
        **generation: Of `GenerationConfig`, such as `max_new_tokens`. Leave the sampling as it is, lest the mixture be
            another.

    Returns:
        Columns `prompt`, `completion` (TRL's, conversational where the prompt is), `completion_ids` (the very tokens,
        end token included) and `cluster`. Answers that were cut off have no end to imitate and are left out, with a
        warning.

    Raises:
        JuryError: See `Steerer.weights`.
        ValueError: Plain prompts mixed with conversations, or every answer was cut off.
    """
    plain = sum(isinstance(prompt, str) for prompt in prompts)
    if 0 < plain < len(prompts):
        raise ValueError(
            f"{plain} of {len(prompts)} prompts are plain text and the others conversations, which one data set "
            "cannot hold: write all as conversations, or make two data sets."
        )
    w, rng = policy.weights(weights), np.random.default_rng(seed)
    asked = [(prompt, int(k)) for prompt in prompts for k in dictators(w, n, rng)]
    names = [policy.cluster_names[k] for _, k in asked]
    answers = policy.sample_tokens([prompt for prompt, _ in asked], names, **generation)
    ends = policy.ends
    rows = []
    for (prompt, _), name, ids in zip(asked, names, answers, strict=True):
        if ids[-1] not in ends:
            continue
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        completion = text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        rows.append({"prompt": prompt, "completion": completion, "completion_ids": ids, "cluster": name})
    cut = len(asked) - len(rows)
    if not rows:
        raise ValueError(
            f"all {cut} answers were cut off before their end token, so there is none to imitate: raise "
            "max_new_tokens, or train the policy to end its answers first."
        )
    if cut:
        logger.warning(
            "%d of %d answers were cut off and are left out, so long answers are rarer than in the mixture; raise "
            "max_new_tokens.",
            cut,
            len(asked),
        )
    return Dataset.from_list(rows)


def distil(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    args: SFTConfig | None = None,
    *,
    peft_config: PeftConfig | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> SFTTrainer:
    """Trains a policy to give the answers of `distil_rows` to the plain prompts.

    The loss is on the answers and their end tokens only, and on the very tokens that were sampled: text that is
    tokenised again may come out as other tokens.

    Args:
        model: The student, changed in place; a copy of the steerable policy is a good start.
        tokenizer: The steerable policy's.
        rows: From `distil_rows`.
        args: TRL's; its defaults if not given.
        peft_config: To train an adapter instead.
        chat_template_kwargs: What the chat template is given beside the conversation, as in the steerable policy.

    Returns:
        The trainer, after training.

    Raises:
        ValueError: A row longer than `args.max_length`, whose end would be cut off.
    """
    args = SFTConfig("distilled") if args is None else args
    longest = 0
    examples = []
    for row in rows:
        prompt, answer = encode_prompt(row["prompt"], tokenizer, chat_template_kwargs), list(row["completion_ids"])
        examples.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
        longest = max(longest, len(prompt) + len(answer))
    if args.max_length is not None and longest > args.max_length:
        raise ValueError(
            f"max_length is {args.max_length}, but the longest row has {longest} tokens and would lose its end token: "
            f"set max_length={longest} or more, or None."
        )
    _trl.use_own_forward(model)
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    trainer.train()
    return trainer
