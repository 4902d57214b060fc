"""The gain of a cluster that exaggerates, and the loss of the others, under each welfare rule.

A rule that reads the strength of preferences gives clusters an incentive to overstate theirs. Here one cluster
misreports its rewards, all others are honest, the rule decides on the reported rewards, and gains are measured in true
rewards. Only these misreports are tried: a rule without a gain here is not proved strategyproof (by Gibbard 1977,
https://doi.org/10.2307/1911681, such rules mix dictators and choices between two). Knows nothing of how rewards are
learnt, nor whether raters who exaggerate would change a fit.

Shapes: `U` responses, `G` prompts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from plural_rlhf.core.aggregation import normalise_weights
from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.decisions.welfare_effects import verdict_lotteries
from plural_rlhf.evaluation.intervals import bootstrap_means, interval_columns, percentile_interval
from reward_models.errors import JuryError
from reward_models.stats.answers import Interval


__all__ = ["ExaggerationEffect", "Misreport", "exaggeration_report", "misreported"]

Misreport = float | Literal["extremes"]
"""A factor on a cluster's differences within a prompt (below 0 it reports the opposite of its preferences), or
`"extremes"`: the best response gets the highest reward that the cluster gives anywhere, all others the lowest."""

_MOVED = 1e-6  # total variation: well above the error of a linear programme, well below a change of a verdict


@dataclass(frozen=True)
class ExaggerationEffect:
    """The effect of one misreport of one cluster under one rule; see `exaggeration_report`.

    Attributes:
        rule: The rule, as it is written.
        cluster: Index of the cluster.
        misreport: See `Misreport`.
        moved: Share of the prompts on which the verdict changed.
        gain: Mean change of the cluster's true reward; above 0 misreporting pays.
        others: Mean change of the others' true rewards by their weights; NaN if these are 0.

    Example:
        >>> rewards, group = np.array([[0.0, 1.5], [1.0, 0.0]]), np.array(["q", "q"])
        >>> (effect,) = exaggeration_report(rewards, group, [0.5, 0.5], ["mean"], factors=[2], cluster=0)
        >>> effect.moved, effect.gain.value, effect.others.value
        (1.0, 1.0, -1.5)
    """

    rule: str
    cluster: int
    misreport: Misreport
    moved: float
    gain: Interval
    others: Interval

    def to_rows(self, **labels: str) -> list[dict[str, Any]]:
        """Return tidy rows of `moved`, `gain` and `others`; `n` counts prompts."""
        columns = {**labels, "rule": self.rule, "cluster": self.cluster, "misreport": str(self.misreport)}
        moved = Interval(self.moved, np.nan, np.nan, 0, self.gain.n_items)
        metrics = {"moved": moved, "gain": self.gain, "others": self.others}
        return [{**columns, "metric": metric, **interval_columns(interval)} for metric, interval in metrics.items()]


def misreported(rewards: np.ndarray, group: np.ndarray, cluster: int, misreport: Misreport) -> np.ndarray:
    """Replace one cluster's rewards by its misreport.

    Args:
        rewards: (U, K) true rewards.
        group: (U,) prompt of each response.
        cluster: Index of the cluster that misreports.
        misreport: See `Misreport`. A factor keeps the cluster's mean on each prompt.

    Returns:
        (U, K) rewards, of which one column is changed.

    Raises:
        ValueError: If the misreport is a word other than `"extremes"`, or not finite.

    Example:
        >>> rewards = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
        >>> misreported(rewards, np.zeros(3), 0, 2)[:, 0].tolist()
        [-1.0, 3.0, 7.0]
    """
    reported = np.array(rewards, dtype=np.float64)
    true = reported[:, cluster].copy()
    _, prompt = np.unique(np.asarray(group), return_inverse=True)
    if misreport == "extremes":
        best = np.full(prompt.max() + 1, -np.inf)
        np.maximum.at(best, prompt, true)
        reported[:, cluster] = np.where(true == best[prompt], true.max(), true.min())
        return reported
    if isinstance(misreport, str) or not np.isfinite(misreport):
        raise ValueError(f"misreport: got {misreport!r}; give a factor such as 5, or 'extremes'.")
    mean = np.bincount(prompt, true) / np.bincount(prompt)
    reported[:, cluster] = mean[prompt] + misreport * (true - mean[prompt])
    return reported


def exaggeration_report(
    rewards: np.ndarray,
    group: np.ndarray,
    weights: Sequence[float] | np.ndarray,
    rules: Sequence[RuleSpec],
    factors: Sequence[Misreport] = (2, 5, 20),
    cluster: int | None = None,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[ExaggerationEffect]:
    """Try misreports of one cluster, or of every cluster in turn, under several rules.

    Rules that read only the order of responses (Borda, Copeland, Schulze, the maximal lottery, a random dictator) are
    not moved at all by a positive factor. `"extremes"` moves Borda too, which counts how many responses are passed.

    Args:
        rewards: (U, K) true rewards, calibrated.
        group: (U,) prompt of each response, at least two per prompt.
        weights: (K,), or (G, K) for the prompts in sorted order.
        rules: The rules.
        factors: The misreports to try, see `Misreport`.
        cluster: Index of the cluster that misreports; None: each in turn, all others honest.
        draws: Bootstrap draws over the prompts, the same for the honest and the misreported verdict.
        level: Level of the intervals.
        seed: Random seed of the resampling.

    Returns:
        An effect for each rule, cluster and misreport, in this order.

    Raises:
        JuryError: If there is no such cluster, or the rules cannot use rewards or weights.
        ValueError: If a misreport or a rule is unknown.

    Example:
        >>> rewards, group = np.array([[0.0, 1.5], [1.0, 0.0]]), np.array(["q", "q"])
        >>> effects = exaggeration_report(rewards, group, [0.7, 0.3], ["mean", "random_dictator"], [3], cluster=1)
        >>> [(effect.rule, effect.gain.value) for effect in effects]  # a dictator reads only the order
        [('mean', 1.5), ('random_dictator', 0.0)]
    """
    truth = np.asarray(rewards, dtype=np.float64)
    k = truth.shape[-1]
    if cluster is not None and not 0 <= cluster < k:
        raise JuryError(f"cluster={cluster}, but the rewards have {k} columns: give an index from 0 to {k - 1}.")
    parsed = [Rule.parse(rule) for rule in rules]
    prompts, prompt = np.unique(np.asarray(group), return_inverse=True)
    honest = verdict_lotteries(truth, group, weights, parsed)
    shares = np.broadcast_to(normalise_weights(np.asarray(weights, dtype=np.float64), k).numpy(), (len(prompts), k))
    effects: dict[tuple[int, int, int], ExaggerationEffect] = {}
    for c in range(k) if cluster is None else [cluster]:
        rest = np.delete(np.arange(k), c)
        left = shares[:, rest].sum(axis=1, keepdims=True)
        share = np.divide(shares[:, rest], left, out=np.full((len(prompts), k - 1), np.nan), where=left > 0)
        worth = np.stack([truth[:, c], (share[prompt] * truth[:, rest]).sum(axis=1)], axis=1)  # (U, 2)
        for m, misreport in enumerate(factors):
            shift = verdict_lotteries(misreported(truth, group, c, misreport), group, weights, parsed) - honest
            for r, rule in enumerate(parsed):
                by_prompt = np.zeros((1, len(prompts), 3))
                np.add.at(by_prompt[0], prompt, np.column_stack([shift[r, :, None] * worth, np.abs(shift[r]) / 2]))
                change = by_prompt[..., :2]
                intervals = percentile_interval(
                    change.mean(axis=1), bootstrap_means(change, draws, seed), len(prompts), level=level
                )
                moved = float((by_prompt[0, :, 2] > _MOVED).mean())
                effects[r, c, m] = ExaggerationEffect(str(rule), c, misreport, moved, *intervals)
    return [effects[key] for key in sorted(effects)]
