"""What each cluster counts in the loss: a fixed weight, or a robust one that follows the losses.

Knows nothing of models, texts or processes.

Shapes: `N` pairs, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plural_rlhf.core.duals import MaxMinWeights
from plural_rlhf.trainers.dpo.pair_clusters import Clusters
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from reward_models.errors import JuryError
from reward_models.weights import parse_weights


__all__ = ["ClusterBalance"]


class ClusterBalance:
    """The weights of the clusters in the loss, beside their shares of the judgements.

    Args:
        labels: The membership and the weight of every training pair, see `preference_rows.label_rows`.
        clusters: Of the training.
        args: The settings.

    Attributes:
        shares: (K,) share of each cluster in the training judgements.

    Raises:
        ValueError: Weights are asked for, but there is one cluster, or the clusters are learnt.
        JuryError: A cluster without any judgement has a weight.

    Example:
        >>> clusters = Clusters(["urban", "rural"], np.array([0.5, 0.5]), "cluster")
        >>> labels = [{"membership": [1.0, 0.0], "weight": 1.5}, {"membership": [0.0, 1.0], "weight": 0.5}]
        >>> settings = {"use_cpu": True, "bf16": False, "robust": True, "robust_learning_rate": 1.0}
        >>> balance = ClusterBalance(labels, clusters, PluralDPOConfig("out", **settings))
        >>> balance.weights.tolist()
        [0.75, 0.25]
        >>> balance.follow(torch.tensor([0.0, 1.0]), step_ends=True)  # the few lose one nat more
        >>> round(float(balance.weights[1]), 3)  # .25 e / (.75 + .25 e)
        0.475
    """

    def __init__(self, labels: Sequence[Mapping[str, Any]], clusters: Clusters, args: PluralDPOConfig) -> None:
        names = clusters.names
        if args.robust or args.cluster_weights is not None:
            _check_shares_exist(clusters, args)
        self.robust = args.robust
        q = np.array([np.array(label["membership"]) * label["weight"] for label in labels])
        self.shares = torch.from_numpy(q.mean(0))
        weights = q.mean(0)
        if args.cluster_weights is not None:
            weights = parse_weights(args.cluster_weights, names, clusters.prevalence)
        empty = [n for n, w, share in zip(names, weights, q.mean(0), strict=True) if w > 0 and share == 0]
        if empty:
            raise JuryError(
                f"cluster_weights give {empty[0]!r} a weight, but no training judgement is by its raters: set its "
                "weight to 0."
            )
        rate, floor = (args.robust_learning_rate, args.robust_floor) if args.robust else (1.0, 0.0)
        self._weights = MaxMinWeights(len(names), rate, floor, prior=weights)
        self._measured: list[Tensor] = []

    @property
    def weights(self) -> Tensor:
        """(K,) what each cluster counts in the loss now, one in sum."""
        return self._weights.weights

    def follow(self, losses: Tensor, *, step_ends: bool) -> None:
        """Move the weights to the clusters that lose most, once per optimizer step.

        Args:
            losses: (K,) loss of each cluster in a micro-batch of all processes, nats.
            step_ends: Whether this is the last micro-batch of an optimizer step.
        """
        self._measured.append(losses.cpu())
        if step_ends:
            self._weights.update(-torch.stack(self._measured).mean(0))
            self._measured.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, for a checkpoint."""
        return self._weights.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._weights.load_state_dict(state)


def _check_shares_exist(clusters: Clusters, args: PluralDPOConfig) -> None:
    if len(clusters.names) > 1 and not clusters.learnt:
        return
    reason = "there is one cluster" if len(clusters.names) == 1 else "the clusters are learnt along with the policy"
    raise ValueError(
        f"robust={args.robust} and cluster_weights={args.cluster_weights!r}, but {reason}, so there are no shares to "
        "balance: leave both out, or say who judged in a column 'cluster' or 'membership'."
    )
