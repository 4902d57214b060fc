"""Texts that a model draws in answer to one prompt, their log-probabilities, and what a scorer says of them.

Knows nothing of which policy the model is, nor of run files.

Shapes: `N` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.generation import OWN_DISTRIBUTION, generate_with_shared_prefix
from plural_rlhf.policies.log_probs import completion_log_probs, pad_left
from plural_rlhf.policies.steerer import end_tokens
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from reward_models.jury.protocol import ClusterScorer, scorable_text


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["candidate_rewards", "draw_texts", "text_log_probs"]

Messages = list[dict[str, str]]


def draw_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Messages, number: int, max_new_tokens: int
) -> tuple[list[list[int]], list[float]]:
    """Draw tokens of `number` texts, and their log-probabilities, nats.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> model, ask = tiny_causal_lm(tiny_tokenizer()), [{"role": "user", "content": "Why?"}]
        >>> tokens, log_probs = draw_texts(model.eval(), tiny_tokenizer(), ask, 3, max_new_tokens=2)
        >>> len(tokens), all(len(one) <= 2 for one in tokens), max(log_probs) < 0
        (3, True, True)
    """
    ends, pad = end_tokens(model, tokenizer), tokenizer.pad_token_id
    config = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=ends, **OWN_DISTRIBUTION)
    group = [encode_prompt(prompt, tokenizer, {})] * number
    tokens, log_probs = generate_with_shared_prefix(model, group, config, pad, ends)
    return tokens, [sum(of) for of in log_probs]


def text_log_probs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Messages, texts: Sequence[Sequence[int]]
) -> list[float]:
    """Return the log-probability of each of `N` texts in answer to a prompt, nats.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        prompt: The prompt.
        texts: Their tokens, the end included.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> model, ask = tiny_causal_lm(tiny_tokenizer()).eval(), [{"role": "user", "content": "Why?"}]
        >>> with torch.no_grad():
        ...     tokens, drawn = draw_texts(model, tiny_tokenizer(), ask, 3, max_new_tokens=2)
        ...     again = text_log_probs(model, tiny_tokenizer(), ask, tokens)
        >>> bool(np.allclose(drawn, again, atol=1e-4))
        True
    """
    pad = tokenizer.pad_token_id
    prompt_ids, prompt_mask = pad_left([encode_prompt(prompt, tokenizer, {})] * len(texts), pad)
    tokens = [torch.tensor(row) for row in texts]
    rows = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": pad_sequence(tokens, batch_first=True, padding_value=pad),
        "completion_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
    }
    rows = {name: tensor.to(model.device) for name, tensor in rows.items()}
    return completion_log_probs(model, rows).sum(dim=1).double().tolist()


def candidate_rewards(scorer: ClusterScorer, prompt: OpenPrompt, texts: Sequence[str]) -> np.ndarray:
    """Score `N` texts in answer to a prompt, (N, K).

    Example:
        >>> class Lengths:
        ...     cluster_names, prevalence = ["long", "short"], np.array([0.5, 0.5])
        ...     def cluster_rewards(self, prompts, completions):
        ...         n = torch.tensor([float(len(of[0]["content"])) for of in completions])
        ...         return torch.stack([n, -n], dim=1)
        >>> candidate_rewards(Lengths(), OpenPrompt("Why?", "train"), ["Because.", ""]).tolist()
        [[8.0, -8.0], [1.0, -1.0]]
    """
    completions = [[{"role": "assistant", "content": scorable_text(text)}] for text in texts]
    return scorer.cluster_rewards([prompt.messages] * len(texts), completions).double().numpy()
