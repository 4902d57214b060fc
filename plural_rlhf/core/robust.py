"""Verdicts for disputed weights: the best lottery over responses against the worst weights of a set.

Where it is disputed how much each cluster counts, this finds the lottery over responses whose value under the least
favourable weights of a set is highest. One linear programme solves both sides of that game. Knows nothing of prompts
or samples, nor how the set of weights is chosen.

Max-min over policies, against weights that move slowly during training, is in `duals`. Robust multi-objective decoding
(Son et al. 2025, https://arxiv.org/abs/2503.08796) plays this game while decoding, with a cost for leaving the
reference policy; here the responses are fixed and there is no such cost.

Shapes: `N` responses, `K` clusters, `V` candidate weightings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = ["RobustVerdict", "robust_weights"]


@dataclass(frozen=True)
class RobustVerdict:
    """A saddle point of `sum_i q_i sum_k w_k r_ik`: neither side gains by changing its choice alone.

    Attributes:
        weights: (K,) the worst case: no weights of the set are worse for `lottery`.
        lottery: (N,) over the responses: no lottery is better under `weights`.
        value: Lowest value of the lottery under any weights of the set, in the unit of the rewards.

    Example:
        >>> robust = robust_weights(np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> robust.weights.round(3).tolist(), round(robust.value, 3)
        ([0.75, 0.25], 0.75)
    """

    weights: np.ndarray
    lottery: np.ndarray
    value: float


def robust_weights(
    rewards: Tensor | np.ndarray,
    candidates: Weights | None = None,
    *,
    centre: Weights | None = None,
    radius: float | None = None,
) -> RobustVerdict:
    """Solve `max_q min_w sum_i q_i sum_k w_k r_ik` over lotteries q and weights w of a set.

    The set is the whole simplex by default (the worst-off cluster decides), the convex hull of `candidates`, or all
    weights within total variation `radius` of `centre` (at most that share of the seats in other hands).

    Args:
        rewards: (N, K) on one scale, see `reward_models.jury.calibration`.
        candidates: (V, K) weightings; the set contains their mixtures too, which does not change the value.
        centre: (K,) weights.
        radius: Between 0 (only `centre`) and 1 (the whole simplex).

    Returns:
        A saddle point; where several exist, one of them.

    Raises:
        JuryError: If rewards are not (N, K) or not finite, or weights cannot be used.
        ValueError: If both candidates and a ball are given, `centre` or `radius` is missing, or `radius` is no share.

    Example:
        >>> robust_weights(np.array([[1.0, 0.0], [0.0, 3.0]])).lottery.round(6).tolist()  # either gets 3/4
        [0.75, 0.25]
    """
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or 0 in r.shape or not np.isfinite(r).all():
        raise JuryError(
            f"rewards of shape {r.shape}: give (N, K), one row per response and one column per cluster, all finite."
        )
    if centre is not None or radius is not None:
        if candidates is not None or centre is None or radius is None:
            raise ValueError("weights: give either candidates, or centre together with radius, not both.")
        if not 0 <= radius <= 1:
            raise ValueError(f"radius: got {radius}; it is a share of the weight that may move, from 0 to 1.")
        return _solve(r, _ball(normalise_weights(centre, r.shape[1]).double().numpy(), radius))
    vertices = np.eye(r.shape[1])
    if candidates is not None:
        vertices = normalise_weights(candidates, r.shape[1]).double().numpy()
        if vertices.ndim != 2:
            raise JuryError(f"candidates have shape {vertices.shape}: give (V, K), one row per weighting.")
    return _solve(r, _hull(vertices))


@dataclass(frozen=True)
class _WeightSet:
    """All `w = origin + directions x` with `0 <= x <= upper`, `equal x = equal_to` and `spent x <= budget`."""

    origin: np.ndarray
    directions: np.ndarray
    upper: np.ndarray
    equal: np.ndarray
    equal_to: float
    spent: np.ndarray
    budget: float


def _hull(vertices: np.ndarray) -> _WeightSet:
    """Return the set of mixtures of weightings (V, K): x are the shares."""
    v, k = vertices.shape
    return _WeightSet(np.zeros(k), vertices.T, np.full(v, np.inf), np.ones(v), 1.0, np.zeros(v), 0.0)


def _ball(centre: np.ndarray, radius: float) -> _WeightSet:
    """Return the set within a radius; x is the weight that each cluster gains, then what each loses, equal in sum."""
    k = len(centre)
    gained, lost = np.repeat([1.0, 0.0], k), np.repeat([0.0, 1.0], k)
    upper = np.concatenate([np.full(k, np.inf), centre])
    return _WeightSet(centre, np.hstack([np.eye(k), -np.eye(k)]), upper, gained - lost, 0.0, gained, radius)


def _solve(rewards: np.ndarray, weights: _WeightSet) -> RobustVerdict:
    """Solve `min s` such that no response is worth more than s under weights of the set.

    The dual price of each response's constraint is its probability in the best lottery.
    """
    solution = linprog(
        np.append(np.zeros(len(weights.upper)), 1.0),
        A_ub=np.vstack([np.column_stack([rewards @ weights.directions, -np.ones(len(rewards))]), [*weights.spent, 0]]),
        b_ub=np.append(-rewards @ weights.origin, weights.budget),
        A_eq=[[*weights.equal, 0]],
        b_eq=[weights.equal_to],
        bounds=[*((0, u) for u in weights.upper), (None, None)],
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"the linear programme of {len(rewards)} responses was not solved: {solution.message}")
    lottery = np.maximum(-solution.ineqlin.marginals[:-1], 0.0)
    worst = np.maximum(weights.origin + weights.directions @ solution.x[:-1], 0.0)
    return RobustVerdict(worst / worst.sum(), lottery / lottery.sum(), float(solution.fun))
