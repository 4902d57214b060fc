"""Memberships of raters of whom nothing is known but who judged what: they are learnt along with the policy.

Knows nothing of models, tokens or losses.

Shapes: `N` pairs of a batch, `K` clusters.
"""

from __future__ import annotations

import datasets
import numpy as np

from plural_rlhf.trainers.dpo.pair_clusters import WEIGHTS, Clusters
from reward_models.fitting.running_memberships import RunningMemberships
from reward_models.trainer.data import read_data
from reward_models.trainer.start import random_evidence


__all__ = ["batch_memberships", "start_memberships"]


def start_memberships(
    dataset: datasets.Dataset, clusters: Clusters, *, dirichlet: float, seed: int
) -> tuple[RunningMemberships, dict[str, int]]:
    """Start memberships from random evidence, which fades while the policy learns.

    Args:
        dataset: The training pairs, with `rater_id`.
        clusters: Of the training.
        dirichlet: α of the Dirichlet prior on the prevalence.
        seed: Random seed of the evidence.

    Returns:
        The memberships, and the number of each rater.

    Example:
        >>> pairs = [
        ...     {"prompt": prompt, "chosen": "yes", "rejected": "no", "rater_id": rater}
        ...     for prompt in ("More parks?", "More roads?") for rater in ("ann", "bob")
        ... ]  # fmt: skip
        >>> clusters = Clusters(["red", "blue"], np.array([0.5, 0.5]), "rater_id")
        >>> dataset = datasets.Dataset.from_list(pairs)
        >>> memberships, numbers = start_memberships(dataset, clusters, dirichlet=1.5, seed=0)
        >>> memberships.posterior().shape, numbers
        ((2, 2), {'ann': 0, 'bob': 1})
    """
    columns = [c for c in ("prompt", "chosen", "rejected", "rater_id", *WEIGHTS) if c in dataset.column_names]
    # By rows: batches know the number of a pair in the data set.
    enc, k = read_data(dataset.select_columns(columns)).by_rows().enc, len(clusters.names)
    memberships = RunningMemberships(enc, k, dirichlet=dirichlet)
    memberships.prevalence = clusters.prevalence.copy()
    memberships.evidence = random_evidence(enc.n_raters, k, seed)
    return memberships, {rater: number for number, rater in enumerate(enc.rater_ids)}


def batch_memberships(
    memberships: RunningMemberships,
    rater: np.ndarray,
    judgement: np.ndarray | None,
    *,
    progress: float,
    annealing_share: float,
) -> np.ndarray:
    """Return the log-probability that the rater of each pair is in each cluster, `(N, K)` nats.

    Args:
        memberships: What is known so far; its random evidence is set to what is left of it.
        rater: (N,) numbers of the raters, -1 for a stranger.
        judgement: (N,) numbers of the judgements, whose own evidence is left out; None leaves none out.
        progress: Share of training that is over.
        annealing_share: Share of training during which the random evidence fades out.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=3, num_items=4).judgements.encode()
        >>> memberships = RunningMemberships(enc, 2, dirichlet=1.5)
        >>> stranger = np.array([-1])
        >>> log_q = batch_memberships(memberships, stranger, None, progress=1.0, annealing_share=0.5)
        >>> np.exp(log_q).round(2).tolist()  # a stranger gets the prevalence
        [[0.5, 0.5]]
    """
    memberships.annealing = max(0.0, 1.0 - progress / annealing_share) if annealing_share > 0 else 0.0
    return memberships.log_membership(rater, judgement)
