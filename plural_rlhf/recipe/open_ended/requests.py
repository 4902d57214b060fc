"""For whom policies that write are asked, and what asking changes: approval under a request against the population's.

Knows the run file, the judgements and measured texts; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.report.names import EVERYBODY
from plural_rlhf.report.results_policies import TextResults, TextRow, WrittenText
from reward_models.errors import did_you_mean
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.weights import parse_weights


__all__ = ["SHIFT", "add_shifts", "check_raters", "named_weightings"]

SHIFT = "approval_shift"
"""Measure of `TextRow`: approval under a request less approval when the same policy is asked for the population."""


def named_weightings(config: RunConfig, data: RunData, scorer: ClusterScorer) -> dict[str, np.ndarray]:
    """Return the weights `(K,)` that policies are asked for: the population, clusters, juries and raters.

    A rater's weights are the rater's posterior over the clusters, from all judgements of the rater.

    Args:
        config: The run; `juries` and `evaluate.raters`.
        data: Its judgements.
        scorer: The training jury.
    """
    names = list(scorer.cluster_names)
    weightings = {EVERYBODY: scorer.prevalence, **{name: np.eye(len(names))[k] for k, name in enumerate(names)}}
    weightings |= {name: parse_weights(seats, names, scorer.prevalence) for name, seats in config.juries.items()}
    for rater in config.evaluate.raters:
        assert isinstance(scorer, JuryScorer)  # check_raters refuses others
        rows = data.everything.select((data.everything.frame["rater_id"] == rater).to_numpy())
        weightings[f"rater {rater}"] = scorer.adapt(rows).weights(rater)
    return weightings


def check_raters(config: RunConfig, data: RunData) -> None:
    """Raise unless every rater of `evaluate.raters` has judged.

    Args:
        config: The run.
        data: Its judgements.

    Raises:
        ConfigError: An unknown rater, or a run without raters.
    """
    raters = list(map(str, data.everything.raters))
    faults = []
    for rater in config.evaluate.raters:
        if config.jury.objectives is not None:
            faults.append(f"evaluate.raters names {rater!r}, and objectives have no raters. Fix: remove it")
        elif rater not in raters:
            hint = did_you_mean(rater, raters)
            faults.append(f"evaluate.raters names {rater!r}, who judged nothing here.{hint} Fix: correct the id")
    if faults:
        raise ConfigError(config.name, faults)


def add_shifts(results: Sequence[TextResults], draws: int, level: float, seed: int) -> list[TextResults]:
    """Add to results under each request what it changes: rows `approval_shift` by policy, jury and cluster.

    Args:
        results: Of one split, one per request, that for the population among them.
        draws: Resamples of the prompts.
        level: Level of the intervals.
        seed: Random seed.

    Example:
        >>> def asked(weighting, approval):
        ...     text = {"policy": "plural", "prompt": "What now?", "text": "Parks.", "approvals": {"urban": approval}}
        ...     return TextResults(split="train", weighting=weighting, texts=[text])
        >>> _, urban = add_shifts([asked("all", 0.5), asked("urban", 0.75)], draws=20, level=0.95, seed=0)
        >>> [(row.policy, row.measure, row.jury, row.cluster, row.value) for row in urban.rows]
        [('plural', 'approval_shift', 'training', 'urban', 0.25)]
    """
    before = next(of for of in results if of.weighting == EVERYBODY)
    prompts = list(dict.fromkeys(text.prompt for text in before.texts))
    bootstrap = resample_prompts(max(len(prompts), 1), draws=draws, level=level, seed=seed)
    complete = []
    for of in results:
        rows = list(of.rows)
        policies = {text.policy for text in of.texts} & {text.policy for text in before.texts} - {"people"}
        for policy in sorted(policies) if of is not before else ():
            for jury in ("training", "heldout"):
                after, at_first = (_approvals(some.texts, policy, jury, prompts) for some in (of, before))
                for cluster in after:
                    shift = after[cluster] - at_first[cluster]
                    value, low, high = bootstrap.interval(shift)
                    row = TextRow(policy=policy, measure=SHIFT, jury=jury, cluster=cluster, value=value)
                    ends = {"ci_low": low, "ci_high": high} if np.isfinite(low) else {}
                    rows.append(row.model_copy(update={"n": len(prompts), "unit": "probability", **ends}))
        complete.append(of.model_copy(update={"rows": rows}))
    return complete


def _approvals(texts: Sequence[WrittenText], policy: str, jury: str, prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean approval of a policy's texts `(R,)` by cluster of a jury; empty without the jury."""
    own = [text for text in texts if text.policy == policy]
    approvals = [text.approvals if jury == "training" else text.heldout_approvals for text in own]
    return {
        cluster: np.array(
            [
                np.mean([a[cluster] for text, a in zip(own, approvals, strict=True) if text.prompt == prompt])
                for prompt in prompts
            ]
        )
        for cluster in (approvals[0] if approvals else ())
    }
