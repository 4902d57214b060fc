"""From log-probabilities of the readings of a batch of pairs to a loss of each pair for each cluster.

Knows nothing of models, tokens or of how clusters are balanced.

Shapes: `N` pairs, `M` readings of them, `K` clusters; slot `K` is the reading of a pair as a whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plural_rlhf.core.preference_losses import ipo_loss, pair_log_lik


__all__ = ["pair_losses", "per_cluster"]


def per_cluster(table: Tensor, pair: Tensor, slot: Tensor) -> Tensor:
    """Return `(N, K, 2)` of `(N, K + 1, 2)`: a pair that is read as a whole has the same values for every cluster.

    Args:
        table: Log-probability of chosen and rejected in every slot, nats; 0 in slots that were not read.
        pair: (M,) number of the pair of each reading.
        slot: (M,) slot of each reading.

    Example:
        >>> table = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [-5.0, -6.0]]])
        >>> per_cluster(table, pair=torch.tensor([0, 0, 1]), slot=torch.tensor([0, 1, 2])).tolist()
        [[[-1.0, -2.0], [-3.0, -4.0]], [[-5.0, -6.0], [-5.0, -6.0]]]
    """
    k = table.shape[1] - 1
    as_a_whole = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    as_a_whole[pair[slot == k]] = True
    return torch.where(as_a_whole[:, None, None], table[:, k:], table[:, :k])


def pair_losses(
    log_ratio: Tensor, tie: Tensor, completion_mask: Tensor, *, loss: str, beta: float, tie_propensity: float
) -> Tensor:
    """Return the loss of each pair for each cluster, `(N, K)`.

    Args:
        log_ratio: `(N, K, 2)` log π − log π₀ of chosen and rejected, nats.
        tie: `(N,)` whether neither was preferred.
        completion_mask: `(2N, T)` tokens of the chosen responses, then of the rejected ones; read by `"ipo"`.
        loss: `"sigmoid"` (DPO) or `"ipo"`.
        beta: β of DPO, τ of IPO.
        tie_propensity: Davidson's ν.

    Example:
        >>> even = torch.zeros(1, 1, 2)
        >>> losses = pair_losses(
        ...     even, torch.tensor([False]), torch.ones(2, 1), loss="sigmoid", beta=0.1, tie_propensity=0.0
        ... )
        >>> round(float(losses.exp()), 6)  # chosen and rejected are equally likely: -log 1/2
        2.0
    """
    ties = tie[:, None] if bool(tie.any()) else None
    if loss == "ipo":
        # Per token of each response, as in TRL: sums over tokens would make beta depend on the length.
        per_token = log_ratio / completion_mask.sum(1).clamp(min=1).view(2, -1).T[:, None]
        return ipo_loss(per_token[..., 0] - per_token[..., 1], beta, ties)
    margin = beta * (log_ratio[..., 0] - log_ratio[..., 1])
    return -pair_log_lik(margin, ties, tie_propensity)
