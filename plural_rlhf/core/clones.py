"""Clone-robust weights: copies of an alternative, an objective or a cluster share one weight and gain no influence.

Each alternative is weighted by the inverse of its local density, as in the weighted maximum likelihood of Procaccia,
Schiffer and Zhang, "Clone-robust AI alignment" (ICML 2025, https://arxiv.org/abs/2501.09254). Knows nothing of rewards
or clusters: it takes similarities and returns weights.

Two deviations from the paper:

1. Density is the sum of similarities, not the volume of a Voronoi cell, which cannot be computed beyond a few
   dimensions. The weight of a set of copies then stays *exactly* the same as long as nothing else is similar to it to
   a degree; a neighbour of similarity s counts as the fraction s of a copy.
2. With a threshold, two alternatives are clones or not, and the statement is always exact, but weights jump where two
   alternatives cross the threshold. Without one, weights are continuous in the similarities.

Shapes: `N` alternatives, `D` coordinates of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist


__all__ = ["clone_robust_weights", "clone_sets", "kernel_similarity"]


def kernel_similarity(points: ArrayLike, bandwidth: float) -> np.ndarray:
    """Compute similarities by a kernel of compact support, `s_ij = max(0, 1 − ‖x_i − x_j‖² / h²)²` (biweight).

    Args:
        points: `(N, D)`, in coordinates with meaningful distances.
        bandwidth: h, the distance from which on two points have similarity 0.

    Returns:
        `(N, N)` from 0 to 1, smooth in the points; 1 for copies, 0 beyond the bandwidth.

    Raises:
        ValueError: If the bandwidth is 0 or less, or points are not `(N, D)` finite numbers.

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
    """Number the sets of clones: alternatives connected by a chain of similarities of at least the threshold.

    Args:
        similarity: `(N, N)`, see `clone_robust_weights`.
        threshold: From 0 (excluded) to 1.

    Returns:
        `(N,)` number of each alternative's set, from 0.

    Raises:
        ValueError: As `clone_robust_weights`.

    Example:
        >>> clone_sets([[1.0, 0.9, 0.0], [0.9, 1.0, 0.2], [0.0, 0.2, 1.0]], threshold=0.8).tolist()
        [0, 0, 1]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: got {threshold:g}; it is the least similarity of clones, above 0 and at most 1")
    labels: np.ndarray = connected_components(_checked(similarity) >= threshold, directed=False)[1]
    return labels


def clone_robust_weights(
    similarity: ArrayLike, *, prior: ArrayLike | None = None, threshold: float | None = None
) -> np.ndarray:
    """Compute weights by inverse local density, `w_i ∝ q_i / sum_j s_ij`.

    A set of clones has together the weight of one of its members (with unequal priors: their mean), whatever its size;
    the module docstring says when that is exact.

    Args:
        similarity: `(N, N)` symmetric, from 0 to 1, with ones on the diagonal.
        prior: `(N,)` weights `q` that would hold if nothing were similar; None for equal ones.
        threshold: Alternatives at least this similar are clones, all others are not (`clone_sets`); None for weights
            that are continuous in the similarities.

    Returns:
        `(N,)`, summing to one.

    Raises:
        ValueError: If the similarities are no such matrix, the prior has another length, a negative entry or only
            zeros, or the threshold is outside (0, 1].

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
        raise ValueError(f"similarity: got shape {s.shape}; give (N, N), one row and column per alternative")
    if not (np.allclose(s, s.T) and np.allclose(s.diagonal(), 1) and (s >= 0).all() and (s <= 1 + 1e-9).all()):
        raise ValueError(
            "similarity: it is not symmetric, not 1 on the diagonal, or not from 0 to 1; for coordinates use "
            "kernel_similarity, for correlations leave the negative ones at 0"
        )
    return s
