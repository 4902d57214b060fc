"""Measure policies along their trainings by a few texts of each checkpoint, and say which checkpoint is the best.

Knows two juries and texts; knows nothing of models and of how texts are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from plural_rlhf.evaluation.open_ended.samples import PolicySamples, read_samples
from plural_rlhf.evaluation.open_ended.scored import PEOPLE, judge, open_writers
from plural_rlhf.recipe.open_ended.measured_policies import MeasuredPolicy, checkpoints_of
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.samples import Sample
from plural_rlhf.report.names import Method, Split
from plural_rlhf.report.results_policies import CheckpointResult
from reward_models.jury.protocol import ClusterScorer


__all__ = ["best_checkpoints", "measure_along"]


def measure_along(
    policies: Sequence[MeasuredPolicy],
    samples: Sequence[Sample],
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    second: ClusterScorer | None,
) -> list[CheckpointResult]:
    """Compute divergence from pi_0 and gains in approval of every checkpoint, means over prompts.

    Args:
        policies: The policies of a run.
        samples: Texts of their checkpoints and of pi_0, for the population.
        prompts: The prompts of these texts.
        scorer: The training jury.
        second: The held-out jury; None without one.
    """
    results = []
    for split in Split:
        of_split = [prompt for prompt in prompts if prompt.split == split]
        drawn = read_samples(asdict(sample) for sample in samples if sample.split == split)
        if not of_split or Method.WARM not in drawn:
            continue
        gains = [_gains(drawn, of_split, one) for one in (scorer, second) if one is not None]
        for policy in policies:
            for step, at in checkpoints_of(policy).items():
                texts = drawn[at.name]
                result = CheckpointResult(
                    policy=policy.name,
                    step=step,
                    split=split,
                    kl_to_reference=_divergence(texts),
                    gain=gains[0][at.name],
                    heldout_gain=gains[1][at.name] if len(gains) > 1 else None,
                    n=sum(len(some) for some in texts.texts.values()),
                )
                results.append(result)
    return results


def best_checkpoints(
    policies: Sequence[MeasuredPolicy], results: Sequence[CheckpointResult]
) -> tuple[list[CheckpointResult], dict[str, Path]]:
    """Choose of each policy the checkpoint that the held-out jury approves the most on training prompts.

    Args:
        policies: The policies of a run.
        results: What `measure_along` returns.

    Returns:
        The results, with those that are kept marked; and the adapter of each policy that is not that of its last step.
    """
    kept: dict[str, Path] = {}
    steps: dict[str, int] = {}
    for policy in policies:
        own = [r for r in results if r.policy == policy.name and r.split == Split.TRAIN and r.heldout_gain is not None]
        if own:
            best = max(own, key=lambda result: (result.heldout_gain or 0.0, result.step))
            steps[policy.name] = best.step
            adapter = checkpoints_of(policy)[best.step].adapter
            if adapter is not None and adapter != policy.adapter:
                kept[policy.name] = adapter
    return [r.model_copy(update={"kept": steps.get(r.policy) == r.step}) for r in results], kept


def _divergence(samples: PolicySamples) -> float:
    """KL(policy || pi_0) in nats per text: the mean log-ratio of its own texts, prompts counting alike."""
    assert samples.log_probs is not None  # every text of a checkpoint was drawn from it
    assert samples.reference_log_probs is not None
    means = [
        np.mean(np.subtract(samples.log_probs[prompt], samples.reference_log_probs[prompt]))
        for prompt in samples.texts
    ]
    return float(np.mean(means))


def _gains(
    drawn: Mapping[str, PolicySamples], prompts: Sequence[OpenPrompt], scorer: ClusterScorer
) -> dict[str, float]:
    """Approval above pi_0's by policy: over clusters by prevalence, and over prompts."""
    people = {prompt.wording: list(prompt.compared) for prompt in prompts if prompt.compared}
    writers = open_writers(drawn, people, None)
    judged = judge("", scorer, writers, {prompt.wording: prompt.messages for prompt in prompts}, Method.WARM, None)
    approvals = {
        name: np.mean([some.mean(axis=0) @ judged.weights for some in of.values()])
        for name, of in judged.approvals.items()
        if name != PEOPLE
    }
    return {name: float(value - approvals[Method.WARM]) for name, value in approvals.items()}
