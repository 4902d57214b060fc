"""What happens at certain points of a training: before its first step, and at the end of each epoch.

Knows nothing of losses.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from reward_models.errors import JudgementWarning
from reward_models.trainer import _trl
from reward_models.trainer.heads import restart_head
from reward_models.trainer.kept_change import keep_start


if TYPE_CHECKING:
    from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer

__all__ = ["Milestones", "revive_empty_clusters"]


class Milestones(TrainerCallback):
    """Keep the model before the first step as a candidate, and look for empty clusters at the end of each epoch.

    Args:
        trainer: A `JuryRewardTrainer`, which adds this callback itself.

    Example:
        >>> Milestones(trainer=None).on_train_begin  # doctest: +ELLIPSIS
        <bound method Milestones.on_train_begin of ...>
    """

    def __init__(self, trainer: JuryRewardTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate and save the start, so that a training that only makes it worse ends with it."""
        if args.heldout_texts > 0 and state.global_step == 0:
            _trl.save_as_best(self.trainer)
            keep_start(self.trainer)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restart empty clusters, unless no training is left."""
        if self.trainer.memberships.log_lik.shape[1] > 1:
            self.trainer.revive_empty_clusters(reseed=state.global_step < state.max_steps)


def revive_empty_clusters(trainer: JuryRewardTrainer, reseed: bool) -> list[str]:
    """Warn of clusters with fewer than `min_cluster_size` expected raters, and restart them.

    The head of such a cluster becomes the consensus of the others plus a small random deviation, and the raters who
    are predicted worst become its members until their judgements are in a batch again.

    Args:
        trainer: The trainer; its heads and memberships are changed in place.
        reseed: Whether to restart them, or only to warn.

    Returns:
        Their names.
    """
    memberships, args = trainer.memberships, trainer.args
    empty = np.flatnonzero(memberships.sizes() < args.min_cluster_size)
    # Sharded heads cannot be written to from here.
    reseed = reseed and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    for cluster in empty.tolist():
        size, prevalence = memberships.sizes()[cluster], memberships.prevalence.copy()
        outcome = "It is not restarted: no training is left, or the heads are sharded"
        if reseed:
            raters = memberships.reseed(cluster)
            seed = args.seed + trainer.state.global_step
            restart_head(trainer.jury, cluster, prevalence, args.deviation_scale, seed)
            outcome = f"It restarts from the {len(raters)} raters that are predicted worst"
        warnings.warn(
            f"cluster {trainer.cluster_names[cluster]!r} is empty: {size:.2f} expected raters, below "
            f"min_cluster_size={args.min_cluster_size:g}. {outcome}. If this repeats, use fewer clusters.",
            JudgementWarning,
            stacklevel=3,
        )
    return [trainer.cluster_names[cluster] for cluster in empty]
