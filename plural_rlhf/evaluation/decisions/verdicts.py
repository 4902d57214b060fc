"""Verdicts of juries: which response a jury chooses, and whether another jury would choose differently.

Everything here compares verdicts on given rewards: between two juries, and between a jury and juries drawn at random
with its shares (Gordon et al., "Jury Learning", CHI 2022, https://arxiv.org/abs/2202.02950, where the juries that
people composed flipped 14 % of the verdicts). Rules that compare heads need rewards on one scale. `flips` finds the
change of a jury that would flip one verdict. Knows nothing of models, prompts or how rewards came about.

A verdict is a lottery over the responses to a prompt, even between equals. Two verdicts differ by their total
variation: 0 or 1 where both have one winner, 1/2 where one of two equals drops out.

Shapes: `N` responses to one prompt, `K` clusters, `U` responses to `P` prompts in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.decisions.one_prompt import (
    JuryWeights,
    lotteries_under,
    reward_table,
    rewards_and_weights,
    scores_under,
)
from plural_rlhf.evaluation.intervals import bootstrap_means
from plural_rlhf.weights.jury import sample_seats
from reward_models.errors import JuryError
from reward_models.stats.answers import total_variation
from reward_models.weights import named_weights


__all__ = ["FlipShare", "SeatVerdicts", "flipped", "seat_intervals", "verdict"]


@dataclass(frozen=True)
class FlipShare:
    """Share of verdicts on which two juries disagree.

    Attributes:
        value: Mean difference of the verdicts: the share of prompts whose winner changes.
        low: Lower end of the interval over resampled prompts.
        high: Upper end.
        prompts: `(P,)` prompts with at least two responses.
        changed: `(P,)` difference of the two verdicts on each prompt, 0 to 1.

    Example:
        >>> share = flipped([[2.0, -1.0], [0.5, 0.4]], ["q1", "q1"], [3, 1], [1, 3])
        >>> share.value, share.prompts.tolist()
        (1.0, ['q1'])
    """

    value: float
    low: float
    high: float
    prompts: np.ndarray
    changed: np.ndarray


@dataclass(frozen=True)
class SeatVerdicts:
    """Verdicts of juries drawn at random, compared with the jury that they are drawn from; see `seat_intervals`.

    Attributes:
        win_probability: `(U,)` share of the drawn juries in which each response wins.
        flipped: Share of verdicts in which a drawn jury differs from the expected one.
        low: Lower end of that share's interval over drawn juries.
        high: Upper end.
        prompts: `(P,)` prompts.
        changed: `(P,)` difference from the expected jury's verdict on each prompt, 0 to 1, mean over drawn juries.
        winner: `(P,)` row of the expected jury's winner (the first of equals) among the `U`.
        score_low: `(P,)` lower end of that winner's score over drawn juries.
        score_high: `(P,)` upper end.

    Example:
        >>> verdicts = seat_intervals([[1.0, 0.0], [0.0, 2.0]], ["q", "q"], [1, 1], n_seats=1, draws=400)
        >>> verdicts.win_probability.round(1).tolist()  # the one seat decides
        [0.5, 0.5]
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
    """Return which response to one prompt a jury chooses.

    Args:
        rewards: `(N, K)`.
        weights: See `JuryWeights`.
        rule: See `plural_rlhf.core.rules.Rule`.
        cluster_names: `K` names in the order of the rewards; None: `"0"`, `"1"`, and so on.

    Returns:
        `(N,)` probabilities, even between equals.

    Raises:
        JuryError: If rewards or weights cannot be used.
        ValueError, TypeError: If the rule or an option is unknown.

    Example:
        >>> rewards = [[2.0, -1.0], [0.5, 0.4]]  # two responses; the first divides two clusters
        >>> verdict(rewards, {"urban": 3, "rural": 1}, cluster_names=["urban", "rural"]).tolist()
        [1.0, 0.0]
        >>> verdict(rewards, {"urban": 1, "rural": 3}, cluster_names=["urban", "rural"]).tolist()
        [0.0, 1.0]
    """
    group, w, _ = rewards_and_weights(rewards, weights, cluster_names)
    return lotteries_under(group, w[None], Rule.parse(rule))[0]


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
    """Compute the share of prompts whose winner changes when one jury replaces another.

    Args:
        rewards: `(U, K)` of the responses to many prompts.
        group: `(U,)` prompt of each. Prompts with one response are ignored.
        weights_a: The first jury; see `JuryWeights`.
        weights_b: The second jury.
        rule: The rule of both.
        cluster_names: See `verdict`.
        level: Level of the interval.
        draws: Resamples of the prompts. If no verdict flips, the interval is 0 to 0, though a share of up to about
            `3 / P` is possible.
        seed: Random seed of the resampling.

    Raises:
        JuryError: If rewards or weights cannot be used, or no prompt has two responses.
        ValueError, TypeError: If the rule or an option is unknown.

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
        raise JuryError(f"none of {len(prompts)} prompts has two responses, so there is no choice: add responses.")
    changed = np.array([float(total_variation(*lotteries_under(r[rows], pair, parsed))) for _, rows in choice])
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
    """Measure how much verdicts vary between juries of `n_seats` people drawn at random, each seat by the shares.

    Every drawn jury decides all prompts.

    Args:
        rewards: `(U, K)`.
        group: `(U,)` prompt of each response.
        weights: The expected jury; see `JuryWeights`.
        rule: The rule of all juries.
        n_seats: Seats of a drawn jury.
        draws: Number of drawn juries.
        seed: Random seed.
        level: Share of the drawn juries between the ends of an interval.
        cluster_names: See `verdict`.

    Raises:
        JuryError: If rewards, weights or the number of seats cannot be used.
        ValueError, TypeError: If the rule or an option is unknown.

    Example:
        >>> rewards, group = [[1.0, 0.0], [0.0, 1.0]], ["q", "q"]
        >>> clear, close = seat_intervals(rewards, group, [11, 1]), seat_intervals(rewards, group, [7, 5])
        >>> clear.flipped, round(close.flipped, 1)  # a jury of twelve; ties count half
        (0.0, 0.3)
    """
    if n_seats < 1 or draws < 1:
        raise JuryError(f"n_seats is {n_seats} and draws {draws}: give at least one seat and one jury.")
    prompts, members, r, names = _groups(rewards, group, cluster_names)
    expected, parsed = named_weights(weights, names), Rule.parse(rule)
    seats = sample_seats(expected, n_seats, draws, seed)
    # Few different juries are drawn, so each decides once. The expected one comes first.
    different, of_draw = np.unique(seats, axis=0, return_inverse=True)
    juries = np.concatenate([expected[None], different / n_seats])
    ends = [(1 - level) / 2, (1 + level) / 2]
    win, changed = np.zeros(len(r)), np.zeros((len(prompts), draws))
    winner, score = np.zeros(len(prompts), dtype=np.int64), np.zeros((len(prompts), 2))
    for i, rows in enumerate(members):
        lotteries = lotteries_under(r[rows], juries, parsed)
        drawn = lotteries[1:][of_draw.ravel()]
        win[rows] = drawn.mean(axis=0)
        changed[i] = total_variation(drawn, lotteries[0])
        best = int(np.argmax(lotteries[0]))
        winner[i] = rows[best]
        score[i] = np.quantile(scores_under(r[rows], juries[1:], parsed)[of_draw.ravel(), best], ends)
    low, high = np.quantile(changed.mean(axis=0), ends)
    return SeatVerdicts(
        win, float(changed.mean()), float(low), float(high), prompts, changed.mean(axis=1), winner, *score.T
    )


def _groups(
    rewards: ArrayLike, group: ArrayLike, cluster_names: Sequence[str] | None
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, list[str]]:
    """Return prompts (P,), the rows of each, rewards (U, K) and names."""
    r, names = reward_table(rewards, cluster_names)
    prompt = np.asarray(group)
    if prompt.shape != r.shape[:1]:
        raise JuryError(f"rewards {r.shape} and group {prompt.shape} do not fit each other: give (U, K) and (U,).")
    prompts, number = np.unique(prompt, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return prompts, np.split(order, np.cumsum(np.bincount(number))[:-1]), r, names
