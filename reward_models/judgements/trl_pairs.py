"""Read TRL's preference data (`chosen`, `rejected`, with or without `prompt`) as pairs of responses.

Accepts standard (text) and conversational (list of messages) data, with the prompt in its own column or contained in
both. A prompt that has a column of its own and is repeated in the responses is cut from them; a mix of both forms is
refused by name. Knows nothing of raters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reward_models.errors import JudgementWarning
from reward_models.judgements.faults import Faults, is_missing
from reward_models.judgements.spelling import one_form


__all__ = ["Pair", "cut_repeated_prompts", "from_chosen_rejected"]

LONG = 20
"""Characters from which on a prompt does not stand at the beginning of two answers by chance."""
MANY = 10
"""Rows from which on even short prompts do not stand at the beginning of all answers by chance."""


class Pair(NamedTuple):
    """A row of TRL's preference data: text, or a list of messages, each; the prompt may be missing.

    Example:
        >>> Pair("Tea or coffee?", "Tea.", "Coffee.").prompt
        'Tea or coffee?'
    """

    prompt: Any
    chosen: Any
    rejected: Any


def from_chosen_rejected(table: pd.DataFrame) -> pd.DataFrame:
    """Turn `chosen`/`rejected` into `prompt`, `response_a` (the chosen one), `response_b` and `choice` = "a".

    Without a `prompt` column the prompt is what both have in common from the start: whole messages, or text up to the
    last white space. Prompt and response concatenated are the original text, to the letter (in Unicode's form NFC).

    Args:
        table: `N` rows with `chosen` and `rejected`; other columns are kept.

    Returns:
        A new table of `N` rows.

    Raises:
        JudgementError: If a conversation does not end in one assistant message after the prompt, or see
            `cut_repeated_prompts`.

    Warns:
        JudgementWarning: The prompt was cut from responses that repeat it.

    Example:
        >>> table = pd.DataFrame({"chosen": ["Tea or coffee? Tea."], "rejected": ["Tea or coffee? Coffee."]})
        >>> from_chosen_rejected(table).iloc[0].to_dict()
        {'prompt': 'Tea or coffee? ', 'response_a': 'Tea.', 'response_b': 'Coffee.', 'choice': 'a'}
    """
    faults = Faults(len(table))
    has_prompt = "prompt" in table
    prompts = table["prompt"].tolist() if has_prompt else [None] * len(table)
    rows = zip(prompts, table["chosen"], table["rejected"], strict=True)
    split = [_split(*pair) for pair in cut_repeated_prompts([Pair(*map(one_form, row)) for row in rows])]
    wrong = np.array([row is None for row in split])
    fix = "give both as text, or both as messages that differ in the last one only, written by the assistant"
    shown = list(zip(table["chosen"], table["rejected"], strict=True))
    faults.add(wrong, "chosen", shown, "(chosen, rejected) are not two answers to one prompt", fix)
    faults.raise_if_any()
    out = table.drop(columns=["chosen", "rejected"])
    for position, column in enumerate(("prompt", "response_a", "response_b")):
        out[column] = pd.Series([row[position] for row in split if row is not None], index=out.index, dtype=object)
    out["choice"] = "a"
    return out


def cut_repeated_prompts(pairs: Sequence[Pair]) -> list[Pair]:
    """Cut from both responses the prompt of their row, where they repeat it.

    Messages are compared row by row; a prompt in text stands for the one user message that the responses begin with.
    Text is cut where every row repeats its prompt; where only some do, a long prompt is refused, and a short one (as
    in "Hi", "Hi there") is left as it is. A text response to a conversation becomes one assistant message.

    Args:
        pairs: `N` rows.

    Returns:
        `N` rows whose responses begin after the prompt.

    Raises:
        JudgementError: Text and messages are mixed within a row, messages do not begin with those of the prompt, or
            only some rows repeat a long prompt.

    Warns:
        JudgementWarning: Prompts in text were cut.

    Example:
        >>> question, answers = {"role": "user", "content": "Tea or coffee?"}, ("Tea.", "Coffee.")
        >>> chosen, rejected = ([question, {"role": "assistant", "content": answer}] for answer in answers)
        >>> cut_repeated_prompts([Pair("Tea or coffee?", chosen, rejected)])[0].prompt
        [{'role': 'user', 'content': 'Tea or coffee?'}]
        >>> cut_repeated_prompts([Pair("Tea or coffee?", *([chosen[-1]], [rejected[-1]]))])
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 1 fault in a table of 1 judgements (...):
          row 0, column 'prompt': 'Tea or coffee?' is text, but chosen and rejected are messages. Fix: write ...
    """
    faults = Faults(len(pairs))
    forms = [tuple(map(_form, pair)) for pair in pairs]
    mixed = np.array([{chosen, rejected} == {"text", "messages"} for _, chosen, rejected in forms], dtype=bool)
    out = [pair if m else _cut_messages(pair, form) for pair, form, m in zip(pairs, forms, mixed, strict=True)]
    uncut = np.array([pair is None for pair in out], dtype=bool)
    text_prompt = np.array([form[0] == "text" for form in forms], dtype=bool)
    prompts, sides = [pair.prompt for pair in pairs], [pair[1:] for pair in pairs]
    fix = "give both as text, or both as messages"
    faults.add(mixed, "chosen", sides, "(chosen, rejected) mix text and messages", fix)
    fix = "write the prompt as [{'role': 'user', 'content': ...}], or all three as text"
    faults.add(uncut & text_prompt, "prompt", prompts, "is text, but chosen and rejected are messages", fix)
    fix = "let both begin with the messages of the prompt, or with the answer"
    reason = "(chosen, rejected) begin with other messages than the prompt"
    faults.add(uncut & ~text_prompt, "chosen", sides, reason, fix)
    repeated = np.array([set(f) == {"text"} and _repeats(p) for p, f in zip(pairs, forms, strict=True)], dtype=bool)
    long = np.array([isinstance(prompt, str) and len(prompt.strip()) >= LONG for prompt in prompts], dtype=bool)
    if repeated.all() and (long.any() or len(pairs) >= MANY):
        warnings.warn(
            f"chosen and rejected repeat the prompt in all {len(pairs):,} rows; it is cut from them. Cut it yourself, "
            "or leave out the column 'prompt'.",
            JudgementWarning,
            stacklevel=2,
        )
        return [Pair(p, chosen[len(p) :], rejected[len(p) :]) for p, chosen, rejected in pairs]
    reason = "is repeated at the beginning of chosen and rejected, which other rows do not do"
    faults.add(repeated & long, "prompt", prompts, reason, "cut it from the answers, of which it would be a part")
    faults.raise_if_any()
    return [pair for pair in out if pair is not None]


def _form(value: Any) -> str:
    return "text" if isinstance(value, str) else "messages" if _is_messages(value) else "other"


def _repeats(pair: Pair) -> bool:
    """Return whether both responses begin with the prompt and go on after it."""
    prompt = pair.prompt
    sides = (pair.chosen, pair.rejected)
    return bool(prompt.strip()) and all(side.startswith(prompt) and side[len(prompt) :].strip() for side in sides)


def _cut_messages(pair: Pair, form: tuple[str, ...]) -> Pair | None:
    """Return a row whose messages begin after the prompt, other rows as they are; None if that cannot be done."""
    if form[0] == "messages" and form[1:] == ("text", "text"):
        chosen, rejected = ([{"role": "assistant", "content": side}] for side in pair[1:])
        return Pair(pair.prompt, chosen, rejected)
    if form[0] == "other" or form[1:] != ("messages", "messages"):
        return pair
    prompt, sides = pair.prompt, [list(side) for side in pair[1:]]
    if form[0] == "text":
        before = sides[0][:-1]
        if not before or before[-1].get("role") != "user" or str(before[-1].get("content")).strip() != prompt.strip():
            return None
        prompt = before
    start = [(message.get("role"), message.get("content")) for message in prompt]
    begins = [[(m.get("role"), m.get("content")) for m in side[: len(start)]] == start for side in sides]
    if all(begins) and all(len(side) > len(start) for side in sides):
        return Pair(list(prompt), *(side[len(start) :] for side in sides))
    answers = form[0] == "messages" and all(side[0].get("role") == "assistant" for side in sides)
    return pair if answers and not any(begins) else None


def _split(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any] | None:
    """Return (prompt, response_a, response_b) of one row, or None if the two are not answers to one prompt."""
    if _is_messages(chosen) and _is_messages(rejected):
        *before, last = list(chosen)
        *before_rejected, last_rejected = list(rejected)
        if before != before_rejected or {last.get("role"), last_rejected.get("role")} != {"assistant"}:
            return None
        if is_missing(prompt):
            prompt = before
        elif before and list(prompt) != before:
            return None
        return prompt, last.get("content"), last_rejected.get("content")
    if not all(isinstance(text, str) or is_missing(text) for text in (chosen, rejected)):
        return None
    if is_missing(prompt) and isinstance(chosen, str) and isinstance(rejected, str):
        pairs = enumerate(zip(chosen, rejected, strict=False))
        shared = next((i for i, (c, r) in pairs if c != r), min(len(chosen), len(rejected)))
        cut = next((i for i in range(shared, 0, -1) if chosen[i - 1].isspace()), 0)
        return chosen[:cut], chosen[cut:], rejected[cut:]
    return prompt, chosen, rejected


def _is_messages(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and len(value) > 0 and all(isinstance(m, dict) for m in value)
