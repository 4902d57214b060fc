"""Trade-offs between objectives: which policies no other one improves on, and how much a set of them covers.

Points are rewards, more is better in every coordinate. This file knows nothing of policies or weights.

Shapes: `N` points, `D` objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


__all__ = ["hypervolume", "pareto_front"]


def pareto_front(points: np.ndarray) -> np.ndarray:
    """`(N,)` true for points that no other point improves on: at least as good in all objectives, better in one.

    Example:
        >>> pareto_front(np.array([[0.2, 0.9], [0.5, 0.7], [0.8, 0.3], [0.4, 0.4]])).tolist()
        [True, True, True, False]
    """
    points = np.asarray(points, dtype=np.float64)
    at_least = (points[:, None] >= points[None]).all(axis=-1)
    better = (points[:, None] > points[None]).any(axis=-1)
    return np.logical_not((at_least & better).any(axis=0))


def hypervolume(points: np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """The volume between a reference point and what the points dominate (Zitzler and Thiele 1998).

    Exact in any number of objectives, by the exclusive volumes of the points one after another (WFG; While, Bradstreet
    and Barone 2012, https://doi.org/10.1109/TEVC.2010.2077298); meant for some hundred points of two to five
    objectives.

    Args:
        points: `(N, D)`; what is below the reference anywhere counts for nothing.
        reference: `(D,)`, the worst that is thought of. Volumes under different references are not comparable.

    Raises:
        ValueError: Shapes that do not fit, or a point or reference that is not finite.

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
        raise ValueError("points or reference hold a NaN or an infinity: leave such points out.")
    above = points - origin
    return _volume(above[(above > 0).all(axis=1)])


def _volume(points: np.ndarray) -> float:
    """Of the union of boxes from 0 to each point: for each, what the later ones do not cover."""
    if len(points) == 0:
        return 0.0
    points = np.unique(points, axis=0)
    points = points[pareto_front(points)]
    if points.shape[1] == 2:
        points = points[np.argsort(-points[:, 0])]
        return float((points[:, 0] * np.diff(points[:, 1], prepend=0.0)).sum())
    return sum(float(p.prod()) - _volume(np.minimum(points[i + 1 :], p)) for i, p in enumerate(points))
