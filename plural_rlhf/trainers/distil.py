"""From a steerable policy to one that needs no steering: the population's mixture by imitation.

Draw a cluster k from the weights, let the steerable policy answer as that cluster alone, and imitate the answers
without naming the cluster: a random dictator, whose answers are distributed as `Σ_k w_k π(y | x, k)`. Maximum
likelihood on them is forward KL to that mixture, and no normaliser log Z_k has to be estimated. The costs are one
generation per answer, and whatever the steerable policy misses of a cluster.

One departure from the plain random dictator: the clusters of a prompt's `n` answers are drawn together by systematic
sampling, so that each has w_k·n answers rounded up or down instead of a binomial number. Knows nothing of scorers or
rewards.
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
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from plural_rlhf.policies.steerer import Steerer, WeightsLike
    from plural_rlhf.weights.wording import TRLPrompt

__all__ = ["dictators", "distil", "distil_rows"]

logger = logging.getLogger(__name__)


def dictators(weights: Sequence[float] | np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the cluster of each of `n` answers, `(n,)` in order, by systematic sampling.

    Cluster k occurs n·w_k times, rounded up or down; an answer at a random place is of cluster k with probability w_k.

    Args:
        weights: `(K,)` w, of any sum.
        n: Number of answers.
        rng: Draws one number.

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
    """Draw answers of a steerable policy, each as one cluster that is drawn from the weights.

    Args:
        policy: Answers as one cluster alone, by its prompt.
        prompts: The prompts of the distilled policy, which name no weights.
        weights: Weights of the mixture.
        n: Answers per prompt.
        seed: Random seed of the clusters; answers are drawn from torch's own random state.
        **generation: Fields of `GenerationConfig`, such as `max_new_tokens`. Do not change the sampling: the answers
            would come from another mixture.

    Returns:
        Columns `prompt`, `completion` (TRL's, conversational if the prompt is), `completion_ids` (the sampled tokens,
        end token included) and `cluster`. Answers that were cut off have no end to imitate and are left out, with a
        warning.

    Raises:
        JuryError: See `Steerer.weights`.
        ValueError: Plain prompts are mixed with conversations, or every answer was cut off.

    Example:
        >>> from types import SimpleNamespace
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> end = tokenizer.eos_token_id
        >>> answers = {"urban": tokenizer.encode("Yes.") + [end], "rural": tokenizer.encode("No.") + [end]}
        >>> policy = SimpleNamespace(  # in place of a `Steerer`
        ...     weights=lambda weights: [0.75, 0.25],
        ...     cluster_names=list(answers),
        ...     sample_tokens=lambda prompts, names: [answers[name] for name in names],
        ...     tokenizer=tokenizer,
        ...     ends={end},
        ... )
        >>> distil_rows(policy, ["More parks?"], n=4)["completion"][:]
        ['Yes.', 'Yes.', 'Yes.', 'No.']
    """
    plain = sum(isinstance(prompt, str) for prompt in prompts)
    if 0 < plain < len(prompts):
        raise ValueError(
            f"{plain} of {len(prompts)} prompts are plain text and the others conversations, which cannot be in one "
            "data set: write all as conversations, or make two data sets."
        )
    w, rng = policy.weights(weights), seeded_rng(seed, "dictators of distil")
    draws = [(prompt, int(k)) for prompt in prompts for k in dictators(w, n, rng)]
    names = [policy.cluster_names[k] for _, k in draws]
    answers = policy.sample_tokens([prompt for prompt, _ in draws], names, **generation)
    ends = policy.ends
    rows = []
    for (prompt, _), name, ids in zip(draws, names, answers, strict=True):
        if ids[-1] not in ends:
            continue
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        completion = text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        rows.append({"prompt": prompt, "completion": completion, "completion_ids": ids, "cluster": name})
    cut = len(draws) - len(rows)
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
            len(draws),
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
    """Train a policy to give the answers of `distil_rows` to the plain prompts.

    The loss is on the answers and their end tokens only, and on the tokens as they were sampled: text that is
    tokenised again may become other tokens.

    Args:
        model: The student, changed in place; a copy of the steerable policy is a good start.
        tokenizer: The steerable policy's.
        rows: From `distil_rows`.
        args: TRL's configuration; its defaults if None.
        peft_config: To train an adapter instead.
        chat_template_kwargs: Arguments of the chat template besides the conversation, as in the steerable policy.

    Returns:
        The trainer, after training.

    Raises:
        ValueError: A row is longer than `args.max_length`, so that its end would be cut off.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> answer = tokenizer.encode("Yes.") + [tokenizer.eos_token_id]
        >>> rows = Dataset.from_list([{"prompt": "More parks?", "completion_ids": answer}])
        >>> args = SFTConfig("out", max_length=4, use_cpu=True, bf16=False)
        >>> distil(tiny_causal_lm(tokenizer), tokenizer, rows, args)
        Traceback (most recent call last):
        ValueError: max_length is 4, but the longest row has ... tokens and would lose its end token: ...
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
