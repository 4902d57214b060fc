"""Estimate raters' preference for typical text, and subtract it from a reward.

Verbalized Sampling (Zhang et al., https://arxiv.org/abs/2510.01171) models a fitted reward as

    r(y) = r_true(y) + alpha log pi_ref(y) + noise

so that its optimum is `pi_ref^(1 + alpha / beta) exp(r_true / beta)`: the policy is sharpened unintentionally. Among
responses to one prompt of equal quality, `r_true` cancels and `alpha` is the slope of the reward difference on the
log-probability difference; HelpSteer gives 0.57 +- 0.07.

`alpha` is in logits per nat of the log-probability that it was fitted on: `targets.PoolTarget` subtracts `alpha` times
that of the whole sequence, so fit it on sequence sums, not on means per token. Knows nothing of models, tables or
where quality was judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from reward_models.seeds import seeded_rng
from reward_models.stats.resampling import resampled_interval


__all__ = ["MatchedPairs", "TypicalityFit", "debias", "fit_typicality", "matched_pairs"]


class MatchedPairs(NamedTuple):
    """Differences between responses of equal quality to one prompt; the order within a pair does not matter.

    Attributes:
        reward_difference: Logits, shape `(P,)`.
        log_prob_difference: Nats, shape `(P,)`, in the same direction.
        group: Number of the prompt of each pair, shape `(P,)`.

    Example:
        >>> matched_pairs(rewards=[1.0, 3.0], log_pi_ref=[-4.0, -1.0], quality=[5, 5], group=["a", "a"])
        MatchedPairs(reward_difference=array([-2.]), log_prob_difference=array([-3.]), group=array([0]))
    """

    reward_difference: np.ndarray
    log_prob_difference: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class TypicalityFit:
    """A fitted preference for typical text, as `fit_typicality` returns it.

    Attributes:
        alpha: Logits per nat; above 0 typical text is rewarded.
        standard_error: Standard error of `alpha`, robust to unequal noise and to dependence inside a group.
        ci_low: Lower end of the interval.
        ci_high: Upper end of the interval.
        n: Number of informative pairs: of positive weight and with different log-probabilities.

    Example:
        >>> fit_typicality([1.0, 1.0, 2.0, 0.0], [2.0, 2.0, 4.0, 0.0], num_bootstrap=0)
        TypicalityFit(alpha=0.5, standard_error=0.0, ci_low=0.5, ci_high=0.5, n=3)
    """

    alpha: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int


def debias(rewards: Tensor, log_pi_ref: Tensor, alpha: float) -> Tensor:
    """Subtract the preference for typical text from rewards, `r_k - alpha log pi_ref`.

    Args:
        rewards: Logits, shape `(..., N, K)`.
        log_pi_ref: Nats, shape `(..., N)`, finite.
        alpha: Logits per nat, as fitted by `fit_typicality`.

    Returns:
        Logits, shape `(..., N, K)`.

    Example:
        >>> import torch
        >>> rewards, log_pi_ref = torch.tensor([[2.0], [1.0]]), torch.tensor([-1.0, -3.0])
        >>> debias(rewards, log_pi_ref, alpha=0.5).squeeze()  # the second was only less typical
        tensor([2.5000, 2.5000])
    """
    return rewards - alpha * log_pi_ref.to(rewards).unsqueeze(-1)


def matched_pairs(
    rewards: ArrayLike, log_pi_ref: ArrayLike, quality: ArrayLike, group: ArrayLike, tolerance: float = 0.0
) -> MatchedPairs:
    """Select all pairs of responses to one prompt whose quality is the same.

    A difference in quality inside `tolerance` is attributed to typicality wherever the two correlate, so keep it as
    small as the number of pairs allows.

    Args:
        rewards: Logits of the reward under examination, shape `(N,)`.
        log_pi_ref: Nats, shape `(N,)`.
        quality: A judgement of quality other than the reward (e.g. HelpSteer's correctness), shape `(N,)`.
        group: The prompt of each response, numbers or strings, shape `(N,)`.
        tolerance: Largest difference of quality inside a pair, in units of `quality`.

    Returns:
        The pairs, sorted by group; `group` is numbered from 0 in the order of the sorted values.

    Raises:
        ValueError: If the columns differ in length, hold a number that is not finite, or give no pair.

    Example:
        >>> pairs = matched_pairs([1.0, 3.0, 0.0], [-4.0, -1.0, -9.0], [5, 5, 2], ["a", "a", "a"])
        >>> pairs.reward_difference.tolist(), pairs.log_prob_difference.tolist()
        ([-2.0], [-3.0])
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: got {tolerance:g}; it is a difference of quality, 0 (equal) or more")
    r, log_ref, q = _columns(rewards=rewards, log_pi_ref=log_pi_ref, quality=quality)
    labels = _labels("group", group, len(r))
    order = np.argsort(labels, kind="stable")
    first, second = [], []
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        i, j = np.triu_indices(len(members), 1)
        matched = np.abs(q[members[i]] - q[members[j]]) <= tolerance
        first.append(members[i[matched]])
        second.append(members[j[matched]])
    a, b = np.concatenate(first), np.concatenate(second)
    if len(a) == 0:
        raise ValueError(
            f"matched_pairs: none of the {len(r)} responses has another one to the same prompt whose quality differs "
            f"by at most {tolerance:g}: raise tolerance, or bring several responses per prompt"
        )
    return MatchedPairs(r[a] - r[b], log_ref[a] - log_ref[b], labels[a])


def fit_typicality(
    reward_difference: ArrayLike,
    log_prob_difference: ArrayLike,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> TypicalityFit:
    """Regress reward differences on log-probability differences at matched quality, through the origin.

    Pairs of one prompt share responses, so they are not independent: with `groups`, the standard error is clustered by
    prompt and the bootstrap draws whole prompts.

    Args:
        reward_difference: Logits, shape `(N,)`.
        log_prob_difference: Nats, shape `(N,)`.
        weights: Weight of each pair (e.g. its number of raters), shape `(N,)`; default: all alike.
        groups: The prompt of each pair, shape `(N,)`; default: every pair is independent of the others.
        num_bootstrap: Resamples of the percentile interval; 0 uses the normal interval of the standard error, which is
            as accurate from a few thousand prompts on and costs nothing.
        confidence: Coverage of the interval.
        seed: Random seed of the bootstrap.

    Returns:
        The slope with its uncertainty.

    Raises:
        ValueError: If the columns differ in length or hold a number that is not finite, a weight is negative, or fewer
            than two groups have pairs with different log-probabilities.

    Example:
        >>> fit = fit_typicality([1.0, -0.5, 2.0], [2.0, -1.0, 4.0])  # half a logit per nat, without noise
        >>> fit.alpha, fit.standard_error, fit.n
        (0.5, 0.0, 3)
    """
    y, x = _columns(reward_difference=reward_difference, log_prob_difference=log_prob_difference)
    w = np.ones(len(x)) if weights is None else _columns(reward_difference=y, weights=weights)[1]
    if (w < 0).any():
        row = int(np.argmax(w < 0))
        raise ValueError(f"weights: row {row} has {w[row]:g}; a weight is 0 (left out) or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence:g}; it is the coverage of the interval, between 0 and 1")
    labels = np.arange(len(x)) if groups is None else _labels("groups", groups, len(x))
    informative = (w > 0) & (x != 0)
    y, x, w = y[informative], x[informative], w[informative]
    labels = np.unique(labels[informative], return_inverse=True)[1]
    num_groups = int(labels.max(initial=-1)) + 1
    if num_groups < 2:
        raise ValueError(
            f"fit_typicality: {num_groups} of the groups have pairs of positive weight with different "
            "log-probabilities, and a slope with its error needs 2: bring more prompts, or leave groups=None where "
            "the pairs are independent"
        )
    s_xy, s_xx = np.bincount(labels, w * x * y), np.bincount(labels, w * x * x)
    alpha = float(s_xy.sum() / s_xx.sum())
    scores = s_xy - alpha * s_xx
    standard_error = float(np.sqrt((scores**2).sum() * num_groups / (num_groups - 1)) / s_xx.sum())
    if num_bootstrap > 0:
        rng = seeded_rng(seed, "bootstrap of typicality")
        low, high = resampled_interval(
            lambda drawn: s_xy[drawn].sum() / s_xx[drawn].sum(), num_groups, rng, draws=num_bootstrap, level=confidence
        )
    else:
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = (alpha + NormalDist().inv_cdf(tail) * standard_error for tail in tails)
    return TypicalityFit(alpha, standard_error, float(low), float(high), len(x))


def _columns(**columns: ArrayLike) -> list[np.ndarray]:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    first, length = next((name, array.shape) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != length:
            raise ValueError(
                f"{name}: got shape {array.shape} beside {first} of shape {length}; give one number per row, all "
                "columns of the same length"
            )
        if not np.isfinite(array).all():
            row = int(np.argmax(~np.isfinite(array)))
            raise ValueError(f"{name}: row {row} is {array[row]:g}, not a finite number: leave the row out")
    return list(arrays.values())


def _labels(name: str, labels: ArrayLike, length: int) -> np.ndarray:
    values = np.asarray(labels)
    if values.shape != (length,):
        raise ValueError(f"{name}: got shape {values.shape} for {length} rows; give one label per row")
    return np.unique(values, return_inverse=True)[1]
