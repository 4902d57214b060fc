"""The reward that costs nothing: how probable a language model, untrained on judgements, finds the response.

Published work finds it hard to beat for personalised reward models, so it stands beside them. Two forms: the sum over
tokens, which favours short responses, and the mean per token. Rater terms are fitted around it as around any reward.
Knows nothing of raters.

Shapes: `U` texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reward_models.evaluation.language_models.continuations import Continuation, LanguageModel
from reward_models.judgements.texts import Prompt, Text, as_messages


__all__ = ["response_log_probs"]


def response_log_probs(lm: LanguageModel, texts: Sequence[Text]) -> np.ndarray:
    """Compute the log-probability of each response after its prompt.

    Args:
        lm: The language model.
        texts: `U` texts; a conversation is read by the chat template, if there is one.

    Returns:
        (U, 2) the sum over tokens and the mean per token, both standardised over the texts.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> lm = LanguageModel(tiny_causal_lm(), tiny_tokenizer())
        >>> values = response_log_probs(lm, [Text("Which?", "the city"), Text("Which?", "the country and the city")])
        >>> values[:, 0].round(2).tolist()  # the longer one is less probable
        [1.0, -1.0]
    """
    groups: dict[Prompt, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(text.prompt, []).append(i)
    found = lm.score(
        [_beginning(lm, prompt) for prompt in groups],
        [[Continuation("", texts[i].response) for i in rows] for rows in groups.values()],
    )
    out = np.empty((len(texts), 2))
    for rows, scores in zip(groups.values(), found, strict=True):
        out[rows] = np.column_stack([scores[:, 0], scores[:, 0] / np.maximum(scores[:, 1], 1.0)])
    spread = out.std(0)
    return (out - out.mean(0)) / np.where(spread > 0, spread, 1.0)


def _beginning(lm: LanguageModel, prompt: Prompt) -> str:
    """Return what a model reads before the response."""
    if isinstance(prompt, str):
        return f"{prompt}\n"
    messages = as_messages(prompt)
    if lm.tokenizer.chat_template:
        return str(lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return "\n".join(message["content"] for message in messages) + "\n"
