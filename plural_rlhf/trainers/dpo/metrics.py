"""What `PluralDPOTrainer` logs of a batch: TRL's numbers for pairs, and accuracy, loss and weight of every cluster.

What is averaged over pairs or tokens is returned as sums and counts, to be added up over batches and processes of any
size before anything is divided. Knows nothing of trainers or of how a loss comes about.

Shapes: `N` pairs of a batch, `M` readings of them, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.trainers.dpo.balance import ClusterBalance
from reward_models.fitting.running_memberships import RunningMemberships


__all__ = ["balance_metrics", "membership_metrics", "pair_metrics", "policy_metrics", "sum_and_count"]


def sum_and_count(values: Tensor, counted: Tensor) -> Tensor:
    """Return the (2,) sum of the values times their counts, and of the counts; where a count is 0 a value may be NaN.

    Example:
        >>> sum_and_count(torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([1, 3, 0]))
        tensor([7., 4.])
    """
    counted = counted.to(values)
    return torch.stack([torch.where(counted > 0, values.detach() * counted, 0.0).sum(), counted.sum()]).float()


def policy_metrics(outputs: Any, log_pi: Tensor, readings: Mapping[str, Tensor], real: Tensor) -> dict[str, Tensor]:
    """Return entropy (nats per token) and log-probabilities of what the policy read, as (2,) sums and counts.

    Args:
        outputs: Of the policy, from TRL's fused head.
        log_pi: (M, 2) of chosen and rejected, nats.
        readings: TRL's batch.
        real: (M,) whether the reading counts.
    """
    mask = readings["completion_mask"][:, 1:] * real.repeat(2)[:, None]
    return {
        "entropy": sum_and_count(outputs.entropy[:, -mask.size(1) :], mask),
        "logps/chosen": sum_and_count(log_pi[:, 0], real),
        "logps/rejected": sum_and_count(log_pi[:, 1], real),
    }


def pair_metrics(
    names: Sequence[str], rewards: Tensor, losses: Tensor, counted: Tensor, responsible: Tensor, *, mixture: bool
) -> dict[str, Tensor]:
    """Return TRL's `rewards/*`, averaged over the clusters that a rater may be in, and the same cluster by cluster.

    Args:
        names: `K` names.
        rewards: (N, K, 2) implicit rewards of chosen and rejected, in logits.
        losses: (N, K) loss of each pair for each cluster; of a cluster that is ruled out it means nothing.
        counted: (N, K) membership times weight.
        responsible: (N, K) the same once the judgement is known.
        mixture: Whether to return responsibilities, too.

    Returns:
        (2,) sum and count by name.

    Example:
        >>> sums = pair_metrics(
        ...     ["urban", "rural"], torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0.3, 1.3]]),
        ...     torch.tensor([[0.75, 0.25]]), torch.tensor([[0.9, 0.1]]), mixture=False,
        ... )  # fmt: skip
        >>> for name in ("rewards/accuracies", "plural/accuracy/urban", "plural/accuracy/rural"):
        ...     sums[name].tolist()
        [0.75, 1.0]
        [0.75, 0.75]
        [0.0, 0.25]
    """
    margin = rewards[..., 0] - rewards[..., 1]
    right = (margin > 0).to(losses)
    metrics = {
        "rewards/chosen": sum_and_count(rewards[..., 0], counted),
        "rewards/rejected": sum_and_count(rewards[..., 1], counted),
        "rewards/accuracies": sum_and_count(right, counted),
        "rewards/margins": sum_and_count(margin, counted),
    }
    for k, cluster in enumerate(names):
        metrics[f"plural/accuracy/{cluster}"] = sum_and_count(right[:, k], counted[:, k])
        metrics[f"plural/loss/{cluster}"] = sum_and_count(losses[:, k], counted[:, k])
        if mixture:
            share = torch.stack([responsible[:, k].sum(), counted.sum()]).float()
            metrics[f"plural/responsibility/{cluster}"] = share
    return metrics


def balance_metrics(names: Sequence[str], balance: ClusterBalance) -> dict[str, float]:
    """Return what each cluster counts in the loss.

    Example:
        >>> from types import SimpleNamespace
        >>> balance_metrics(["urban", "rural"], SimpleNamespace(robust=False, weights=torch.tensor([0.75, 0.25])))
        {'plural/weight/urban': 0.75, 'plural/weight/rural': 0.25}
    """
    kind = "robust_weight" if balance.robust else "weight"
    return {f"plural/{kind}/{name}": float(w) for name, w in zip(names, balance.weights, strict=True)}


def membership_metrics(names: Sequence[str], memberships: RunningMemberships) -> dict[str, float]:
    """Return the prevalence of each cluster, and the mean entropy of the raters' memberships in nats.

    Example:
        >>> from types import SimpleNamespace
        >>> learnt = SimpleNamespace(prevalence=[0.75, 0.25], entropy=lambda: 0.5)
        >>> membership_metrics(["red", "blue"], learnt)["plural/prevalence/red"]
        0.75
    """
    prevalence = {f"plural/prevalence/{n}": float(p) for n, p in zip(names, memberships.prevalence, strict=True)}
    return {**prevalence, "plural/membership_entropy": memberships.entropy()}
