"""Grids that the states of a rater lie on, so that everything unknown about a rater can be summed over exactly.

Nodes of a standard normal (rater terms, tastes), lattice points of the simplex (blends of clusters) and products of
several grids. Knows nothing of raters, judgements or rewards.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp


__all__ = ["CHUNK", "GRID_REACH", "normal_grid", "product_grid", "simplex_lattice", "slices"]

GRID_REACH = 3.0  # standard deviations on each side
CHUNK = 20_000_000  # most elements of one temporary array


def normal_grid(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes of a standard normal and their log weights.

    Up to five nodes are those of Gauss-Hermite quadrature, the best choice for a term that the labels determine
    poorly. More nodes are evenly spaced from -3 to 3: on a bell curve the trapezoidal rule converges faster than any
    power, and it resolves the narrow posterior of a rater with many labels wherever that lies.

    Args:
        nodes: Number of nodes; 1 puts the whole mass at 0.

    Returns:
        (nodes,) values and (nodes,) log weights.

    Example:
        >>> values, log_weight = normal_grid(3)
        >>> values.round(3).tolist(), np.exp(log_weight).round(3).tolist()
        ([-1.732, 0.0, 1.732], [0.167, 0.667, 0.167])
    """
    if nodes <= 5:
        z, weight = np.polynomial.hermite_e.hermegauss(nodes)
        return z, np.log(weight / weight.sum())
    z = np.linspace(-GRID_REACH, GRID_REACH, nodes)
    log_weight = -0.5 * z**2
    return z, log_weight - logsumexp(log_weight)


def product_grid(grids: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Combine grids of single dimensions into one grid of all their combinations.

    Args:
        grids: Values and log weights of each dimension, as `normal_grid` returns them.

    Returns:
        (T, number of grids) points, the last dimension varying fastest, and (T,) log weights; a single point of
        weight 1 without grids.

    Example:
        >>> points, log_weight = product_grid([normal_grid(2), normal_grid(1)])
        >>> points.tolist(), np.exp(log_weight).round(2).tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [0.5, 0.5])
    """
    if not grids:
        return np.zeros((1, 0)), np.zeros(1)
    points, log_weights = (
        np.stack(np.meshgrid(*columns, indexing="ij"), -1).reshape(-1, len(grids))
        for columns in zip(*grids, strict=True)
    )
    return points, log_weights.sum(1)


def simplex_lattice(num_clusters: int, resolution: int) -> np.ndarray:
    """Return all (C, K) points of the simplex whose coordinates are multiples of `1 / resolution`, vertices first.

    Args:
        num_clusters: `K`.
        resolution: Number of steps along an edge.

    Example:
        >>> simplex_lattice(2, 2).tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]]
    """
    parts = itertools.combinations(range(resolution + num_clusters - 1), num_clusters - 1)
    counts = np.array(
        [np.diff([-1, *bars, resolution + num_clusters - 1]) - 1 for bars in parts], dtype=np.float64
    ).reshape(-1, num_clusters)
    points = counts / resolution
    return points[np.lexsort((np.arange(len(points)), -points.max(1)))]


def slices(rows: int, width: int) -> list[slice]:
    """Cut rows of the given width into consecutive blocks of at most `CHUNK` elements.

    Example:
        >>> slices(5, CHUNK // 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, CHUNK // max(width, 1))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]
