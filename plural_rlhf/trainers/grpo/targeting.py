"""From the rewards of one generation batch to the target of each completion: shaping, gates, pool, offsets.

The jury's K rewards, what other reward functions make of the completions, and the prompts' offsets become one
aggregated reward R and, where the estimator needs it, the target's log normaliser. All processes see the same
table and do the same with it. Knows nothing of models or tokens.

Shapes: `N` completions of all processes, `K` clusters, `F` reward functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plural_rlhf.core.shares import effective_answers
from plural_rlhf.core.typicality import debias
from plural_rlhf.rewards.completions import rows_of
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.generation_batch import RewardTable, Rollouts
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from plural_rlhf.trainers.grpo.reference_draws import drawn_by_policy, log_drawn
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards


__all__ = ["Targeting", "Targets"]


@dataclass(frozen=True)
class Targets:
    """What a generation batch is aimed at.

    Attributes:
        reward: `(N,)` aggregated reward R, logits: the target is π₀ exp(R/β) up to a factor a prompt.
        log_z: `(N,)` log of that factor, nats; NaN where it is not kept.
        metrics: Numbers to log.
    """

    reward: Tensor
    log_z: Tensor
    metrics: dict[str, float]

    def rollouts(
        self, log_pi_ref: Tensor, log_pi: Tensor, *, beta: float, group_size: int, reference_share: float = 0.0
    ) -> Rollouts:
        """Return the parts of the residuals, of the type and on the device of the log-probabilities.

        Args:
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats.
            log_pi: `(N,)` the same under the policy.
            beta: Temperature of the target, logits.
            group_size: G.
            reference_share: Share of each group that π₀ has drawn.
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
    """Turns a `RewardTable` into `Targets`.

    Args:
        reward: The jury and its target.
        others: The reward functions beside it.
        prompts: What is kept of every prompt; its offsets are those of `reward`.
        log_z: Whether to keep the log normaliser of each prompt's target, which `vargrad` does not read.
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
        reference_draws: int = 0,
    ) -> Targets:
        """Aggregates the table, and moves the offsets once where `training`.

        Args:
            table: The rewards.
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats.
            log_pi: `(N,)` the same under the policy.
            group: G, completions a prompt.
            training: Whether offsets and running bests may move.
            reference_draws: How many of a group, its last, π₀ has drawn and not the policy; metrics leave them out.
        """
        reward, beta, offsets = self._reward, self._reward.target.beta, self._prompts.offsets
        log_pi_ref, log_pi = log_pi_ref.double(), log_pi.double()
        log_weights = log_pi_ref - log_drawn(log_pi, log_pi_ref, reference_draws / group)
        if training:
            for key, rows in rows_of(table.keys).items():
                self._prompts.observe_reference(key, table.r[rows], log_weights[rows])
        r = self._others.together(table.r, table.scores, table.keys)
        r = self._shaped(r, table.keys, log_pi_ref, training)
        pooled, gamma = reward.pool(r, table.w, table.keys, log_weights, table.rules)
        if training:
            reward.balance(r, gamma, table.w, table.keys, log_weights, table.rules)
        weighted = pooled / beta + log_weights
        for key, rows in rows_of(table.shown).items() if self._keeps_log_z else ():
            if training or bool(offsets.log_normaliser([key]).isnan().any()):
                offsets.observe_normaliser(key, weighted[rows])
        by_policy = drawn_by_policy(len(pooled), group, reference_draws)
        metrics = self._group_metrics(table, pooled, log_pi_ref, log_pi, group, by_policy)
        shares, weights = gamma[by_policy].mean(dim=0), table.w.mean(dim=0)
        for k, name in enumerate(reward.cluster_names):
            metrics |= {f"share/{name}": float(shares[k]), f"weight/{name}": float(weights[k])}
        if self._others.gated:
            metrics["valid"] = float(self._others.valid(table.scores)[by_policy].double().mean())
        return Targets(pooled, offsets.log_normaliser(table.shown), metrics)

    def start(self, key: str, r: Tensor, scores: Tensor, log_pi_ref: Tensor) -> None:
        """Starts a prompt that is not known yet from completions of the reference.

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
        """`(K,)` what some rows give each cluster above what π₀ gives it, logits; call it after they were aimed."""
        return (table.r - self._prompts.reference_means(table.keys))[rows].mean(dim=0)

    def _group_metrics(
        self, table: RewardTable, pooled: Tensor, log_pi_ref: Tensor, log_pi: Tensor, group: int, by_policy: Tensor
    ) -> dict[str, float]:
        """Return what is logged of groups and their residuals."""
        spread = pooled.view(-1, group)
        d = (pooled / self._reward.target.beta + log_pi_ref - log_pi).view(-1, group)
        own = [drawn for drawn, by in zip(table.drawn, by_policy.tolist(), strict=True) if by]
        size = len(own) * group // len(pooled)
        return {
            "reward_range": float((spread.amax(dim=1) - spread.amin(dim=1)).mean()),
            "residual_std": float(d.std(dim=1).mean()) if group > 1 else 0.0,
            "entropy": -float(log_pi[by_policy].mean()),
            "effective_answers": effective_answers([own[i : i + size] for i in range(0, len(own), size)]),
        }

    def _shaped(self, r: Tensor, keys: list[str], log_pi_ref: Tensor, training: bool) -> Tensor:
        target = self._reward.target
        r = debias(r, log_pi_ref, target.typicality_alpha)
        anchor = None
        if target.uniform_floor > 0:
            anchor = self._prompts.anchors(keys, r, log_pi_ref, target.tie_margin)
        return self._reward.shaped(r, keys, log_pi_ref, anchor, update=training)
