"""How far a policy has moved from its reference, and how far it still is from its target, by sampled texts.

The target is the pool of `core.targets` at the reference policy, given weights, `beta` and `rho`. Its normalisers are
unknown for texts that nobody can enumerate; they are estimated over samples of the reference policy, and the estimate
is refused where these hardly ever say what a cluster wants. Knows nothing of prompts: one call, one prompt.

Shapes: `N` samples of the policy, `M` of the reference policy, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plural_rlhf.core.aggregation import normalise_weights
from plural_rlhf.core.targets import pool_reward
from reward_models.stats.shares import kish_n


__all__ = ["MIN_EFFECTIVE_SAMPLES", "TargetDivergence", "kl_to_target", "reference_log_z", "sequence_kl"]

MIN_EFFECTIVE_SAMPLES = 8.0
"""Fewest effective reference samples per cluster for a divergence from the target: the standard error of a cluster's
`log Z` is about one over the square root of their number, here a third of a nat."""


@dataclass(frozen=True)
class TargetDivergence:
    """An estimate of the divergence of a policy from its target, or why there is none.

    Attributes:
        value: Nats; None where there is none.
        standard_error: Nats, over both samples; None where there is none.
        effective_samples: Kish's effective number of reference samples, of the cluster with the fewest.
        reason: Why there is no value; None if there is one.

    Example:
        >>> few = kl_to_target([0.0], [0.0], np.zeros((1, 1)), np.zeros((4, 1)), weights=[1.0], beta=1.0)
        >>> print(few.value, few.effective_samples, few.reason)
        None 4.0 4 reference samples count as 4.0 for the cluster that they please least, and the estimate needs 8...
    """

    value: float | None
    standard_error: float | None
    effective_samples: float
    reason: str | None = None


def sequence_kl(log_probs: Sequence[float], reference_log_probs: Sequence[float]) -> tuple[float, float]:
    """Estimate `KL(policy || reference)` of whole texts, and its standard error, over samples of the policy.

    Args:
        log_probs: (N,) log-probability of each text under the policy, its end included, in nats.
        reference_log_probs: (N,) the same under the reference policy.

    Returns:
        Mean of the differences and its standard error, nats; nan for the error of one text.

    Example:
        >>> kl, error = sequence_kl([-10.0, -12.0, -11.0], [-11.0, -12.5, -12.5])
        >>> round(kl, 3), round(error, 3)
        (1.0, 0.289)
    """
    ratio = np.asarray(log_probs, dtype=np.float64) - np.asarray(reference_log_probs, dtype=np.float64)
    error = float(ratio.std(ddof=1) / np.sqrt(len(ratio))) if len(ratio) > 1 else float("nan")
    return float(ratio.mean()), error


def reference_log_z(reference_rewards: np.ndarray, beta: float) -> np.ndarray:
    """Estimate `log Z_k = log E[exp(r_k / beta)]` over samples of the reference policy.

    Args:
        reference_rewards: (..., M, K) logits.
        beta: Temperature, in logits.

    Returns:
        (..., K) nats.

    Example:
        >>> reference_log_z(np.log([[4.0, 1.0], [2.0, 1.0]]), beta=1.0).round(4).tolist()  # log 3, log 1
        [1.0986, 0.0]
    """
    scaled = np.asarray(reference_rewards, dtype=np.float64) / beta
    return np.logaddexp.reduce(scaled, axis=-2) - np.log(scaled.shape[-2])


def kl_to_target(
    log_probs: Sequence[float],
    reference_log_probs: Sequence[float],
    rewards: np.ndarray,
    reference_rewards: np.ndarray,
    *,
    weights: Sequence[float] | np.ndarray,
    beta: float,
    rho: float = 1.0,
    min_effective: float = MIN_EFFECTIVE_SAMPLES,
) -> TargetDivergence:
    """Estimate `KL(policy || target)`, where the target is proportional to `reference · exp(R / beta)`.

    It is `E[log policy - log reference - R / beta]` over samples of the policy plus `log E[exp(R / beta)]` over
    samples of the reference policy, and so are the `log Z_k` in R (`pool_reward`). Two logarithms of means are
    estimated, which are off by half their relative variance; the jackknife over the reference samples takes that
    out and gives their part of the standard error. Samples of the policy may be the reference samples themselves,
    where the policy is the reference.

    Args:
        log_probs: (N,) log-probability of each sample of the policy under it, its end included, in nats.
        reference_log_probs: (N,) the same under the reference policy.
        rewards: (N, K) rewards of these samples, logits.
        reference_rewards: (M, K) rewards of samples of the reference policy.
        weights: (K,) weights of the target; normalised here.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.
        min_effective: Fewest effective reference samples, see `MIN_EFFECTIVE_SAMPLES`.

    Returns:
        The estimate. It may lie below 0 by its error.

    Example:
        Two answers, of which the reference gives each half the time; the jury's odds for the first are 3 to 1:

        >>> first = np.array([[np.log(3.0)], [0.0]])
        >>> reference, policy = np.repeat(first, 500, axis=0), np.repeat(first, [750, 250], axis=0)
        >>> log_half = np.log(np.full(1000, 0.5))
        >>> at_reference = kl_to_target(log_half, log_half, reference, reference, weights=[1.0], beta=1.0)
        >>> round(at_reference.value, 3)  # log 2 - log(3) / 2
        0.144
        >>> log_target = np.log(np.repeat([0.75, 0.25], [750, 250]))
        >>> at_target = kl_to_target(log_target, log_half, policy, reference, weights=[1.0], beta=1.0)
        >>> round(abs(at_target.value), 3)
        0.0
    """
    rewards, reference_rewards = np.asarray(rewards, np.float64), np.asarray(reference_rewards, np.float64)
    m = len(reference_rewards)
    used = normalise_weights(list(weights), rewards.shape[-1]).numpy() > 0
    importance = np.exp(reference_rewards / beta - (reference_rewards / beta).max(axis=0, initial=-np.inf))
    effective = float(kish_n(importance)[used].min())
    if m < 2 or len(rewards) < 1 or effective < min_effective:
        return TargetDivergence(
            None,
            None,
            effective,
            f"{m} reference samples count as {effective:.1f} for the cluster that they please least, and the estimate "
            f"needs {min_effective:g}. Fix: draw more samples of the reference policy, or choose a larger beta",
        )
    ratio = np.asarray(log_probs, np.float64) - np.asarray(reference_log_probs, np.float64)

    def estimates(kept: np.ndarray) -> np.ndarray:
        """(N,) the terms of the policy's samples, with the normalisers of some of the reference samples."""
        log_z = reference_log_z(reference_rewards[kept], beta)
        both = np.concatenate([rewards, reference_rewards[kept]])
        pooled = pool_reward(torch.from_numpy(both), list(weights), torch.from_numpy(log_z), beta, rho).numpy() / beta
        normaliser = np.logaddexp.reduce(pooled[len(rewards) :]) - np.log(kept.sum())
        return ratio - pooled[: len(rewards)] + normaliser

    terms = estimates(np.ones(m, dtype=bool))
    without = np.array([estimates(np.arange(m) != left).mean() for left in range(m)])
    value = m * terms.mean() - (m - 1) * without.mean()
    variance = (m - 1) / m * ((without - without.mean()) ** 2).sum()
    if len(terms) > 1:
        variance += terms.var(ddof=1) / len(terms)
    return TargetDivergence(float(value), float(np.sqrt(variance)), effective)
