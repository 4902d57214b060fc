"""Losses of preference optimisation on pairs whose raters belong to clusters, as functions of log-probabilities.

The policy defines a reward, `r_k = beta (log pi(y | x, k) - log pi_ref(y | x))`, so that cluster k prefers the
chosen response by the margin `m_k = beta delta_k`, the difference of two log-ratios (DPO, Rafailov et al.,
2305.18290). A rater of uncertain cluster is a mixture over clusters; clusters can be balanced against each other; and
a policy without a cluster in its prompt can be trained to equal the mixture of those with one. Knows nothing of
prompts, tokens, raters' names or trainers.

Shapes: `N` pairs, `K` clusters; `...` any batch shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, smooth_l1_loss


__all__ = [
    "balanced_loss",
    "ipo_loss",
    "mixture_log_lik",
    "mixture_responsibilities",
    "pair_log_lik",
    "public_loss",
]


def pair_log_lik(margin: Tensor, tie: Tensor | None = None, tie_propensity: float = 0.0) -> Tensor:
    """Compute the log-likelihood of a judged pair: Bradley-Terry, or with ties Davidson's model.

    `P(chosen) ∝ exp(m / 2)`, `P(rejected) ∝ exp(-m / 2)`, `P(tie) ∝ nu` (Davidson 1970,
    https://doi.org/10.1080/01621459.1970.10481082; for DPO Chen et al., 2409.17431). With `nu = 0` the first is
    `sigma(m)`, DPO's.

    Args:
        margin: `m`, in logits, shape `(...)`.
        tie: True where neither response was preferred, broadcast against `margin`; None where there are no ties.
        tie_propensity: `nu`, 0 or more; between equal responses a tie has probability `nu / (2 + nu)`.

    Returns:
        Nats, shape `(...)`; `-inf` for a tie when `nu` is 0.

    Example:
        >>> pair_log_lik(torch.tensor([0.0, 0.0]), torch.tensor([False, True]), tie_propensity=2.0).exp()
        tensor([0.2500, 0.5000])
    """
    if tie is None and tie_propensity == 0:
        return logsigmoid(margin)
    log_nu = math.log(tie_propensity) if tie_propensity > 0 else -math.inf
    half = margin / 2
    log_tie = torch.full_like(half, log_nu)
    log_norm = torch.stack([half, -half, log_tie], -1).logsumexp(-1)
    return (half if tie is None else torch.where(tie, log_tie, half)) - log_norm


def ipo_loss(delta: Tensor, beta: float, tie: Tensor | None = None) -> Tensor:
    """Compute IPO's squared distance of the log-ratio difference to `1 / (2 beta)` (Azar et al., 2310.12036, eq. 17).

    Args:
        delta: Difference of the log-ratios per token, nats, shape `(...)`.
        beta: The paper's `tau`, above 0.
        tie: True where neither response was preferred: the target of the difference is then 0.

    Returns:
        Shape `(...)`.

    Example:
        >>> ipo_loss(torch.tensor([5.0, 2.0]), beta=0.1)  # the target is 5
        tensor([0., 9.])
    """
    target = torch.full_like(delta, 1 / (2 * beta))
    return (delta - (target if tie is None else target.masked_fill(tie, 0.0))).square()


def mixture_log_lik(log_lik: Tensor, membership: Tensor) -> Tensor:
    """Compute the log-likelihood of a judgement of a rater of uncertain cluster, `log sum_k q_k exp(l_k)`.

    Its gradient is that of `sum_k gamma_k l_k` with the responsibilities `gamma` held fixed: one step of gradient
    descent on it is a soft E-step and a partial M-step (Yao et al., 2412.20299, condition a policy on a belief in the
    same way; Chakraborty et al., 2402.08925, separate raters by EM).

    Args:
        log_lik: `l_k`, nats, shape `(..., K)`.
        membership: `q_k`, shape `(..., K)`, summing to one; a cluster with 0 is ignored and gets no gradient.

    Returns:
        Nats, shape `(...)`.

    Example:
        >>> mixture_log_lik(torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5])).exp()
        tensor(0.5000)
    """
    return _log_joint(log_lik, membership).logsumexp(-1)


def mixture_responsibilities(log_lik: Tensor, membership: Tensor) -> Tensor:
    """Compute the probability of each cluster given the judgement, `gamma_k ∝ q_k exp(l_k)`.

    Args:
        log_lik: As for `mixture_log_lik`.
        membership: As for `mixture_log_lik`.

    Returns:
        Shape `(..., K)`, detached.

    Example:
        >>> mixture_responsibilities(torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5]))
        tensor([0.8000, 0.2000])
    """
    return _log_joint(log_lik, membership).detach().softmax(-1)


def public_loss(log_pi_public: Tensor, log_pi: Tensor, weights: Tensor) -> Tensor:
    """Compute the distance of a policy without a cluster from the mixture `sum_k w_k pi(y | x, k)` of those with one.

    Huber's function of `log pi(y | x) - log sum_k w_k pi(y | x, k)`: trajectory balance with a partition function of
    1, since a mixture of distributions is a distribution. It is zero for every response exactly where the policy is
    the mixture, whichever policy wrote the responses (Malkin et al., 2201.13259). The gradient of a response many nats
    off is no larger than at one nat. The mixture is the teacher: no gradient flows into it.

    Args:
        log_pi_public: Sequence log-probabilities without a cluster, nats, shape `(...)`.
        log_pi: Sequence log-probabilities under each cluster, nats, shape `(..., K)`.
        weights: `w_k`, shape `(K,)` or `(..., K)`.

    Returns:
        Shape `(...)`.

    Example:
        >>> log_pi = torch.tensor([[0.2, 0.6]]).log()  # with equal weights the mixture is .4
        >>> public_loss(torch.tensor([0.4]).log() - 1, log_pi, torch.tensor([0.5, 0.5]))  # one nat off: 1² / 2
        tensor([0.5000])
    """
    mixture = _log_joint(log_pi.detach(), weights.to(log_pi)).logsumexp(-1)
    return smooth_l1_loss(log_pi_public, mixture, reduction="none")


def balanced_loss(loss: Tensor, membership: Tensor, shares: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss with every cluster at a given weight, and the loss of each cluster.

    `sum_k w_k L_k` with `L_k = mean_n q_nk loss_nk / s_k`, for which every batch gives an unbiased estimate, even one
    without any rater of some cluster. With `w = s` it is the plain mean over judgements; with weights that follow the
    losses (exponentiated gradient) it is group distributionally robust optimisation (Sagawa et al., 1911.08731;
    Ramesh et al., 2405.20304, for DPO).

    Args:
        loss: Loss of each pair for each cluster, shape `(N, K)`, or `(N, 1)` where it is the same for all.
        membership: `q`, times the weight of the judgement if it has one, shape `(N, K)`.
        shares: `s`, the mean of `q` over the whole data set, shape `(K,)`; 0 only where a cluster has no raters.
        weights: `w`, summing to one, shape `(K,)`.

    Returns:
        The loss, a scalar, and the estimates of `L_k`, detached, shape `(K,)`.

    Example:
        >>> loss, q = torch.tensor([[1.0], [4.0], [1.0], [1.0]]), torch.eye(2)[[0, 1, 0, 0]]
        >>> shares = torch.tensor([0.75, 0.25])
        >>> balanced_loss(loss, q, shares, weights=shares)
        (tensor(1.7500), tensor([1., 4.]))
        >>> balanced_loss(loss, q, shares, weights=torch.tensor([0.5, 0.5]))[0]
        tensor(2.5000)
    """
    present = shares > 0
    # A cluster of membership 0 may have any loss, also an infinite one.
    weighted = torch.where(membership > 0, membership * loss, 0.0)
    factor = torch.where(present, weights / torch.where(present, shares, 1.0), 0.0)
    by_cluster = torch.where(present, weighted.detach().mean(0) / torch.where(present, shares, 1.0), 0.0)
    return (weighted * factor).sum(-1).mean(), by_cluster


def _log_joint(log_values: Tensor, weights: Tensor) -> Tensor:
    """Compute `log w_k + v_k`; `-inf` and without gradient where `w_k` is 0."""
    active = weights > 0
    log_w = torch.where(active, weights, 1.0).log()
    return torch.where(active, log_w + torch.where(active, log_values, 0.0), -math.inf)
