"""Texts that are judged: a prompt and a response, in a form that can be a dictionary key.

Knows nothing of tables or raters.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reward_models.judgements.spelling import one_form


__all__ = [
    "Prompt",
    "Text",
    "as_messages",
    "freeze_prompt",
    "judgement_texts",
    "prompt_codes",
    "prompt_groups",
    "prompt_wording",
]


Prompt = str | tuple[tuple[str, str], ...]


class Text(NamedTuple):
    """One text to score: a prompt and a response to it.

    A conversational prompt is a tuple of (role, content) pairs, so that texts can be dictionary keys;
    `as_messages` returns the list of messages that a chat template needs.

    Example:
        >>> Text("Tea or coffee?", "Tea.").response
        'Tea.'
        >>> Text((("user", "Tea or coffee?"),), "Tea.").prompt
        (('user', 'Tea or coffee?'),)
    """

    prompt: Prompt
    response: str


def freeze_prompt(prompt: Any) -> Prompt:
    """Return a prompt in hashable form and NFC: a string as it is, a list of messages as (role, content) pairs.

    Example:
        >>> freeze_prompt([{"role": "user", "content": "Hi"}])
        (('user', 'Hi'),)
    """
    if isinstance(prompt, str):
        return one_form(prompt)
    return tuple((message["role"], one_form(message["content"])) for message in prompt)


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return the messages of a `Text.prompt`; a string becomes one user message.

    Example:
        >>> as_messages("Hi")
        [{'role': 'user', 'content': 'Hi'}]
        >>> as_messages((("user", "Hi"), ("assistant", "Hello")))[1]
        {'role': 'assistant', 'content': 'Hello'}
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": role, "content": content} for role, content in prompt]


def prompt_wording(prompt: Prompt) -> str:
    r"""Return a `Text.prompt` as one text, the messages of a conversation one below the other.

    Example:
        >>> prompt_wording((("user", "Hi"), ("assistant", "Hello")))
        'Hi\nHello'
    """
    return "\n".join(message["content"] for message in as_messages(prompt))


def judgement_texts(kind: str, row: Mapping[Hashable, Any]) -> tuple[str, str]:
    r"""Return what a rater was asked and what the rater answered, as texts.

    A choice is answered by the text of the option; a preference by A, B or tie, after the two responses; a rating by
    its number, after the response. The options of a choice are not in the question.

    Args:
        kind: `choice`, `preference` or `rating`.
        row: A row of `Judgements.frame`.

    Example:
        >>> judgement_texts("rating", {"prompt": "Build what?", "response": "Parks.", "rating": 1.0})
        ('Build what?\nParks.', '1')
    """
    asked = prompt_wording(row["prompt"])
    if kind == "choice":
        return asked, str(row["options"][int(row["choice"])])
    if kind == "rating":
        return "\n".join(str(part) for part in (asked, row["response"]) if part), f"{row['rating']:g}"
    answer = {"a": "A", "b": "B"}.get(row["choice"], str(row["choice"]))
    return f"{asked}\nA: {row['response_a']}\nB: {row['response_b']}", answer


def prompt_codes(prompts: Collection[Any]) -> np.ndarray:
    """Number N prompts in the order in which they first occur: (N,) ints, equal where the prompts are equal.

    Example:
        >>> prompt_codes(["Hi", "Bye", "Hi"]).tolist()
        [0, 1, 0]
    """
    frozen = np.fromiter((freeze_prompt(prompt) for prompt in prompts), dtype=object, count=len(prompts))
    return pd.factorize(frozen)[0]


def prompt_groups(texts: Sequence[Text]) -> np.ndarray:
    """Number texts by their prompt: (U,) ints, equal where two texts answer the same prompt.

    Example:
        >>> prompt_groups([Text("Hi", "Hello"), Text("Bye", "See you"), Text("Hi", "Hey")]).tolist()
        [1, 0, 1]
    """
    last = {text.prompt: i for i, text in enumerate(texts)}
    return np.unique([last[text.prompt] for text in texts], return_inverse=True)[1]
