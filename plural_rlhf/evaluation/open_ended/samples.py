"""Recorded samples of policies: texts by prompt, with log-probabilities where they are known.

Knows nothing of what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


__all__ = ["PolicySamples", "read_samples"]

_OPTIONAL = ("log_probs", "reference_log_probs", "num_tokens", "ended")
_COLUMNS = {"log_probs": "log_prob", "reference_log_probs": "reference_log_prob"}


@dataclass(frozen=True)
class PolicySamples:
    """What a policy wrote: the same number of entries in every field of a prompt.

    Attributes:
        texts: The texts of each prompt, at least one, in the order in which they were drawn. Prompts are named by
            strings; `evaluate_open_ended(prompts=...)` says what they are where they are conversations.
        log_probs: Log-probability of each text under the policy, its end included, in nats; None if unknown.
        reference_log_probs: The same under the reference policy.
        num_tokens: Tokens of each text, its end included.
        ended: Whether the text ended by itself; False where it was cut at the longest length.

    Raises:
        ValueError: A prompt without texts, or fields of unequal lengths.

    Example:
        >>> PolicySamples({"What now?": ["Parks.", "Roads."]}, ended={"What now?": [True]})
        Traceback (most recent call last):
        ValueError: prompt 'What now?' has 2 texts and 1 entries in ended. Fix: give one entry per text.
    """

    texts: Mapping[str, Sequence[str]]
    log_probs: Mapping[str, Sequence[float]] | None = None
    reference_log_probs: Mapping[str, Sequence[float]] | None = None
    num_tokens: Mapping[str, Sequence[int]] | None = None
    ended: Mapping[str, Sequence[bool]] | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("the samples of a policy have no prompt. Fix: give the texts of at least one prompt.")
        for prompt, texts in self.texts.items():
            if isinstance(texts, str) or len(texts) == 0:
                what = "one string" if isinstance(texts, str) else "no text"
                raise ValueError(f"prompt {prompt!r} has {what}. Fix: give a list of at least one text.")
            for field in _OPTIONAL:
                column = getattr(self, field)
                if column is not None and len(column.get(prompt, ())) != len(texts):
                    raise ValueError(
                        f"prompt {prompt!r} has {len(texts)} texts and {len(column.get(prompt, ()))} entries in "
                        f"{field}. Fix: give one entry per text."
                    )


def read_samples(rows: Iterable[Mapping[str, Any]]) -> dict[str, PolicySamples]:
    """Read samples from tidy rows: `policy`, `prompt`, `text`, and what is known of each text.

    Args:
        rows: One per text. Optional columns are `log_prob`, `reference_log_prob` (nats), `num_tokens` and `ended`; a
            policy has one where none of its rows lacks it.

    Returns:
        Samples by policy, in the order of the rows.

    Raises:
        ValueError: A row lacks policy, prompt or text, or its text is not a string.

    Example:
        >>> row = {"policy": "plural", "prompt": "What now?", "ended": True}
        >>> samples = read_samples([{**row, "text": "Parks."}, {**row, "text": "Roads."}])["plural"]
        >>> samples.texts, samples.ended, samples.log_probs
        ({'What now?': ['Parks.', 'Roads.']}, {'What now?': [True, True]}, None)
    """
    columns: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for number, row in enumerate(rows):
        for name in ("policy", "prompt", "text"):
            if not isinstance(row.get(name), str):
                raise ValueError(
                    f"row {number} of the samples has {row.get(name)!r} as {name}. Fix: give a string in each of "
                    "policy, prompt and text."
                )
        of_policy = columns.setdefault(row["policy"], {name: {} for name in ("texts", *_OPTIONAL)})
        of_policy["texts"].setdefault(row["prompt"], []).append(row["text"])
        for field in _OPTIONAL:
            of_policy[field].setdefault(row["prompt"], []).append(row.get(_COLUMNS.get(field, field)))
    return {
        policy: PolicySamples(
            fields["texts"], **{field: fields[field] for field in _OPTIONAL if not _lacks(fields[field])}
        )
        for policy, fields in columns.items()
    }


def _lacks(column: Mapping[str, Sequence[Any]]) -> bool:
    entries = [entry for of_prompt in column.values() for entry in of_prompt]
    return any(entry is None or (isinstance(entry, float) and math.isnan(entry)) for entry in entries)
