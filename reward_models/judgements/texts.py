"""Texts that are judged: a prompt and a response, in a form that can be a dictionary key.

Knows nothing of tables or raters.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


__all__ = ["Prompt", "Text", "as_messages", "freeze_prompt", "prompt_codes", "prompt_groups"]


Prompt = str | tuple[tuple[str, str], ...]


class Text(NamedTuple):
    """One text to score: a prompt and a response to it.

    A conversational prompt is a tuple of (role, content) pairs, so that texts can be dictionary keys;
    `as_messages` gives the list of messages that a chat template takes.
    """

    prompt: Prompt
    response: str


def freeze_prompt(prompt: Any) -> Prompt:
    """Turn a prompt into something hashable: a string stays, a list of messages becomes (role, content) pairs."""
    if isinstance(prompt, str):
        return prompt
    return tuple((message["role"], message["content"]) for message in prompt)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Turn a conversational `Text.prompt` back into messages; a plain string becomes one user message."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": role, "content": content} for role, content in prompt]


def prompt_codes(prompts: Collection[Any]) -> np.ndarray:
    """(N,) number of each of N prompts, in the order in which they first occur; equal prompts have equal numbers."""
    frozen = np.fromiter((freeze_prompt(prompt) for prompt in prompts), dtype=object, count=len(prompts))
    return pd.factorize(frozen)[0]


def prompt_groups(texts: Sequence[Text]) -> np.ndarray:
    """(U,) number of each text's prompt; texts of one number answer the same prompt."""
    last = {text.prompt: i for i, text in enumerate(texts)}
    return np.unique([last[text.prompt] for text in texts], return_inverse=True)[1]
