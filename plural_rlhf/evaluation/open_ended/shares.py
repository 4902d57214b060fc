"""For whom were texts written? Shares of clusters by maximum likelihood, and what their error could have been.

The policy for one cluster alone is `pi_k = pi_0 exp(r_k / beta) / Z_k`, whose density relative to pi_0 is known from
rewards. Texts are read as a mixture of these `K` policies and of pi_0, which writes for no cluster in particular. The
mean responsibility of a cluster is no such share: it is the weight for texts of the target only, and for texts of pi_0
or of people it says how selective the cluster is. Knows nothing of policies or how texts came about.

Shapes: `R` prompts, `N` texts, `M` texts of the reference policy, `K` clusters, `B` replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.open_ended.divergences import reference_log_z


__all__ = ["ShareReading", "division_error", "error_parts", "mixture_shares", "read_shares", "tells_shares"]

REPLICATES = 40
STEPS = 200
"""Steps of expectation maximisation."""
FOR_NOBODY = 0.1
"""Share for no cluster at the start. Clusters have the rest by weight, and keep it where the data cannot tell."""
FEW = 1e-3
"""Below this share of the texts for clusters, their division among clusters is not defined."""


@dataclass(frozen=True)
class ShareReading:
    """For whom the texts of one writer to one prompt were written.

    Attributes:
        shares: (K + 1,) share of the texts written for each cluster, and last for no cluster in particular, as pi_0
            writes; they sum to one.
        fair: (B, K + 1) the same of as many texts, as many of them for a cluster, in the right shares.
        one_camp: (B, K + 1) the same of texts that are all for the cluster of the largest weight.

    Example:
        >>> rewards = np.log([[4.0, 1.0], [1.0, 4.0], [1.0, 1.0]])
        >>> rng = np.random.default_rng(0)
        >>> read = read_shares(np.repeat(rewards[:1], 30, axis=0), rewards, np.array([0.5, 0.5]), 1.0, rng)
        >>> read.shares.round(2).tolist(), read.fair.shape
        ([1.0, 0.0, 0.0], (40, 3))
    """

    shares: np.ndarray
    fair: np.ndarray
    one_camp: np.ndarray


def mixture_shares(log_densities: np.ndarray, weights: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Fit the shares of a mixture of `K` cluster policies and pi_0 by expectation maximisation.

    This is the maximum-likelihood estimate of class shares of unlabelled data (Saerens et al. 2002,
    https://doi.org/10.1162/089976602753284446), for densities that are known.

    Args:
        log_densities: (..., N, K) log of the density of each text under each cluster's policy, divided by that under
            pi_0, nats.
        weights: (K,) where the shares start.
        steps: Steps of expectation maximisation.

    Returns:
        (..., K + 1) shares that sum to one; the last is for no cluster.

    Example:
        >>> first, second = np.log([4.0, 0.2]), np.log([0.2, 4.0])
        >>> mixture_shares(np.array([first] * 7 + [second] * 3), np.array([0.5, 0.5])).round(2).tolist()
        [0.72, 0.28, 0.0]
        >>> mixture_shares(np.full((9, 2), -0.7), np.array([0.5, 0.5])).round(2).tolist()  # likelier under pi_0
        [0.0, 0.0, 1.0]
    """
    logs = np.concatenate([log_densities, np.zeros((*log_densities.shape[:-1], 1))], axis=-1)
    table = np.exp(logs - logs.max(axis=-1, keepdims=True))
    start = np.append((1 - FOR_NOBODY) * np.asarray(weights, np.float64), FOR_NOBODY)
    shares: np.ndarray = np.broadcast_to(start, (*log_densities.shape[:-2], len(start)))
    for _ in range(steps):
        joint = table * shares[..., None, :]
        shares = (joint / joint.sum(axis=-1, keepdims=True)).mean(axis=-2)
    return shares


def division_error(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the largest relative error of a cluster's share among the texts that were written for a cluster.

    Args:
        shares: (..., R, K + 1) of each prompt, the last for no cluster.
        weights: (K,) all above 0.

    Returns:
        (...), the mean over prompts, each with the share of its texts that are for a cluster; nan where none is.

    Example:
        >>> weights = np.array([0.5, 0.5])
        >>> division_error(np.array([[0.3, 0.1, 0.6], [0.0, 0.0, 1.0]]), weights).item()  # .75 of .4 in place of .5
        0.5
        >>> division_error(np.array([[0.0, 0.0, 1.0]]), weights).item()
        nan
    """
    excess, claimed = error_parts(shares, weights)
    total = claimed.sum(axis=-1)
    return np.divide(excess.sum(axis=-1), total, out=np.full_like(total, np.nan), where=total > FEW)


def error_parts(shares: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numerator and denominator of `division_error` for each prompt, (..., R) each.

    Example:
        >>> excess, claimed = error_parts(np.array([[0.3, 0.1, 0.6]]), np.array([0.5, 0.5]))
        >>> excess.round(3).tolist(), claimed.round(3).tolist()
        ([0.2], [0.4])
    """
    claimed = shares[..., :-1].sum(axis=-1)
    excess: np.ndarray = (np.abs(shares[..., :-1] - claimed[..., None] * weights) / weights).max(axis=-1)
    return excess, claimed


def read_shares(
    rewards: np.ndarray,
    reference_rewards: np.ndarray,
    weights: np.ndarray,
    beta: float,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> ShareReading:
    """Read for whom texts were written, and what the reading would be of fair texts and of a one-camp policy.

    Both are drawn from the reference policy's texts in proportion to the densities, and read with normalisers of
    reference texts that are drawn anew, as the real ones were drawn once.

    Args:
        rewards: (N, K) logits.
        reference_rewards: (M, K) of texts of the reference policy.
        weights: (K,) weights of the target, all above 0.
        beta: Temperature of the target, in logits.
        rng: Random generator.
        replicates: `B`; 0 where the error of the shares is not asked for.
    """
    log_z = reference_log_z(reference_rewards, beta)
    fitted = mixture_shares(rewards / beta - log_z, weights)
    scaled = reference_rewards / beta
    m, n, claimed = len(scaled), len(rewards), 1.0 - fitted[-1]
    again = reference_log_z(reference_rewards[rng.integers(m, size=(replicates, m))], beta)

    def drawn_again(division: np.ndarray) -> np.ndarray:
        density = claimed * (np.exp(scaled - log_z) @ division) + 1.0 - claimed
        drawn = rng.choice(m, size=(replicates, n), p=density / density.sum())
        return mixture_shares(scaled[drawn] - again[:, None], weights, STEPS // 4)

    largest = np.eye(len(weights))[int(np.argmax(weights))]
    return ShareReading(fitted, drawn_again(np.asarray(weights, np.float64)), drawn_again(largest))


def tells_shares(fair: np.ndarray, one_camp: np.ndarray) -> bool:
    """Decide whether the error of shares says anything: would a one-camp policy show more than chance does?

    Args:
        fair: (B,) errors of fair texts.
        one_camp: (B,) errors of texts for one cluster alone.

    Returns:
        Whether 90 % of the one-camp errors are above 90 % of the fair ones. False where one of them is not defined.

    Example:
        >>> tells_shares(np.array([0.1, 0.2, 0.3]), np.array([0.8, 0.9, 1.0]))
        True
        >>> tells_shares(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.9]))
        False
    """
    return bool(np.quantile(one_camp, 0.1) > np.quantile(fair, 0.9))
