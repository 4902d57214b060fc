"""Weights that near-duplicates share: adding copies of an alternative, an objective or a cluster buys it no influence.

What is weighed is weighed by the inverse of how crowded its place is, as in the weighted maximum likelihood of
Procaccia, Schiffer and Zhang, "Clone-robust AI alignment" (ICML 2025, https://arxiv.org/abs/2501.09254). Knows nothing
of rewards or juries: similarities come in, weights go out.

Two deviations from the paper:

1. Crowding is the sum of similarities, not the volume of a Voronoi cell, which cannot be computed beyond a few
   dimensions. The weight of a set of copies then stays *exactly* what it was as long as nothing else is somewhat
   similar to it; a neighbour of similarity s counts as the s-th part of a copy.
2. With a threshold, clones are all or nothing and the statement is exact always, but weights jump where two
   alternatives cross it. Without one, weights are continuous in the similarities.

Shapes: `N` alternatives, `D` coordinates of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist


__all__ = ["clone_robust_weights", "clone_sets", "kernel_similarity"]


def kernel_similarity(points: ArrayLike, bandwidth: float) -> np.ndarray:
    """Similarity of points by a kernel that ends, `s_ij = max(0, 1 − ‖x_i − x_j‖² / h²)²` (biweight).

    Args:
        points: `(N, D)`, in coordinates whose distances mean something.
        bandwidth: h, the distance from which on two points have nothing to do with each other.

    Returns:
        `(N, N)` from 0 to 1, smooth in the points; 1 for copies, 0 beyond the bandwidth.

    Raises:
        ValueError: A bandwidth of 0 or less, or points that are not `(N, D)` finite numbers.

    Example:
        >>> kernel_similarity([[0.0], [0.0], [0.5], [3.0]], bandwidth=1.0)[0].tolist()
        [1.0, 1.0, 0.5625, 0.0]
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"points: got shape {x.shape} or a NaN; give (N, D) finite coordinates, one row a point")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth: got {bandwidth:g}; it is a distance above 0")
    return np.square(np.maximum(0.0, 1.0 - np.square(cdist(x, x) / bandwidth)))


def clone_sets(similarity: ArrayLike, threshold: float) -> np.ndarray:
    """Numbers the sets of clones: alternatives joined by a chain of similarities of at least the threshold.

    Args:
        similarity: `(N, N)`, see `clone_robust_weights`.
        threshold: From 0 (excluded) to 1.

    Returns:
        `(N,)` set of each alternative, from 0.

    Raises:
        ValueError: As `clone_robust_weights`.

    Example:
        >>> clone_sets([[1.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 1.0]], threshold=0.8).tolist()
        [0, 0, 1]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: got {threshold:g}; clones are at least that similar, above 0 and at most 1")
    labels: np.ndarray = connected_components(_checked(similarity) >= threshold, directed=False)[1]
    return labels


def clone_robust_weights(
    similarity: ArrayLike, *, prior: ArrayLike | None = None, threshold: float | None = None
) -> np.ndarray:
    """Weights by inverse local density, `w_i ∝ q_i / sum_j s_ij`.

    A set of clones weighs together what one of its members would (with unequal priors: their mean), however many they
    are; see the head of this file for when that is exact.

    Args:
        similarity: `(N, N)` symmetric, from 0 to 1, with ones on the diagonal.
        prior: `(N,)` weights `q` as they would be if nothing were similar; None for equal ones.
        threshold: Alternatives at least this similar are clones, all others are not (`clone_sets`); None to let
            similarity count by degrees.

    Returns:
        `(N,)`, summing to one.

    Raises:
        ValueError: Similarities that are no such matrix, a prior of another length, negative or all zero, or a
            threshold outside of (0, 1].

    Example:
        >>> two_alike = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        >>> clone_robust_weights(two_alike).tolist()
        [0.25, 0.25, 0.5]
    """
    s = _checked(similarity)
    q = np.ones(len(s)) if prior is None else np.asarray(prior, dtype=np.float64)
    if q.shape != s.shape[:1] or not np.isfinite(q).all() or (q < 0).any() or not q.any():
        raise ValueError(f"prior: got {q.tolist()}; give {len(s)} numbers of at least 0, not all 0")
    if threshold is not None:
        sets = clone_sets(s, threshold)
        s = (sets[:, None] == sets).astype(np.float64)
    w = q / s.sum(axis=1)
    return w / w.sum()


def _checked(similarity: ArrayLike) -> np.ndarray:
    s = np.asarray(similarity, dtype=np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not len(s):
        raise ValueError(f"similarity: got shape {s.shape}; give (N, N), one row and column an alternative")
    if not (np.allclose(s, s.T) and np.allclose(s.diagonal(), 1) and (s >= 0).all() and (s <= 1 + 1e-9).all()):
        raise ValueError(
            "similarity: it is not symmetric, not 1 on the diagonal, or not from 0 to 1; for coordinates use "
            "kernel_similarity, for correlations leave the negative ones at 0"
        )
    return s
