"""Pointwise welfare rules that read a part of the jury: the worst-off, the middle, the approvers, the disagreement.

Each rule reads only how the clusters' weight is spread over the rewards of one response. All are therefore anonymous
(the order of clusters does not matter) and clone-proof (a cluster split into two with the same rewards and half the
weight each changes nothing), and so are the means of `aggregation`. They differ in the rest:

| rule | a higher reward never lowers it | a cluster of weight w < 1/2 moves it up / down at will | commutes with |
|---|---|---|---|
| mean | yes | yes / yes | shift, scale |
| power_mean (sigmoid, finite p), nash | yes | no / if p <= 0 | nothing |
| soft_minimum | yes | no / yes | shift |
| min | yes | no / yes | any increasing map |
| max | yes | yes / no | any increasing map |
| cvar | yes | if w > 1 - share / yes | shift, scale |
| quantile | yes | if w > 1 - q / if w >= q | any increasing map |
| median | yes | no / no | shift, scale; if no tie, any increasing map |
| pessimistic_median | yes | no / no | shift; scale, if the standard errors scale too |
| approval | yes | by w at most | nothing, unless the threshold moves along |
| variance_penalised | no | if penalty < sqrt(w / (1 - w)) / yes | shift, scale |

"At will" means without limit, by exaggerating the reward of one response. A rule that no cluster moves at will may
still be manipulated within limits: none is strategyproof once the best of several responses is chosen. "Commutes with"
refers to one map `a r + b`, a > 0, of all heads. If each head is scaled by a factor of its own, all verdicts change
except those of approval at threshold and temperature 0 and of Nash with utility "identity". If a constant is added to
each head, only the mean ranks responses as before. Hence heads are calibrated first
(`reward_models.jury.calibration`).

Gradients are finite everywhere; among equal rewards at an edge, one cluster may get all of the gradient. A cluster of
weight 0 has no influence, whatever its reward. Half precision is computed in float32. Knows nothing of prompts, groups
of responses or where rewards come from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .aggregation import Utility, Weights, as_float, log_power_mean, normalise_weights, power_mean, weighted_mean
from .group_rules import TIE


__all__ = [
    "approval_share",
    "cvar",
    "maximum",
    "minimum",
    "nash",
    "pessimistic_median",
    "quantile",
    "variance_penalised",
    "weighted_median",
]


def nash(rewards: Tensor, weights: Weights, utility: Utility = "sigmoid") -> Tensor:
    """Compute Nash welfare, `u^-1(prod_k u(r_k)^w_k)`: the power mean at p = 0.

    Axioms: anonymous, clone-proof, strictly monotone. With the default utility one cluster can lower it without limit
    but not raise it, and it commutes with no change of scale. With utility "identity" the ranking of responses does
    not change when a head is multiplied by a factor (the scale independence of Nash, 1950); with "exp" this is the
    mean.

    Args:
        rewards: Logits per cluster, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        utility: See `aggregation.power_mean`.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the utility is unknown or not positive.

    Example:
        >>> nash(torch.tensor([1.0, 4.0]), [1, 1], utility="identity")
        tensor(2.)
        >>> nash(torch.tensor([0.0, 0.0]), [3, 1])
        tensor(0.)
    """
    return power_mean(rewards, weights, 0.0, utility)


def minimum(rewards: Tensor, weights: Weights) -> Tensor:
    """Return the reward of the worst-off cluster of positive weight: Rawls' rule.

    Axioms: anonymous, clone-proof, monotone, commutes with any increasing map of all heads. One cluster can lower it
    without limit (a veto) but not raise it.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`; only which of them are positive matters.

    Returns:
        Shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> minimum(torch.tensor([2.0, -1.0, -7.0]), [0.9, 0.1, 0.0])
        tensor(-1.)
    """
    return log_power_mean(rewards, weights, -math.inf)


def maximum(rewards: Tensor, weights: Weights) -> Tensor:
    """Return the reward of the best-off cluster of positive weight; arguments and axioms as for `minimum`, mirrored.

    Example:
        >>> maximum(torch.tensor([2.0, -1.0, 7.0]), [0.9, 0.1, 0.0])
        tensor(2.)
    """
    return log_power_mean(rewards, weights, math.inf)


def cvar(rewards: Tensor, weights: Weights, share: float = 0.25) -> Tensor:
    """Compute the mean reward of the worst-off share of the jury: conditional value at risk.

    `1/a int_0^a Q(q) dq` with the quantiles Q and a the share. A cluster at the edge counts with the part of its
    weight that is within (Rockafellar and Uryasev 2002, https://doi.org/10.1016/S0378-4266(02)00271-6).

    Axioms: anonymous, clone-proof, monotone, commutes with a common shift and scale. One cluster can lower it without
    limit, and raise it without limit only if its weight exceeds `1 - share`, so that every such share contains it.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        share: Of the jury's weight, in (0, 1]; 1 is the weighted mean, towards 0 the minimum.

    Returns:
        Shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the share is not in (0, 1].

    Example:
        >>> cvar(torch.tensor([2.0, -1.0, 0.5]), [0.6, 0.3, 0.1], share=0.4)  # (.3 * -1 + .1 * .5) / .4
        tensor(-0.6250)
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"share: got {share:g}; it is a part of the jury, above 0 and at most 1: for the worst-off cluster alone "
            "use the rule min"
        )
    ordered, w, up_to = _from_the_worst_off(rewards, weights)
    room = share - (up_to - w)
    # A remainder that is only rounding error must not admit a cluster whose reward may be huge.
    counted = torch.minimum(w, torch.where(room > TIE * share, room, 0.0))
    return (counted * torch.where(counted > 0, ordered, 0.0)).sum(-1) / counted.sum(-1)


def quantile(rewards: Tensor, weights: Weights, q: float = 0.25) -> Tensor:
    """Return the lower weighted quantile: the smallest reward that a share q of the jury is at or below.

    Always the reward of some cluster; a share of `1 - q` of the jury has at least this reward.

    Axioms: anonymous, clone-proof, monotone, commutes with any increasing map of all heads. A cluster of weight w
    moves it up without limit only if `w > 1 - q`, down only if `w >= q`.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`. Shares closer than `group_rules.TIE` are equal.
        q: In [0, 1]; 0 is the minimum, 1 the maximum.

    Returns:
        Shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If q is not in [0, 1].

    Example:
        >>> quantile(torch.tensor([2.0, -1.0, 0.5]), [0.6, 0.3, 0.1], q=0.4)
        tensor(0.5000)
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q: got {q:g}; it is a share of the jury, from 0 (minimum) to 1 (maximum)")
    ordered, _, up_to = _from_the_worst_off(rewards, weights)
    return _first(ordered, up_to < q - TIE)


