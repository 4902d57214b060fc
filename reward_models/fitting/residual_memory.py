"""A memory of the judged texts beside linear heads: what the judgements tell about a text beyond its features.

A reward is modelled as a Gaussian process of three parts: directions that responses share across questions, a linear
function of the features, and a residual of each judged text that no other text shares:

    r_k(x) = w_k . h(x) + b_k + sum_u alpha_uk exp(-|z(x) - z_u|^2 / (2 l_u^2)),    z = h * scale.

The residual `delta_uk` of the judged text u is the posterior mode under `delta_uk ~ N(0, sd^2)`, the linear
part given:

    delta = argmax  sum_n m_nk log p(y_n | linear + delta) - |delta|^2 / (2 sd^2),

with `m_nk` the membership of judgement n's rater. The reward of a text with many judgements follows them; that of a
text with few stays near the linear head. `sd = 0` is no memory. Each bump is so narrow that less than a hundredth of
it reaches all other judged texts together; new texts are scored by the linear heads. Knows nothing of how the linear
part was fitted.

Shapes: `N` judgements or texts, `M` distinct judgements, `U` judged texts, `D` features, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from reward_models.raters.lbfgs import minimise
from reward_models.stats.groups import centre_within_groups


__all__ = [
    "MAX_ANCHORS",
    "ResidualMemory",
    "fit_beside_residuals",
    "fit_residuals",
    "remember",
    "residual_rewards",
]

MAX_ANCHORS = 20_000
REACH = 0.01  # share of a bump that may reach all other anchors together
SAME = 1e-2  # texts closer than this, in units of the scaled features, are one: rounding moves features that far
CHUNK = 1024  # texts at a time
MAX_ALTERNATIONS = 20


@dataclass(frozen=True)
class ResidualMemory:
    """Residual rewards of judged texts.

    Attributes:
        anchors: (U, D) scaled features `z_u` of the judged texts.
        values: (U, K) heights `alpha` of the bumps, in logits.
        scale: (D,) factor from raw to scaled features.
        length_scale: (U,) widths `l_u` of the bumps, in units of the scaled features.
        sd: Prior standard deviation of the residuals, in logits.

    Example:
        One judged text, whose reward is half a logit above the linear head; a far text has no residual:

        >>> memory = ResidualMemory(np.zeros((1, 2)), np.array([[0.5]]), np.ones(2), np.ones(1), sd=1.0)
        >>> memory.rewards(np.array([[0.0, 0.0], [9.0, 9.0]])).round(3).ravel().tolist()
        [0.5, 0.0]
    """

    anchors: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    length_scale: np.ndarray
    sd: float

    def rewards(self, features: np.ndarray) -> np.ndarray:
        """Compute the (N, K) residual rewards of texts with raw features (N, D)."""
        parts = [
            residual_rewards(
                torch.from_numpy(features[i : i + CHUNK].astype(np.float64)),
                *(torch.from_numpy(x) for x in (self.anchors, self.values, self.scale, self.length_scale)),
            ).numpy()
            for i in range(0, len(features), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.values.shape[1]))


def residual_rewards(features: Tensor, anchors: Tensor, values: Tensor, scale: Tensor, length_scale: Tensor) -> Tensor:
    """Evaluate the sum of the bumps.

    Args:
        features: (N, D) raw features.
        anchors: (U, D) scaled features of the judged texts.
        values: (U, K) heights.
        scale: (D,) factor from raw to scaled features.
        length_scale: (U,) widths.

    Returns:
        (N, K) residual rewards, in logits.

    Example:
        >>> at, one = torch.tensor([[0.0], [1.0]]), torch.ones(1)
        >>> residual_rewards(at, torch.zeros(1, 1), torch.ones(1, 1), scale=one, length_scale=one).ravel()
        tensor([1.0000, 0.6065])
    """
    # The expansion |x|^2 - 2xy + |y|^2 would lose all digits where it matters, at an anchor.
    distance = torch.cdist(features * scale, anchors, compute_mode="donot_use_mm_for_euclid_dist")
    return (-0.5 * (distance / length_scale).square()).exp() @ values


def fit_residuals(
    log_lik: Callable[[Tensor], Tensor],
    counts: Tensor,
    linear: np.ndarray,
    sd: float,
    start: np.ndarray | None = None,
    tol: float = 1e-10,
) -> np.ndarray:
    """Compute the posterior mode of the residuals, given the linear part.

    Args:
        log_lik: Maps (U, K) rewards to the (M, K) log-likelihood of distinct judgements, in nats.
        counts: (M, K) weight of each distinct judgement in each cluster.
        linear: (U, K) rewards of the linear part.
        sd: Prior standard deviation, in logits.
        start: (U, K) first guess; None: zero.
        tol: Stop when the objective improves by less than this fraction.

    Returns:
        (U, K) residuals; exactly 0 for a text without judgements.

    Example:
        A normal likelihood around 1 and a prior of the same width give a residual halfway; the second text has no
        judgement:

        >>> around_one = lambda rewards: -0.5 * (rewards[:1] - 1.0).square()
        >>> fit_residuals(around_one, torch.ones(1, 1, dtype=torch.float64), np.zeros((2, 1)), sd=1.0).round(4)
        array([[0.5],
               [0. ]])
    """
    base, total = torch.from_numpy(linear), counts.sum()

    def loss(values: dict[str, Tensor]) -> Tensor:
        delta = values["delta"]
        return ((delta / sd).square().sum() / 2 - (counts * log_lik(base + delta)).sum()) / total

    return minimise(loss, {"delta": np.zeros_like(linear) if start is None else start}, max_iter=500, tol=tol)["delta"]


def fit_beside_residuals(
    log_lik: Callable[[Tensor], Tensor],
    counts: Tensor,
    coordinates: Tensor,
    group: Tensor,
    l2: Tensor,
    *,
    sd: float,
    with_bias: bool = False,
    start: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Fit linear heads and residuals together.

    Returns the joint mode over heads `w_k` (d,) and rewards `r_k` (U,) of

        sum_n m_nk log p(y_n | r_k) - (|r_k - X w_k - b_k|^2 + U sum_j l2_j w_kj^2) / (2 sd^2).

    For the heads, a question with a thousand answers then counts as one question, not as a thousand. Alternates two
    steps, each simple: rewards near the heads, and the ridge regression of the rewards on the coordinates.

    Args:
        log_lik: As for `fit_residuals`.
        counts: (M, K) weight of each distinct judgement in each cluster.
        coordinates: (U, d) `X`.
        group: (U,) texts whose rewards are compared with each other, -1 for unjudged texts. The regression sees
            differences within groups only.
        l2: (d,) ridge of each coordinate, per text.
        sd: Standard deviation of the residuals, in logits.
        with_bias: Fit `b`.
        start: An earlier result to start from.

    Returns:
        `weight` (K, d), `rewards` (U, K) and, with `with_bias`, `bias` (K,).
    """
    known = (group >= 0).numpy()
    raw, groups = coordinates.numpy()[known], group.numpy()[known]
    inputs = centre_within_groups(raw, groups)
    gram = inputs.T @ inputs + np.diag(len(raw) * l2.numpy())
    if start is None:
        n_clusters = counts.shape[1]
        start = {
            "weight": torch.zeros((n_clusters, raw.shape[1]), dtype=torch.float64),
            "rewards": torch.zeros((len(group), n_clusters), dtype=torch.float64),
        }
        if with_bias:
            start["bias"] = torch.zeros(n_clusters, dtype=torch.float64)
    heads = dict(start)
    for _ in range(MAX_ALTERNATIONS):
        linear = (coordinates @ heads["weight"].T + heads.get("bias", 0.0)).numpy()
        # Start from the rewards of the last round, although the heads have moved.
        residual = np.where(known[:, None], heads["rewards"].numpy() - linear, 0.0)
        rewards = linear + fit_residuals(log_lik, counts, linear, sd, residual, tol=1e-7)
        weight = np.linalg.solve(gram, inputs.T @ rewards[known]).T
        moved = np.abs(inputs @ (weight - heads["weight"].numpy()).T).mean()
        heads |= {"weight": torch.from_numpy(weight), "rewards": torch.from_numpy(rewards)}
        if with_bias:
            heads["bias"] = torch.from_numpy((rewards[known] - raw @ weight.T).mean(0))
        if moved < 3e-3:
            break
    return heads


