"""Group rules: score a response among the others to its prompt, from the order in which each cluster ranks them.

A group is an election: the responses to one prompt are the alternatives, the clusters are the voters, and a cluster's
weight is the number of its votes. `margins` counts the pairwise duels; Borda, Copeland and Schulze score responses by
them. Since only the order within a head is read, the result is the same after any increasing map of a head: heads need
no common scale, and a head with a wide range has no more influence. Leximin ranks a group too, but compares the heads'
values. Rules that return a distribution over a group are in `lotteries`.

All rules are anonymous (clusters matter by their weights only) and neutral (responses matter by their rewards only).
None is strategyproof: of all rules that name one winner, only a dictatorship is (Gibbard 1973).

| rule | a Condorcet winner is first | near-duplicates change nothing | rising never hurts a response |
|---|---|---|---|
| Borda | no | no, see `alternative_weights` | yes |
| Copeland | yes | no | yes |
| Schulze | yes | yes | yes |
| leximin | no | yes | yes |

All sums are in float64, and shares of the jury closer than `TIE` are equal: weights are seldom whole numbers, and
0.1 + 0.2 must tie with 0.3. Knows nothing of prompts, policies or where rewards come from; the caller validates that
rewards are finite.

Shapes: `N` responses to one prompt, `K` clusters, `...` any number of groups.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = ["TIE", "block_margins", "borda", "copeland", "leximin", "margins", "over_groups", "schulze"]

TIE = 2.0**-20
"""Shares of a jury closer than this, a millionth, are equal; weights in float32 are exact to a tenth of it."""

_PAIRS = 2**16  # duels per block: its temporaries stay in the processor's cache


def margins(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Compute by how much of the jury each response beats each other, `m_ij = sum_k w_k sign(r_ik - r_jk)`.

    Args:
        rewards: Rewards per cluster, `(..., N, K)`, on any scale.
        weights: `(K,)`, or `(..., K)` with one row per group; normalised here.
        mask: `(..., N)`, true for responses that count; None for all.

    Returns:
        `(..., N, N)` float64 in [−1, 1], antisymmetric: the weight of the clusters that rank i before j, minus the
        weight of those that rank j before i. 0 where the mask is false for either.

    Raises:
        JuryError: If the weights are unusable, do not fit the groups, or a group has fewer than two responses.

    Example:
        >>> margins(torch.tensor([[0.9, 0.1], [0.2, 0.3]]), [3, 1])
        tensor([[ 0.0000,  0.5000],
                [-0.5000,  0.0000]], dtype=torch.float64)
    """
    return over_groups(block_margins, rewards, weights, mask)


