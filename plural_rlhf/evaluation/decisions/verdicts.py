"""Verdicts of juries: what a jury chooses, and whether another one would choose otherwise.

Everything here compares verdicts on given rewards: between two juries, and between a jury and those drawn at random
with its shares (Gordon et al., "Jury Learning", CHI 2022, https://arxiv.org/abs/2202.02950, where the juries that
people composed flipped 14 % of the verdicts). Knows nothing of models, prompts or how rewards came about; rules that
compare heads want rewards on one scale. Which change of a jury would flip one verdict is told by `flips`.

A verdict is a lottery over the responses to a prompt, even between equals. Two verdicts differ by their total
variation: 0 or 1 where both have one winner, 1/2 where one of two equals drops out.

Shapes: `N` responses to one prompt, `K` clusters, `U` responses to `P` prompts in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.intervals import bootstrap_means
from reward_models.errors import JuryError
from reward_models.stats.answers import total_variation
from reward_models.weights import named_weights


__all__ = [
    "FlipShare",
    "JuryWeights",
    "SeatVerdicts",
    "flipped",
    "lotteries_of",
    "one_group",
    "seat_intervals",
    "verdict",
    "winners_of",
]

JuryWeights = Mapping[str, float] | Sequence[float] | np.ndarray
"""A `Jury` or another mapping from cluster name to seats (with `cluster_names`), or `K` numbers in order."""


@dataclass(frozen=True)
class FlipShare:
    """How many verdicts two juries disagree on.

    Attributes:
        value: Mean difference of the verdicts: the share of prompts whose winner changes.
        low: Lower end of the interval, prompts resampled.
        high: Upper end.
        prompts: `(P,)` prompts that offer a choice.
        changed: `(P,)` difference of each one's verdicts, 0 to 1.
    """

    value: float
    low: float
    high: float
    prompts: np.ndarray
    changed: np.ndarray


@dataclass(frozen=True)
class SeatVerdicts:
    """What juries drawn at random decide, beside the jury they are drawn from.

    Attributes:
        win_probability: `(U,)` how often each response wins, over the drawn juries.
        flipped: Share of verdicts in which a drawn jury differs from the expected one.
        low: Lower end of that share's interval over drawn juries.
        high: Upper end.
        prompts: `(P,)` prompts.
        changed: `(P,)` difference of each one's verdict from the expected jury's, 0 to 1, mean over drawn juries.
        winner: `(P,)` row of the expected jury's winner (the first of equals) among the `U`.
        score_low: `(P,)` lower end of that winner's score over drawn juries.
        score_high: `(P,)` upper end.
    """

    win_probability: np.ndarray
    flipped: float
    low: float
    high: float
    prompts: np.ndarray
    changed: np.ndarray
    winner: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray


def verdict(
    rewards: ArrayLike,
    weights: JuryWeights,
    rule: RuleSpec = "mean",
    *,
    cluster_names: Sequence[str] | None = None,
) -> np.ndarray:
    """What a jury chooses among the responses to one prompt.

    Args:
        rewards: `(N, K)`.
        weights: See `JuryWeights`.
        rule: See `plural_rlhf.core.rules.Rule`.
        cluster_names: `K` names in the order of the rewards; None: `"0"`, `"1"`, and so on.

    Returns:
        `(N,)` probabilities, even between equals.

    Raises:
        JuryError: Rewards or weights that cannot be used.
        ValueError, TypeError: A rule or an option that there is not.

    Example:
        >>> rewards = [[2.0, -1.0], [0.5, 0.4]]  # two responses; the first divides two clusters
        >>> verdict(rewards, {"urban": 3, "rural": 1}, cluster_names=["urban", "rural"]).tolist()
        [1.0, 0.0]
        >>> verdict(rewards, {"urban": 1, "rural": 3}, cluster_names=["urban", "rural"]).tolist()
        [0.0, 1.0]
    """
    group, w, _ = one_group(rewards, weights, cluster_names)
    return lotteries_of(group, w[None], Rule.parse(rule))[0]


def flipped(
    rewards: ArrayLike,
    group: ArrayLike,
    weights_a: JuryWeights,
    weights_b: JuryWeights,
    rule: RuleSpec = "mean",
    *,
    cluster_names: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> FlipShare:
    """Share of prompts whose winner changes when one jury takes the place of another.

    Args:
        rewards: `(U, K)` of the responses to many prompts.
        group: `(U,)` prompt of each. Prompts with one response offer no choice and are left out.
        weights_a: The one jury; see `JuryWeights`.
        weights_b: The other.
        rule: Of both.
        cluster_names: See `verdict`.
        level: Probability that the interval is to hold.
        draws: Resamples of the prompts. Where no verdict flips they cannot show it, but up to about `3 / P` may.
        seed: Of the resampling.

    Raises:
        JuryError: Rewards or weights that cannot be used, or no prompt with two responses.
        ValueError, TypeError: A rule or an option that there is not.

    Example:
        >>> rewards = [[2.0, -1.0], [0.5, 0.4], [1.0, 1.0], [0.0, 0.0]]
        >>> flipped(rewards, ["q1", "q1", "q2", "q2"], [3, 1], [1, 3]).changed.tolist()
        [1.0, 0.0]
    """
    prompts, members, r, names = _groups(rewards, group, cluster_names)
    pair = np.stack([named_weights(weights_a, names), named_weights(weights_b, names)])
    parsed = Rule.parse(rule)
    choice = [(p, rows) for p, rows in zip(prompts, members, strict=True) if len(rows) > 1]
    if not choice:
        raise JuryError(f"none of {len(prompts)} prompts has two responses, so there is nothing to choose: give more.")
    changed = np.array([float(total_variation(*lotteries_of(r[rows], pair, parsed))) for _, rows in choice])
    means = bootstrap_means(changed[None, :, None], draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return FlipShare(float(changed.mean()), float(low), float(high), np.array([p for p, _ in choice]), changed)


def seat_intervals(
    rewards: ArrayLike,
    group: ArrayLike,
    weights: JuryWeights,
    rule: RuleSpec = "mean",
    *,
    n_seats: int = 12,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
    cluster_names: Sequence[str] | None = None,
) -> SeatVerdicts:
    """How much a verdict owes to who happened to be drawn: juries of `n_seats` people, each seat by the shares.

    Every drawn jury decides all prompts.

    Args:
        rewards: `(U, K)`.
        group: `(U,)` prompt of each response.
        weights: The expected jury; see `JuryWeights`.
        rule: Of all juries.
        n_seats: Seats of a drawn jury.
        draws: Juries drawn.
        seed: Of the draws.
        level: Part of the drawn juries between the ends of an interval.
        cluster_names: See `verdict`.

    Raises:
        JuryError: Rewards, weights or a number of seats that cannot be used.
        ValueError, TypeError: A rule or an option that there is not.
    """
    if n_seats < 1 or draws < 1:
        raise JuryError(f"n_seats is {n_seats} and draws {draws}: at least one seat and one jury are needed.")
    prompts, members, r, names = _groups(rewards, group, cluster_names)
    expected, parsed = named_weights(weights, names), Rule.parse(rule)
    seats = np.random.default_rng(seed).multinomial(n_seats, expected, size=draws)
    # Few different juries are drawn, and each decides once. The expected one is the first.
    different, of_draw = np.unique(seats, axis=0, return_inverse=True)
    juries = np.concatenate([expected[None], different / n_seats])
    ends = [(1 - level) / 2, (1 + level) / 2]
    win, changed = np.zeros(len(r)), np.zeros((len(prompts), draws))
    winner, score = np.zeros(len(prompts), dtype=np.int64), np.zeros((len(prompts), 2))
    for i, rows in enumerate(members):
        lotteries = lotteries_of(r[rows], juries, parsed)
        drawn = lotteries[1:][of_draw.ravel()]
        win[rows] = drawn.mean(axis=0)
        changed[i] = total_variation(drawn, lotteries[0])
        best = int(np.argmax(lotteries[0]))
        winner[i] = rows[best]
        score[i] = np.quantile(_scores(r[rows], juries[1:], parsed)[of_draw.ravel(), best], ends)
    low, high = np.quantile(changed.mean(axis=0), ends)
    return SeatVerdicts(
        win, float(changed.mean()), float(low), float(high), prompts, changed.mean(axis=1), winner, *score.T
    )


def winners_of(lotteries: np.ndarray) -> np.ndarray:
    """(..., N) which responses are the likeliest."""
    return lotteries >= lotteries.max(axis=-1, keepdims=True) - 1e-9


def lotteries_of(rewards: np.ndarray, juries: np.ndarray, rule: Rule) -> np.ndarray:
    """(S, N) verdicts of S juries (S, K) on one prompt (N, K); a single response needs no rule."""
    if len(rewards) == 1:
        return np.ones((len(juries), 1))
    return rule.lottery(*_batch(rewards, juries)).numpy()


def _scores(rewards: np.ndarray, juries: np.ndarray, rule: Rule) -> np.ndarray:
    """(S, N) scores; a single response has none where responses are judged among others."""
    if len(rewards) == 1 and rule.within_group:
        return np.full((len(juries), 1), np.nan)
    return rule.scores(*_batch(rewards, juries)).numpy()


def _batch(rewards: np.ndarray, juries: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rewards).expand(len(juries), *rewards.shape), torch.from_numpy(juries)


def one_group(
    rewards: ArrayLike, weights: JuryWeights, cluster_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rewards (N, K), weights (K,) in their order, and names."""
    r, names = _table(rewards, cluster_names)
    return r, named_weights(weights, names), names


def _groups(
    rewards: ArrayLike, group: ArrayLike, cluster_names: Sequence[str] | None
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, list[str]]:
    """Prompts (P,), the rows of each, rewards (U, K) and names."""
    r, names = _table(rewards, cluster_names)
    prompt = np.asarray(group)
    if prompt.shape != r.shape[:1]:
        raise JuryError(f"rewards {r.shape} and group {prompt.shape} do not fit each other: give (U, K) and (U,).")
    prompts, number = np.unique(prompt, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return prompts, np.split(order, np.cumsum(np.bincount(number))[:-1]), r, names


def _table(rewards: ArrayLike, cluster_names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or not len(r):
        raise JuryError(f"rewards have shape {r.shape}: give one row a response and one column a cluster.")
    names = [str(k) for k in range(r.shape[1])] if cluster_names is None else list(cluster_names)
    if len(names) != r.shape[1]:
        raise JuryError(f"rewards have {r.shape[1]} columns, but there are {len(names)} clusters: {names}.")
    return r, names
