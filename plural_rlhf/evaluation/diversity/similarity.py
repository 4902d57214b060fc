"""How alike two texts are: the same words, common words, common order of words, vectors in one direction.

All matrices are computed for every pair of two lists of texts. Knows nothing of thresholds or classes.

Shapes: `N` and `M` texts, `D` dimensions of a vector.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from plural_rlhf.core.shares import words


__all__ = ["SIMILARITIES", "cosine", "exact", "rouge_l", "same_words", "unigram_f1"]


def exact(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Compute (N, M): 1 where two texts are equal in NFC without outer white space, else 0.

    Example:
        >>> exact(["Parks.", "parks"], ["Parks. "]).tolist()
        [[1.0], [0.0]]
    """
    return _equal([_trimmed(text) for text in texts], [_trimmed(text) for text in others])


def same_words(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Compute (N, M): 1 where two texts have the same words in the same order, without case and punctuation, else 0.

    Example:
        >>> same_words(["Parks.", "more parks"], ["parks!"]).tolist()
        [[1.0], [0.0]]
    """
    return _equal([" ".join(_words(text)) for text in texts], [" ".join(_words(text)) for text in others])


def unigram_f1(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Compute (N, M) the F1 of common words, each counted as often as it occurs in both (ROUGE-1).

    Source: Lin, "ROUGE" (2004), https://aclanthology.org/W04-1013.

    Example:
        >>> unigram_f1(["more parks"], ["more and more parks", "lower taxes"]).round(3).tolist()  # 2 · 2 / (2 + 4)
        [[0.667, 0.0]]
    """
    rows, columns = [_words(text) for text in texts], [_words(text) for text in others]
    occurrences = _occurrences([*rows, *columns])
    common = (occurrences[: len(rows)] @ occurrences[len(rows) :].T).toarray()
    return 2 * common / np.add.outer([len(row) for row in rows], [len(row) for row in columns])


def rouge_l(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Compute (N, M) the F1 of the longest common subsequence of words (ROUGE-L).

    Source: Lin, "ROUGE" (2004); the length by Hyyrö's bit-parallel algorithm (2004), a word of text per step.

    Example:
        >>> rouge_l(["more parks now"], ["now more parks", "parks"]).round(3).tolist()  # 2 · 2 / 6 and 2 · 1 / 4
        [[0.667, 0.5]]
    """
    rows, columns = [_words(text) for text in texts], [_words(text) for text in others]
    masks = [_places(row) for row in rows]
    common = [[_longest(len(row), mask, column) for column in columns] for row, mask in zip(rows, masks, strict=True)]
    lengths = np.array(common, dtype=np.float64).reshape(len(rows), len(columns))
    return 2 * lengths / np.add.outer([len(row) for row in rows], [len(row) for row in columns])


def cosine(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute (N, M) cosines of vectors (N, D) and (M, D); 0 where a vector is 0.

    Example:
        >>> cosine(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
        [[1.0, 0.0]]
    """
    return _unit(vectors) @ _unit(others).T


SIMILARITIES: Mapping[str, Callable[[Sequence[str], Sequence[str]], np.ndarray]] = {
    "exact": exact,
    "same_words": same_words,
    "unigram_f1": unigram_f1,
    "rouge_l": rouge_l,
}
"""Similarities that need no vectors, by the names that rules give them; `cosine` is the one that does."""


@lru_cache(maxsize=65_536)
def _words(text: str) -> tuple[str, ...]:
    return tuple(words(text))


def _trimmed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _equal(keys: Sequence[str], others: Sequence[str]) -> np.ndarray:
    known = {key: number for number, key in enumerate(dict.fromkeys([*keys, *others]))}
    return np.equal.outer([known[key] for key in keys], [known[key] for key in others]).astype(np.float64)


def _occurrences(rows: Sequence[Sequence[str]]) -> csr_array:
    """Mark the i-th occurrence of each word, so that a product of rows counts the words that two texts share."""
    known: dict[tuple[str, int], int] = {}
    row_index, column_index = [], []
    for number, row in enumerate(rows):
        met: Counter[str] = Counter()
        for word in row:
            row_index.append(number)
            column_index.append(known.setdefault((word, met[word]), len(known)))
            met[word] += 1
    return csr_array((np.ones(len(row_index)), (row_index, column_index)), shape=(len(rows), max(len(known), 1)))


def _places(row: Sequence[str]) -> dict[str, int]:
    """Return, for each word, the bits of the places where it stands."""
    places: dict[str, int] = {}
    for place, word in enumerate(row):
        places[word] = places.get(word, 0) | 1 << place
    return places


def _longest(length: int, places: Mapping[str, int], column: Sequence[str]) -> int:
    """Return the length of the longest common subsequence: the number of zeros left among `length` bits."""
    whole = (1 << length) - 1
    free = whole
    for word in column:
        matched = free & places.get(word, 0)
        free = (free + matched | free - matched) & whole
    return length - free.bit_count()


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)
