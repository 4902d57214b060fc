"""What `PluralDPOTrainer` logs of a batch: TRL's numbers for pairs, and accuracy, loss and weight of every cluster.

Sums go over all processes before anything is divided. Knows nothing of trainers or of how a loss comes about.

Shapes: `N` pairs of a batch, `M` readings of them, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.trainers.dpo.balance import ClusterBalance
from reward_models.fitting.running_memberships import RunningMemberships


__all__ = ["balance_metrics", "global_mean", "membership_metrics", "pair_metrics", "policy_metrics"]

Reduce = Callable[[Tensor, str], Tensor]
"""`Accelerator.reduce`: the `"mean"` or `"sum"` of a tensor over all processes."""


def global_mean(values: Tensor, reduce: Reduce) -> float:
    """Return the mean over the values of all processes, each with as many.

    Example:
        >>> global_mean(torch.tensor([1.0, 2.0]), lambda value, how: value)
        1.5
    """
    return float(reduce(values.detach().float().mean(), "mean"))


def policy_metrics(outputs: Any, log_pi: Tensor, readings: Mapping[str, Tensor], reduce: Reduce) -> dict[str, float]:
    """Return entropy (nats per token) and log-probabilities of what the policy read.

    Args:
        outputs: Of the policy, from TRL's fused head.
        log_pi: (M, 2) of chosen and rejected, nats.
        readings: TRL's batch.
        reduce: Over processes.
    """
    mask = readings["completion_mask"][:, 1:]
    entropy = (outputs.entropy[:, -mask.size(1) :] * mask).sum() / mask.sum().clamp(min=1)
    return {
        "entropy": global_mean(entropy, reduce),
        "logps/chosen": global_mean(log_pi[:, 0], reduce),
        "logps/rejected": global_mean(log_pi[:, 1], reduce),
    }


def pair_metrics(
    names: Sequence[str],
    rewards: Tensor,
    losses: Tensor,
    counted: Tensor,
    responsible: Tensor,
    reduce: Reduce,
    *,
    mixture: bool,
) -> dict[str, float]:
    """Return TRL's `rewards/*`, averaged over the clusters that a rater may be in, and the same cluster by cluster.

    Args:
        names: `K` names.
        rewards: (N, K, 2) implicit rewards of chosen and rejected, in logits.
        losses: (N, K) loss of each pair for each cluster.
        counted: (N, K) membership times weight.
        responsible: (N, K) the same once the judgement is known.
        reduce: Over processes.
        mixture: Whether to return responsibilities, too.

    Example:
        >>> found = pair_metrics(
        ...     ["urban", "rural"], torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0.3, 1.3]]),
        ...     torch.tensor([[0.75, 0.25]]), torch.tensor([[0.9, 0.1]]), lambda value, how: value, mixture=False,
        ... )  # fmt: skip
        >>> found["rewards/accuracies"], found["plural/accuracy/urban"], found["plural/accuracy/rural"]
        (0.75, 1.0, 0.0)
    """
    margin = rewards[..., 0] - rewards[..., 1]
    values = {
        "rewards/chosen": rewards[..., 0],
        "rewards/rejected": rewards[..., 1],
        "rewards/accuracies": (margin > 0).to(losses),
        "rewards/margins": margin,
        "loss": losses,
    }
    # A cluster that is ruled out was not read, and its numbers mean nothing.
    table = torch.stack([torch.where(counted > 0, counted * value, 0.0).sum(0) for value in values.values()])
    table = torch.cat([table, counted.sum(0, keepdim=True), responsible.sum(0, keepdim=True)])
    sums = dict(zip([*values, "counted", "responsible"], reduce(table, "sum").cpu(), strict=True))
    total = float(sums["counted"].sum())
    if total == 0:
        return {}
    metrics = {name: float(sums[name].sum()) / total for name in list(values)[:4]}
    for i, cluster in enumerate(names):
        if sums["counted"][i] > 0:
            for name, short in (("rewards/accuracies", "accuracy"), ("loss", "loss")):
                metrics[f"plural/{short}/{cluster}"] = float(sums[name][i] / sums["counted"][i])
        if mixture:
            metrics[f"plural/responsibility/{cluster}"] = float(sums["responsible"][i]) / total
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
