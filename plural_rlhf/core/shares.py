"""How much of a policy belongs to each cluster.

Knows nothing of how policy or responsibilities came about; shares are to be compared with the weights that were asked
for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .aggregation import Weights, normalise_weights


__all__ = ["cluster_shares", "retention"]


def cluster_shares(pi: Tensor, gamma: Tensor) -> Tensor:
    """Share of each cluster in a policy, `s_k = sum_n pi(n) gamma_k(n)`.

    Args:
        pi: Probabilities of the answers (not logarithms), shape `(..., N)`; for a sample, `1 / N` each.
        gamma: Responsibilities, shape `(..., N, K)` (`targets.responsibilities`).

    Returns:
        Shape `(..., K)`, in sum the mass that `pi` has on the answers. For the mixture target itself it is the
        weights.
    """
    return (pi.unsqueeze(-1) * gamma).sum(-2)


def retention(shares: Tensor, weights: Weights) -> Tensor:
    """What the worst-kept cluster kept of its weight, `min_k s_k / w_k`; clusters of weight 0 have nothing to keep.

    Args:
        shares: Shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.

    Returns:
        Shape `(...)`: 1 where every cluster has its share, 0 where one is extinct.

    Raises:
        JuryError: If the weights are unusable.
    """
    w = normalise_weights(weights, shares.shape[-1]).to(shares)
    kept = torch.where(w > 0, shares / torch.where(w > 0, w, 1.0), math.inf)
    return kept.amin(-1)
