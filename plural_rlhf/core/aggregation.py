"""Aggregate the rewards of K clusters into one: validated weights, and the weighted means.

Rewards are Bradley-Terry logits throughout, and every mean returns logits: with one cluster it is the identity.
`targets` builds its pool on `log_power_mean`, `welfare` has the rules that read one part of the jury (the worst-off,
the middle), and `rules` calls all of them by name. Knows nothing of prompts, samples, reference policies or partition
functions.

Two remarks on the rules:

1. A power mean needs positive utilities and Bradley-Terry logits have either sign, so a utility maps them first and
   its inverse maps the mean back (the equally distributed equivalent of Atkinson, 1970).
2. Rewards are identified only up to a constant per cluster and prompt. The weighted mean ranks responses the same
   whatever the constants are; the power mean and the soft minimum do not: centre the clusters on a common response
   first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from reward_models.errors import JuryError, did_you_mean


__all__ = [
    "UTILITIES",
    "Utility",
    "Weights",
    "log_power_mean",
    "normalise_weights",
    "power_mean",
    "soft_minimum",
    "weighted_mean",
]

Weights = Tensor | np.ndarray | Sequence[float]
Utility = Literal["sigmoid", "exp", "identity"]

UTILITIES: tuple[str, ...] = ("sigmoid", "exp", "identity")


def normalise_weights(weights: Weights, num_clusters: int) -> Tensor:
    """Validate weights over the clusters and divide them by their sum.

    Args:
        weights: Non-negative weights, shape `(K,)` or `(..., K)`, of any scale (seats, counts, prevalences).
        num_clusters: K.

    Returns:
        Weights of the same shape that sum to one over the last axis; float64 unless `weights` was a tensor of floats.

    Raises:
        JuryError: If the last axis is not K long, a weight is negative, NaN or infinite, or a row is all zero.

    Example:
        >>> normalise_weights([6, 3, 1], 3)
        tensor([0.6000, 0.3000, 0.1000], dtype=torch.float64)
    """
    if isinstance(weights, Tensor):
        w = as_float(weights)
    else:
        w = torch.as_tensor(np.asarray(weights, dtype=np.float64))
    if w.ndim == 0 or w.shape[-1] != num_clusters:
        number = w.shape[-1] if w.ndim else "one bare number"
        raise JuryError(
            f"weights: got {number}, but the jury has {num_clusters} clusters: give one weight per cluster, in order"
        )
    bad = ~torch.isfinite(w) | (w < 0)
    if bad.any():
        where = bad.nonzero()[0].tolist()
        value = w[tuple(where)].item()
        raise JuryError(
            f"weights: cluster {where[-1]} has weight {value:g}"
            + (f" (row {where[:-1]})" if len(where) > 1 else "")
            + ", and a share of the population is a finite number of at least 0: use 0 to leave a cluster out"
        )
    total = w.sum(-1, keepdim=True)
    if (total == 0).any():
        raise JuryError(
            "weights: all are 0, so nobody is represented: give one cluster a positive weight, or use the prevalence"
        )
    return w / total


def log_power_mean(log_values: Tensor, weights: Weights, power: float) -> Tensor:
    """Compute the logarithm of the weighted power mean, `log (sum_k w_k v_k^power)^(1/power)`, from logarithms.

    Continuous in `power`: 0 is the geometric mean, `-inf` the smallest and `inf` the largest value of the clusters
    with a positive weight. Values and gradients stay finite and accurate for a tiny `power` and for values hundreds of
    nats apart.

    Args:
        log_values: `log v_k`, shape `(..., K)`, finite for every cluster of positive weight.
        weights: Shape `(K,)` or `(..., K)`, broadcast against `log_values`; normalised here.
        power: The exponent, any number of `[-inf, inf]`.

    Returns:
        Shape `(...)`, in the float type of `log_values` (float32 for half precision and integers).

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If `power` is NaN.

    Example:
        >>> log_values = torch.tensor([1.0, 4.0]).log()
        >>> [round(log_power_mean(log_values, [1, 1], p).exp().item(), 3) for p in (-math.inf, -1, 0, 1, math.inf)]
        [1.0, 1.6, 2.0, 2.5, 4.0]
    """
    if math.isnan(power):
        raise ValueError("power: got nan: give a number, or -inf (smallest), 0 (geometric mean), inf (largest)")
    x = as_float(log_values)
    w = normalise_weights(weights, x.shape[-1]).to(x)
    active = w > 0
    if power == 0:
        return torch.where(active, w * torch.where(active, x, 0.0), 0.0).sum(-1)
    extreme = torch.where(active, x, -math.inf).amax(-1) if power > 0 else torch.where(active, x, math.inf).amin(-1)
    if math.isinf(power):
        return extreme
    # Measured from the extreme value all exponents are <= 0: nothing overflows, and the sum of expm1 has terms of one
    # sign, so that dividing by a tiny power magnifies no rounding error. The constant may be detached: it cancels.
    centre = extreme.detach()
    exponent = power * (torch.where(active, x, centre.unsqueeze(-1)) - centre.unsqueeze(-1))
    shortfall = (w * torch.expm1(exponent)).sum(-1)
    near = torch.log1p(shortfall.clamp(min=-0.5))
    log_w = torch.where(active, torch.where(active, w, 1.0).log(), -math.inf)
    far = torch.logsumexp(log_w + exponent, -1)
    return centre + torch.where(shortfall > -0.5, near, far) / power


def weighted_mean(rewards: Tensor, weights: Weights) -> Tensor:
    """Compute the weighted mean, `sum_k w_k r_k`: the utilitarian rule.

    Axioms: anonymous, clone-proof, strictly monotone, commutes with a common shift and scale. The only rule whose
    ranking of responses does not change when a constant is added to the rewards of one head. Any cluster of positive
    weight moves it without limit.

    Args:
        rewards: Logits per cluster, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> weighted_mean(torch.tensor([2.0, -1.0]), [3, 1])  # .75 · 2 − .25 · 1
        tensor(1.2500)
    """
    return log_power_mean(rewards, weights, 0.0)


def power_mean(rewards: Tensor, weights: Weights, p: float, utility: Utility = "sigmoid") -> Tensor:
    """Compute the power mean of utilities, `u^-1((sum_k w_k u(r_k)^p)^(1/p))`.

    `p = 1` is the mean utility, `p = 0` Nash welfare, `p = -inf` the worst-off cluster, `p = inf` the best-off.

    Axioms: anonymous, clone-proof, monotone. With `"sigmoid"` and a finite p one cluster cannot raise it without
    limit, and can lower it without limit only if p <= 0; it commutes with no change of scale. `"exp"` commutes with a
    common shift; one cluster can raise it without limit if p >= 0 and lower it without limit if p <= 0. `"identity"`
    commutes with a common factor.

    Args:
        rewards: Logits per cluster, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        p: The exponent.
        utility: `"sigmoid"`: the probability that the cluster prefers the response to one of reward 0. `"exp"`: the
            odds of that. `"identity"`: the reward itself, which must then be positive.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the utility is unknown, `p` is NaN, or a utility is not positive.

    Example:
        >>> power_mean(torch.tensor([1.0, 4.0]), [1, 1], p=0, utility="identity")  # the geometric mean
        tensor(2.)
        >>> power_mean(torch.tensor([8.0, 0.0]), [1, 1], p=1)  # logit of (.99966 + .5) / 2
        tensor(1.0977)
    """
    r = as_float(rewards)
    if utility == "exp":
        return log_power_mean(r, weights, p)
    if utility == "sigmoid":
        log_mean = log_power_mean(logsigmoid(r), weights, p)
        # A reward near 90 has a probability that rounds to one: keep its logit finite.
        log_mean = log_mean.clamp(max=-torch.finfo(r.dtype).tiny)
        return log_mean - torch.log(-torch.expm1(log_mean))
    if utility == "identity":
        active = (normalise_weights(weights, r.shape[-1]) > 0).to(r.device)
        if bool((~(r > 0) & active).any()):
            where = (~(r > 0) & active).nonzero()[0].tolist()
            raise ValueError(
                f"power mean: the reward of cluster {where[-1]} is {r[tuple(where)].item():g}, and a power mean needs "
                "positive utilities: use utility='sigmoid' (probability of being preferred) or utility='exp' (odds)"
            )
        return log_power_mean(torch.where(active, r, 1.0).log(), weights, p).exp()
    raise ValueError(
        f"utility: got {utility!r}; choose one of {', '.join(UTILITIES)}.{did_you_mean(utility, UTILITIES)}"
    )


def soft_minimum(rewards: Tensor, weights: Weights, temperature: float = 1.0) -> Tensor:
    """Compute the soft minimum over the clusters, `-T log sum_k w_k exp(-r_k / T)`.

    Between the worst-off cluster (`T -> 0`) and the weighted mean (`T -> inf`), never below the first or above the
    second.

    Axioms: anonymous, clone-proof, monotone, commutes with a common shift (and scale, if T scales too). For a finite T
    one cluster can lower it without limit but not raise it.

    Args:
        rewards: Logits per cluster, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.
        temperature: T in logits; 0 is the minimum, `inf` the weighted mean.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If the temperature is negative or NaN.

    Example:
        >>> rewards = torch.tensor([2.0, -1.0])
        >>> [round(soft_minimum(rewards, [1, 1], t).item(), 3) for t in (0.0, 1.0, 100.0)]
        [-1.0, -0.355, 0.489]
    """
    if not temperature >= 0:
        raise ValueError(f"temperature: got {temperature:g}; it is a number of logits, 0 (minimum) or more")
    return log_power_mean(rewards, weights, -1.0 / temperature if temperature > 0 else -math.inf)


def as_float(x: Tensor) -> Tensor:
    """Return `x` in its float type, or in float32 where that is shorter or it holds integers."""
    # Half precision resolves a log-sum-exp of +-50 to a few per cent only.
    return x.to(torch.promote_types(x.dtype, torch.float32))
