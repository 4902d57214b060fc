"""From the rewards of one generation batch to the target of each completion: shaping, gates, pool, offsets.

The jury's K rewards, the scores of other reward functions and the prompts' offsets become one aggregated reward R and,
if the estimator needs it, the target's log normaliser. All processes see the same table and do the same with it. Knows
nothing of models or tokens.

Shapes: `N` completions of all processes, `K` clusters, `F` reward functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plural_rlhf.core.shares import effective_answers, effective_texts
from plural_rlhf.core.typicality import debias
from plural_rlhf.rewards.completions import rows_of
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.drawers import GIVEN, POLICY, log_drawn, reference_shares
from plural_rlhf.trainers.grpo.generation_batch import RewardTable, Rollouts
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards


__all__ = ["Targeting", "Targets"]


@dataclass(frozen=True)
class Targets:
    """The target of every completion of a generation batch.

    Attributes:
        reward: `(N,)` aggregated reward R, logits: the target is π₀ exp(R/β) up to a factor per prompt.
        log_z: `(N,)` log of that factor, nats; NaN if it is not kept.
        metrics: Numbers to log, each as a sum and what to divide it by: batches may be of any size.

    Example:
        >>> targets = Targets(torch.tensor([1.0, 0.0]), torch.zeros(2), {})
        >>> targets.rollouts(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -1.0]), beta=0.5, group_size=2).residual
        tensor([2., 0.])
    """

    reward: Tensor
    log_z: Tensor
    metrics: dict[str, tuple[float, float]]

    def rollouts(
        self,
        log_pi_ref: Tensor,
        log_pi: Tensor,
        *,
        beta: float,
        group_size: int,
        reference_share: Tensor | float = 0.0,
    ) -> Rollouts:
        """Return the parts of the residuals, of the type and on the device of the log-probabilities.

        Args:
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats.
            log_pi: `(N,)` the same under the policy.
            beta: Temperature of the target, logits.
            group_size: G.
            reference_share: `(N,)` from `reference_shares`, or one share for all.
        """
        return Rollouts(
            reward=(self.reward / beta).to(log_pi),
            log_pi_ref=log_pi_ref,
            log_pi=log_pi.clone(),
            log_pi_drawn=log_drawn(log_pi, log_pi_ref, reference_share),
            log_z=self.log_z.to(log_pi),
            group_size=group_size,
        )


class Targeting:
    """Turns a `RewardTable` into `Targets`, and moves the offsets.

    Args:
        reward: The jury and its target.
        others: The reward functions beside it.
        prompts: What is kept of every prompt; its offsets are those of `reward`.
        log_z: Whether to keep the log normaliser of each prompt's target, which `vargrad` does not read.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["warm", "cold"], prevalence=np.array([0.7, 0.3]), cluster_rewards=None
        ... )
        >>> reward = JuryReward(scorer)
        >>> targeting = Targeting(reward, OtherRewards(reward, [reward]), PromptState(reward.offsets))
        >>> r = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).double()  # red, liked by the warm, and blue, by the cold
        >>> w = torch.tensor([[0.7, 0.3]] * 2).double()
        >>> table = RewardTable(r, w, torch.zeros(2, 1).double(), ["p"] * 2, ["p"] * 2, ["red", "blue"], [None] * 2)
        >>> log_p = torch.tensor([0.5, 0.5]).log()  # of policy and reference alike
        >>> targets = targeting(table, log_p, log_p, group=2, training=True)
        >>> (targets.reward + log_p).softmax(0)  # .7 (.88, .12) + .3 (.12, .88)
        tensor([0.6523, 0.3477], dtype=torch.float64)
    """

    def __init__(self, reward: JuryReward, others: OtherRewards, prompts: PromptState, log_z: bool = True) -> None:
        self._reward = reward
        self._others = others
        self._prompts = prompts
        self._keeps_log_z = log_z

    def __call__(
        self,
        table: RewardTable,
        log_pi_ref: Tensor,
        log_pi: Tensor,
        group: int,
        training: bool,
        drawn_by: Tensor | None = None,
        counted: int | None = None,
    ) -> Targets:
        """Aggregate the table and, if `training`, move the offsets once.

        Given completions are aggregated like all others, but they tell nothing of what π₀ would say: offsets,
        normalisers and means under π₀ come from the others alone.

        Args:
            table: The rewards.
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats.
            log_pi: `(N,)` the same under the policy.
            group: G, completions per prompt.
            training: Whether offsets and running bests may move.
            drawn_by: `(N,)` who has drawn each completion, see `drawers`; metrics are about the policy's own. None:
                the policy, all of them.
            counted: How many completions, the first of the table, metrics are about; None for all.
        """
        reward, beta, offsets = self._reward, self._reward.target.beta, self._prompts.offsets
        log_pi_ref, log_pi = log_pi_ref.double(), log_pi.double()
        drawn_by = torch.full((len(log_pi),), POLICY) if drawn_by is None else drawn_by
        log_weights = log_pi_ref - log_drawn(log_pi, log_pi_ref, reference_shares(drawn_by, group))
        known = (drawn_by != GIVEN).nonzero().flatten().tolist()
        keys, shown = [table.keys[i] for i in known], [table.shown[i] for i in known]
        if training:
            for key, rows in _places(keys, known):
                self._prompts.observe_reference(key, table.r[rows], log_weights[rows])
        r = self._others.together(table.r, table.scores, table.keys)
        r = self._shaped(r, table.keys, log_pi_ref, training)
        for key, rows in _places(keys, known):
            if key not in offsets:
                offsets.initialise(key, r[rows], beta, log_weights[rows])
        pooled, gamma = reward.pool(r, table.w, table.keys, log_weights, table.rules)
        if training:
            rules = [table.rules[i] for i in known]
            reward.balance(r[known], gamma[known], table.w[known], keys, log_weights[known], rules)
        weighted = pooled / beta + log_weights
        for key, rows in _places(shown, known) if self._keeps_log_z else ():
            if training or bool(offsets.log_normaliser([key]).isnan().any()):
                offsets.observe_normaliser(key, weighted[rows])
        n = len(pooled) if counted is None else counted
        by_policy = drawn_by[:n] == POLICY
        residual = pooled / beta + log_pi_ref - log_pi
        metrics = _group_metrics(table, pooled[:n], residual[:n], group, by_policy) if n else {}
        metrics["entropy"] = _summed(-log_pi[:n][by_policy])
        for k, name in enumerate(reward.cluster_names):
            metrics |= {f"share/{name}": _summed(gamma[:n, k][by_policy]), f"weight/{name}": _summed(table.w[:n, k])}
        if self._others.gated:
            metrics["valid"] = _summed(self._others.valid(table.scores)[:n][by_policy])
        if training:
            self._prompts.visit([*table.keys, *table.shown])
        return Targets(pooled, offsets.log_normaliser(table.shown), metrics)

    def start(self, key: str, r: Tensor, scores: Tensor, log_pi_ref: Tensor) -> None:
        """Start a prompt that is not known yet from completions of the reference.

        Args:
            key: Key of its offsets.
            r: `(n, K)` the jury's rewards, logits.
            scores: `(n, F)` what all reward functions gave, NaN for none.
            log_pi_ref: `(n,)` sequence log-probability under π₀, nats.
        """
        offsets = self._prompts.offsets
        if key not in offsets:
            keys = [key] * len(r)
            shaped = self._shaped(self._others.together(r, scores, keys), keys, log_pi_ref, training=True)
            offsets.initialise(key, shaped, self._reward.target.beta)
            self._prompts.observe_reference(key, r, torch.zeros_like(log_pi_ref))

    def gains(self, table: RewardTable, rows: Tensor) -> Tensor:
        """Return the mean gain of each cluster over π₀ in some rows of a table that was aggregated, `(K,)` logits."""
        return (table.r - self._prompts.reference_means(table.keys))[rows].mean(dim=0)

    def _shaped(self, r: Tensor, keys: list[str], log_pi_ref: Tensor, training: bool) -> Tensor:
        target = self._reward.target
        r = debias(r, log_pi_ref, target.typicality_alpha)
        anchor = None
        if target.uniform_floor > 0:
            anchor = self._prompts.anchors(keys, r, log_pi_ref, target.tie_margin)
        return self._reward.shaped(r, keys, log_pi_ref, anchor, update=training)


def _group_metrics(
    table: RewardTable, pooled: Tensor, residual: Tensor, group: int, by_policy: Tensor
) -> dict[str, tuple[float, float]]:
    """Return what is logged of groups, as sums over groups and their number."""
    spread, d = pooled.view(-1, group), residual.view(-1, group)
    count = len(spread)
    metrics = {
        "reward_range": _summed(spread.amax(dim=1) - spread.amin(dim=1)),
        "residual_std": _summed(d.std(dim=1)) if group > 1 else (0.0, float(count)),
    }
    own = [by.nonzero().flatten().tolist() for by in by_policy.view(-1, group)]
    for name, measure, completions in (
        ("effective_answers", effective_answers, table.drawn),
        ("effective_texts", effective_texts, table.texts),
    ):
        if completions:
            groups = [[completions[n * group + place] for place in places] for n, places in enumerate(own)]
            metrics[name] = measure(groups) * count, float(count)
    return metrics


def _places(keys: list[str], rows: list[int]) -> list[tuple[str, list[int]]]:
    """Return each key with those of `rows` that have it."""
    return [(key, [rows[i] for i in places]) for key, places in rows_of(keys).items()]


def _summed(values: Tensor) -> tuple[float, float]:
    return float(values.double().sum()), float(len(values))
