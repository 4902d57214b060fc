"""Diversity and repetition of wording, by sequences of words. Knows nothing of meaning.

Words are those of `core.shares.words`: without case and punctuation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from plural_rlhf.core.shares import words


__all__ = ["distinct_n", "repetition", "self_bleu"]

Ngram = tuple[str, ...]


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Compute the share of different sequences of `n` words among all of a set of texts.

    It falls with the number and the length of the texts: compare sets of one size. Source: Li et al. (2016),
    https://arxiv.org/abs/1510.03055.

    Returns:
        Between 0 and 1; nan where no text has `n` words.

    Example:
        >>> distinct_n(["more parks now", "more parks later"], n=2)  # more parks, parks now, parks later; of 4
        0.75
    """
    counts: Counter[Ngram] = Counter()
    for text in texts:
        counts.update(_ngrams(words(text), n))
    return len(counts) / counts.total() if counts else math.nan


def repetition(text: str, n: int = 3) -> float:
    """Compute the share of a text's sequences of `n` words that occurred before in it.

    Returns:
        0 where nothing is repeated, and where the text has at most `n` words.

    Example:
        >>> repetition("so so so so so so"), repetition("one thing and then another")  # one of four is new
        (0.75, 0.0)
    """
    ngrams = _ngrams(words(text), n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def self_bleu(texts: Sequence[str], most: int = 4) -> float:
    """Compute the mean BLEU of each text with the other texts as its references: high where all are worded alike.

    Precisions of sequences of 1 to `most` words are clipped at the highest count in one reference, and averaged
    geometrically; a precision without a match counts a tenth of a match; the brevity penalty is against the reference
    of the closest length. Sources: Zhu et al., "Texygen" (2018), https://arxiv.org/abs/1802.01886; Papineni et al.
    (2002), https://aclanthology.org/P02-1040.

    Args:
        texts: At least two texts.
        most: Longest sequence of words.

    Returns:
        Between 0 and 1; nan for fewer than two texts.

    Example:
        >>> self_bleu(["the old town needs parks"] * 3)
        1.0
        >>> round(self_bleu(["the old town needs parks", "nobody asked me"]), 3) < 0.1
        True
    """
    if len(texts) < 2:
        return math.nan
    rows = [words(text) for text in texts]
    counts = [[Counter(_ngrams(row, n)) for row in rows] for n in range(1, most + 1)]
    highest = [_two_highest(of_order) for of_order in counts]
    lengths = np.array([len(row) for row in rows])
    scores = []
    for i, row in enumerate(rows):
        log_precision = []
        for of_order, (best, second) in zip(counts, highest, strict=True):
            ours = of_order[i]
            if not ours:
                break
            # The highest count among the other texts: the second highest where this text has the highest itself.
            clipped = sum(
                min(count, second.get(ngram, 0) if count == best[ngram] else best[ngram])
                for ngram, count in ours.items()
            )
            log_precision.append(math.log(max(clipped, 0.1) / ours.total()))
        others = np.delete(lengths, i)
        closest = others[np.lexsort((others, np.abs(others - len(row))))[0]]
        penalty = min(0.0, 1 - closest / len(row))
        scores.append(math.exp(penalty + sum(log_precision) / len(log_precision)))
    return sum(scores) / len(scores)


def _ngrams(row: Sequence[str], n: int) -> list[Ngram]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


def _two_highest(
    counts: Sequence[Counter[Ngram]],
) -> tuple[dict[Ngram, int], dict[Ngram, int]]:
    """Return the highest and the second highest count of each sequence over texts."""
    best: dict[Ngram, int] = {}
    second: dict[Ngram, int] = {}
    for of_text in counts:
        for ngram, count in of_text.items():
            if count > best.get(ngram, 0):
                best[ngram], second[ngram] = count, best.get(ngram, 0)
            elif count > second.get(ngram, 0):
                second[ngram] = count
    return best, second
