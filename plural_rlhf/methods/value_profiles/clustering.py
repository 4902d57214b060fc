"""Clusters of raters by any table of losses: the k-medoids of Value Profiles (Sorensen and others 2025, Algorithm 2).

Candidates are profiles of any kind: a text, a table of answers, a head of a jury. All that is read of them is how well
each predicts each rater, so that raters need no item in common. Knows nothing of items or models.

Shapes: `R` raters, `V` candidate profiles, `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError
from reward_models.seeds import seeded_rng


__all__ = ["ProfileClusters", "cluster_by_losses"]


@dataclass(frozen=True)
class ProfileClusters:
    """Clusters of raters, each represented by one candidate profile.

    Attributes:
        medoids: (K,) the candidate that represents each cluster.
        assignment: (R,) cluster of each rater.
        history: Objective, in nats, at the start and after each pass: `Σ_i w_i min_k L(i, medoid_k)`. Never rises.
        passes: Passes over all clusters until nothing changed.

    Example:
        >>> clusters = cluster_by_losses(np.array([[0.0, 9.0, 5.0], [9.0, 0.0, 5.0]]), 2)
        >>> clusters.assign(np.array([[7.0, 1.0, 5.0]])).tolist() == [clusters.medoids.tolist().index(1)]
        True
    """

    medoids: np.ndarray
    assignment: np.ndarray
    history: list[float]
    passes: int

    @property
    def objective(self) -> float:
        """The objective at the end, in nats."""
        return self.history[-1]

    def assign(self, losses: np.ndarray) -> np.ndarray:
        """Return the cluster (R',) of other raters from their losses (R', V) under the same candidates."""
        return np.asarray(losses)[:, self.medoids].argmin(axis=1)


def cluster_by_losses(
    losses: np.ndarray,
    num_clusters: int,
    *,
    weight: np.ndarray | None = None,
    restarts: int = 8,
    max_passes: int = 100,
    seed: int = 0,
) -> ProfileClusters:
    """Choose `K` candidates so that the raters' smallest losses add up to the least.

    In turn each medoid is replaced by the candidate that lowers the objective most, the others fixed, until a pass
    changes nothing. The objective never rises, and a medoid that serves nobody is replaced as soon as any candidate
    would help anybody. The paper starts with the first `K` candidates; here that is the first start, further ones are
    random, and the best of all is returned.

    Args:
        losses: (R, V) negative log-likelihood of each rater's judgements under each candidate, finite.
        num_clusters: `K`, at most `V`.
        weight: (R,) sampling weight of each rater; None: all alike.
        restarts: Number of starts; 1 is the paper's algorithm.
        max_passes: Most passes of one start.
        seed: Random seed of the further starts.

    Returns:
        The clusters, the largest first. One is empty only where the data leaves it without anybody to serve (fewer
        different raters than clusters).

    Raises:
        JuryError: `losses` is no finite (R, V) table, `num_clusters` is out of range, or weights do not fit.

    Example:
        Candidate 0 predicts the first three raters, candidate 2 the last two; candidate 1 is a compromise:

        >>> losses = np.array([[1, 2, 9], [1, 2, 9], [1, 2, 9], [9, 2, 1], [9, 2, 1]], dtype=float)
        >>> clusters = cluster_by_losses(losses, 2)
        >>> clusters.medoids.tolist(), clusters.assignment.tolist(), clusters.objective
        ([0, 2], [0, 0, 0, 1, 1], 5.0)
        >>> cluster_by_losses(losses, 1).medoids.tolist()
        [1]
    """
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or not losses.size or not np.isfinite(losses).all():
        raise JuryError(
            f"losses has the shape {losses.shape} and {int((~np.isfinite(losses)).sum())} values that are not finite. "
            "Fix: give the negative log-likelihood of every rater (rows) under every candidate (columns); smooth "
            "probabilities of 0"
        )
    candidates = losses.shape[1]
    if not 1 <= num_clusters <= candidates:
        raise JuryError(
            f"num_clusters={num_clusters} with {candidates} candidates. Fix: ask for 1 to {candidates} clusters, or "
            "give more candidates"
        )
    weight = np.ones(len(losses)) if weight is None else np.asarray(weight, dtype=np.float64)
    if weight.shape != (len(losses),) or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise JuryError(
            f"the weights of {len(losses)} raters have the shape {weight.shape} and go from {weight.min(initial=0):g} "
            f"to {weight.max(initial=0):g}. Fix: give one finite number of at least 0 per rater, not all of them 0"
        )
    rng = seeded_rng(seed, "starts of profile clusters")
    starts = [np.arange(num_clusters)]
    starts += [rng.choice(candidates, size=num_clusters, replace=False) for _ in range(restarts - 1)]
    runs = [_descend(losses, start, weight, max_passes) for start in starts]
    medoids, history = min(runs, key=lambda run: run[1][-1])
    size = np.bincount(losses[:, medoids].argmin(axis=1), weight, num_clusters)
    medoids = medoids[np.argsort(-size, kind="stable")]
    return ProfileClusters(medoids, losses[:, medoids].argmin(axis=1), history, len(history) - 1)


def _descend(
    losses: np.ndarray, start: np.ndarray, weight: np.ndarray, max_passes: int
) -> tuple[np.ndarray, list[float]]:
    """Replace medoids in turn until a pass changes none; return them and the objective after each pass."""
    medoids = start.copy()
    history = [float(weight @ losses[:, medoids].min(axis=1))]
    for _ in range(max_passes):
        before = medoids.copy()
        for k in range(len(medoids)):
            others = np.delete(medoids, k)
            rest = losses[:, others].min(axis=1) if len(others) else np.full(len(losses), np.inf)
            objective = weight @ np.minimum(losses, rest[:, None])  # (V,) with each candidate in the place of k
            objective[others] = np.inf  # a candidate represents one cluster
            best = int(objective.argmin())
            if objective[best] < objective[medoids[k]]:
                medoids[k] = best
        history.append(float(weight @ losses[:, medoids].min(axis=1)))
        if (medoids == before).all():
            break
    return medoids, history
