"""Counterfactuals of a verdict: which clusters are pivotal, and which other weights would flip it.

They are behind `plural-rlhf rank --explain`: a jury without one of its clusters, a cluster with another share, and the
nearest weights with another winner. Knows nothing of models, prompts or how rewards came about.

Shapes: `N` responses to one prompt, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.decisions.one_prompt import (
    JuryWeights,
    lotteries_under,
    rewards_and_weights,
    winners_of,
)


__all__ = ["Flip", "NearestFlip", "flipping_weights", "nearest_flip", "pivotal_clusters"]

GRID = 200
REFINEMENTS = 5  # each divides the last step by GRID: shares to 1e-11


@dataclass(frozen=True)
class Flip:
    """The nearest share of one cluster under which a present winner loses; the others keep their proportions.

    Attributes:
        cluster: Name of the cluster.
        direction: Whether it gains weight or loses it.
        share: Its present share.
        share_needed: The nearest share in that direction under which a present winner loses; None if there is none.
        winner: The response that wins then; None if there is none.

    Example:
        >>> flipping_weights([[1.0, 0.0], [0.0, 1.0]], [0.6, 0.4])[1]
        Flip(cluster='0', direction='less', share=0.6, share_needed=0.49..., winner=1)
    """

    cluster: str
    direction: Literal["more", "less"]
    share: float
    share_needed: float | None
    winner: int | None


@dataclass(frozen=True)
class NearestFlip:
    """The nearest weights under which another response ties with the winner of the weighted mean.

    Attributes:
        weights: Share by cluster.
        total_variation: Weight that has to move between clusters, 0 to 1.
        winner: The response that ties with the present winner.

    Example:
        >>> nearest_flip([[1.0, 0.0], [0.0, 1.0]], [0.6, 0.4], cluster_names=["urban", "rural"]).weights
        {'urban': 0.5, 'rural': 0.5}
    """

    weights: dict[str, float]
    total_variation: float
    winner: int


def pivotal_clusters(
    rewards: ArrayLike, weights: JuryWeights, rule: RuleSpec = "mean", *, cluster_names: Sequence[str] | None = None
) -> list[str]:
    """Return the clusters without which the set of winners would change.

    The arguments are those of `verdicts.verdict`.

    Returns:
        Names, in order; the only cluster of a jury is pivotal.

    Raises:
        JuryError, ValueError, TypeError: As `verdicts.verdict`.

    Example:
        >>> pivotal_clusters([[3.0, 0.0, 0.0], [0.0, 1.0, 0.9]], [1, 1, 1])
        ['0']
    """
    r, w, names = rewards_and_weights(rewards, weights, cluster_names)
    seated = np.flatnonzero(w > 0)
    if len(seated) == 1:
        return [names[seated[0]]]
    without = np.repeat(w[None], len(seated), axis=0)
    without[np.arange(len(seated)), seated] = 0.0
    winners = winners_of(lotteries_under(r, np.concatenate([w[None], without]), Rule.parse(rule)))
    return [names[k] for k, left in zip(seated, winners[1:], strict=True) if (left != winners[0]).any()]


def flipping_weights(
    rewards: ArrayLike, weights: JuryWeights, rule: RuleSpec = "mean", *, cluster_names: Sequence[str] | None = None
) -> list[Flip]:
    """Find for each cluster the nearest shares, above and below its own, under which the verdict flips.

    It flips where a present winner no longer wins: another response takes its place or, if several tie at present, the
    tie breaks (then the share is next to the present one, and `winner` is one of those that tied).

    The arguments are those of `verdicts.verdict`. The other clusters keep their proportions; the only cluster of a
    jury has no other shares. The search divides the range into 200 steps, and the first step in which the verdict
    flips again into 200, and so on. It finds the first flip, unless the verdict flips and flips back within one step.

    Returns:
        Two entries per cluster, more weight and less.

    Raises:
        JuryError, ValueError, TypeError: As `verdicts.verdict`.

    Example:
        >>> flips = flipping_weights([[2.0, -1.0], [0.5, 0.4]], [1, 1], cluster_names=["urban", "rural"])
        >>> [(flip.cluster, flip.direction, round(flip.share_needed, 3)) for flip in flips if flip.share_needed]
        [('urban', 'less', 0.483), ('rural', 'more', 0.517)]
        >>> tied = flipping_weights([[1.0, 0.0], [0.0, 1.0]], [1, 1], cluster_names=["urban", "rural"])
        >>> [(flip.cluster, flip.direction, round(flip.share_needed, 3), flip.winner) for flip in tied][:2]
        [('urban', 'more', 0.5, 0), ('urban', 'less', 0.5, 1)]
    """
    r, w, names = rewards_and_weights(rewards, weights, cluster_names)
    parsed = Rule.parse(rule)
    present = winners_of(lotteries_under(r, w[None], parsed))[0]
    flips = []
    for k, name in enumerate(names):
        more, less = (_first_flip(r, w, k, end, present, parsed) for end in (1.0, 0.0))
        flips += [Flip(name, "more", float(w[k]), *more), Flip(name, "less", float(w[k]), *less)]
    return flips


def nearest_flip(
    rewards: ArrayLike, weights: JuryWeights, *, cluster_names: Sequence[str] | None = None
) -> NearestFlip | None:
    """Find the smallest change of weights, by total variation, that flips the verdict of the weighted mean.

    Exact: one linear programme for every other response. The arguments are those of `verdicts.verdict`.

    Returns:
        The nearest weights under which another response ties with the winner. None if every cluster prefers the
        winner to all others.

    Raises:
        JuryError: If rewards or weights cannot be used.

    Example:
        >>> nearest = nearest_flip([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5]], [0.5, 0.3, 0.2])
        >>> round(nearest.total_variation, 3), round(nearest.weights["1"], 3)
        (0.2, 0.5)
    """
    r, w, names = rewards_and_weights(rewards, weights, cluster_names)
    k = len(w)
    winner = int(np.argmax(lotteries_under(r, w[None], Rule("mean"))[0]))
    nearest: NearestFlip | None = None
    for rival in set(range(len(r))) - {winner}:
        # Variables: the new weights v, and d >= |v - w|, whose sum is twice the total variation.
        result = linprog(
            np.concatenate([np.zeros(k), np.full(k, 0.5)]),
            A_ub=np.block([[np.eye(k), -np.eye(k)], [-np.eye(k), -np.eye(k)], [r[winner] - r[rival], np.zeros(k)]]),
            b_ub=np.concatenate([w, -w, [0.0]]),
            A_eq=np.concatenate([np.ones(k), np.zeros(k)])[None],
            b_eq=[1.0],
        )
        if result.status == 0 and (nearest is None or result.fun < nearest.total_variation):
            shares = dict(zip(names, result.x[:k].tolist(), strict=True))
            nearest = NearestFlip(shares, float(result.fun), rival)
    return nearest


def _first_flip(
    rewards: np.ndarray, w: np.ndarray, cluster: int, end: float, present: np.ndarray, rule: Rule
) -> tuple[float | None, int | None]:
    """Return the first share towards `end` under which a present winner loses, and who wins then; None for never."""
    if w[cluster] in (end, 1.0):
        return None, None

    def ahead(shares: np.ndarray) -> np.ndarray:
        """Return the winner under each share, (S,); -1 where every present winner still wins."""
        juries = np.outer((1 - shares) / (1 - w[cluster]), w)
        juries[:, cluster] = shares
        winners = winners_of(lotteries_under(rewards, juries, rule))
        return np.where((present & ~winners).any(axis=1), winners.argmax(axis=1), -1)

    stays, turns = w[cluster], end
    for _ in range(REFINEMENTS):
        shares = np.linspace(stays, turns, GRID + 1)
        winners = ahead(shares[1:])
        turned = np.flatnonzero(winners >= 0)
        if not len(turned):
            return None, None
        stays, turns, winner = shares[turned[0]], shares[turned[0] + 1], winners[turned[0]]
    return float(turns), int(winner)