def weighted_median(rewards: Tensor, weights: Weights) -> Tensor:
    """Return the weighted median: half of the jury is at or below it, half at or above.

    Where the weights split exactly in halves, every reward between two clusters is a median; the midpoint is returned.

    Axioms: anonymous, clone-proof, monotone, commutes with a common shift and scale. No coalition of less than half
    the weight can move it outside the range of the others' rewards.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`. Shares closer than `group_rules.TIE` are equal.

    Returns:
        Shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> weighted_median(torch.tensor([2.0, -1.0, 1e6]), [2, 2, 1])
        tensor(2.)
        >>> weighted_median(torch.tensor([2.0, -1.0]), [1, 1])
        tensor(0.5000)
    """
    ordered, _, up_to = _from_the_worst_off(rewards, weights)
    return (_first(ordered, up_to < 0.5 - TIE) + _first(ordered, up_to <= 0.5 + TIE)) / 2


def pessimistic_median(rewards: Tensor, weights: Weights, standard_error: Weights, z: float = 1.0) -> Tensor:
    """Return the weighted median of lower confidence bounds, `median_k(r_k - z s_k)`.

    After the pessimistic median of MLEs (Kleine Buening et al., NeurIPS 2025, https://arxiv.org/abs/2503.09561), with
    which labellers gain little by misreporting. This rule differs in three ways, and their theorem does not carry
    over:

    1. The median is over clusters, by weight, instead of over single labellers.
    2. It is computed for each response, from its rewards, instead of for each coordinate of linear reward parameters.
    3. The pessimism is per response too, instead of the worst case of a policy's expected reward over one confidence
       set.

    Axioms: anonymous, monotone, commutes with a common shift, and with a common scale of rewards and standard errors.
    Clone-proof if clones keep the standard error; two halves fitted separately have larger ones. No coalition of less
    than half the weight can move it outside the range of the others' bounds, by rewards or by standard errors.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        standard_error: `s_k`, in the unit of the rewards, shape `(K,)` or `(..., K)`.
        z: How many standard errors to go below, 0 or more.

    Returns:
        Shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If a standard error is negative or not finite, there is not one per cluster, or z is negative.

    Example:
        >>> pessimistic_median(torch.tensor([2.0, -1.0, 0.5]), [1, 1, 1], standard_error=[2.0, 0.1, 0.1])
        tensor(0.)
    """
    if not 0 <= z < math.inf:
        raise ValueError(f"z: got {z:g}; it is a number of standard errors, 0 (plain median) or more")
    r = as_float(rewards)
    s = torch.as_tensor(standard_error).to(r)
    if s.ndim == 0 or s.shape[-1] != r.shape[-1]:
        number = s.shape[-1] if s.ndim else "one bare number"
        raise ValueError(
            f"standard_error: got {number}, but the jury has {r.shape[-1]} clusters: give one per cluster, in order"
        )
    active, s = torch.broadcast_tensors(normalise_weights(weights, r.shape[-1]).to(r) > 0, s)
    bad = active & ~(torch.isfinite(s) & (s >= 0))
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"standard_error: cluster {where[-1]} has {s[where].item():g}, and it must be a finite number of at least "
            "0: give a cluster without an estimate the weight 0"
        )
    return weighted_median(r - z * s, weights)


