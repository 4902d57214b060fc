"""Classes of texts that say the same, and how many there are.

`semantic_classes` does not depend on the order of the texts. `greedy_classes` goes through them in order, as
NoveltyBench does, which its `distinct_k` and `utility_k` ask for. Knows nothing of where texts come from.

Shapes: `N` texts, `C` classes, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from plural_rlhf.core.shares import effective_number

from .equivalence import EquivalenceRule, equivalence_rule


__all__ = [
    "distinct_k",
    "effective_classes",
    "greedy_classes",
    "largest_classes",
    "semantic_classes",
    "utility_k",
    "vendi_score",
]


def semantic_classes(
    texts: Sequence[str], rule: str | EquivalenceRule = "words", vectors: np.ndarray | None = None
) -> np.ndarray:
    """Group texts by average linkage: classes merge while their texts on average score the rule's threshold.

    Args:
        texts: `N` texts.
        rule: The rule, or its name in `EQUIVALENCE_RULES`.
        vectors: (N, D) vectors of the texts, for a rule that reads them.

    Returns:
        (N,) class of each text, numbered by first occurrence.

    Example:
        >>> semantic_classes(["More parks.", "lower taxes", "more parks!", "more, more parks"]).tolist()
        [0, 1, 0, 0]
    """
    rule = equivalence_rule(rule)
    order = np.array(sorted(range(len(texts)), key=lambda i: texts[i]), dtype=int)  # ties do not depend on the order
    sorted_texts = [texts[i] for i in order]
    vectors = None if vectors is None else np.asarray(vectors)[order]
    scores = rule.scores(sorted_texts, sorted_texts, vectors, vectors)
    classes = np.empty(len(texts), dtype=int)
    classes[order] = _linked(scores, rule.threshold)
    return _by_occurrence(classes)


def greedy_classes(
    texts: Sequence[str], rule: str | EquivalenceRule = "words", vectors: np.ndarray | None = None
) -> np.ndarray:
    """Group texts in their order: each joins the first class whose first text says the same, or begins a class.

    Args:
        texts: `N` texts, in the order in which they were drawn.
        rule: The rule, or its name in `EQUIVALENCE_RULES`.
        vectors: (N, D) vectors of the texts, for a rule that reads them.

    Returns:
        (N,) class of each text, numbered by first occurrence.

    Example:
        >>> greedy_classes(["More parks.", "lower taxes", "more parks!"], "exact").tolist()
        [0, 1, 2]
    """
    similar = equivalence_rule(rule).similar(texts, texts, vectors, vectors)
    first: list[int] = []
    classes = np.empty(len(texts), dtype=int)
    for i in range(len(texts)):
        joined = next((number for number, j in enumerate(first) if similar[i, j]), len(first))
        if joined == len(first):
            first.append(i)
        classes[i] = joined
    return classes


def effective_classes(classes: Sequence[int] | np.ndarray, order: float = 1.0) -> float:
    """Compute the effective number of classes: the Hill number of their sizes (`effective_number`).

    Args:
        classes: (N,) class of each text, at least one.
        order: Order of the Hill number; 1 is the exponential of the entropy.

    Example:
        >>> effective_classes([0, 0, 1, 1]), effective_classes([0, 1, 2, 3])
        (2.0, 4.0)
    """
    _, sizes = np.unique(np.asarray(classes), return_counts=True)
    return float(effective_number(torch.from_numpy(sizes).double(), order))


def largest_classes(classes: Sequence[int] | np.ndarray, most: int = 3) -> float:
    """Compute the share of the texts that lie in the largest classes.

    Example:
        >>> largest_classes([0, 0, 0, 1, 1, 2, 3, 4, 5, 6], most=2)
        0.5
    """
    _, sizes = np.unique(np.asarray(classes), return_counts=True)
    return float(np.sort(sizes)[::-1][:most].sum() / sizes.sum())


def distinct_k(classes: Sequence[int] | np.ndarray) -> int:
    """Count the classes among `k` texts.

    NoveltyBench (Zhang et al. 2025, https://arxiv.org/abs/2504.05228) stores the largest number of a class, counted
    from 0, which is one less; the count is what its paper defines.

    Example:
        >>> distinct_k([0, 0, 1, 0])
        2
    """
    return len(np.unique(np.asarray(classes)))


def utility_k(
    classes: Sequence[int] | np.ndarray, utilities: Sequence[float] | np.ndarray, patience: float = 0.8
) -> float:
    """Compute what a reader gets of `k` texts who looks at the next with probability `patience` and values new ones.

    `sum_i p^(i-1) [text i begins a class] u_i / sum_i p^(i-1)` (NoveltyBench, equation 3).

    Args:
        classes: (k,) class of each text, in the order of the texts.
        utilities: (k,) what each text is worth; only those that begin a class are read.
        patience: p, above 0, at most 1.

    Returns:
        In the unit of the utilities.

    Example:
        >>> round(utility_k([0, 0, 1], [10, 8, 5]), 4)  # (10 + .64 · 5) / (1 + .8 + .64)
        5.4098
    """
    classes, utilities = np.asarray(classes), np.asarray(utilities, dtype=np.float64)
    _, first = np.unique(classes, return_index=True)
    weight = patience ** np.arange(len(classes))
    return float((weight * utilities)[first].sum() / weight.sum())


def vendi_score(vectors: np.ndarray) -> float:
    """Compute the effective number of different vectors: `exp` of the entropy of the eigenvalues of their cosines / N.

    Source: Friedman and Dieng, "The Vendi score" (2023), https://arxiv.org/abs/2210.02410. `effective_texts` is the
    same of wordings.

    Args:
        vectors: (N, D), none of which is 0.

    Example:
        >>> round(vendi_score(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])), 6)
        2.0
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = np.linalg.svd(unit, compute_uv=False) ** 2 / len(unit)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _linked(scores: np.ndarray, threshold: float) -> np.ndarray:
    if len(scores) < 2:
        return np.zeros(len(scores), dtype=int)
    distances = scores.max() - (scores + scores.T) / 2
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), "average")
    return fcluster(tree, scores.max() - threshold + 1e-12, "distance")


def _by_occurrence(classes: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(classes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
