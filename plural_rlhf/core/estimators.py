"""Move a policy to a target: residuals, score coefficients, losses, and exact divergences over finite supports.

With `d_i = R(y_i) / beta + log pi_ref(y_i) - log pi(y_i)`, sums over the whole sequence with its end token, the target
is `p = pi exp(d) / Z` and `d` is the constant `log Z` exactly when `pi = p`. Sampled estimators use a group of G
completions of one prompt; exact ones all N answers of a support. Knows nothing of where R comes from (`targets`).

The fixed point needs the sum over the sequence. `reward_to_go` and `rao_blackwell_to_go` give every token its own
coefficient and keep the expected gradient: with less noise than the whole residual far from the target, and more near
it, where the whole residual has none. Do not pass length-normalised log-probabilities: they have another fixed point,
`pi_ref exp(|y| (.))`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from reward_models.errors import did_you_mean

from .checks import check_beta


__all__ = [
    "DIVERGENCES",
    "ESTIMATORS",
    "OFF_POLICY",
    "Divergence",
    "exact_divergence",
    "forward_kl_coefficients",
    "group_log_mean_exp",
    "js_coefficients",
    "leave_one_out",
    "log_average",
    "rao_blackwell_to_go",
    "residual",
    "reward_to_go",
    "score_function_loss",
    "trajectory_balance_loss",
    "vargrad_loss",
]

Divergence = Literal["fkl", "rkl", "js"]

ESTIMATORS = ("vargrad", "tb", "js", "fkl")
"""How the residual of a sampled completion becomes the coefficient of its score."""

OFF_POLICY = ("vargrad", "tb")
"""The estimators whose fixed point is the target whichever policy drew the completions."""

DIVERGENCES: tuple[str, ...] = ("fkl", "rkl", "js")

# exp(_LOG_ZERO) is exactly 0 in every float type, and 0 * _LOG_ZERO is 0 where 0 * -inf would be NaN.
_LOG_ZERO = -1.0e4
# How much the sum of probabilities may exceed one: log-probabilities computed in bfloat16 are off by per cents.
_EXCESS = 0.05


def residual(reward: Tensor, beta: float, log_pi_ref: Tensor, log_pi: Tensor) -> Tensor:
    """Compute the residual `d = R / beta + log pi_ref - log pi` of each completion.

    Args:
        reward: Aggregated reward R in logits, shape `(...)`.
        beta: Temperature, in logits.
        log_pi_ref: Sequence log-probability under the reference, nats, shape `(...)`.
        log_pi: Sequence log-probability under the policy, nats, shape `(...)`; gradients flow through it.

    Returns:
        Nats, shape `(...)`.

    Raises:
        ValueError: If `beta` is not positive and finite.

    Example:
        >>> residual(torch.tensor([2.0, 0.0]), 0.5, torch.tensor([-3.0, -1.0]), torch.tensor([-2.0, -1.0]))
        tensor([3., 0.])
    """
    check_beta(beta)
    return reward / beta + log_pi_ref - log_pi


def leave_one_out(d: Tensor) -> Tensor:
    """Compute the coefficient of each completion's score: its residual minus the mean residual of the others.

    `-(1/G) sum_i c_i grad log pi(y_i)` is the gradient of `vargrad_loss`; on-policy it is an unbiased estimate of the
    gradient of KL(pi || p), and at `pi = p` every coefficient is zero (Richter et al., 2010.10436).

    Args:
        d: Residuals, shape `(..., G)`. Detach them where the result is to multiply a score.

    Returns:
        Nats, shape `(..., G)`, zero in sum over the group.

    Raises:
        ValueError: If the group has one completion.

    Example:
        >>> leave_one_out(torch.tensor([3.0, 0.0, 0.0]))
        tensor([ 3.0000, -1.5000, -1.5000])
    """
    group = _group_size(d)
    return (d - d.mean(-1, keepdim=True)) * (group / (group - 1))


def vargrad_loss(d: Tensor) -> Tensor:
    """Compute the log-variance loss of each group, `1 / (2 (G - 1)) sum_i (d_i - mean d)^2`.

    Source: Richter et al., 2010.10436. Its only minimiser is the target, whichever policy drew the completions, if it
    can draw all of them.

    Args:
        d: Residuals with the gradient of the policy in them, shape `(..., G)`.

    Returns:
        Shape `(...)`, one loss per group.

    Raises:
        ValueError: If the group has one completion.

    Example:
        >>> vargrad_loss(torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]]))  # 0, and (4 + 1 + 1) / 4
        tensor([0.0000, 1.5000])
    """
    return (d - d.mean(-1, keepdim=True)).square().sum(-1) / (2 * (_group_size(d) - 1))


def trajectory_balance_loss(d: Tensor, log_z: Tensor) -> Tensor:
    """Compute the trajectory-balance loss with a given partition function, `mean_i (d_i - log Z)^2 / 2`.

    Source: Malkin et al., 2201.13259. Needs no group, so rows may be shuffled. On-policy its gradient is that of
    KL(pi || p) for any `log_z`; off-policy the target is the fixed point only for the exact `log_z`.

    Args:
        d: Residuals with the gradient of the policy in them, shape `(..., G)`.
        log_z: Nats, shape `(...)`, without a gradient.

    Returns:
        Shape `(...)`.

    Example:
        >>> trajectory_balance_loss(torch.tensor([3.0, 1.0]), torch.tensor(2.0))
        tensor(0.5000)
    """
    return (d - log_z.unsqueeze(-1)).square().mean(-1) / 2


def group_log_mean_exp(d: Tensor) -> Tensor:
    """Estimate the `log Z` of a group by importance sampling, `log mean exp d`, detached.

    For samples of the policy `mean exp d` is an unbiased estimate of Z; its logarithm is too low by about half its
    relative variance. Average over visits before taking the logarithm (`OffsetTracker.observe_normaliser`).

    Args:
        d: Residuals, shape `(..., G)`.

    Returns:
        Nats, shape `(...)`.

    Example:
        >>> group_log_mean_exp(torch.tensor([1.0, 3.0]).log()).exp()
        tensor(2.)
    """
    return torch.logsumexp(d.detach(), -1) - math.log(d.shape[-1])


def log_average(before: Tensor, new: Tensor, share: float) -> Tensor:
    """Average two logarithms in the linear domain, `log((1 - share) e^before + share e^new)`.

    Args:
        before: The average so far.
        new: The new observation, same shape.
        share: Weight of `new`, in (0, 1].

    Example:
        >>> log_average(torch.tensor(1.0).log(), torch.tensor(3.0).log(), share=0.25).exp()
        tensor(1.5000)
    """
    return torch.logaddexp(before + math.log1p(-share), new + math.log(share)) if share < 1 else new


def forward_kl_coefficients(d: Tensor, log_z: Tensor) -> Tensor:
    """Compute score coefficients of KL(p || pi): `p / pi - 1 = exp(d - log Z) - 1`, unbounded above.

    Args:
        d: Residuals, shape `(..., G)`.
        log_z: The exact `log Z` in nats, shape `(...)`.

    Returns:
        Shape `(..., G)`, without a gradient.

    Example:
        >>> forward_kl_coefficients(torch.tensor([2.0, 0.5]).log(), torch.tensor(0.0))
        tensor([ 1.0000, -0.5000])
    """
    return torch.expm1(d - log_z.unsqueeze(-1)).detach()


def js_coefficients(d: Tensor, log_z: Tensor) -> Tensor:
    """Compute score coefficients of the Jensen-Shannon divergence, `(softplus(d - log Z) - log 2) / 2`.

    The f-DPG rule (Go et al., 2302.08215). Bounded below by `-log(2) / 2` and linear above, where those of the forward
    KL are exponential.

    Args:
        d: Residuals, shape `(..., G)`.
        log_z: The exact `log Z` in nats, shape `(...)`.

    Returns:
        Shape `(..., G)`, without a gradient.

    Example:
        >>> js_coefficients(torch.tensor([0.0, 10.0, -10.0]), torch.tensor(0.0))
        tensor([ 0.0000,  4.6534, -0.3466])
    """
    return ((softplus(d - log_z.unsqueeze(-1)) - math.log(2)) / 2).detach()


def reward_to_go(reward: Tensor, beta: float, log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Compute the score coefficient of every token, `R / beta - sum_{s >= t} (log pi_s - log pi_ref_s)`.

    A token cannot change the log-ratios of the tokens before it, so dropping them from its coefficient leaves
    `sum_t c_t grad log pi_t` an unbiased estimate of `-grad KL(pi || p)`. Subtract a baseline that does not depend on
    the token, such as the mean at its position over the other completions of the group. Unlike those of
    `leave_one_out`, the coefficients are not zero at the target.

    Args:
        reward: Aggregated reward R in logits, shape `(N,)`.
        beta: Temperature, in logits.
        log_ratio: `log pi - log pi_ref` of each token, nats, shape `(N, T)`.
        mask: True (or 1) for the tokens that the policy chose, shape `(N, T)`; others are never read.

    Returns:
        Nats, shape `(N, T)`, without a gradient; 0 outside the mask.

    Raises:
        ValueError: If `beta` is not positive and finite.

    Example:
        >>> log_ratio, mask = torch.tensor([[0.5, 0.2, 9.0]]), torch.tensor([[1, 1, 0]])
        >>> reward_to_go(torch.tensor([2.0]), 1.0, log_ratio, mask)  # 2 − .7, 2 − .2, and padding
        tensor([[1.3000, 1.8000, 0.0000]])
    """
    return _reward_minus(reward, beta, _sum_from(log_ratio, mask), mask)


