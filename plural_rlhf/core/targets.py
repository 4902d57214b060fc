"""Which distribution the policy should have: the pool of the clusters' own optima, with one dial `rho`.

Cluster k, alone, wants `p_k = pi_ref exp(r_k / beta) / Z_k` with `Z_k = E_{pi_ref}[exp(r_k / beta)]`. The target is

    p_rho(y)  is proportional to  pi_ref(y) [ sum_k w_k exp(rho (r_k(y) / beta - log Z_k)) ]^(1 / rho)

`rho = 1` is the mixture `sum_k w_k p_k` (representation), `rho = 0` the log pool of the mean reward (consensus),
`-inf` the worst-off cluster, `inf` anyone's favourite; with K = 1 they coincide. Each is the KL-regularised optimum of
one aggregated reward, `pool_reward`, so whatever can follow a reward can follow any of them.

Knows nothing of models, samples or how to get there: see `estimators` for that, and `offsets` where `log Z_k` is not
computable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .aggregation import Weights, log_power_mean, normalise_weights


__all__ = ["PoolTarget", "log_partition", "pool_reward", "responsibilities", "saturate"]


def log_partition(rewards: Tensor, log_pi_ref: Tensor, beta: float, mask: Tensor | None = None) -> Tensor:
    """Exact `log Z_k = log sum_n pi_ref(n) exp(r_k(n) / beta)` over a finite support.

    Where `log_pi_ref` does not sum to one over the support, every `log Z_k` of the prompt moves by the same constant,
    which no target notices.

    Args:
        rewards: Logits, shape `(B, N, K)` (any leading axes).
        log_pi_ref: Log-probabilities of the answers in nats, shape `(B, N)`; `-inf` is allowed.
        beta: Temperature, in logits.
        mask: True where there is an answer, shape `(B, N)`; padding is never read.

    Returns:
        Nats, shape `(B, K)`.

    Raises:
        ValueError: If `beta` is not positive, or a prompt has no answer or none that `pi_ref` can give.
    """
    _check_beta(beta)
    log_pi_ref, mask = _prepare(log_pi_ref, mask)
    unreachable = log_pi_ref.amax(-1) == -math.inf
    if unreachable.any():
        raise ValueError(
            f"support: the reference gives every answer of prompt {_first(unreachable)} of the batch probability 0, "
            "so no target exists there: check the log-probabilities, or drop the reference with reference_power=0"
        )
    r = torch.where(mask.unsqueeze(-1), rewards, 0.0).to(torch.promote_types(rewards.dtype, torch.float32))
    return torch.logsumexp(r / beta + log_pi_ref.to(r).unsqueeze(-1), -2)


def pool_reward(rewards: Tensor, weights: Weights, log_z: Tensor, beta: float, rho: float) -> Tensor:
    """The reward whose KL-regularised optimum is the pool.

    `R = (beta / rho) log sum_k w_k exp(rho (r_k / beta - log Z_k))`. At `rho = 1` and with the exact `log Z_k`,
    `E_{pi_ref}[exp(R / beta)] = 1`.

    Args:
        rewards: Logits, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`, broadcast against `rewards`; normalised here.
        log_z: `log Z_k` in nats up to a constant over k, shape `(..., K)`, broadcast against `rewards`.
        beta: Temperature, in logits.
        rho: The dial, any number of `[-inf, inf]`; continuous at 0.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If `beta` is not positive or `rho` is NaN.
    """
    _check_beta(beta)
    _check_rho(rho)
    return beta * log_power_mean(rewards / beta - log_z.to(rewards), weights, rho)


def responsibilities(rewards: Tensor, weights: Weights, log_z: Tensor, beta: float, rho: float = 1.0) -> Tensor:
    """How much each cluster accounts for a response, `gamma_k = dR_rho / dr_k`.

    In proportion to `w_k exp(rho (r_k / beta - log Z_k))`. At `rho = 1` this is the posterior probability that a
    response drawn from the mixture came from cluster k. At `rho = 0` it is `w_k`; at `-inf` and `inf` the extreme
    clusters share it by their weights.

    Args:
        rewards: Logits, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`, broadcast against `rewards`; normalised here.
        log_z: Nats, shape `(..., K)`, broadcast against `rewards`.
        beta: Temperature, in logits.
        rho: The dial, any number of `[-inf, inf]`.

    Returns:
        Shape `(..., K)`, non-negative, one in sum over k.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If `beta` is not positive or `rho` is NaN.
    """
    _check_beta(beta)
    _check_rho(rho)
    x = rewards / beta - log_z.to(rewards)
    w = normalise_weights(weights, x.shape[-1]).to(x).expand_as(x)
    if math.isinf(rho):
        signed = torch.where(w > 0, math.copysign(1.0, rho) * x, -math.inf)
        at_extreme = torch.where(signed == signed.amax(-1, keepdim=True), w, 0.0)
        return at_extreme / at_extreme.sum(-1, keepdim=True)
    log_w = torch.where(w > 0, torch.where(w > 0, w, 1.0).log(), -math.inf)
    return torch.softmax(log_w + rho * x, -1)


def saturate(
    rewards: Tensor, tie_margin: float, smooth: float = 0.0, dim: int = -2, best: Tensor | None = None
) -> Tensor:
    """Make ties of near-ties, `r' = min(r, best - tie_margin)` per cluster.

    Responses near the best then keep the ratio that they have under `pi_ref`, for every beta. The smooth form is
    `c - s softplus((c - r) / s)` with `c = best - tie_margin` and `s = smooth`.

    Args:
        rewards: Logits, shape `(..., N, K)` with the default `dim`.
        tie_margin: How far below the best a response may be and still tie, in logits. A natural choice is
            `logit(0.5 + e)`: a pair where at most a share `0.5 + e` of the raters prefers one; `e = 0.05` is 0.2.
        smooth: Width of the rounding in logits; 0 is the hard form.
        dim: The axis of the answers.
        best: The best reward, broadcast against `rewards` (a running maximum of the prompt, where the rewards are of a
            sample only); default: the maximum over `dim`.

    Returns:
        Logits, same shape.

    Raises:
        ValueError: If `tie_margin` or `smooth` is negative or NaN.
    """
    if not tie_margin >= 0:
        raise ValueError(f"tie_margin: got {tie_margin:g}; it is a distance in logits, 0 (off) or more")
    if not smooth >= 0:
        raise ValueError(f"smooth: got {smooth:g}; it is a width in logits, 0 (hard) or more")
    ceiling = (rewards.amax(dim, keepdim=True) if best is None else best.to(rewards)) - tie_margin
    if smooth == 0:
        return torch.minimum(rewards, ceiling)
    return ceiling - smooth * softplus((ceiling - rewards) / smooth)


@dataclass(frozen=True)
class PoolTarget:
    """The `rho`-pool over a finite set of answers, exactly.

    Args:
        rho: 1 mixture, 0 log pool, `-inf` worst-off cluster, `inf` union; any number between.
        beta: Temperature, in logits; 1 keeps the odds of a preference as they are.
        tie_margin: Responses within this many logits of a cluster's best count as tied with it (see `saturate`); 0 is
            off.
        reference_power: Exponent of `pi_ref`; 0 drops the reference, 1 keeps it.

    Raises:
        ValueError: If `beta` is not positive, `rho` is NaN, or `tie_margin` or `reference_power` is negative.

    Example:
        >>> rewards = torch.tensor([[[8.0, 0.0], [0.0, 8.0]]])  # two answers, two clusters that want one each
        >>> log_pi_ref = torch.full((1, 2), 0.5).log()
        >>> PoolTarget(rho=1.0).log_probs(rewards, torch.tensor([[0.9, 0.1]]), log_pi_ref).exp()
        tensor([[0.8997, 0.1003]])
        >>> PoolTarget(rho=0.0).log_probs(rewards, torch.tensor([[0.9, 0.1]]), log_pi_ref).exp()
        tensor([[0.9983, 0.0017]])
    """

    rho: float = 1.0
    beta: float = 1.0
    tie_margin: float = 0.0
    reference_power: float = 1.0

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        _check_rho(self.rho)
        if not self.tie_margin >= 0:
            raise ValueError(f"tie_margin: got {self.tie_margin:g}; it is a distance in logits, 0 (off) or more")
        if not 0 <= self.reference_power < math.inf:
            raise ValueError(
                f"reference_power: got {self.reference_power:g}; it is the exponent of pi_ref, 0 (dropped) or more"
            )

    def log_probs(self, rewards: Tensor, weights: Weights, log_pi_ref: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities of the target over the support.

        Args:
            rewards: Logits, shape `(B, N, K)`.
            weights: Shape `(K,)` or `(B, K)`.
            log_pi_ref: Nats, shape `(B, N)`; need not be normalised over the support.
            mask: True where there is an answer, shape `(B, N)`; padding is never read.

        Returns:
            Nats, shape `(B, N)`, normalised over the support; `-inf` at padding.

        Raises:
            JuryError: If the weights are unusable.
            ValueError: If a prompt has no answer.
        """
        log_pi_ref, mask = _prepare(log_pi_ref, mask)
        present = mask.unsqueeze(-1)
        r = torch.where(present, rewards, 0.0).to(torch.promote_types(rewards.dtype, torch.float32))
        if self.tie_margin > 0:
            r = saturate(r, self.tie_margin, best=torch.where(present, r, -math.inf).amax(-2, keepdim=True))
        if self.reference_power == 0:
            log_ref = torch.where(mask, 0.0, -math.inf).to(r)
        else:
            log_ref = self.reference_power * log_pi_ref.to(r)
        log_z = log_partition(r, log_ref, self.beta, mask)
        w = normalise_weights(weights, r.shape[-1])
        pooled = pool_reward(r, w.unsqueeze(-2), log_z.unsqueeze(-2), self.beta, self.rho)
        return torch.log_softmax(pooled / self.beta + log_ref, -1)


def _prepare(log_pi_ref: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    present = torch.ones_like(log_pi_ref, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    empty = ~present.any(-1)
    if empty.any():
        raise ValueError(
            f"support: prompt {_first(empty)} of the batch has no answer (its mask is all False): "
            "a target needs at least one answer per prompt"
        )
    return torch.where(present, log_pi_ref, -math.inf), present


def _first(rows: Tensor) -> int:
    return int(rows.reshape(-1).nonzero()[0])


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(
            f"beta: got {beta:g}; the temperature must be positive and finite: 1.0 keeps Bradley-Terry odds as they "
            "are, smaller sharpens"
        )


def _check_rho(rho: float) -> None:
    if math.isnan(rho):
        raise ValueError("rho: got nan: give a number, or -inf (worst-off), 0 (log pool), 1 (mixture), inf (union)")
