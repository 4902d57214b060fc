"""The Lagrange multipliers of a training: the temperature of a KL budget, and max-min weights over clusters.

Either may be absent. Knows nothing of models, prompts or of how a KL is measured.

Shapes: `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plural_rlhf.core.duals import KLBudget, MaxMinWeights
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig


__all__ = ["Multipliers"]


class Multipliers:
    """What is moved after every batch by what was measured of the policy.

    Args:
        reward: The jury reward, whose β the budget sets.
        kl_budget: Moves β until the KL to π₀ is the budget; None for a fixed β.
        max_min: Moves the weights to the clusters that gain least; None for weights that are given.

    Example:
        >>> import numpy as np, torch
        >>> class Colours:
        ...     cluster_names, prevalence = ["warm", "cold"], np.array([0.75, 0.25])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.zeros(len(completions), 2)
        >>> reward = JuryReward(Colours())
        >>> multipliers = Multipliers(reward, KLBudget(budget=2.0), MaxMinWeights(2, learning_rate=0.5))
        >>> multipliers.move(kl=3.0, gains=torch.tensor([1.0, -1.0]))
        >>> round(reward.target.beta, 4), [round(w, 4) for w in multipliers.weights.tolist()]
        (1.0513, [0.2689, 0.7311])
    """

    def __init__(
        self, reward: JuryReward, kl_budget: KLBudget | None = None, max_min: MaxMinWeights | None = None
    ) -> None:
        self._reward = reward
        self.kl_budget = kl_budget
        self.max_min = max_min

    @classmethod
    def from_config(cls, args: PluralGRPOConfig, reward: JuryReward) -> Multipliers:
        """Make the ones that the settings ask for."""
        budget, rate = args.kl_budget, args.kl_budget_learning_rate
        num_clusters = len(reward.cluster_names)
        return cls(
            reward,
            None if budget is None else KLBudget(budget, args.beta, rate),
            MaxMinWeights(num_clusters, args.max_min_learning_rate) if args.max_min else None,
        )

    @property
    def active(self) -> bool:
        """Whether there is any, so that it is worth measuring what moves them."""
        return self.kl_budget is not None or self.max_min is not None

    @property
    def weights(self) -> Tensor | None:
        """`(K,)` weights that take the place of every row's own; None where rows keep theirs."""
        return None if self.max_min is None else self.max_min.weights.double()

    def move(self, kl: float, gains: Tensor) -> None:
        """Move them one step.

        Args:
            kl: Sequence KL to π₀, nats.
            gains: `(K,)` what each cluster gains over π₀, logits.
        """
        if self.kl_budget is not None:
            self._reward.set_beta(self.kl_budget.update(kl))
        if self.max_min is not None:
            self.max_min.update(gains)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each, None for one that is absent."""
        return {
            "kl_budget": None if self.kl_budget is None else self.kl_budget.state_dict(),
            "max_min": None if self.max_min is None else self.max_min.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; one that the saved training did not have starts afresh."""
        if self.kl_budget is not None and state.get("kl_budget"):
            self.kl_budget.load_state_dict(state["kl_budget"])
            self._reward.set_beta(self.kl_budget.beta)
        if self.max_min is not None and state.get("max_min"):
            self.max_min.load_state_dict(state["max_min"])
