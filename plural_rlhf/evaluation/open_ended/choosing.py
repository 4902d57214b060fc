"""How far a policy is from reference and target that chooses each of its texts among candidates of the reference.

The probability of a chosen text is not known, but the law of choosing is. A text y among n candidates of the reference
policy is chosen with a probability that depends on their rewards, and over all hands of candidates

    q(y) = g(y) · reference(y)  with  g(y) = n · E[chance of y | y is one candidate, the reference draws the others]

g and the divergences that follow from it are estimated from rewards of texts of the reference policy. Knows nothing of
prompts: one call, one prompt.

Shapes: `M` texts of the reference policy, `n` candidates, `H` hands of candidates, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from plural_rlhf.core.aggregation import normalise_weights
from plural_rlhf.core.targets import pool_reward
from plural_rlhf.evaluation.open_ended.divergences import MIN_EFFECTIVE_SAMPLES, TargetDivergence, reference_log_z
from reward_models.stats.shares import kish_n


__all__ = ["Chances", "Choosing", "choice_divergences"]

Chances = Callable[[np.ndarray], np.ndarray]
"""Maps rewards of hands (H, n, K) to the probability of each candidate (H, n) that it is chosen."""
SHUFFLES = 256
"""So often are all texts shuffled and dealt: in about as many hands is each text."""


@dataclass(frozen=True)
class Choosing:
    """How a policy chooses its texts among candidates of the reference policy.

    Attributes:
        candidates: `n`, how many texts the reference policy draws for each text of the policy.
        chances: Probability of each candidate that it is chosen.
        rewards: (M, K) by prompt, of texts of the reference policy by the training jury, logits.

    Example:
        >>> first = Choosing(2, lambda hands: np.array([[1.0, 0.0]] * len(hands)), {"What now?": np.zeros((9, 1))})
        >>> first.chances(np.zeros((1, 2, 1))).tolist()
        [[1.0, 0.0]]
    """

    candidates: int
    chances: Chances
    rewards: Mapping[str, np.ndarray]


def choice_divergences(
    rewards: np.ndarray,
    candidates: int,
    chances: Chances,
    rng: np.random.Generator,
    *,
    weights: np.ndarray,
    beta: float,
    rho: float = 1.0,
    min_effective: float = MIN_EFFECTIVE_SAMPLES,
) -> tuple[float | None, TargetDivergence]:
    """Estimate `KL(q || reference)` and `KL(q || target)` of what is chosen, the target as for `kl_to_target`.

    g is a mean over random hands. The jackknife over the texts takes out the bias of the logarithms, as in
    `kl_to_target`, and gives the standard error. A hand goes with each of its n texts, so that the jackknife takes out
    what is due to the choice of hands n - 1 times; n - 2 times are given back (second order).

    Args:
        rewards: (M, K) of texts of the reference policy, logits.
        candidates: `n`.
        chances: The law of choosing.
        rng: Deals the hands.
        weights: (K,) weights of the target; normalised here.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.
        min_effective: Fewest effective texts.

    Returns:
        Nats, or None; and the estimate or why there is none. Effective texts are those of the cluster that they please
        least or, if these are fewer, those behind means over what is chosen.

    Example:
        The better of two of 400 texts that all differ: log 2 - 1/2 nats from the reference.

        >>> best = lambda hands: (hands[..., 0] == hands[..., 0].max(axis=1, keepdims=True)).astype(float)
        >>> texts = np.arange(400.0)[:, None] / 400
        >>> kl, target = choice_divergences(texts, 2, best, np.random.default_rng(0), weights=np.ones(1), beta=1.0)
        >>> round(kl, 2), round(float(np.log(2) - 0.5), 2), target.reason is None
        (0.19, 0.19, True)
    """
    rewards = np.asarray(rewards, np.float64)
    m = len(rewards)
    if m < 2 * candidates:
        reason = (
            f"{m} texts of the reference policy are too few to say what is chosen among {candidates}, the estimate "
            f"needs {2 * candidates}. Fix: draw more texts per prompt"
        )
        return None, TargetDivergence(None, None, float(m), reason)
    chosen, dealt, squares = _tables(rewards, candidates, chances, rng)
    means = np.diag(chosen) / np.diag(dealt)
    densities = candidates * means
    used = normalise_weights(list(weights), rewards.shape[-1]).numpy() > 0
    importance = np.exp((rewards - rewards.max(axis=0)) / beta)
    effective = float(min(kish_n(importance)[used].min(), kish_n(densities)))
    if effective < min_effective:
        reason = (
            f"{m} texts of the reference policy count as {effective:.1f} for the cluster that they please least, or "
            f"for what is chosen, and the estimate needs {min_effective:g}. Fix: draw more texts per prompt, or "
            "choose a larger beta"
        )
        return None, TargetDivergence(None, None, effective, reason)

    def estimates(kept: np.ndarray, density: np.ndarray) -> np.ndarray:
        """(2,) the divergences, from some of the texts."""
        some = rewards[kept]
        log_z = torch.from_numpy(reference_log_z(some, beta))
        pooled = pool_reward(torch.from_numpy(some), list(weights), log_z, beta, rho).numpy() / beta
        share = density / density.sum()
        log_density = np.log(np.where(share > 0, density / density.mean(), 1.0))  # what is never chosen adds nothing
        kl = float(share @ log_density)
        return np.array([kl, kl - share @ pooled + np.logaddexp.reduce(pooled) - np.log(len(some))])

    everything = estimates(np.ones(m, dtype=bool), densities)
    without = np.empty((m, 2))
    for left in range(m):
        kept = np.arange(m) != left
        hands = (np.diag(dealt) - dealt[:, left])[kept]
        density = candidates * (np.diag(chosen) - chosen[:, left])[kept] / np.maximum(hands, 1)
        without[left] = estimates(kept, density)
    noise = (squares / np.diag(dealt) - means**2) / np.diag(dealt)  # variance of a mean over hands
    hands_given_back = (candidates - 2) / 2 * (noise / np.maximum(means, 1e-300)).sum() / means.sum()
    kl, value = m * everything - (m - 1) * without.mean(axis=0) + hands_given_back
    variance = (m - 1) / m * ((without[:, 1] - without[:, 1].mean()) ** 2).sum()
    return float(kl), TargetDivergence(float(value), float(np.sqrt(variance)), effective)


def _tables(
    rewards: np.ndarray, candidates: int, chances: Chances, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum over hands with text i and text j (M, M): the chance of i, and one; and (M,) squared chances of i."""
    m = len(rewards)
    shuffled = rng.permuted(np.tile(np.arange(m), (SHUFFLES, 1)), axis=1)
    hands = shuffled[:, : m // candidates * candidates].reshape(-1, candidates)
    rows = np.arange(len(hands))[:, None]
    chance, member = np.zeros((len(hands), m)), np.zeros((len(hands), m))
    chance[rows, hands] = chances(rewards[hands])
    member[rows, hands] = 1.0
    return chance.T @ member, member.T @ member, (chance**2).sum(axis=0)
