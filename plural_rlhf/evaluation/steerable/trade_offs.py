"""How well a steerable policy follows weights over objectives: trade-off steerable benchmarks.

A policy is steered to each of F weightings of K objectives, and each steered policy M_f is described by what it
achieves in every objective. A good one has the highest value under the weighting it was steered to (Sorensen et al.
2024, https://arxiv.org/abs/2402.05070, section 3: the benchmark rewards `sum_f f(M_f)`), achieves more of an objective
as its weight grows, and changes continuously. Objectives are any columns: rater clusters, attributes, a vector reward.
Knows nothing of policies, prompts or how the steering was done.

Shapes: `F` weightings, `K` objectives, `R` items, `N` responses to one prompt, `P` pairs, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from plural_rlhf.core.aggregation import normalise_weights
from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.intervals import bootstrap_means, interval_columns, percentile_interval
from reward_models.errors import JuryError
from reward_models.stats.answers import Interval


__all__ = [
    "AxisFollowing",
    "TradeOffReport",
    "best_of_n",
    "matching_matrix",
    "neighbours",
    "selection_regret",
    "trade_off_report",
]

_TOLERANCE = 1e-9  # two values, or two distances, closer than this are equal


@dataclass(frozen=True)
class AxisFollowing:
    """Whether a higher weight of one objective achieves more of it.

    With two objectives the best possible policy never violates this. With three or more it may occasionally, because
    the result depends on which of the others loses weight.

    Attributes:
        name: The objective.
        spearman: Rank correlation over the weightings between weight and achievement; NaN if either does not vary.
        violations: Number of neighbouring weightings in which the higher weight achieves less.
        pairs: Number of neighbouring weightings with different weights of the objective.

    Example:
        >>> report = trade_off_report(np.array([[0.9, 0.1], [0.6, 0.6], [0.7, 0.8]]), [[1, 0], [0.5, 0.5], [0, 1]])
        >>> axis = report.axes[0]  # the third policy achieves more of the first objective than the second does
        >>> axis.spearman.value, axis.violations, axis.pairs
        (0.5, 1, 2)
    """

    name: str
    spearman: Interval
    violations: int
    pairs: int


@dataclass(frozen=True)
class TradeOffReport:
    """How F steered policies follow F weightings; see `trade_off_report`.

    Attributes:
        objectives: `K` names.
        weights: (F, K), each row summing to one.
        achieved: (F, K) objectives of the policy steered to each weighting, averaged over items.
        matching: (F, F), entry (f, g) is the value of the policy steered to f under weighting g.
        steerable_score: Mean value of each policy under its own weighting.
        regret: (F,) how much higher the value of the best steered policy under f is than that of M_f; 0 is ideal.
        mean_regret: Mean regret. Resampling cannot make a regret negative: an interval next to 0 is one-sided.
        oracle_regret: (F,) how far M_f falls short of the oracle, or None without an oracle.
        matched: Share of the weightings under which no policy has a higher value than their own. A random order would
            give 1 / F, but a policy that ignores its weights ties with itself and has 1: see `axes` too.
        axes: How each objective follows its weight.
        largest_jump: Largest change of an objective between neighbouring weightings, in units of the objective per
            unit of total variation of the weights: 2 means 0.2 for a tenth of the weight.
        jump_at: The two weightings (indices) of the largest jump.
        median_jump: Median over neighbouring pairs; small for a policy that jumps only once.

    Example:
        >>> report = trade_off_report(np.array([[0.9, 0.1], [0.2, 0.8]]), [[1, 0], [0, 1]])
        >>> report.matching.tolist(), round(report.largest_jump, 3)
        ([[0.9, 0.1], [0.2, 0.8]], 0.7)
    """

    objectives: tuple[str, ...]
    weights: np.ndarray
    achieved: np.ndarray
    matching: np.ndarray
    steerable_score: Interval
    regret: np.ndarray
    mean_regret: Interval
    oracle_regret: np.ndarray | None
    matched: float
    axes: tuple[AxisFollowing, ...]
    largest_jump: float
    jump_at: tuple[int, int]
    median_jump: float

    def to_rows(self, **labels: str) -> list[dict[str, Any]]:
        """Return tidy rows: `labels`, `metric`, `value`, `ci_low`, `ci_high` (None without resampling) and `n`.

        `n` counts items where they are resampled, else weightings, or pairs of them.
        """
        metrics: dict[str, Interval] = {"steerable_score": self.steerable_score, "mean_regret": self.mean_regret}
        plain = {
            "matched": self.matched,
            "largest_jump": self.largest_jump,
            "median_jump": self.median_jump,
        }
        if self.oracle_regret is not None:
            plain["mean_oracle_regret"] = float(self.oracle_regret.mean())
            plain["largest_oracle_regret"] = float(self.oracle_regret.max())
        metrics |= {metric: Interval(value, np.nan, np.nan, 0, len(self.weights)) for metric, value in plain.items()}
        for axis in self.axes:
            metrics[f"spearman {axis.name}"] = axis.spearman
            metrics[f"violations {axis.name}"] = Interval(axis.violations, np.nan, np.nan, 0, axis.pairs)
        return [{**labels, "metric": metric, **interval_columns(interval)} for metric, interval in metrics.items()]

    def table(self) -> str:
        """Return the report as text, one line per weighting under the summary."""
        lines = [
            f"{r['metric']:<24} {r['value']:>8.3f}"
            + ("" if r["ci_low"] is None else f"  [{r['ci_low']:.3f}, {r['ci_high']:.3f}]")
            + f"  n={r['n']}"
            for r in self.to_rows()
        ]
        lines += ["", "weights" + " " * 7 * len(self.objectives) + "achieved (" + ", ".join(self.objectives) + ")"]
        for w, o, regret in zip(self.weights, self.achieved, self.regret, strict=True):
            weighting, reached = (" ".join(f"{x:>6.2f}" for x in row) for row in (w, o))
            lines.append(f"{weighting}  ->  {reached}   regret {regret:.3f}")
        return "\n".join(lines)


def trade_off_report(
    achieved: np.ndarray,
    weights: np.ndarray | Sequence[Sequence[float]],
    *,
    oracle: np.ndarray | None = None,
    rule: RuleSpec = "mean",
    objectives: Sequence[str] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> TradeOffReport:
    """Measure how F steered policies follow the F weightings they were steered to.

    Args:
        achieved: (F, K) objectives that each policy achieves, or (F, R, K) on each of the same R items, for intervals
            over items. Higher is better; all objectives on one scale.
        weights: (F, K) the weighting of each policy, all different.
        oracle: (F,) the highest possible value under each weighting, e.g. by best-of-n over all responses.
        rule: How a weighting aggregates the objectives: a pointwise rule, by default the weighted mean.
        objectives: `K` names.
        draws: B, for the intervals.
        level: Level of the intervals.
        seed: Random seed of the resampling.

    Raises:
        JuryError: If shapes do not fit, weights cannot be used or occur twice, or there are fewer than two.
        ValueError: If the rule is a group rule, which cannot score a policy by itself.

    Example:
        >>> weights = [[1, 0], [0.5, 0.5], [0, 1]]
        >>> report = trade_off_report(np.array([[0.9, 0.1], [0.6, 0.6], [0.2, 0.8]]), weights)
        >>> report.matched, report.regret.tolist(), round(report.steerable_score.value, 3)
        (1.0, [0.0, 0.0, 0.0], 0.767)
    """
    items = np.asarray(achieved, dtype=np.float64)
    if items.ndim == 2:
        items = items[:, None]
    shares = normalise_weights(np.asarray(weights, dtype=np.float64), items.shape[-1]).numpy()
    if items.ndim != 3 or shares.shape != (len(items), items.shape[-1]) or len(items) < 2:
        raise JuryError(
            f"achieved {np.shape(achieved)} and weights {np.shape(weights)} do not fit each other: give (F, K) or "
            "(F, R, K) and (F, K), one row for each of at least two weightings."
        )
    if oracle is not None and np.shape(oracle) != (len(shares),):
        raise JuryError(f"the oracle has shape {np.shape(oracle)}, but there are {len(shares)} weightings: give (F,).")
    names = tuple(objectives or (f"objective-{k}" for k in range(items.shape[-1])))
    means = items.mean(axis=1)
    pairs = neighbours(shares)
    resampled = bootstrap_means(items, draws if items.shape[1] > 1 else 1, seed)
    matching = matching_matrix(means, shares, rule)
    drawn = np.stack([matching_matrix(outcome, shares, rule) for outcome in resampled])  # (B, F, F)
    regret = _regret(matching)
    interval = partial(percentile_interval, n_items=items.shape[1], level=level)
    (score,) = interval(_own(matching).mean(axis=-1), _own(drawn).mean(axis=-1))
    (mean_regret,) = interval(regret.mean(axis=-1), _regret(drawn).mean(axis=-1), bounds=(0.0, np.inf))
    followed = np.stack([_spearman(shares, outcome) for outcome in resampled])
    spearman = interval(_spearman(shares, means), followed, bounds=(-1.0, 1.0))
    step = means[pairs[:, 1]] - means[pairs[:, 0]]  # (P, K)
    more = shares[pairs[:, 1]] - shares[pairs[:, 0]]
    asks = np.abs(more) > _TOLERANCE
    against = asks & (step * np.sign(more) < -_TOLERANCE)
    jump = np.abs(step).max(axis=1) / (np.abs(more).sum(axis=1) / 2)
    first, second = pairs[jump.argmax()].tolist()
    return TradeOffReport(
        objectives=names,
        weights=shares,
        achieved=means,
        matching=matching,
        steerable_score=score,
        regret=regret,
        mean_regret=mean_regret,
        oracle_regret=None if oracle is None else np.asarray(oracle, dtype=np.float64) - _own(matching),
        matched=float((regret <= _TOLERANCE).mean()),
        axes=tuple(
            AxisFollowing(name, spearman[k], int(against[:, k].sum()), int(asks[:, k].sum()))
            for k, name in enumerate(names)
        ),
        largest_jump=float(jump.max()),
        jump_at=(first, second),
        median_jump=float(np.median(jump)),
    )


def matching_matrix(
    achieved: np.ndarray, weights: np.ndarray | Sequence[Sequence[float]], rule: RuleSpec = "mean"
) -> np.ndarray:
    """Compute the value of every policy f under every weighting g, (F, F); the diagonal has each policy's own value.

    Args:
        achieved: (F, K).
        weights: (F, K).
        rule: A pointwise rule.

    Raises:
        ValueError: If the rule is a group rule.

    Example:
        >>> matching_matrix(np.array([[0.9, 0.1], [0.2, 0.8]]), [[1, 0], [0.5, 0.5]]).round(2).tolist()
        [[0.9, 0.5], [0.2, 0.5]]
    """
    parsed = Rule.parse(rule)
    if parsed.within_group:
        raise ValueError(
            f"rule: {str(parsed)!r} scores a response among others, and here a policy is scored by itself: choose a "
            "pointwise rule, e.g. 'mean'."
        )
    outcomes, shares = torch.as_tensor(achieved), torch.as_tensor(np.asarray(weights, dtype=np.float64))
    return parsed.scores(outcomes.expand(len(shares), *outcomes.shape), shares).numpy().T


def neighbours(weights: np.ndarray) -> np.ndarray:
    """Return neighbouring weightings, (P, 2): no third one is nearer to both than they are to each other.

    The relative neighbourhood graph (Toussaint 1980) under total variation: on a line the next in order, on a grid the
    adjacent points; always connected.

    Args:
        weights: (F, K), each row summing to one.

    Raises:
        JuryError: If a weighting occurs twice.

    Example:
        >>> neighbours(np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.5, 0.5]])).tolist()
        [[0, 1], [1, 3], [2, 3]]
    """
    distance = np.abs(weights[:, None] - weights[None]).sum(axis=-1) / 2
    first, second = np.triu_indices(len(weights), k=1)
    apart = distance[first, second]
    if (apart <= _TOLERANCE).any():
        same = int(np.flatnonzero(apart <= _TOLERANCE)[0])
        raise JuryError(
            f"weightings {first[same]} and {second[same]} are the same, {weights[first[same]].tolist()}: average "
            "their achievements, and give the weighting once."
        )
    farther = np.maximum(distance[first], distance[second])  # (P, F) of each third weighting
    kept = farther.min(axis=1) >= apart - _TOLERANCE
    return np.stack([first[kept], second[kept]], axis=1)


def best_of_n(rewards: np.ndarray | torch.Tensor, weights: Sequence[float] | np.ndarray, rule: RuleSpec) -> int:
    """Return the index of the response that a rule picks from (N, K) rewards of one prompt, the first of equals.

    Example:
        >>> best_of_n(np.array([[1.0, 0.0], [0.0, 1.5], [0.6, 0.6]]), [0.5, 0.5], "min")
        2
    """
    return int(Rule.parse(rule).lottery(torch.as_tensor(rewards), weights).argmax())


def selection_regret(
    rewards: Sequence[Sequence[float]] | np.ndarray,
    chosen: int,
    weights: Sequence[float] | np.ndarray,
    welfare: Callable[[Sequence[float], Sequence[float]], float] | None = None,
) -> float:
    """Compute how much better than a given response the best one is, by evaluating every response.

    It shares no code with the rules, so that it can test them.

    Args:
        rewards: (N, K) of one prompt.
        chosen: Index of the response.
        weights: (K,).
        welfare: Function of a response's K rewards and the weights; None: `sum_k w_k r_k / sum_k w_k`.

    Example:
        >>> selection_regret([[1.0, 0.0], [0.0, 2.0]], chosen=0, weights=[1, 1])
        0.5
        >>> selection_regret([[1.0, 0.0], [0.0, 2.0]], chosen=0, weights=[1, 1], welfare=lambda r, w: min(r))
        0.0
    """

    def weighted_mean(row: Sequence[float], shares: Sequence[float]) -> float:
        return sum(w * r for w, r in zip(shares, row, strict=True)) / sum(shares)

    value = welfare or weighted_mean
    shares = [float(w) for w in weights]
    best = chosen_value = value([float(r) for r in rewards[chosen]], shares)
    for row in rewards:
        best = max(best, value([float(r) for r in row], shares))
    return best - chosen_value


def _own(matching: np.ndarray) -> np.ndarray:
    return np.diagonal(matching, axis1=-2, axis2=-1)


def _regret(matching: np.ndarray) -> np.ndarray:
    return matching.max(axis=-2) - _own(matching)


def _spearman(shares: np.ndarray, achieved: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each column, (K,); NaN where either does not vary."""
    ranks = [rankdata(column, axis=0) for column in (shares, achieved)]
    a, b = (r - r.mean(axis=0) for r in ranks)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.full(len(spread), np.nan), where=spread > 0)
