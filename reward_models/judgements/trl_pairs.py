"""Read TRL's preference data (`chosen`, `rejected`, with or without `prompt`) as pairs of responses.

Accepts standard (text) and conversational (list of messages) data, with the prompt in its own column or contained in
both. Knows nothing of raters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from reward_models.judgements.faults import Faults, is_missing
from reward_models.judgements.spelling import one_form


__all__ = ["from_chosen_rejected"]


def from_chosen_rejected(table: pd.DataFrame) -> pd.DataFrame:
    """Turn `chosen`/`rejected` into `prompt`, `response_a` (the chosen one), `response_b` and `choice` = "a".

    Without a `prompt` column the prompt is what both have in common from the start: whole messages, or text up to the
    last white space. Prompt and response concatenated are the original text, to the letter (in Unicode's form NFC).

    Args:
        table: `N` rows with `chosen` and `rejected`; other columns are kept.

    Returns:
        A new table of `N` rows.

    Raises:
        JudgementError: If a conversation does not end in one assistant message after the prompt.

    Example:
        >>> table = pd.DataFrame({"chosen": ["Tea or coffee? Tea."], "rejected": ["Tea or coffee? Coffee."]})
        >>> from_chosen_rejected(table).iloc[0].to_dict()
        {'prompt': 'Tea or coffee? ', 'response_a': 'Tea.', 'response_b': 'Coffee.', 'choice': 'a'}
    """
    faults = Faults(len(table))
    has_prompt = "prompt" in table
    prompts = table["prompt"].tolist() if has_prompt else [None] * len(table)
    rows = zip(prompts, table["chosen"], table["rejected"], strict=True)
    split = [_split(*(one_form(part) for part in row)) for row in rows]
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