def rao_blackwell_to_go(reward: Tensor, beta: float, token_kl: Tensor, mask: Tensor) -> Tensor:
    """Compute the score coefficient of every token with expected log-ratios, `R / beta - sum_{s > t} KL_s`.

    `KL_s = KL(pi(. | y_<s) || pi_ref(. | y_<s))`, over the whole vocabulary, is the expectation of the sampled
    log-ratio of token s. The distribution at t changes its own `KL_t` too, so the loss is

        sum_t (KL_t - c_t log pi_t)    with the gradient in `KL_t` and `log pi_t`, not in `c_t`,

    and its gradient an unbiased estimate of `grad KL(pi || p)`. Subtract a baseline as in `reward_to_go`.

    Args:
        reward: Aggregated reward R in logits, shape `(N,)`.
        beta: Temperature, in logits.
        token_kl: `KL_s` in nats, shape `(N, T)`.
        mask: True (or 1) for the tokens that the policy chose, shape `(N, T)`; others are never read.

    Returns:
        Nats, shape `(N, T)`, without a gradient; 0 outside the mask.

    Raises:
        ValueError: If `beta` is not positive and finite.

    Example:
        >>> rao_blackwell_to_go(torch.tensor([2.0]), 1.0, torch.tensor([[0.5, 0.2]]), torch.tensor([[1, 1]]))
        tensor([[1.8000, 2.0000]])
    """
    counted = torch.where(mask.to(torch.bool), token_kl.detach(), 0.0)
    return _reward_minus(reward, beta, _sum_from(counted, mask) - counted, mask)


