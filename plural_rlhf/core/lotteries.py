"""Rules whose verdict on a group of responses is a distribution over them, not a winner.

The random dictator gives each cluster its share of the group; the maximal lottery is the mixture of responses that no
response beats. Both read only the order within each head, so that heads need no common scale, and both are anonymous
(clusters matter by their weights only) and neutral (responses by their rewards only). `uniform_over_best` turns the
scores of any other rule into a lottery.

| rule | a Condorcet winner gets all | near-duplicates change nothing | rising never hurts | strategyproof |
|---|---|---|---|---|
| random dictator | no | yes, unless a cluster's favourites tie | yes | yes |
| maximal lottery | yes | yes, where one lottery is maximal | no | no |

Knows nothing of prompts, policies or where rewards come from; the caller validates that rewards are finite.

Shapes: `N` responses to one prompt, `K` clusters, `...` any number of groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights
from .group_rules import TIE, block_margins, over_groups


__all__ = ["maximal_lottery", "random_dictator", "uniform_over_best"]

_GAP = 1e-12  # where the central path stops: no response beats the lottery by more
_STEPS = 100  # about fifteen are needed
_NOTHING = 1e-9  # smaller probabilities are the distance to the end of the path
_BEATEN = 1e-6  # a margin by which no response may beat the result


def maximal_lottery(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Find the lottery `p` that no response beats: `sum_i p_i m_ij >= 0` for every j, with m the `margins`.

    The optimal mixture of a symmetric game in which two players name responses and the jury votes (Fishburn 1984,
    https://doi.org/10.2307/2297786), and what Nash learning from human feedback converges to (Maura-Rivero et al.
    2025, https://arxiv.org/abs/2501.19266). No other rule is consistent both when electorates merge and when near-
    duplicates are added (Brandl, Brandt and Seedig 2016, https://doi.org/10.3982/ECTA13337). A Condorcet winner gets
    all the probability; each of three responses in a cycle gets the margin of the duel between the other two. Hence a
    response that rises may lose probability.

    Almost always one lottery is maximal. Where tied duels leave several, the analytic centre of their set is returned:
    each response that one of them may draw has positive probability, responses with equal margins have equal
    probability, and the order of the responses does not matter.

    The solver follows the game's central path to its end, by a primal-dual interior-point method (Mehrotra 1992,
    https://doi.org/10.1137/0802028), for all groups at once.

    Args:
        rewards: `(..., N, K)`, on any scale.
        weights: `(K,)`, or `(..., K)` with one row per group.
        mask: `(..., N)`, true for responses that count; None for all.

    Returns:
        `(..., N)` float64, summing to one; 0 where the mask is false.

    Raises:
        JuryError: If the weights are unusable, do not fit the groups, or a group has fewer than two responses.
        RuntimeError: If a response beats the result by more than a millionth of the jury: a fault of the solver.

    Example:
        >>> cycle = torch.tensor([[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]])
        >>> maximal_lottery(cycle, [1, 1, 1])
        tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64)
        >>> maximal_lottery(cycle, [4, 3, 2])  # margins 3/9 (first over second), 5/9 and 1/9
        tensor([0.5556, 0.1111, 0.3333], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
        m = block_margins(r, w, kept)
        m = torch.where(m.abs() > TIE, m, 0.0)
        # Every counted response beats every masked one: so these get nothing, and the game of the others is unchanged.
        m += kept.double().unsqueeze(2) - kept.double().unsqueeze(1)
        lottery = ((m > 0).sum(-1) == r.shape[1] - 1).double()
        contested = lottery.sum(-1) == 0
        size = kept.sum(-1)
        # Groups of one size at a time, without masked responses: a mask equals leaving out, to the last digit.
        for n in size[contested].unique().tolist():
            rows = (contested & (size == n)).nonzero()
            places = kept[rows[:, 0]].nonzero()[:, 1].view(-1, n)
            game = m[rows.unsqueeze(2), places.unsqueeze(2), places.unsqueeze(1)]
            lottery[rows, places] = _end_of_central_path(game)
        _refuse_beaten(lottery, m)
        return lottery

    return over_groups(judge, rewards, weights, mask)


def random_dictator(rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Give each cluster's favourite the cluster's weight, `p_i = sum_k w_k [i is best under k] / ties_k`.

    No cluster gains by misreporting its order, and no other efficient lottery has that property (Gibbard 1977,
    https://doi.org/10.2307/1911681). It is the mixture target within a group: a cluster of 10 % keeps 10 %. It reads
    favourites only, so that a compromise which everybody ranks second gets nothing, even one that beats each
    favourite.

    Args:
        rewards: `(..., N, K)`, on any scale.
        weights: `(K,)` or `(..., K)`.
        mask: `(..., N)`.

    Returns:
        `(..., N)` float64, summing to one; 0 where the mask is false.

    Raises:
        JuryError: As `maximal_lottery`.

    Example:
        >>> random_dictator(torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 2.0]]), [3, 1])
        tensor([0.7500, 0.1250, 0.1250], dtype=torch.float64)
    """

    def judge(r: Tensor, w: Tensor, kept: Tensor) -> Tensor:
        r = r.double().masked_fill(~kept.unsqueeze(2), -torch.inf)
        best = (r == r.amax(1, keepdim=True)).double()
        return (w.unsqueeze(1) * best / best.sum(1, keepdim=True)).sum(-1)

    return over_groups(judge, rewards, weights, mask)


