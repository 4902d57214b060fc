"""How probable a judgement is, given the rewards of what was judged.

Pure functions of torch tensors, one per kind of judgement, differentiable everywhere and safe for extreme rewards.
They know nothing of raters, clusters, tables or models: nuisance terms come in as tensors that broadcast against the
rewards.

Shapes: `...` any batch shape (for K clusters at once put `K` on the last axis and let the rest broadcast), `A`
alternatives of one judgement, `L` levels of a rating scale. Every result is a log-likelihood in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


__all__ = ["choice_log_lik", "davidson_log_lik", "ordinal_log_lik", "soft_log_lik"]


def choice_log_lik(rewards: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multinomial logit: `log P(label) = r_label - log sum_a exp(r_a)` (Luce; McFadden 1974).

    Args:
        rewards: (..., A) logits of the offered alternatives.
        label: (...) index of the chosen alternative; broadcasts against the batch shape of `rewards`.
        mask: (..., A) True where an alternative was offered; None: all of them.

    Returns:
        (...) log-likelihood in nats.
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
    """Paired comparison with ties (Davidson 1970, https://doi.org/10.1080/01621459.1970.10481082).

    `P(a) ∝ exp(beta r_a + kappa)`, `P(b) ∝ exp(beta r_b)`, `P(tie) ∝ nu exp((beta r_a + kappa + beta r_b) / 2)`, with
    `beta = exp(log_scale)`, `nu = exp(log_tie)` and `kappa = position`. Without ties this is Bradley-Terry.

    Args:
        reward_a: (...) reward of the first response.
        reward_b: (...) reward of the second response.
        label: (...) 0 = a, 1 = b, 2 = tie; broadcasts against the rewards.
        log_scale: (...) log of the rater's scale `beta`.
        log_tie: (...) log of the tie propensity `nu`; None or -inf: there are no ties, and a tie has likelihood 0.
        position: (...) advantage of a for reasons other than its text, in logits.

    Returns:
        (...) log-likelihood in nats.
    """
    beta = torch.exp(torch.as_tensor(log_scale, dtype=reward_a.dtype, device=reward_a.device))
    a, b = beta * reward_a + position, beta * reward_b
    nu = torch.as_tensor(-torch.inf if log_tie is None else log_tie, dtype=a.dtype, device=a.device)
    logits = torch.stack(torch.broadcast_tensors(a, b, nu + (a + b) / 2), dim=-1)
    return choice_log_lik(logits, label)


def ordinal_log_lik(
    reward: Tensor,
    level: Tensor,
    thresholds: Tensor,
    intercept: Tensor | float = 0.0,
    log_scale: Tensor | float = 0.0,
) -> Tensor:
    """Proportional-odds rating with rater terms: `P(rating <= c) = sigmoid(zeta_c - alpha - beta r)` (McCullagh 1980).

    Args:
        reward: (...) reward of the rated response.
        level: (...) index of the rating, 0 .. L - 1; broadcasts against `reward`.
        thresholds: (L - 1,) increasing `zeta`, shared by all raters.
        intercept: (...) leniency `alpha` of the rater, in logits.
        log_scale: (...) log of the rater's scale `beta`.

    Returns:
        (...) log-likelihood in nats.
    """
    eta = intercept + torch.exp(torch.as_tensor(log_scale, dtype=reward.dtype, device=reward.device)) * reward
    edge = thresholds.new_full((1,), torch.inf)
    zeta = torch.cat([-edge, thresholds, edge])
    # index_select rather than zeta[level]: its backward pass adds up instead of sorting.
    above = zeta.index_select(0, level.reshape(-1) + 1).reshape(level.shape)
    below = zeta.index_select(0, level.reshape(-1)).reshape(level.shape)
    upper, lower = above - eta, below - eta
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)): no difference of
    # near-equals.
    return logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(below - above))


def soft_log_lik(rewards: Tensor, probs: Tensor, log_prevalence: Tensor) -> Tensor:
    """Expected log-likelihood of a published answer distribution under the mixture prior.

    `sum_a p_a log sum_k pi_k softmax(r_k)_a`: nobody knows which raters answered, so each answer comes from a cluster
    drawn by prevalence. It is largest when the mixture reproduces `probs`, and then equals minus their entropy.

    Args:
        rewards: (..., A, K) logits per alternative and cluster.
        probs: (..., A) share of each alternative; sums to one.
        log_prevalence: (K,) log of the clusters' prevalence `pi`.

    Returns:
        (...) expected log-likelihood in nats.
    """
    log_p = torch.logsumexp(rewards.log_softmax(-2) + log_prevalence, dim=-1)
    return torch.where(probs > 0, probs * log_p, torch.zeros_like(probs)).sum(-1)
