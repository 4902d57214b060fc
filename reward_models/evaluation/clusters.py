"""The clusters that metrics speak of, and which raters belong to them by labels that are not scored.

Knows nothing of models and metrics.

Shapes: `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded


__all__ = ["Clusters", "check_memberships", "known_memberships"]


@dataclass(frozen=True)
class Clusters:
    """The clusters of worst-cluster and welfare metrics: the same ones for every model that is measured.

    Attributes:
        memberships: Maps a table to the (R, K) memberships of its raters by its labels, e.g. `RaterFit.posterior`.
        names: `K` names.
        weights: (K,) weights for welfare.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> enc = planted_judgements("rating", num_raters=10, num_items=8).judgements.encode()
        >>> fit = fit_raters(enc)
        >>> clusters = Clusters(fit.posterior, ["city", "country"], fit.prevalence)
        >>> clusters.memberships(enc).shape
        (10, 2)
    """

    memberships: Callable[[Encoded], np.ndarray]
    names: Sequence[str]
    weights: np.ndarray


def known_memberships(clusters: Clusters, unscored: Sequence[Encoded], enc: Encoded) -> np.ndarray:
    """Infer memberships of raters from labels that are not scored.

    Args:
        clusters: The clusters.
        unscored: Tables of labels that are not scored.
        enc: The judgements to score.

    Returns:
        (R, K) memberships of `enc`'s raters; for a rater without unscored labels the mean over the other raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=3, num_items=2).judgements.encode()
        >>> clusters = Clusters(lambda table: np.eye(2)[[0, 0, 1]], ["city", "country"], np.array([0.5, 0.5]))
        >>> known_memberships(clusters, [enc], enc).tolist()
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    known: dict[str, np.ndarray] = {}
    for table in unscored:
        known |= dict(zip(table.rater_ids, clusters.memberships(table), strict=True))
    mean = np.stack(list(known.values())).mean(0) if known else np.full(len(clusters.names), 1 / len(clusters.names))
    return np.stack([known.get(rater, mean) for rater in enc.rater_ids])


def check_memberships(memberships: np.ndarray, enc: Encoded, num_clusters: int) -> None:
    """Raise unless memberships have a row per rater and a column per cluster.

    Args:
        memberships: To be (R, K).
        enc: A table of `R` raters.
        num_clusters: `K`.

    Raises:
        JuryError: The shape is not (R, K).

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements(num_raters=3).judgements.encode()
        >>> check_memberships(np.ones((2, 2)), enc, 2)
        Traceback (most recent call last):
        reward_models.errors.JuryError: memberships have shape (2, 2), but there are 3 raters and 2 clusters. Fix: one
        row per entry of Encoded.rater_ids, in that order
    """
    if memberships.shape != (enc.n_raters, num_clusters):
        raise JuryError(
            f"memberships have shape {memberships.shape}, but there are {enc.n_raters} raters and {num_clusters} "
            "clusters. Fix: one row per entry of Encoded.rater_ids, in that order"
        )