def remember(features: np.ndarray, scale: np.ndarray, residuals: np.ndarray, sd: float) -> ResidualMemory:
    """Build a memory whose bumps, one per text, together reproduce the residuals.

    Args:
        features: (U, D) raw features.
        scale: (D,) factor from raw to scaled features.
        residuals: (U, K) residuals to reproduce.
        sd: Prior standard deviation of the residuals, stored with the memory.

    Returns:
        The memory. Texts with equal features share one anchor and the mean of their residuals.

    Example:
        >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> memory = remember(features, np.ones(2), np.array([[0.3], [-0.2], [0.1]]), sd=1.0)
        >>> memory.rewards(features).round(6).ravel().tolist()
        [0.3, -0.2, 0.1]
    """
    scaled = features * scale
    group = _same(scaled)
    size = np.bincount(group)[:, None]
    anchors, targets = np.zeros((len(size), scaled.shape[1])), np.zeros((len(size), residuals.shape[1]))
    np.add.at(anchors, group, scaled)
    np.add.at(targets, group, residuals)
    anchors, targets = anchors / size, targets / size

    nearest = np.concatenate([_without_own(d, start).min(1) for start, d in _distances(anchors)])
    nearest = np.where(np.isfinite(nearest), nearest, 1.0)  # a single anchor has no neighbour
    length = nearest / np.sqrt(2.0 * np.log(len(anchors) / REACH))
    # The other bumps at each anchor: rows sum to less than one, so that the fixed-point iteration converges quickly.
    parts = []
    for start, distance in _distances(anchors):
        bump = np.exp(-0.5 * (_without_own(distance, start) / length) ** 2)
        parts.append(_sparse(bump, bump > 1e-9, start, len(anchors)))
    others = sum(parts[1:], start=parts[0]).tocsr()
    values = targets
    for _ in range(30):
        values = targets - others @ values
    return ResidualMemory(anchors, values, scale, length, sd)


def _distances(points: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, (C, U) distances of the next rows to all), a block at a time."""
    every = torch.from_numpy(points)
    every = every - every.mean(0)
    for start in range(0, len(points), CHUNK):
        yield start, torch.cdist(every[start : start + CHUNK], every).numpy()


def _without_own(distance: np.ndarray, start: int) -> np.ndarray:
    rows = np.arange(len(distance))
    distance[rows, start + rows] = np.inf
    return distance


def _sparse(value: np.ndarray, keep: np.ndarray, start: int, size: int) -> coo_array:
    row, column = np.nonzero(keep)
    return coo_array((value[row, column], (row + start, column)), shape=(size, size))


def _same(points: np.ndarray) -> np.ndarray:
    """(U,) group of each point: points closer than `SAME`, directly or through other points, are one group."""
    parts = [_sparse(d, d < SAME, start, len(points)) for start, d in _distances(points)]
    row, column = (np.concatenate([part.coords[axis] for part in parts]) for axis in (0, 1))
    linked = coo_array((np.ones(len(row)), (row, column)), shape=(len(points), len(points)))
    return connected_components(linked, directed=False)[1]
