"""Log-likelihoods of judgements, given the rewards of the texts that were judged.

Pure functions of torch tensors, one per kind of judgement, differentiable everywhere and stable for extreme rewards.
They know nothing of raters, clusters, tables or models: rater terms come in as tensors that broadcast against the
rewards.

Shapes: `...` any batch shape (for K clusters at once put `K` on the last axis and let the rest broadcast), `A`
alternatives of one judgement, `L` levels of a rating scale. Every result is a log-likelihood in nats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid


__all__ = ["choice_log_lik", "davidson_log_lik", "ordinal_log_lik", "soft_log_lik"]


def choice_log_lik(rewards: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the multinomial logit: `log P(label) = r_label - log sum_a exp(r_a)` (Luce 1959; McFadden 1974).

    Args:
        rewards: (..., A) logits of the offered alternatives.
        label: (...) index of the chosen alternative; broadcasts against the batch shape of `rewards`.
        mask: (..., A) True where an alternative was offered; None: all of them.

    Returns:
        (...) log-likelihood in nats.

    Example:
        Rewards ln 2 and 0 give the first of two alternatives a probability of 2 in 3:

        >>> rewards = torch.tensor([2.0, 1.0]).log()
        >>> choice_log_lik(rewards, torch.tensor(0)).exp()
        tensor(0.6667)
    """
    if mask is not None:
        rewards = rewards.masked_fill(~mask, -torch.inf)
    log_p = rewards.log_softmax(-1)
    label = label.expand(log_p.shape[:-1])
    return log_p.gather(-1, label.unsqueeze(-1)).squeeze(-1)


def davidson_log_lik(
    reward_a: Tensor,
    reward_b: Tensor,
    label: Tensor,
    log_scale: Tensor | float = 0.0,
    log_tie: Tensor | float | None = None,
    position: Tensor | float = 0.0,
) -> Tensor:
    """Compute the likelihood of a paired comparison with ties (Davidson 1970, https://doi.org/10.1080/01621459.1970.10481082).

    `P(a) ∝ exp(beta r_a + kappa)`, `P(b) ∝ exp(beta r_b)`, `P(tie) ∝ nu exp((beta r_a + kappa + beta r_b) / 2)`, with
    `beta = exp(log_scale)`, `nu = exp(log_tie)` and `kappa = position`. Without ties this is Bradley-Terry.

    Args:
        reward_a: (...) reward of the first response.
        reward_b: (...) reward of the second response.
        label: (...) 0 = a, 1 = b, 2 = tie; broadcasts against the rewards.
        log_scale: (...) log of the rater's scale `beta`.
        log_tie: (...) log of the tie propensity `nu`; None or -inf: there are no ties, and a tie has likelihood 0.
        position: (...) advantage `kappa` of a because of its position, in logits.

    Returns:
        (...) log-likelihood in nats.

    Example:
        Equal rewards and `nu = 1` make a, b and a tie equally probable:

        >>> reward = torch.zeros(3)
        >>> davidson_log_lik(reward, reward, torch.tensor([0, 1, 2]), log_tie=0.0).exp()
        tensor([0.3333, 0.3333, 0.3333])
    """
    beta = torch.exp(torch.as_tensor(log_scale, dtype=reward_a.dtype, device=reward_a.device))
    nu = torch.as_tensor(-torch.inf if log_tie is None else log_tie, dtype=reward_a.dtype, device=reward_a.device)
    gap = beta * (reward_a - reward_b) + position
    return _Davidson.apply(gap.expand(torch.broadcast_shapes(gap.shape, nu.shape, label.shape)), nu, label)


def ordinal_log_lik(
    reward: Tensor,
    level: Tensor,
    thresholds: Tensor,
    intercept: Tensor | float = 0.0,
    log_scale: Tensor | float = 0.0,
) -> Tensor:
    """Compute the proportional-odds likelihood of a rating (McCullagh 1980).

    `P(rating <= c) = sigmoid(zeta_c - alpha - beta r)` with the rater's leniency `alpha` and scale
    `beta = exp(log_scale)`.

    Args:
        reward: (...) reward of the rated response.
        level: (...) index of the rating, 0 .. L - 1; broadcasts against `reward`.
        thresholds: (L - 1,) increasing `zeta`, shared by all raters.
        intercept: (...) leniency `alpha` of the rater, in logits.
        log_scale: (...) log of the rater's scale `beta`.

    Returns:
        (...) log-likelihood in nats.

    Example:
        A vote between -1 and 1 with the threshold at 0 is a logistic regression on the reward:

        >>> ordinal_log_lik(torch.tensor(0.0), torch.tensor([0, 1]), thresholds=torch.zeros(1)).exp()
        tensor([0.5000, 0.5000])
    """
    eta = intercept + torch.exp(torch.as_tensor(log_scale, dtype=reward.dtype, device=reward.device)) * reward
    edge = thresholds.new_full((1,), torch.inf)
    zeta = torch.cat([-edge, thresholds, edge])
    # index_select rather than zeta[level]: its backward pass adds up instead of sorting.
    above = zeta.index_select(0, level.reshape(-1) + 1).reshape(level.shape)
    below = zeta.index_select(0, level.reshape(-1)).reshape(level.shape)
    return _Ordinal.apply(eta, above, below)


