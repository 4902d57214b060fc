"""Completions as TRL passes them to a reward function: their texts, their prompts, and which belong to one prompt.

Knows nothing of rewards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from reward_models.judgements.spelling import one_form
from reward_models.jury.protocol import scorable_text


__all__ = ["as_completions", "completion_text", "prompt_key", "rows_of", "scorable", "seen_prompts"]


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a completion in TRL's form: a string, or a list of messages.

    In a conversation with tools this is the last message of the assistant that has content; a tool call may have none.
    Empty if the assistant says nothing.

    Example:
        >>> completion_text([{"role": "assistant", "content": "Parks."}])
        'Parks.'
    """
    if isinstance(completion, str):
        return completion
    contents = [m.get("content") for m in completion if m.get("role", "assistant") == "assistant"]
    return next((content for content in reversed(contents) if content), "")


def as_completions(prompt: str | list[dict[str, Any]], texts: Sequence[str]) -> list[Any]:
    """Return texts in TRL's form for completions of this prompt: strings, or lists with the assistant's message.

    Example:
        >>> as_completions([{"role": "user", "content": "Parks or roads?"}], ["Parks."])
        [[{'role': 'assistant', 'content': 'Parks.'}]]
    """
    return list(texts) if isinstance(prompt, str) else [[{"role": "assistant", "content": text}] for text in texts]


def scorable(completion: Any) -> Any:
    """Return a completion in TRL's form as scorers read it (`scorable_text`); one with words as it is.

    Example:
        >>> scorable([{"role": "assistant", "content": ""}])
        [{'role': 'assistant', 'content': '.'}]
    """
    text = completion_text(completion)
    if text.strip():
        return completion
    return scorable_text(text) if isinstance(completion, str) else as_completions([], [scorable_text(text)])[0]


def seen_prompts(prompts: Sequence[Any], jury_prompts: Sequence[Any] | None) -> list[Any]:
    """Return the prompts that the scorer sees: a row's `jury_prompt` if it has one, else its prompt.

    Example:
        >>> seen_prompts(["As a farmer: parks?", "Roads?"], ["Parks?", None])
        ['Parks?', 'Roads?']
    """
    jury_prompts = [None] * len(prompts) if jury_prompts is None else jury_prompts
    return [prompt if own is None else own for own, prompt in zip(jury_prompts, prompts, strict=True)]


def prompt_key(prompt: Any) -> str:
    """Hash the canonical JSON of a prompt in NFC: a key that is the same in every process and after every restart.

    Args:
        prompt: A string, a conversation (a list of messages), or anything else that JSON can write.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> prompt_key("Pick a number.")
        'e6ddcea65f96edd96d7e31d3e52b080d'
        >>> prompt_key([{"role": "user", "content": "hi"}]) == prompt_key([{"content": "hi", "role": "user"}])
        True
    """
    canonical = json.dumps(one_form(prompt), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def rows_of(keys: Sequence[str]) -> dict[str, list[int]]:
    """Group row numbers by key, keys in the order of their first occurrence.

    Example:
        >>> rows_of(["a", "b", "a"])
        {'a': [0, 2], 'b': [1]}
    """
    rows: dict[str, list[int]] = {}
    for n, key in enumerate(keys):
        rows.setdefault(key, []).append(n)
    return rows
