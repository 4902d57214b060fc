"""How much of a policy belongs to each cluster, and how many answers it really gives.

Knows nothing of how policy, responsibilities or completions came about; shares are to be compared with the weights
that were asked for, numbers of answers with what they were before or under another policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = ["cluster_shares", "effective_answers", "effective_number", "retention", "share_error"]


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


def share_error(shares: Tensor, weights: Weights) -> Tensor:
    """Largest relative error of a share, `max_k |s_k - w_k| / w_k`, over the clusters of positive weight.

    Unlike `retention` it also sees a cluster that has too much.

    Args:
        shares: Shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.

    Returns:
        Shape `(...)`: 0 where every cluster has its share; 1 at least where one is extinct.

    Raises:
        JuryError: If the weights are unusable.
    """
    w = normalise_weights(weights, shares.shape[-1]).to(shares)
    error = torch.where(w > 0, (shares - w).abs() / torch.where(w > 0, w, 1.0), 0.0)
    return error.amax(-1)


def effective_number(values: Tensor, order: float = 1.0) -> Tensor:
    """How many equally frequent answers are as diverse as these: the Hill number `(sum_n p_n^q)^(1/(1-q))` of order q.

    Order 1, the limit, is the exponential of the entropy; order 2 is one over the chance that two draws agree and
    counts rare answers less; order 0 counts answers, infinity is one over the largest probability. Source: Hill,
    "Diversity and evenness", Ecology 54 (1973).

    A sample of G has at most G different answers and misses rare ones, so the number of a sample lies below that of
    the distribution it comes from: compare samples of one size.

    Args:
        values: Probabilities or counts, shape `(..., N)`, of any scale; divided by their sum here.
        order: The order q, 0 or more.

    Returns:
        Shape `(...)`, between 1 and N.

    Raises:
        JuryError: A negative, infinite or NaN value, or values that are all 0.
        ValueError: A negative or NaN order.

    Example:
        >>> effective_number(torch.tensor([[6, 3, 1], [0, 5, 5]]))
        tensor([2.4546, 2.0000])
    """
    if not order >= 0:
        raise ValueError(f"order is {order}: Hill numbers have an order of 0 or more; 1 is exp(entropy).")
    x = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    bad = ~torch.isfinite(x) | (x < 0)
    if bad.any():
        raise JuryError(
            f"values: got {x[bad][0].item():g}, and probabilities and counts are finite and at least 0: pass "
            "probabilities, not their logarithms"
        )
    total = x.sum(-1, keepdim=True)
    if (total == 0).any():
        raise JuryError("values: all of a row are 0, so there is nothing to be diverse: leave empty groups out")
    p = x / total
    if order == 1:
        return torch.special.entr(p).sum(-1).exp()
    if order == 0:
        return (p > 0).to(p).sum(-1)
    if math.isinf(order):
        return 1 / p.amax(-1)
    return p.pow(order).sum(-1).pow(1 / (1 - order))


def effective_answers(groups: Iterable[Sequence[Hashable]]) -> float:
    """Effective number of different completions to one prompt, `exp` of the entropy of each group, averaged.

    1 says that all completions of a prompt are the same. A group of G cannot show more than G, which long texts always
    do, since no two are equal: there the entropy of the policy is the number to follow.

    Args:
        groups: The completions of each prompt, as texts, token tuples or anything else that can be hashed.

    Raises:
        JuryError: No group, or an empty one.

    Example:
        >>> effective_answers([["7", "7", "7", "7"], ["3", "7", "3", "7"]])
        1.5
    """
    counts = [Counter(group) for group in groups]
    if not all(counts) or not counts:
        raise JuryError(f"groups: got {[sum(c.values()) for c in counts]} completions: give every group at least one")
    numbers = [effective_number(torch.tensor(list(c.values()), dtype=torch.float64)) for c in counts]
    return float(torch.stack(numbers).mean())
