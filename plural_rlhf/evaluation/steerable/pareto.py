"""Pareto fronts of policies, hypervolumes, and how certain they are.

Points are rewards; higher is better in every coordinate. Models are points too, but measured on a sample of items:
statements about them come with probabilities or intervals over resampled items. Knows nothing of policies or weights.

Shapes: `N` points, `D` objectives, `M` models, `R` items, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.intervals import bootstrap_means, percentile_interval
from reward_models.stats.answers import Interval


__all__ = [
    "Dominance",
    "ItemScores",
    "dominance",
    "front_membership",
    "hypervolume",
    "hypervolume_interval",
    "pareto_front",
]

ItemScores = np.ndarray | Sequence[np.ndarray]
"""(M, R, D) scores of M models on the same R items, or M arrays (R, D)."""


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Return which points no other point Pareto-improves on, `(N,)`.

    An improvement is at least as good in all objectives and better in one.

    Raises:
        ValueError: Points that are no (N, D) numbers, or hold NaN, which nothing improves on.

    Example:
        >>> pareto_front(np.array([[0.2, 0.9], [0.5, 0.7], [0.8, 0.3], [0.4, 0.4]])).tolist()
        [True, True, True, False]
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or np.isnan(points).any():
        raise ValueError(
            f"points have shape {points.shape}{' and hold NaN' * bool(np.isnan(points).any())}. Fix: give (N, D) "
            "numbers, and leave out a point with an objective that was not measured."
        )
    return np.logical_not(_improves(points).any(axis=0))


def hypervolume(points: np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """Compute the volume that the points dominate above a reference point (Zitzler and Thiele 1998).

    Exact in any number of objectives, by the exclusive volumes of the points one after another (WFG; While, Bradstreet
    and Barone 2012, https://doi.org/10.1109/TEVC.2010.2077298); meant for up to a few hundred points of two to five
    objectives.

    Args:
        points: `(N, D)`; a point below the reference in any objective adds nothing.
        reference: `(D,)`, the worst value of each objective. Volumes under different references are not comparable.

    Raises:
        ValueError: If shapes do not fit, or a point or the reference is not finite.

    Example:
        >>> points = np.array([[0.2, 0.9], [0.5, 0.7], [0.8, 0.3], [0.4, 0.4]])
        >>> round(hypervolume(points, [0, 0]), 2)  # .2 · .9 + .3 · .7 + .3 · .3
        0.48
    """
    points, origin = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if points.ndim != 2 or origin.shape != points.shape[1:]:
        raise ValueError(
            f"points have shape {points.shape} and the reference {origin.shape}: give (N, D) points and D numbers."
        )
    if not (np.isfinite(points).all() and np.isfinite(origin).all()):
        raise ValueError("points or reference contain a NaN or an infinity: leave such points out.")
    above = points - origin
    return _volume(above[(above > 0).all(axis=1)])


def _volume(points: np.ndarray) -> float:
    """Return the volume of the union of the boxes from 0 to each point, by the parts that later boxes do not cover."""
    if len(points) == 0:
        return 0.0
    points = np.unique(points, axis=0)
    points = points[pareto_front(points)]
    if points.shape[1] == 2:
        points = points[np.argsort(-points[:, 0])]
        return float((points[:, 0] * np.diff(points[:, 1], prepend=0.0)).sum())
    return sum(float(p.prod()) - _volume(np.minimum(points[i + 1 :], p)) for i, p in enumerate(points))


@dataclass(frozen=True)
class Dominance:
    """Which model Pareto-improves on which, and in what share of resamples; see `dominance`.

    Attributes:
        means: (M, D) each model's objectives, averaged over items.
        dominates: (M, M) whether the row's model improves on the column's: as good in all objectives, better in one.
        probability: (M, M) share of the resamples of the items in which it does.
        on_front: (M,) share of the resamples in which no model improves on this one.
        n_items: R.

    Example:
        >>> better, worse = np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[0.5, 3.0], [1.5, 1.0]])
        >>> result = dominance([better, worse])
        >>> result.means.tolist(), result.on_front.tolist()
        ([[1.5, 2.5], [1.0, 2.0]], [1.0, 0.0])
    """

    means: np.ndarray
    dominates: np.ndarray
    probability: np.ndarray
    on_front: np.ndarray
    n_items: int


def dominance(values: ItemScores, draws: int = 2000, seed: int = 0) -> Dominance:
    """Estimate P[model i Pareto-improves on model j] by a paired bootstrap of the items.

    Source: Sorensen et al. 2024, section 3. All models see the same resampled items, so the difficulty of an item
    cancels. A probability expresses the evidence of these items, not of other objectives or prompts.

    Args:
        values: See `ItemScores`; higher is better.
        draws: B.
        seed: Random seed of the resampling.

    Raises:
        ValueError: If the scores are not (M, R, D) or not finite.

    Example:
        >>> better, worse = np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[0.5, 3.0], [1.5, 1.0]])
        >>> dominance([better, worse]).probability.tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    scores = _item_scores(values)
    resampled = bootstrap_means(scores, draws, seed)  # (B, M, D)
    wins = np.zeros((scores.shape[0], scores.shape[0]))
    front = np.zeros(scores.shape[0])
    for means in resampled:
        improves = _improves(means)
        wins += improves
        front += ~improves.any(axis=0)
    means = scores.mean(axis=1)
    return Dominance(means, _improves(means), wins / draws, front / draws, scores.shape[1])