def uniform_over_best(scores: Tensor, mask: Tensor | None = None, tolerance: float = 1e-9) -> Tensor:
    """Return the lottery that draws evenly from the responses with the best score.

    Args:
        scores: `(..., N)`, higher is better.
        mask: `(..., N)`, true for responses that count; None for all.
        tolerance: Scores within this distance of the best count as best.

    Returns:
        `(..., N)` in the float type of the scores, summing to one.

    Raises:
        JuryError: If a group has no response that counts.

    Example:
        >>> uniform_over_best(torch.tensor([0.25, 0.5, 0.5]))
        tensor([0.0000, 0.5000, 0.5000])
    """
    s = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    top = s.amax(-1, keepdim=True)
    if (top == -torch.inf).any():
        group = (top == -torch.inf).squeeze(-1).nonzero()[0].tolist()
        raise JuryError(f"group {group} has no response that counts: leave the prompt out, or correct its mask.")
    best = (s >= top - tolerance).to(scores)
    return best / best.sum(-1, keepdim=True)


def _end_of_central_path(m: Tensor) -> Tensor:
    """Compute the maximal lotteries `(B, N)` of antisymmetric games `m`, `(B, N, N)`.

    The path: `p, s > 0` with `s = theta - m p`, `sum p = 1` and all `p_i s_i = theta / N`; its end at `theta = 0` is a
    lottery with no `s_i < 0`. Antisymmetry makes `p . s = theta` along every step. Each step is Mehrotra's predictor
    and corrector; converged groups leave the batch.
    """
    n = m.shape[-1]
    p = torch.full_like(m[..., :1], 1 / n)
    s = -(m @ p)
    theta = 0.1 - s.amin(1, keepdim=True)
    s = s + theta
    lottery = p.clone()
    live = torch.arange(len(m), device=m.device)
    for _ in range(_STEPS):
        system = -m
        system.diagonal(dim1=1, dim2=2).add_((s / p).squeeze(-1))
        factors = torch.linalg.lu_factor(system)
        dp = torch.linalg.lu_solve(*factors, theta - s)
        ds = -theta - m @ dp
        to_wall = torch.maximum(-dp / p, -ds / s).amax(1, keepdim=True).clamp(min=1.0).reciprocal()
        keep = (1 - to_wall) ** 3
        dp = torch.linalg.lu_solve(*factors, (keep * theta / n - dp * ds) / p - s + theta * (1 - keep))
        ds = (keep - 1) * theta - m @ dp
        short = 1 - theta.clamp(1e-3, 0.1)
        size = (short / torch.maximum(-dp / p, -ds / s).amax(1, keepdim=True)).clamp(0.0, 1.0)
        p, s, theta = p + size * dp, s + size * ds, theta * (1 - size * (1 - keep))
        total = p.sum(1, keepdim=True)
        p, s, theta = p / total, s / total, theta / total
        lottery[live] = p
        on = (theta > _GAP).flatten()
        live, m, p, s, theta = live[on], m[on], p[on], s[on], theta[on]
        if not len(live):
            break
    lottery = torch.where(lottery > _NOTHING, lottery, 0.0).squeeze(-1)
    return lottery / lottery.sum(-1, keepdim=True)


def _refuse_beaten(lottery: Tensor, m: Tensor) -> None:
    worst, response = (lottery.unsqueeze(1) @ m).squeeze(1).min(-1)
    # Not >=: a NaN is refused too.
    if not bool((worst >= -_BEATEN).all()):
        group = int((~(worst >= -_BEATEN)).nonzero()[0])
        raise RuntimeError(
            f"maximal lottery: response {int(response[group])} beats the computed lottery "
            f"{lottery[group].tolist()} by {-worst[group].item():.2g} of the jury, and no response may. This is a "
            "fault of the solver: please report the rewards and weights of this group, and use schulze meanwhile."
        )
