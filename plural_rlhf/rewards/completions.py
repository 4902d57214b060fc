"""Completions as TRL hands them to a reward function: their text, their prompts, and which belong to one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


__all__ = ["as_completions", "completion_text", "rows_of", "seen_prompts"]


def completion_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion as TRL hands it over: a string, or messages.

    Among the messages of a conversation with tools the answer is the assistant's last that says anything; a call of a
    tool may have no content. Empty where the assistant says nothing.
    """
    if isinstance(completion, str):
        return completion
    said = [m.get("content") for m in completion if m.get("role", "assistant") == "assistant"]
    return next((content for content in reversed(said) if content), "")


def as_completions(prompt: str | list[dict[str, Any]], texts: Sequence[str]) -> list[Any]:
    """Texts as TRL hands over completions of this prompt: strings, or lists with the assistant's message."""
    return list(texts) if isinstance(prompt, str) else [[{"role": "assistant", "content": text}] for text in texts]


def seen_prompts(prompts: Sequence[Any], jury_prompts: Sequence[Any] | None) -> list[Any]:
    """The prompts as the jury should see them: its own, where a row has one."""
    jury_prompts = [None] * len(prompts) if jury_prompts is None else jury_prompts
    return [shown if own is None else own for own, shown in zip(jury_prompts, prompts, strict=True)]


def rows_of(keys: Sequence[str]) -> dict[str, list[int]]:
    """Which rows belong to each key, keys in the order in which they first occur."""
    rows: dict[str, list[int]] = {}
    for n, key in enumerate(keys):
        rows.setdefault(key, []).append(n)
    return rows
