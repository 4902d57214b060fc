"""Which responses each welfare rule picks, and which clusters gain or lose by it.

Rules are compared on the same responses to the same prompts, each by its verdict: a lottery over the responses to a
prompt, which is one response unless the rule ties or is random. A cluster's gain is the change of its own reward
against the picks of a baseline rule. Knows the rules by name only, and nothing of where rewards come from.

Shapes: `U` responses, `G` prompts, `N` responses to one prompt, `K` clusters, `B` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.intervals import bootstrap_means, interval_columns, percentile_interval
from reward_models.errors import JuryError
from reward_models.stats.answers import Interval


__all__ = ["RuleEffect", "WelfareReport", "verdict_lotteries", "welfare_effects"]


@dataclass(frozen=True)
class RuleEffect:
    """The picks of one rule and their effect on every cluster.

    Attributes:
        rule: The rule, as it is written.
        lottery: (U,) probability of each response among those to its prompt.
        picks: (G,) most probable response (row of the rewards) to each prompt, the first of equals.
        agreement: Mean over prompts of the overlap of both lotteries: the share of equal picks, if neither rule ties.
        change: `K` mean changes of a cluster's reward against the baseline, in the unit of the rewards; above 0 it
            gains.

    Example:
        >>> rewards, group = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array(["q", "q"])
        >>> effect = welfare_effects(rewards, group, [0.5, 0.5], ["min"], ["urban", "rural"]).effects[1]
        >>> effect.rule, effect.picks.tolist(), [change.value for change in effect.change]
        ('min', [1], [-2.0, 1.0])
    """

    rule: str
    lottery: np.ndarray
    picks: np.ndarray
    agreement: float
    change: tuple[Interval, ...]


@dataclass(frozen=True)
class WelfareReport:
    """The picks of several rules from the same responses.

    Attributes:
        cluster_names: `K` names.
        baseline: The rule that the others are compared with.
        prompts: (G,) the prompts, sorted.
        effects: One for each rule, the baseline first.

    Example:
        >>> rewards, group = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array(["q", "q"])
        >>> report = welfare_effects(rewards, group, [0.5, 0.5], ["min", "borda"], ["urban", "rural"])
        >>> [(effect.rule, effect.agreement) for effect in report.effects]
        [('mean', 1.0), ('min', 0.0), ('borda', 0.5)]
    """

    cluster_names: tuple[str, ...]
    baseline: str
    prompts: np.ndarray
    effects: tuple[RuleEffect, ...]

    def to_rows(self, **labels: str) -> list[dict[str, Any]]:
        """Return tidy rows: `labels`, `rule`, `cluster` ("" for all), `metric`, `value`, `ci_low`, `ci_high`, `n`.

        `n` is the number of prompts, `n_raters` that of raters if they were resampled; an unavailable interval is
        None.
        """
        rows = []
        for effect in self.effects:
            columns = {**labels, "rule": effect.rule}
            agreement = Interval(effect.agreement, np.nan, np.nan, 0, len(self.prompts))
            rows.append({**columns, "cluster": "", "metric": "agreement", **interval_columns(agreement)})
            for cluster, change in zip(self.cluster_names, effect.change, strict=True):
                rows.append({**columns, "cluster": cluster, "metric": "change", **interval_columns(change)})
        return rows


def verdict_lotteries(
    rewards: np.ndarray, group: np.ndarray, weights: Sequence[float] | np.ndarray, rules: Sequence[RuleSpec]
) -> np.ndarray:
    """Compute the verdicts of rules on many prompts, with any number of responses to each.

    Args:
        rewards: (U, K), on one scale where a rule compares heads.
        group: (U,) the prompt of each response; at least two responses to each.
        weights: (K,), or (G, K) for the prompts in sorted order.
        rules: The rules.

    Returns:
        (rules, U) probabilities, summing to one over the responses to a prompt.

    Raises:
        JuryError: If shapes do not fit, a prompt has one response, or the rules cannot use rewards or weights.

    Example:
        >>> rewards = np.array([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]])
        >>> verdict_lotteries(rewards, np.array([0, 0, 0, 0]), [0.6, 0.4], ["mean", "min", "random_dictator"]).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.6, 0.4, 0.0, 0.0]]
    """
    values, group = np.asarray(rewards, dtype=np.float64), np.asarray(group)
    if values.ndim != 2 or group.shape != values.shape[:1]:
        raise JuryError(
            f"rewards {values.shape} and group {group.shape} do not fit each other: give (U, K) rewards and the "
            "prompt of each of the U responses."
        )
    prompts, prompt, size = np.unique(group, return_inverse=True, return_counts=True)
    if (size < 2).any():
        raise JuryError(
            f"prompt {prompts.tolist()[size.argmin()]!r} has one response, so there is no choice: leave it out, or "
            "add responses to it."
        )
    order = np.argsort(prompt, kind="stable")
    place = np.empty(len(prompt), dtype=np.int64)
    place[order] = np.arange(len(prompt)) - np.repeat(np.cumsum(size) - size, size)
    padded = np.zeros((len(prompts), size.max(), values.shape[1]))
    padded[prompt, place] = values
    mask = torch.as_tensor(np.arange(size.max()) < size[:, None])
    shares = torch.as_tensor(np.asarray(weights, dtype=np.float64))
    verdicts = [Rule.parse(rule).lottery(torch.as_tensor(padded), shares, mask).numpy() for rule in rules]
    return np.stack(verdicts)[:, prompt, place]


def welfare_effects(
    rewards: np.ndarray,
    group: np.ndarray,
    weights: Sequence[float] | np.ndarray,
    rules: Sequence[RuleSpec],
    cluster_names: Sequence[str],
    *,
    baseline: RuleSpec = "mean",
    measured_by: np.ndarray | None = None,
    rewards_draws: np.ndarray | None = None,
    n_raters: int = 0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> WelfareReport:
    """Measure which clusters gain and which lose under each rule.

    The intervals resample the prompts, paired: in a draw both rules answer the same prompts. With `rewards_draws` they
    resample the raters too, or the raters alone if there is one prompt. Verdicts are not computed again in a draw: the
    interval is about the value of the picked responses, not about which ones are picked.

    A rule picks responses that look good for the clusters it favours, in part by chance. Where rewards are estimates
    from few raters, pass `measured_by` from other raters than those of `rewards`.

    Args:
        rewards: (U, K) calibrated rewards that the rules see.
        group: (U,) prompt of each response.
        weights: (K,), or (G, K) for the prompts in sorted order.
        rules: The rules to compare with the baseline.
        cluster_names: `K` names.
        baseline: The rule that changes are measured against.
        measured_by: (U, K) rewards in which the changes are measured; None: `rewards`.
        rewards_draws: (B, U, K) `measured_by` estimated again from resampled raters.
        n_raters: Number of raters behind `rewards_draws`; recorded with the intervals.
        draws: B if only prompts are resampled.
        level: Level of the intervals.
        seed: Random seed of the resampling.

    Returns:
        The report. With one prompt and no `rewards_draws` nothing can be resampled, and the intervals are NaN.

    Raises:
        JuryError: If shapes do not fit, or the rules cannot use rewards or weights.

    Example:
        >>> rewards = np.array([[3.0, 0.0], [1.0, 1.0], [2.0, 0.0], [1.0, 0.5]])
        >>> report = welfare_effects(rewards, np.array([0, 0, 1, 1]), [0.5, 0.5], ["min"], ["urban", "rural"])
        >>> [(row["cluster"], row["value"]) for row in report.to_rows() if row["rule"] == "min"]
        [('', 0.0), ('urban', -1.5), ('rural', 0.75)]
    """
    truth = np.asarray(rewards if measured_by is None else measured_by, dtype=np.float64)
    shape = np.shape(rewards)
    if truth.shape != shape or shape[1:] != (len(cluster_names),):
        raise JuryError(
            f"rewards {shape}, measured_by {truth.shape} and {len(cluster_names)} cluster names do not fit: "
            "give (U, K) twice and K names."
        )
    if rewards_draws is not None and (np.ndim(rewards_draws) != 3 or np.shape(rewards_draws)[1:] != shape):
        raise JuryError(f"rewards_draws have shape {np.shape(rewards_draws)}: give (B, U, K) for rewards {shape}.")
    if (rewards_draws is not None) != (n_raters > 0):
        raise JuryError(
            f"n_raters={n_raters} with{'' if rewards_draws is not None else 'out'} rewards_draws: give both, the "
            "rewards under resampled raters and how many raters there are, or neither."
        )
    parsed = [Rule.parse(rule) for rule in (baseline, *rules)]
    parsed = [rule for i, rule in enumerate(parsed) if str(rule) not in map(str, parsed[:i])]
    lotteries = verdict_lotteries(rewards, group, weights, parsed)
    prompts, prompt = np.unique(np.asarray(group), return_inverse=True)
    shared = np.minimum(lotteries, lotteries[0]).sum(axis=1) / len(prompts)
    shifts = lotteries - lotteries[0]  # (rules, U)

    def changes(worth: np.ndarray) -> np.ndarray:
        """Return the expected change of each cluster's reward on each prompt, (rules, G, K)."""
        by_prompt = np.zeros((len(prompts), len(shifts), worth.shape[1]))
        np.add.at(by_prompt, prompt, shifts.T[:, :, None] * worth[:, None])
        return by_prompt.swapaxes(0, 1)

    change = changes(truth)
    if rewards_draws is None:
        drawn = bootstrap_means(change, draws, seed)
    else:
        drawn = np.concatenate(
            [bootstrap_means(changes(draw), 1, seed + i) for i, draw in enumerate(np.asarray(rewards_draws))]
        )
    intervals = percentile_interval(change.mean(axis=1), drawn, len(prompts), n_raters=n_raters, level=level)
    best = np.stack([_first_best(lottery, prompt, len(prompts)) for lottery in lotteries])
    k = len(cluster_names)
    return WelfareReport(
        cluster_names=tuple(cluster_names),
        baseline=str(parsed[0]),
        prompts=prompts,
        effects=tuple(
            RuleEffect(str(rule), lotteries[i], best[i], float(shared[i]), tuple(intervals[i * k : (i + 1) * k]))
            for i, rule in enumerate(parsed)
        ),
    )


def _first_best(lottery: np.ndarray, prompt: np.ndarray, n_prompts: int) -> np.ndarray:
    """Return the row of the most probable response to each prompt, (G,)."""
    order = np.lexsort((np.arange(len(lottery)), -lottery.round(9), prompt))
    return order[np.searchsorted(prompt[order], np.arange(n_prompts))]
