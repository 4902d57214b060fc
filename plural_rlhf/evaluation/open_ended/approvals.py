"""What clusters think of texts, given rewards: approval, shares of the answers, bridging, wins, gains that last.

All functions are pure: rewards in, numbers out. `vote_approval` reads from a jury what an approval is. Knows nothing
of policies or how texts came about.

Shapes: `N` and `M` texts, `K` clusters, `J` clusters of another jury.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

from plural_rlhf.core.targets import responsibilities
from reward_models.jury.protocol import ClusterScorer


__all__ = [
    "Approval",
    "answer_shares",
    "approval_above",
    "bridging",
    "match_clusters",
    "share_of_gain_kept",
    "vote_approval",
    "win_rate",
]

Approval = Callable[[np.ndarray], np.ndarray]
"""Turns rewards (..., K), in logits, into the probability that a member of each cluster approves, (..., K)."""


def vote_approval(scorer: ClusterScorer) -> Approval | None:
    """Return what an approval is for a jury of votes or ratings: a level above the middle of the scale.

    The probability is averaged over how lenient the members of a cluster are.

    Args:
        scorer: A saved jury (`JuryScorer`).

    Returns:
        None where the jury does not know: it was fitted to no ratings, or is another kind of scorer.

    Example:
        >>> from types import SimpleNamespace
        >>> from reward_models.raters.rater_model import KindTerms
        >>> terms = KindTerms({"thresholds": np.array([-1.0])}, {"intercept": 1.0})
        >>> state = SimpleNamespace(rater_model=SimpleNamespace(terms={"rating": terms}), temperature=None)
        >>> approval = vote_approval(SimpleNamespace(state=state))
        >>> approval(np.array([-1.0, 1.0])).round(3).tolist()  # at the threshold half of the members approve
        [0.5, 0.845]
    """
    state: Any = getattr(scorer, "state", None)
    model = None if state is None else state.rater_model
    if model is None or "rating" not in model.terms:
        return None
    terms = model.terms["rating"]
    thresholds = np.asarray(terms.shared["thresholds"], dtype=np.float64)
    threshold = thresholds[len(thresholds) // 2]
    scale = float(np.exp(np.ravel(terms.shared.get("log_scale_mean", [0.0]))[0])) / (state.temperature or 1.0)
    node, weight = np.polynomial.hermite_e.hermegauss(21)
    leniency = float(terms.sd.get("intercept", 0.0)) * node
    weight = weight / weight.sum()

    def approval(rewards: np.ndarray) -> np.ndarray:
        return expit(np.asarray(rewards, np.float64)[..., None] * scale - threshold + leniency) @ weight

    return approval


def approval_above(zero: np.ndarray) -> Approval:
    """Return an approval for scorers without votes: the odds of a text against one of reward `zero`.

    Args:
        zero: (K,) reward of the text to compare with, e.g. the median over people's answers.

    Example:
        >>> approval_above(np.array([1.0, 0.0]))(np.array([[1.0, 0.0], [1.0, 2.0]])).round(3).tolist()
        [[0.5, 0.5], [0.5, 0.881]]
    """
    return lambda rewards: expit(np.asarray(rewards, np.float64) - zero)


def answer_shares(
    rewards: np.ndarray, weights: Sequence[float] | np.ndarray, log_z: np.ndarray, beta: float
) -> np.ndarray:
    """Compute each cluster's share of every answer: the probability that the answer was drawn for the cluster.

    For samples of the mixture target (`rho` = 1) the mean is the weights. For other texts the mean is no share: most
    of what the reference policy writes is likelier for the cluster that is less selective. See `mixture_shares`.

    Args:
        rewards: (N, K) logits.
        weights: (K,) weights of the target.
        log_z: (K,) nats, from samples of the reference policy (`reference_log_z`).
        beta: Temperature of the target, in logits.

    Returns:
        (N, K), each row one in sum.

    Example:
        >>> answer_shares(np.log([[4.0, 1.0]]), [0.5, 0.5], np.zeros(2), beta=1.0).round(2).tolist()
        [[0.8, 0.2]]
    """
    x = torch.from_numpy(np.asarray(rewards, dtype=np.float64))
    return responsibilities(x, list(weights), torch.from_numpy(np.asarray(log_z, np.float64)), beta).numpy()


def bridging(approvals: np.ndarray) -> np.ndarray:
    """Decide for each text whether more than half of every cluster approves, (..., K) to (...).

    Example:
        >>> bridging(np.array([[0.6, 0.7], [0.9, 0.4]])).tolist()
        [True, False]
    """
    return np.asarray(np.all(np.asarray(approvals) > 0.5, axis=-1))


def win_rate(rewards: np.ndarray, rivals: np.ndarray, tie_margin: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Compare every text with every text of a rival; a tie counts half.

    Args:
        rewards: (N, K) logits.
        rivals: (M, K) rewards of the rival's texts.
        tie_margin: Largest difference that is a tie, in logits.

    Returns:
        (K,) share of the comparisons that each cluster decides for the first, and (K,) share of ties.

    Example:
        >>> wins, ties = win_rate(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))
        >>> wins.tolist(), ties.tolist()  # 1 = 1, 1 > 0, 2 > 1, 2 > 0
        ([0.875], [0.25])
    """
    difference = np.asarray(rewards)[:, None] - np.asarray(rivals)[None]
    tied = np.abs(difference) <= tie_margin
    return ((difference > 0) & ~tied).mean(axis=(0, 1)) + tied.mean(axis=(0, 1)) / 2, tied.mean(axis=(0, 1))


def share_of_gain_kept(gain: float, heldout_gain: float) -> float:
    """Compute how much of a gain in the training jury's approval the heldout jury sees; nan unless there is a gain.

    Far below 1 the policy has learnt what the training jury likes and people do not (Gao et al. 2023,
    https://arxiv.org/abs/2210.10760).

    Example:
        >>> round(share_of_gain_kept(0.2, 0.12), 2), share_of_gain_kept(-0.1, 0.1)
        (0.6, nan)
    """
    return heldout_gain / gain if gain > 0 else float("nan")


def match_clusters(rewards: np.ndarray, others: np.ndarray) -> list[int | None]:
    """Find for each cluster the cluster of another jury that wants the same, each at most once.

    The matching has the highest sum of correlations over texts.

    Args:
        rewards: (N, K) rewards of texts.
        others: (N, J) rewards of the same texts by the other jury.

    Returns:
        `K` numbers of clusters of the other jury; None for a cluster that is left over, or does not correlate above 0.

    Example:
        >>> first = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
        >>> match_clusters(first, first[:, ::-1] * 3)
        [1, 0]
    """
    x, y = _standard(rewards), _standard(others)
    correlation = x.T @ y / len(x)
    matched: list[int | None] = [None] * correlation.shape[0]
    for k, j in zip(*linear_sum_assignment(-correlation), strict=True):
        matched[k] = int(j) if correlation[k, j] > 0 else None
    return matched


def _standard(rewards: np.ndarray) -> np.ndarray:
    centred = np.asarray(rewards, np.float64) - np.mean(rewards, axis=0)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 0, spread, 1.0)
