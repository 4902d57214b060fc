"""Drift of form: length, layout, texts that are no answers, perplexity under the reference policy.

A policy that is rewarded may write longer, in lists, or nothing at all, and a jury may not mind. Knows nothing of
rewards or prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from plural_rlhf.core.shares import words
from plural_rlhf.evaluation.diversity.ngrams import repetition


__all__ = ["DEGENERATE", "degeneracy", "layout", "perplexity", "word_count"]

DEGENERATE = ("empty", "repetitive", "truncated")
"""Kinds of texts that are no answers; a text counts under the first that applies."""

MOST_REPEATED = 0.5
_MARKDOWN = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s|^#{1,6}\s|\*\*|```|^\|", re.MULTILINE)


def word_count(text: str) -> int:
    """Count the words of a text; 0 for a text without letters or digits.

    Example:
        >>> word_count("More parks, now!"), word_count(" ...")
        (3, 0)
    """
    found = words(text)
    return len(found) if re.search(r"\w", text) else 0


def degeneracy(text: str, ended: bool | None = None) -> str | None:
    """Say why a text is no answer: one of `DEGENERATE`, or None.

    Args:
        text: The text.
        ended: Whether it ended by itself; None if unknown, and then no text counts as truncated.

    Returns:
        `"empty"` without a letter or digit; `"repetitive"` if more than half of its sequences of three words occurred
        before in it; `"truncated"` if it was cut.

    Example:
        >>> degeneracy(" ..."), degeneracy("no no no no no no"), degeneracy("Because the", ended=False)
        ('empty', 'repetitive', 'truncated')
    """
    if word_count(text) == 0:
        return "empty"
    if repetition(text) > MOST_REPEATED:
        return "repetitive"
    return "truncated" if ended is False else None


def layout(text: str) -> dict[str, bool]:
    r"""Say whether a text has several lines, and marks of Markdown (lists, headings, bold, code, tables).

    Example:
        >>> layout("Two things:\n- parks\n- roads"), layout("Parks.")
        ({'several_lines': True, 'markdown': True}, {'several_lines': False, 'markdown': False})
    """
    return {"several_lines": "\n" in text.strip(), "markdown": bool(_MARKDOWN.search(text))}


def perplexity(log_probs: Sequence[float], num_tokens: Sequence[int]) -> float:
    """Compute the perplexity of texts per token, `exp(- sum log p / sum tokens)`.

    Args:
        log_probs: Log-probability of each text under the base model, nats.
        num_tokens: Tokens of each text.

    Example:
        >>> round(perplexity([math.log(0.25), math.log(0.5)], [2, 1]), 6)  # .125 over three tokens
        2.0
    """
    total = sum(num_tokens)
    return math.exp(-sum(log_probs) / total) if total else math.nan
