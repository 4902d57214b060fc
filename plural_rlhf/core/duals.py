"""Multipliers that follow measurements of the policy: a temperature for a KL budget, and max-min weights.

Both are Lagrange multipliers that take a small step after every batch, slower than the policy. Knows nothing of
policies, prompts or processes: measure over all processes, then pass the same measurement to each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = ["KLBudget", "MaxMinWeights"]


class KLBudget:
    """Adapt one temperature for all prompts until the policy is `budget` nats from its reference.

    `log beta += learning_rate clip((kl - budget) / budget, -1, 1)`: dual ascent for the constraint `KL(pi || pi_ref) =
    budget`, with the proportional error of Ziegler et al. (1909.08593). The KL of a target falls as its `beta` rises,
    so there is one fixed point, unless no temperature reaches the budget with these rewards: then `beta` ends at
    `minimum`. As `beta` is the same for all prompts, near-ties of a prompt stay near-ties; dividing by the standard
    deviation of a group does not have this property.

    Every `log Z_k` depends on `beta`: where offsets are needed, use a mode that follows it (`"responsibility"` or
    `"ema"`).

    Args:
        budget: KL of whole sequences that is aimed at, nats.
        beta: Temperature to start from, in logits.
        learning_rate: Step of `log beta` at an error of 100 %.
        minimum: Lower bound of `beta`, in logits.
        maximum: Upper bound of `beta`, in logits.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> budget = KLBudget(budget=2.0, beta=1.0)
        >>> round(budget.update(kl=3.0), 4)  # an error of 50 %, so beta rises by exp(.1 * .5)
        1.0513
    """

    def __init__(
        self,
        budget: float,
        beta: float = 1.0,
        learning_rate: float = 0.1,
        minimum: float = 0.01,
        maximum: float = 100.0,
    ) -> None:
        if not 0 < budget < math.inf:
            raise ValueError(f"budget: got {budget:g}; give the KL of a whole response in nats, above 0")
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate:g}; give a positive step of log beta, 0.1 by default")
        if not 0 < minimum <= beta <= maximum < math.inf:
            raise ValueError(
                f"beta: got {beta:g} with minimum {minimum:g} and maximum {maximum:g}; they must be positive, finite "
                "and in the order minimum <= beta <= maximum"
            )
        self.budget = budget
        self.beta = beta
        self.learning_rate = learning_rate
        self.minimum = minimum
        self.maximum = maximum

    def update(self, kl: float) -> float:
        """Move `beta` by one step.

        Args:
            kl: Measured `E_pi[log pi - log pi_ref]` of whole sequences, nats; an estimate may be a little below 0.

        Returns:
            The new `beta`, in logits.

        Raises:
            ValueError: If `kl` is NaN or infinite.
        """
        if not math.isfinite(kl):
            raise ValueError(f"kl: got {kl:g}; check the log-probabilities of policy and reference")
        error = min(max((kl - self.budget) / self.budget, -1.0), 1.0)
        self.beta = min(max(self.beta * math.exp(self.learning_rate * error), self.minimum), self.maximum)
        return self.beta

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: `beta`."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved `beta`; the settings stay as constructed, and the bounds hold.

        Args:
            state: From `state_dict`.
        """
        self.beta = min(max(float(state["beta"]), self.minimum), self.maximum)


