"""What `PluralDPOTrainer` logs of a batch: TRL's numbers for pairs, and accuracy, loss and weight of every cluster.

Sums go over all processes before anything is divided. Knows nothing of how a loss comes about.

Shapes: `N` pairs of a batch, `M` readings of them, `K` clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.trainers import _trl


if TYPE_CHECKING:
    from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer

__all__ = ["global_mean", "log_clusters", "log_pairs", "log_policy"]


def global_mean(trainer: PluralDPOTrainer, values: torch.Tensor) -> float:
    """Mean over the values of all processes, each with as many."""
    return float(trainer.accelerator.reduce(values.detach().float().mean(), "mean"))


def log_policy(
    trainer: PluralDPOTrainer, outputs: Any, log_pi: torch.Tensor, readings: dict[str, torch.Tensor]
) -> None:
    """Logs tokens, entropy (nats a token) and log-probabilities of what the policy read.

    Args:
        trainer: Whose metrics they become.
        outputs: Of the policy, from TRL's fused head.
        log_pi: (M, 2) of chosen and rejected, nats.
        readings: TRL's batch.
    """
    _trl.count_tokens(trainer, readings["attention_mask"])
    mask = readings["completion_mask"][:, 1:]
    entropy = (outputs.entropy[:, -mask.size(1) :] * mask).sum() / mask.sum().clamp(min=1)
    _trl.add_metric(trainer, "entropy", global_mean(trainer, entropy))
    _trl.add_metric(trainer, "logps/chosen", global_mean(trainer, log_pi[:, 0]))
    _trl.add_metric(trainer, "logps/rejected", global_mean(trainer, log_pi[:, 1]))
    if trainer.aux_loss_enabled:
        _trl.add_metric(trainer, "aux_loss", global_mean(trainer, outputs.aux_loss))


def log_pairs(
    trainer: PluralDPOTrainer,
    rewards: torch.Tensor,
    losses: torch.Tensor,
    counted: torch.Tensor,
    responsible: torch.Tensor,
) -> None:
    """Logs TRL's `rewards/*`, averaged over the clusters that a rater may be in, and the same cluster by cluster.

    Args:
        trainer: Whose metrics they become.
        rewards: (N, K, 2) implicit rewards of chosen and rejected, in logits.
        losses: (N, K) loss of each pair for each cluster.
        counted: (N, K) membership times weight.
        responsible: (N, K) the same once the judgement is known.
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
    sums = dict(zip([*values, "counted", "responsible"], trainer.accelerator.reduce(table, "sum").cpu(), strict=True))
    total = float(sums["counted"].sum())
    if total == 0:
        return
    for name in list(values)[:4]:
        _trl.add_metric(trainer, name, float(sums[name].sum()) / total)
    for i, cluster in enumerate(trainer.clusters.names):
        if sums["counted"][i] > 0:
            for name, short in (("rewards/accuracies", "accuracy"), ("loss", "loss")):
                _trl.add_metric(trainer, f"plural/{short}/{cluster}", float(sums[name][i] / sums["counted"][i]))
        if trainer.args.objective == "mixture":
            _trl.add_metric(trainer, f"plural/responsibility/{cluster}", float(sums["responsible"][i]) / total)


def log_clusters(trainer: PluralDPOTrainer) -> None:
    """Logs what each cluster counts in the loss, or its prevalence where clusters are learnt."""
    for i, cluster in enumerate(trainer.clusters.names):
        if trainer.memberships is None:
            name = "robust_weight" if trainer.args.robust else "weight"
            _trl.add_metric(trainer, f"plural/{name}/{cluster}", float(trainer.balance.weights[i]))
        else:
            _trl.add_metric(trainer, f"plural/prevalence/{cluster}", float(trainer.memberships.prevalence[i]))
    if trainer.memberships is not None:
        _trl.add_metric(trainer, "plural/membership_entropy", trainer.memberships.entropy())
