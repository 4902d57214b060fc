"""Groups of the people who judge answers: by their votes, as given, or by the clusters of a jury.

Groups of votes depend on the method: naive k-means does not find the groups that Polis publishes for its own
conversations. So the number of groups, their silhouette and their agreement with given groups are part of the result.
Knows nothing of answers or ratings.

Shapes: `R` raters, `S` statements, `C` groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.seeds import derived_seed
from reward_models.stats.answers import adjusted_rand_index


__all__ = ["VoteGroups", "groups_from_votes"]


@dataclass(frozen=True)
class VoteGroups:
    """Groups of raters by their votes.

    Attributes:
        group: (R,) group of each rater, 0 the largest; -1 for a rater without votes.
        silhouette: Mean silhouette of the grouping: near 1 well apart, near 0 arbitrary; nan for one group.
        by_size: Silhouette of each number of groups that was tried.
        agreement: Adjusted Rand index with the given groups; nan without any.

    Example:
        >>> groups = groups_from_votes([[1, 1, -1], [1, 1, -1], [1, 1, 0], [-1, -1, 1], [-1, -1, 1]], [2, 3])
        >>> groups.group.tolist(), groups.silhouette > 0.8
        ([0, 0, 0, 1, 1], True)
    """

    group: np.ndarray
    silhouette: float
    by_size: dict[int, float]
    agreement: float


def groups_from_votes(
    votes: np.ndarray | Sequence[Sequence[float]],
    sizes: Sequence[int] = (2, 3, 4, 5),
    *,
    given: Sequence[str | int] | None = None,
    dimensions: int = 2,
    seed: int = 0,
) -> VoteGroups:
    """Group raters by k-means on the first principal components of their votes.

    Missing votes are the statement's mean. Coordinates of a rater with few votes are stretched by
    `sqrt(S / votes)`, as Polis does, lest those who vote little all lie in the middle (Small et al. 2021,
    https://doi.org/10.6035/recerca.5516).

    Args:
        votes: (R, S) votes, e.g. -1, 0 and 1; nan where missing.
        sizes: Numbers of groups to try; the highest silhouette decides.
        given: (R,) groups to compare with.
        dimensions: Number of principal components.
        seed: Random seed.

    Raises:
        ValueError: Too few raters with votes for the sizes, or nobody differs.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> camp = np.arange(40) % 2
        >>> votes = np.where(rng.random((40, 12)) < 0.9, 2 * camp[:, None] - 1, 0.0)
        >>> votes[rng.random(votes.shape) < 0.3] = np.nan
        >>> groups = groups_from_votes(votes, given=camp)
        >>> len(set(groups.group.tolist())), groups.agreement
        (2, 1.0)
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    table = np.asarray(votes, dtype=np.float64)
    known = np.isfinite(table)
    voted = np.asarray(known.any(axis=1))
    if voted.sum() <= max(sizes):
        raise ValueError(
            f"{int(voted.sum())} raters voted, too few for {max(sizes)} groups. Fix: more raters, or smaller sizes."
        )
    table, known = table[voted][:, known.any(axis=0)], known[voted][:, known.any(axis=0)]
    mean = np.nanmean(table, axis=0)
    centred = np.where(known, table - mean, 0.0)
    if not centred.any():
        raise ValueError("all raters voted alike, so that nothing groups them. Fix: add statements that divide.")
    few = min(dimensions, *centred.shape)
    points = PCA(few, svd_solver="full").fit_transform(centred)
    points *= np.sqrt(table.shape[1] / known.sum(axis=1))[:, None]
    random_state = derived_seed(seed, "groups of votes") % 2**32
    labels = {size: KMeans(size, n_init=10, random_state=random_state).fit_predict(points) for size in sizes}
    by_size = {
        size: float(silhouette_score(points, found)) if len(set(found)) > 1 else float("nan")
        for size, found in labels.items()
    }
    best = max(by_size, key=lambda size: np.nan_to_num(by_size[size], nan=-1.0))
    _, number, count = np.unique(labels[best], return_inverse=True, return_counts=True)
    group = np.full(len(voted), -1)
    group[voted] = np.argsort(np.argsort(-count, kind="stable"))[number]
    agreement = float("nan") if given is None else adjusted_rand_index(np.asarray(given)[voted], group[voted])
    return VoteGroups(group, by_size[best], by_size, agreement)