def score_function_loss(coefficients: Tensor, log_pi: Tensor) -> Tensor:
    """Return a loss whose gradient is `-mean_i c_i grad log pi(y_i)`; its value has no meaning.

    Args:
        coefficients: Shape `(..., G)`; their gradient is ignored.
        log_pi: Sequence log-probabilities of completions drawn from the policy, nats, shape `(..., G)`.

    Returns:
        Shape `(...)`.

    Example:
        >>> log_pi = torch.tensor([-1.0, -2.0], requires_grad=True)
        >>> score_function_loss(torch.tensor([3.0, -3.0]), log_pi).backward()
        >>> log_pi.grad  # a step down the gradient raises the first
        tensor([-1.5000,  1.5000])
    """
    return -(coefficients.detach() * log_pi).mean(-1)


def exact_divergence(
    log_p: Tensor,
    log_pi: Tensor,
    kind: Divergence = "fkl",
    mask: Tensor | None = None,
    other: bool = True,
    p_other: float = 0.0,
    floor: float = 1e-6,
) -> Tensor:
    """Compute the divergence of policy from target over a finite support and everything else, without sampling.

    The events are the N answers and "other", which has the rest of the policy's mass, `1 - sum pi`. Value and gradient
    are finite everywhere, also at `sum pi = 1` and at answers of probability zero.

    Args:
        log_p: Target log-probabilities in nats, shape `(B, N)`, conditional on the support (normalised here).
        log_pi: Policy sequence log-probabilities in nats, shape `(B, N)`; the mass that they lack to one is "other".
        kind: `"fkl"` KL(p || pi), `"rkl"` KL(pi || p), `"js"` Jensen-Shannon.
        mask: True where there is an answer, shape `(B, N)`; padding is never read and gets no gradient.
        other: False leaves "other" out and compares the policy renormalised over the support.
        p_other: Probability that the target gives to "other".
        floor: For `"rkl"`, which is infinite where the policy can do what the target cannot: the share of the target
            that is spread evenly over all events.

    Returns:
        Nats, shape `(B,)`; zero when policy and target agree, to within rounding (`"rkl"`: to within about `floor`).

    Raises:
        ValueError: If `kind` is unknown, `p_other` or `floor` is out of range, a row has no answer, or the
            probabilities of its answers sum to more than one.

    Example:
        >>> target, policy = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.5, 0.25]]).log()
        >>> exact_divergence(target, policy)  # .5 log 1 + .5 log 2
        tensor([0.3466])
        >>> exact_divergence(target, policy, "rkl", other=False)  # log(4/3) · 2/3 + log(2/3) / 3
        tensor([0.0566])
    """
    if kind not in DIVERGENCES:
        raise ValueError(
            f"kind: got {kind!r}; choose one of {', '.join(DIVERGENCES)}.{did_you_mean(kind, DIVERGENCES)}"
        )
    if not 0 <= p_other < 1:
        raise ValueError(f"p_other: got {p_other:g}; it is the target's probability of leaving the support, in [0, 1)")
    if not 0 < floor < 1:
        raise ValueError(f"floor: got {floor:g}; it is a share of the target, in (0, 1)")
    dtype = torch.promote_types(torch.promote_types(log_p.dtype, log_pi.dtype), torch.float32)
    present = torch.ones_like(log_pi, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    if not bool(present.any(-1).all()):
        raise ValueError("mask: a row has no answer (all False): give at least one answer per prompt")
    log_p = _events(log_p.to(dtype), present)
    log_pi = _events(log_pi.to(dtype), present)
    log_p = torch.log_softmax(log_p, -1)
    if other:
        total = torch.logsumexp(log_pi, -1)
        _refuse_excess(total)
        # log(1 - e^total); at total = 0 its slope is infinite, and rounding can carry the sum past one.
        log_rest = torch.log(-torch.expm1(total.clamp(max=-torch.finfo(dtype).eps)))
        log_pi = torch.cat([log_pi, log_rest.unsqueeze(-1)], -1)
        p_rest = torch.full_like(log_rest, p_other).log()
        log_p = torch.cat([log_p + math.log1p(-p_other), p_rest.unsqueeze(-1)], -1)
        present = torch.cat([present, torch.ones_like(present[..., :1])], -1)
    else:
        log_pi = torch.log_softmax(log_pi, -1)
    log_p, log_pi = log_p.clamp(min=_LOG_ZERO), log_pi.clamp(min=_LOG_ZERO)
    if kind == "fkl":
        return _kl(log_p, log_pi)
    if kind == "rkl":
        spread = (floor / present.sum(-1, keepdim=True).to(dtype)).log()
        return _kl(log_pi, torch.logaddexp(log_p + math.log1p(-floor), spread))
    log_m = torch.logaddexp(log_p, log_pi) - math.log(2)
    return (_kl(log_p, log_m) + _kl(log_pi, log_m)) / 2


def _events(log_prob: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, log_prob, _LOG_ZERO).clamp(min=_LOG_ZERO)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _refuse_excess(total: Tensor) -> None:
    excess = total.detach() > math.log1p(_EXCESS)
    if excess.any():
        row = int(excess.reshape(-1).nonzero()[0])
        mass = total.reshape(-1)[row].exp().item()
        raise ValueError(
            f"log_pi: the answers of row {row} have probability {mass:.3f} together, more than one: they must exclude "
            "each other, so list each answer once and end each with the end token"
        )


def _sum_from(values: Tensor, mask: Tensor) -> Tensor:
    """Compute `sum_{s >= t}` of the unmasked values at every t."""
    counted = torch.where(mask.to(torch.bool), values.detach(), 0.0)
    return counted.flip(-1).cumsum(-1).flip(-1)


def _reward_minus(reward: Tensor, beta: float, cost: Tensor, mask: Tensor) -> Tensor:
    check_beta(beta)
    return torch.where(mask.to(torch.bool), reward.detach().unsqueeze(-1) / beta - cost, 0.0)


def _group_size(d: Tensor) -> int:
    if d.shape[-1] < 2:
        raise ValueError(
            f"group: got {d.shape[-1]} completion per prompt, and the baseline of one is the mean of the others: "
            "set num_generations to 2 or more"
        )
    return d.shape[-1]
