"""The weights that the prompts of a batch name: drawn in training, those of the row or the population in evaluation.

Knows nothing of targets, losses or generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.weights.sampler import WeightSampler


__all__ = ["rows_for_evaluation"]


def rows_for_evaluation(
    rows: Sequence[dict[str, Any]], sampler: WeightSampler, reward: JuryReward
) -> list[dict[str, Any]]:
    """Return rows whose prompts name the weights of their column `weights`, or the population's if it is empty.

    Args:
        rows: Rows of the data set.
        sampler: Writes weights into prompts.
        reward: Reads the column `weights`.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["urban", "rural"], prevalence=np.array([0.7, 0.3]), cluster_rewards=None
        ... )
        >>> sampler = WeightSampler(scorer.cluster_names, scorer.prevalence)
        >>> rows = [{"prompt": "Which?", "weights": "rural"}, {"prompt": "Which?", "weights": None}]
        >>> for row in rows_for_evaluation(rows, sampler, JuryReward(scorer)):
        ...     print(row["prompt"].splitlines()[0])
        Answer as a member of this public: rural.
        Answer as a member of the public.
    """
    specs = [row.get("weights") for row in rows]
    weights = reward.row_weights(specs, len(rows)).numpy()
    return [
        sampler.steered_row(row, sampler.prevalence if spec is None else w)
        for row, spec, w in zip(rows, specs, weights, strict=True)
    ]