def borda(
    rewards: Tensor, weights: Weights, mask: Tensor | None = None, alternative_weights: Tensor | None = None
) -> Tensor:
    """Compute the mean share of the jury that ranks a response before each of the others; a tie counts half.

    Bradley-Terry ranks by this when it is fitted to the pooled judgements of people who disagree: Siththaranjan et al.
    (2024, https://arxiv.org/abs/2312.08358). It therefore depends on which responses are offered: a response gains by
    near-duplicates of a response that it beats, and a Condorcet winner may lose.

    Args:
        rewards: `(..., N, K)`.
        weights: `(K,)` or `(..., K)`.
        mask: `(..., N)`.
        alternative_weights: `(..., N)`, the weight of each response as an opponent, e.g. one over the number of its
            near-duplicates; None for 1 each.

    Returns:
        `(..., N)` in [0, 1], higher is better; −inf where the mask is false.

    Raises:
        JuryError: As `margins`; or opponents' weights that are negative or not finite, or leave nobody to beat.

    Example:
        >>> borda(torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]), [3, 1])
        tensor([0.7500, 0.5000, 0.2500], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor, opponents: Tensor) -> Tensor:
        counts = opponents.masked_fill(~kept, 0.0).unsqueeze(1).repeat(1, r.shape[1], 1)
        counts.diagonal(dim1=1, dim2=2).zero_()
        total = counts.sum(-1)
        bad = ((opponents < 0) | ~torch.isfinite(opponents) | (total == 0)) & kept
        if bad.any():
            where = bad.nonzero()[0].tolist()
            raise JuryError(
                f"alternative weights: {opponents[where[0]].tolist()} leave response {where[1]} no opponent, or are "
                "not all finite numbers of at least 0: give two responses of a group a positive weight."
            )
        share = (counts * (1 + block_margins(r, w, kept)) / 2).sum(-1) / total
        return share.masked_fill(~kept, -torch.inf)

    if alternative_weights is None:
        alternative_weights = rewards.new_ones(rewards.shape[-2], dtype=torch.float64)
    return over_groups(judge, rewards, weights, mask, alternative_weights.double())


def copeland(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Compute the share of a response's duels that it wins by majority, minus the share that it loses.

    A response that beats every other one (a Condorcet winner) is first. Near-duplicates of a response that it beats
    raise it: every opponent counts one, however narrow the victory.

    Args:
        rewards: `(..., N, K)`.
        weights: `(K,)` or `(..., K)`.
        mask: `(..., N)`.

    Returns:
        `(..., N)` in [−1, 1], higher is better; −inf where the mask is false.

    Raises:
        JuryError: As `margins`.

    Example:
        >>> copeland(torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]), [3, 1])
        tensor([ 1.,  0., -1.], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
        m = block_margins(r, w, kept)
        net = ((m > TIE).sum(-1) - (m < -TIE).sum(-1)).double()
        return (net / (kept.sum(-1, keepdim=True) - 1)).masked_fill(~kept, -torch.inf)

    return over_groups(judge, rewards, weights, mask)


def schulze(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Rank by strongest paths: i is before j where the strongest chain of duels leads from i to j, not from j to i.

    A duel is as strong as its margin, a chain as its weakest duel: Schulze (2011,
    https://doi.org/10.1007/s00355-010-0475-4), with margins, not winning votes, as strength; the two differ only
    where clusters are indifferent. A Condorcet winner is first, and a near-duplicate (a response that no cluster
    separates from its original by a third) changes nothing among the others.

    Args:
        rewards: `(..., N, K)`.
        weights: `(K,)` or `(..., K)`.
        mask: `(..., N)`.

    Returns:
        `(..., N)`: minus the number of responses before it, so 0 for the winners; −inf where the mask is false.

    Raises:
        JuryError: As `margins`.

    Example:
        >>> schulze(torch.tensor([[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]]), [4, 3, 2])
        tensor([ 0., -1., -2.], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
        path = block_margins(r, w, kept)
        for via in range(r.shape[1]):
            torch.maximum(path, torch.minimum(path[:, :, via, None], path[:, via, None, :]), out=path)
        before = (path.mT - path > TIE).sum(-1)
        return (-before).double().masked_fill(~kept, -torch.inf)

    return over_groups(judge, rewards, weights, mask)


def leximin(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Rank by the worst-off part of the jury, then by the next worst-off where that ties, and so on (Sen 1970).

    A cluster counts as many equal members as its weight says: of two responses that leave somebody equally badly off,
    the one that does so to the smaller share is better. Formally, the quantile functions of the rewards over the jury
    are compared at the first share where they differ. Needs heads on one scale. Unlike the minimum, it always ranks a
    response below one that every cluster finds at least as good and one finds better. Not strategyproof: a cluster
    gains by understating its rewards.

    Args:
        rewards: `(..., N, K)`, heads on one scale.
        weights: `(K,)` or `(..., K)`; a cluster of weight 0 is ignored.
        mask: `(..., N)`.

    Returns:
        `(..., N)` dense ranks from 0, the worst, upwards; −inf where the mask is false.

    Raises:
        JuryError: As `margins`.

    Example:
        >>> leximin(torch.tensor([[0.0, 5.0], [1.0, 1.0], [5.0, 0.0]]), [3, 1])
        tensor([0., 2., 1.], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
        votes = w.unsqueeze(1).expand(r.shape)
        value, order = r.double().masked_fill(votes == 0, torch.inf).sort(-1)
        # Equal rewards are one step of the quantile function, as wide as the clusters that give them.
        step = torch.zeros_like(order)
        step[..., 1:] = (value[..., 1:] > value[..., :-1]).cumsum(-1)
        height = torch.full_like(value, torch.inf).scatter(-1, step, value)
        width = torch.zeros_like(value).scatter_add(-1, step, votes.gather(-1, order))
        width = (width / TIE).round()
        verdict = torch.zeros(*kept.shape, r.shape[1], dtype=torch.int8, device=r.device)
        for column in range(r.shape[2]):
            for key in (height[..., column], -width[..., column]):
                i, j = key.unsqueeze(2), key.unsqueeze(1)
                verdict = torch.where(verdict == 0, (i > j).to(torch.int8) - (i < j).to(torch.int8), verdict)
        above = (verdict > 0) & kept.unsqueeze(1)
        equals = ((verdict == 0) & kept.unsqueeze(1)).sum(-1).clamp(min=1)
        rank = (above / equals.unsqueeze(1)).sum(-1, dtype=torch.float64).round()
        return rank.masked_fill(~kept, -torch.inf)

    return over_groups(judge, rewards, weights, mask)


def block_margins(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
    """Compute `margins` of a block of groups, `(B, N, N)`, in the form in which `over_groups` calls its function.

    Args:
        r: Rewards `(B, N, K)`.
        w: Weights `(B, K)`, each row summing to one.
        kept: `(B, N)`, true for responses that count.

    Example:
        >>> block_margins(torch.tensor([[[0.9, 0.1], [0.2, 0.3]]]), torch.tensor([[0.75, 0.25]]), torch.ones(1, 2) > 0)
        tensor([[[ 0.0000,  0.5000],
                 [-0.5000,  0.0000]]], dtype=torch.float64)
    """
    before = torch.zeros(*kept.shape, r.shape[1], dtype=torch.float64, device=r.device)
    for k in range(r.shape[2]):
        before += w[:, k, None, None] * (r[:, :, None, k] > r[:, None, :, k])
    return torch.where(kept.unsqueeze(2) & kept.unsqueeze(1), before - before.mT, 0.0)


def over_groups(
    judge: Callable[..., Tensor], rewards: Tensor, weights: Weights, mask: Tensor | None, *columns: Tensor
) -> Tensor:
    """Validate groups of responses and apply a function to them, in blocks small enough for the processor's cache.

    Args:
        judge: Called with `(B, N, K)` rewards, `(B, K)` weights that sum to one, the `(B, N)` mask and the columns
            `(B, N)`; returns `(B, N)` or `(B, N, N)`.
        rewards: `(..., N, K)`.
        weights: `(K,)` or `(..., K)`.
        mask: `(..., N)`, or None.
        *columns: `(..., N)` further numbers per response, split into blocks like the mask.

    Returns:
        What `judge` returns, with `...` in place of B.

    Raises:
        JuryError: See `margins`.

    Example:
        >>> def best_mean(r, w, kept):
        ...     return (w.unsqueeze(1) * r).sum(-1)
        >>> over_groups(best_mean, torch.tensor([[2.0, -1.0], [0.0, 4.0]]), [3, 1], mask=None)
        tensor([1.2500, 1.0000], dtype=torch.float64)
    """
    if rewards.ndim < 2:
        raise JuryError(f"rewards have shape {tuple(rewards.shape)}; a group of responses is (..., N, K).")
    *groups, n, k = rewards.shape
    w = normalise_weights(weights, k).to(rewards.device, torch.float64)
    present = rewards.new_ones(n, dtype=torch.bool) if mask is None else mask.bool()
    try:
        w = w.expand(*groups, k).reshape(-1, k)
        present, *more = (c.expand(*groups, n).reshape(-1, n) for c in (present, *columns))
    except RuntimeError:
        shapes = [tuple(c.shape) for c in (present, *columns)]
        raise JuryError(
            f"weights of shape {tuple(w.shape)}, or a mask or another column of shapes {shapes}, do not fit rewards "
            f"of shape {tuple(rewards.shape)}: give weights (K,), or (..., K) with one row per group and no axis for "
            "the responses; masks and columns are (..., N)."
        ) from None
    few = present.sum(-1) < 2
    if few.any():
        group = int(few.nonzero()[0])
        left = int(present[group].sum())
        raise JuryError(
            f"group {group} has {left} of {n} responses that count, and a group rule compares at least two: sample "
            "more responses to that prompt, leave the prompt out, or use a pointwise rule (mean, power_mean, ...)."
        )
    tensors = (rewards.detach().reshape(-1, n, k), w, present, *more)
    blocks = zip(*(t.split(max(1, _PAIRS // n**2)) for t in tensors), strict=True)
    result = torch.cat([judge(*block) for block in blocks])
    return result.reshape(*groups, *result.shape[1:])