class MaxMinWeights:
    """Adapt weights over clusters towards the policy whose worst-off cluster has the highest expected reward.

    `max_pi min_k E_pi[r_k] - beta KL(pi || pi_ref)` has the same value as `min_w beta log Z(w)` over the simplex, with
    `Z(w) = E_{pi_ref}[exp(sum_k w_k r_k / beta)]`, convex in w with the gradient `E_{p_w}[r_k]`. A policy trained on
    the weighted mean (the log pool, `rho = 0`) follows `p_w`, so

        w_k <- w_k exp(-learning_rate (E_pi[r_k] - mean_j E_pi[r_j])) / norm

    is exponentiated gradient descent on it (group DRO, Sagawa et al., 1911.08731; MaxMin-RLHF, Chakraborty et al.,
    2402.08925). At the fixed point all clusters with weight above `floor` have the same expected reward. A minimum per
    response, the pool of `rho = -inf`, is another and more cautious target: it requires every response to serve every
    cluster.

    The level of the rewards matters here, and rewards are identified only up to a constant per cluster and prompt:
    pass each cluster's gain over the reference policy, not raw logits of heads whose zero is arbitrary.

    Args:
        num_clusters: K.
        learning_rate: Step per logit of expected reward, slower than the policy.
        floor: Least weight of a cluster, below `1 / K`; with a floor above 0 a cluster's weight recovers quickly.
        prior: Initial weights, shape `(K,)`; uniform by default. Clusters of weight 0 keep weight 0.

    Raises:
        ValueError: If a setting is out of its range.
        JuryError: If the prior is unusable.

    Example:
        >>> duel = MaxMinWeights(num_clusters=2, learning_rate=0.5)
        >>> duel.update(torch.tensor([1.0, -1.0]))  # exp(-.5) against exp(.5)
        tensor([0.2689, 0.7311], dtype=torch.float64)
    """

    def __init__(
        self, num_clusters: int, learning_rate: float = 0.1, floor: float = 0.0, prior: Weights | None = None
    ) -> None:
        if num_clusters < 1:
            raise ValueError(f"num_clusters: got {num_clusters}; a jury has at least one cluster")
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate:g}; give a positive step, 0.1 by default")
        if not 0 <= floor * num_clusters < 1:
            raise ValueError(
                f"floor: got {floor:g} for {num_clusters} clusters; the weights sum to one, so give 0 (off) or a "
                f"number below {1 / num_clusters:g}"
            )
        self.num_clusters = num_clusters
        self.learning_rate = learning_rate
        self.floor = floor
        start = normalise_weights([1.0] * num_clusters if prior is None else prior, num_clusters)
        self.weights = self._raised_to_floor(start.detach().to("cpu", torch.float64))
        """Current weights, shape `(K,)`, float64, summing to one."""

    def update(self, mean_rewards: Tensor) -> Tensor:
        """Move weight to the clusters that the policy serves worst.

        Args:
            mean_rewards: `E_pi[r_k]` over the batch, minus that of the reference policy, in logits, shape `(K,)`.

        Returns:
            The new weights, shape `(K,)`.

        Raises:
            JuryError: If `mean_rewards` is not of K clusters, or NaN or infinite for one.
        """
        r = mean_rewards.detach().to("cpu", torch.float64)
        if r.shape != (self.num_clusters,):
            raise JuryError(
                f"mean_rewards: got shape {tuple(r.shape)}, but the weights are of {self.num_clusters} clusters: give "
                "one mean reward per cluster"
            )
        if not torch.isfinite(r).all():
            k = int((~torch.isfinite(r)).nonzero()[0])
            raise JuryError(f"mean_rewards: got {r[k]:g} for cluster {k}: check the jury's scores of this batch")
        self.weights = self._raised_to_floor(torch.softmax(self.weights.log() - self.learning_rate * r, 0))
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as a list that JSON can write: `weights`."""
        return {"weights": self.weights.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved weights; the settings stay as constructed.

        Args:
            state: From `state_dict`.

        Raises:
            JuryError: If it was saved for another number of clusters.
        """
        if len(state["weights"]) != self.num_clusters:
            raise JuryError(
                f"weights: the saved state is of {len(state['weights'])} clusters and the jury has "
                f"{self.num_clusters}: resume with the jury of that run, or start over"
            )
        self.weights = torch.tensor(state["weights"], dtype=torch.float64)

    def _raised_to_floor(self, w: Tensor) -> Tensor:
        """Return the nearest weights in KL that are at least `floor`: raise those below, scale down the others."""
        low = torch.zeros_like(w, dtype=torch.bool)
        while True:
            others = w * (w > 0) * ~low
            raised = torch.where(low, self.floor, others * (1 - self.floor * low.sum()) / others.sum())
            below = (raised < self.floor) & (w > 0) & ~low
            if not below.any():
                return raised
            low |= below
