"""The measures of LeWiDi 2025: how well single annotators, and their soft labels, are predicted.

Perspectivist: each annotator's own label. Error rate for classes, |ŷ - y| over the range of the scale for ratings;
means over the annotators of an item, then over items. Soft: the distribution of an item's annotators against the mean
of their predictions. Manhattan distance for classes, Wasserstein for ratings. Knows nothing of what predicts.

Shapes: `N` labels, `A` options.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plural_rlhf.evaluation.distribution.distances import wasserstein_1


__all__ = ["LewidiScores", "lewidi_scores", "shares_fault"]

SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LewidiScores:
    """All four measures; lower is better.

    Attributes:
        error_rate: Share of labels that the most probable option misses; ties count in part.
        absolute_distance: |ŷ - y| over the range, ŷ the most probable option; only meaningful for ordered options.
        manhattan: Σ_a |p - q| between the annotators' labels and the mean of their predictions.
        wasserstein: Steps of the scale that the one must be moved to become the other.
        items: Number of items.
        labels: Number of labels.
    """

    error_rate: float
    absolute_distance: float
    manhattan: float
    wasserstein: float
    items: int
    labels: int


def shares_fault(p: np.ndarray) -> str | None:
    """Say why rows `(..., A)` are no distributions; None if they are, within the precision of float32.

    Example:
        >>> shares_fault(np.array([[0.5, 0.5], [3.0, -1.0]]))
        'have the row [3.0, -1.0], which is no distribution'
    """
    rows = np.asarray(p, dtype=np.float64).reshape(-1, np.shape(p)[-1])
    good = np.isfinite(rows).all(axis=1) & (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < SUM_TOLERANCE)
    if good.all():
        return None
    return f"have the row {rows[int(np.argmin(good))].tolist()}, which is no distribution"


def lewidi_scores(items: Sequence[Hashable], given: Sequence[int], predicted: np.ndarray) -> LewidiScores:
    """Score predictions of single annotators' labels.

    Args:
        items: `N` items.
        given: `N` labels, indices of options in order.
        predicted: (N, A) predicted probabilities of each annotator's label.

    Raises:
        ValueError: They do not belong together, a row of predictions is no distribution, or there is no label.

    Example:
        Two annotators of one item say 0 and 1; both are predicted as 0:

        >>> scores = lewidi_scores(["x", "x"], [0, 1], np.array([[1.0, 0.0], [1.0, 0.0]]))
        >>> scores.error_rate, scores.absolute_distance, scores.manhattan, scores.wasserstein
        (0.5, 0.5, 1.0, 0.5)
    """
    p, label = np.asarray(predicted, dtype=np.float64), np.asarray(given)
    if p.ndim != 2 or not len(items) == len(label) == len(p) or not len(p):
        raise ValueError(
            f"{len(items)} items, {len(label)} labels and predictions of the shape {p.shape} do not belong together. "
            "Fix: give one item, one label and one row of probabilities per judgement."
        )
    if fault := shares_fault(p):
        raise ValueError(f"predictions {fault}. Fix: give probabilities that sum to 1 in each row.")
    if label.min() < 0 or label.max() >= p.shape[1]:
        raise ValueError(
            f"labels lie between {label.min()} and {label.max()}, and there are {p.shape[1]} options. Fix: number "
            "them from 0."
        )
    best = p >= p.max(axis=1, keepdims=True) - 1e-12
    best_shares = best / best.sum(axis=1, keepdims=True)
    steps = np.abs(np.arange(p.shape[1]) - label[:, None])
    rows = pd.DataFrame(
        {
            "error": 1 - best_shares[np.arange(len(p)), label],
            "distance": (best_shares * steps).sum(axis=1) / max(p.shape[1] - 1, 1),
        }
    )
    code = pd.factorize(pd.Series(list(items)))[0]
    by_item = rows.groupby(code).mean()
    sizes = np.bincount(code)[:, None]
    people, predictions = np.zeros((len(sizes), p.shape[1])), np.zeros((len(sizes), p.shape[1]))
    np.add.at(people, (code, label), 1.0)
    np.add.at(predictions, code, p)
    people, predictions = people / sizes, predictions / sizes
    return LewidiScores(
        error_rate=float(by_item["error"].mean()),
        absolute_distance=float(by_item["distance"].mean()),
        manhattan=float(np.abs(people - predictions).sum(axis=1).mean()),
        wasserstein=float(wasserstein_1(people, predictions).mean()),
        items=len(sizes),
        labels=len(p),
    )