def soft_log_lik(rewards: Tensor, probs: Tensor, log_prevalence: Tensor) -> Tensor:
    """Compute the expected log-likelihood of a published answer distribution under the mixture prior.

    `sum_a p_a log sum_k pi_k softmax(r_k)_a`: the raters behind the answers are unknown, so each answer comes from a
    cluster drawn by prevalence. The maximum is minus the entropy of `probs`, where the mixture reproduces `probs`.

    Args:
        rewards: (..., A, K) logits per alternative and cluster.
        probs: (..., A) share of each alternative; sums to one.
        log_prevalence: (K,) log of the clusters' prevalence `pi`.

    Returns:
        (...) expected log-likelihood in nats.

    Example:
        Two equally large clusters that want opposite answers explain a 50:50 split as well as possible, -ln 2:

        >>> rewards = torch.tensor([[20.0, 0.0], [0.0, 20.0]])
        >>> round(float(soft_log_lik(rewards, torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]).log())), 4)
        -0.6931
    """
    log_p = torch.logsumexp(rewards.log_softmax(-2) + log_prevalence, dim=-1)
    return torch.where(probs > 0, probs * log_p, torch.zeros_like(probs)).sum(-1)


class _Davidson(torch.autograd.Function):
    """`log P(label)` from the gap `x = a - b` and `nu = log_tie`, with its derivative in closed form.

    A fit evaluates this for every judgement in every state of a rater; automatic differentiation of the single
    operations costs four times as much in the backward pass. With `Z = e^{x/2} + e^{-x/2} + e^nu` the value is
    `±x/2 - log Z`, or `nu - log Z` for a tie. The derivatives are `d/dx = ±1/2 - (e^{x/2} - e^{-x/2}) / 2Z` and
    `d/dnu = [tie] - e^nu / Z`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, nu: Tensor, label: Tensor) -> Tensor:
        # In place where possible: on tables of millions of states, allocating memory costs more than arithmetic.
        half = x.abs().mul_(0.5)
        low = (half * -2).exp_()
        tie = (nu - half).exp_()  # both divided by e^{|x|/2}, so that nothing overflows
        size = (low + tie).add_(1)
        sign = ((label == 0).to(x.dtype) - (label == 1).to(x.dtype)).div_(2)
        tied = (label == 2).to(x.dtype)
        by_x = low.neg_().add_(1).div_(size).mul_(torch.sign(x)).mul_(-0.5).add_(sign)
        by_nu = tie.div_(size).neg_().add_(tied)
        ctx.save_for_backward(by_x, by_nu)
        ctx.shapes = x.shape, nu.shape
        value = size.log_().add_(half).neg_().add_(sign * x)
        # Without ties (nu = -inf) a tie has likelihood 0, not NaN.
        return torch.where(label == 2, value + nu, value) if bool(tied.any()) else value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        by_x, by_nu = ctx.saved_tensors
        nu = (grad * by_nu).sum_to_size(ctx.shapes[1]) if ctx.needs_input_grad[1] else None
        return (grad * by_x).sum_to_size(ctx.shapes[0]), nu, None


class _Ordinal(torch.autograd.Function):
    """`log(sigmoid(u) - sigmoid(l))`, `u = above - eta`, `l = below - eta`, with its derivative in closed form.

    `d/d eta = sigmoid(u) + sigmoid(l) - 1`, `d/d above = sigmoid'(u) / p`, `d/d below = -sigmoid'(l) / p`. Levels at
    the ends of the scale (always, for two levels) have one infinite edge and need one sigmoid only.
    """

    @staticmethod
    def forward(ctx: Any, eta: Tensor, above: Tensor, below: Tensor) -> Tensor:
        ctx.shapes = eta.shape, above.shape, below.shape
        top = above.isinf()
        ctx.one_sided = bool((top | below.isinf()).all())
        if ctx.one_sided:
            sign = torch.where(top, 1.0, -1.0).to(eta.dtype)
            value = logsigmoid((eta - torch.where(top, below, above)).mul_(sign))
            ctx.save_for_backward(value, sign)
            return value
        upper, lower = logsigmoid(above - eta), logsigmoid(eta - below)
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), which avoids the
        # difference of two nearly equal numbers.
        width = torch.log(-torch.expm1(below - above))
        ctx.save_for_backward(upper, lower, width)
        return upper + lower + width

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        of_eta, of_above, of_below = ctx.shapes
        edges_need_grad = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        if ctx.one_sided:
            value, sign = ctx.saved_tensors
            slope = torch.exp(value).neg_().add_(1).mul_(grad)  # sigmoid of the other side
            above = (slope * (sign < 0)).sum_to_size(of_above) if edges_need_grad else None
            below = -(slope * (sign > 0)).sum_to_size(of_below) if edges_need_grad else None
            return slope.mul_(sign).sum_to_size(of_eta), above, below
        upper, lower, width = ctx.saved_tensors
        at_upper, above_lower = upper.exp(), lower.exp()  # sigmoid(u) and sigmoid(-l)
        by_eta = (grad * (at_upper - above_lower)).sum_to_size(of_eta)
        if not edges_need_grad:
            return by_eta, None, None
        # With p = sigmoid(u) sigmoid(-l) (1 - e^{l - u}), sigmoid'(u) / p = 1 / (1 - e^{l - u}) - sigmoid(u).
        left = torch.exp(-width)
        above = (grad * (left - at_upper)).sum_to_size(of_above)
        below = -(grad * (left - above_lower)).sum_to_size(of_below)
        return by_eta, above, below