def approval_share(rewards: Tensor, weights: Weights, threshold: float = 0.0, temperature: float = 0.0) -> Tensor:
    """Compute the share of the jury that approves, `sum_k w_k [r_k >= t]`.

    With a temperature it is smooth: `sum_k w_k sigmoid((r_k - t) / T)`.

    Axioms: anonymous, clone-proof, monotone. A cluster moves it by its weight at most. It depends on each head's zero:
    it commutes with a common map only if threshold and temperature follow; at temperature 0 any increasing map of a
    head that keeps the threshold in place is allowed.

    Args:
        rewards: Shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        threshold: t, the least reward that is approved; 0 on calibrated heads is the reference policy's average.
        temperature: T in the unit of the rewards. At 0 the share has no gradient in the rewards; with a positive T it
            has one, and a reward at the threshold counts half.

    Returns:
        Shares in [0, 1], shape `(...)`: unlike the other rules', not in the unit of the rewards.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the threshold is NaN, or the temperature negative or not finite.

    Example:
        >>> approval_share(torch.tensor([2.0, -1.0, 0.5]), [0.6, 0.3, 0.1])
        tensor(0.7000)
    """
    if math.isnan(threshold):
        raise ValueError("threshold: got nan; it is the least reward that is approved")
    if not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature: got {temperature:g}; it is in the unit of the rewards, 0 (approve or not) or more"
        )
    r = as_float(rewards)
    w = normalise_weights(weights, r.shape[-1]).to(r)
    if temperature == 0:
        return (w * (r >= threshold)).sum(-1)
    approval = torch.sigmoid((torch.where(w > 0, r, threshold) - threshold) / temperature)
    return (w * approval).sum(-1)


def variance_penalised(rewards: Tensor, weights: Weights, penalty: float = 1.0) -> Tensor:
    """Compute the weighted mean minus a penalty on disagreement, `m - c sqrt(sum_k w_k (r_k - m)^2)`.

    Axioms: anonymous, clone-proof, commutes with a common shift and scale. Not monotone: a response can lose because a
    cluster comes to like it better, unless `c <= sqrt(w_k / (1 - w_k))` for all clusters. One cluster can lower it
    without limit, and raise it too if c is below that.

    Args:
        rewards: On one scale, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        penalty: c, in units of reward per unit of standard deviation across the jury.

    Returns:
        Shape `(...)`; its gradient where all agree is that of the mean.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the penalty is negative or not finite.

    Example:
        >>> variance_penalised(torch.tensor([3.0, -1.0]), [3, 1])  # 2 - sqrt(3)
        tensor(0.2679)
    """
    if not 0 <= penalty < math.inf:
        raise ValueError(f"penalty: got {penalty:g}; it is a price on disagreement, 0 (the mean) or more")
    r = as_float(rewards)
    w = normalise_weights(weights, r.shape[-1]).to(r)
    mean = weighted_mean(r, w)
    deviation = torch.where(w > 0, r - mean.unsqueeze(-1), 0.0)
    # The norm, unlike a square root of the variance, has a finite gradient at 0.
    return mean - penalty * torch.linalg.vector_norm(torch.where(w > 0, w, 1.0).sqrt() * deviation, dim=-1)


def _from_the_worst_off(rewards: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Return rewards in rising order with weightless clusters last, each one's weight, and the cumulative weight."""
    r = as_float(rewards)
    r, w = torch.broadcast_tensors(r, normalise_weights(weights, r.shape[-1]).to(r))
    ordered, order = torch.where(w > 0, r, math.inf).sort(-1)
    w = w.gather(-1, order)
    return ordered, w, w.cumsum(-1)


def _first(ordered: Tensor, passed: Tensor) -> Tensor:
    """Return the reward of the first cluster not `passed`; there is one, as the weights sum to one within TIE."""
    return ordered.gather(-1, passed.sum(-1, keepdim=True)).squeeze(-1)