def front_membership(values: ItemScores, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Estimate the probability that no other model Pareto-improves on a model, (M,); see `dominance`.

    Example:
        >>> better, worse, other = np.array([[1.0, 3.0]]), np.array([[0.5, 3.0]]), np.array([[2.0, 0.0]])
        >>> front_membership([better, worse, other]).tolist()
        [1.0, 0.0, 1.0]
    """
    return dominance(values, draws, seed).on_front


def hypervolume_interval(
    values: ItemScores,
    reference: Sequence[float] | np.ndarray,
    *,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute the hypervolume that M models cover together, with its interval over items.

    Noise moves some model's mean outwards in every resample, so resampled fronts cover too much; the interval is
    shifted back by that excess (see `percentile_interval`).

    Args:
        values: See `ItemScores`.
        reference: `(D,)`, see `hypervolume`.
        draws: B.
        level: Level of the interval.
        seed: Random seed of the resampling.

    Raises:
        ValueError: If the scores are not (M, R, D) or not finite, the reference has another length, or `level` is no
            probability.

    Example:
        >>> first, second = np.array([[1.0, 0.5], [3.0, 0.5]]), np.array([[1.0, 1.0], [1.0, 1.0]])
        >>> hypervolume_interval([first, second], [0, 0], draws=200).value  # means (2, .5) and (1, 1): 1 + .5
        1.5
    """
    scores = _item_scores(values)
    value = hypervolume(scores.mean(axis=1), reference)
    drawn = np.array([hypervolume(means, reference) for means in bootstrap_means(scores, draws, seed)])
    return percentile_interval(np.array(value), drawn, scores.shape[1], level=level, bounds=(0.0, np.inf))[0]


def _improves(points: np.ndarray) -> np.ndarray:
    """Return whether the row's point Pareto-improves on the column's, `(N, N)`."""
    at_least = (points[:, None] >= points[None]).all(axis=-1)
    better = (points[:, None] > points[None]).any(axis=-1)
    return np.logical_and(at_least, better)


def _item_scores(values: ItemScores) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        shapes = [np.shape(v) for v in values]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"the models' scores have shapes {shapes}: a paired comparison needs the same items and objectives "
                "for every model, (R, D) each."
            )
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"scores have shape {scores.shape}: give (M, R, D), M models on R items in D objectives.")
    if not np.isfinite(scores).all():
        model, item, objective = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(
            f"model {model} has no score of item {item} in objective {objective} "
            f"({scores[model, item, objective]}): leave that item out for all models."
        )
    return scores
