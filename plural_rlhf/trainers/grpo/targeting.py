"""From the rewards of one generation batch to the target of each completion: shaping, gates, pool, offsets.

The jury's K rewards, what other reward functions make of the completions, and the prompts' offsets become one
aggregated reward R and, where the estimator needs it, the target's log normaliser. All processes see the same
table and do the same with it. Knows nothing of models or tokens.

Shapes: `N` completions of all processes, `K` clusters, `F` reward functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.core.rules import Rule
from plural_rlhf.core.shares import effective_answers
from plural_rlhf.core.typicality import debias
from plural_rlhf.rewards.completions import rows_of, seen_prompts
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.other_rewards import OtherRewards
from plural_rlhf.trainers.grpo.reference_draws import log_drawn, policys_own


__all__ = ["JuryColumn", "RewardTable", "Targeting", "Targets"]


class JuryColumn:
    """What stands in TRL's list of reward functions for the jury: it scores once and keeps the K rewards.

    TRL sees and logs the weighted mean.
    """

    __name__ = "jury"

    def __init__(self, reward: JuryReward) -> None:
        self._reward = reward
        self._scored: tuple[Tensor, Tensor, list[Rule | None]] | None = None

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """The weighted means `(n,)` of this process's completions."""
        seen = seen_prompts(prompts, columns.get("jury_prompt"))
        r = self._reward.cluster_rewards(seen, completions, columns.get("support"))
        w = self._reward.row_weights(columns.get("weights"), len(completions))
        self._scored = r, w, self._reward.row_rules(columns.get("rule"), len(completions))
        return (r * w).sum(-1).tolist()

    def scored(self) -> tuple[Tensor, Tensor, list[Rule | None]]:
        """Rewards and weights `(n, K)` of the completions scored last, and their rules."""
        assert self._scored is not None
        return self._scored


@dataclass
class RewardTable:
    """One generation batch of all processes, scored.

    Attributes:
        r: `(N, K)` the jury's rewards, logits.
        w: `(N, K)` weights.
        scores: `(N, F)` what each of TRL's reward functions gave, NaN for none.
        keys: Key of each row's offsets.
        shown: Key of each row's prompt as the policy sees it.
        drawn: Something that is equal for equal completions.
        rules: Rule of each row, None for the pool.
    """

    r: Tensor
    w: Tensor
    scores: Tensor
    keys: list[str]
    shown: list[str]
    drawn: list[Any]
    rules: list[Rule | None]


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


class Targeting:
    """Turns a `RewardTable` into `Targets`.

    Args:
        reward: The jury, its target and its offsets.
        others: The reward functions beside it.
        log_z: Whether to keep the log normaliser of each prompt's target, which `vargrad` does not read.
    """

    def __init__(self, reward: JuryReward, others: OtherRewards, log_z: bool = True) -> None:
        self._reward = reward
        self._others = others
        self._keeps_log_z = log_z
        # Per prompt and cluster: log π₀ of the most probable tied answer so far.
        self._anchors: dict[str, Tensor] = {}
        # Per prompt: E_{π₀}[r] of each cluster over all completions so far, and log of the sum of their weights.
        self._reference_means: dict[str, tuple[Tensor, Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain lists."""
        return {
            "anchors": {key: value.tolist() for key, value in self._anchors.items()},
            "reference_averages": {key: [mean.tolist(), float(n)] for key, (mean, n) in self._reference_means.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self._anchors = {key: torch.tensor(v, dtype=torch.float64) for key, v in state["anchors"].items()}
        self._reference_means = {
            key: (torch.tensor(mean, dtype=torch.float64), torch.tensor(n, dtype=torch.float64))
            for key, (mean, n) in state.get("reference_averages", {}).items()
        }

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
        reward, beta = self._reward, self._reward.target.beta
        log_pi_ref, log_pi = log_pi_ref.double(), log_pi.double()
        log_weights = log_pi_ref - log_drawn(log_pi, log_pi_ref, reference_draws / group)
        if training:
            for key, rows in rows_of(table.keys).items():
                self._observe_reference(key, table.r[rows], log_weights[rows])
        r = self._others.together(table.r, table.scores, table.keys)
        r = self._shaped(r, table.keys, log_pi_ref, training)
        pooled, gamma = reward.pool(r, table.w, table.keys, log_weights, table.rules)
        if training:
            reward.balance(r, gamma, table.w, table.keys, log_weights, table.rules)
        weighted = pooled / beta + log_weights
        for key, rows in rows_of(table.shown).items() if self._keeps_log_z else ():
            if training or bool(reward.offsets.log_normaliser([key]).isnan().any()):
                reward.offsets.observe_normaliser(key, weighted[rows])
        own = group - reference_draws
        by_policy = policys_own(len(pooled), group, reference_draws)
        shares, weights = gamma[by_policy].mean(dim=0), table.w.mean(dim=0)
        spread, d = pooled.view(-1, group), (pooled / beta + log_pi_ref - log_pi).view(-1, group)
        metrics = {
            "reward_range": float((spread.amax(dim=1) - spread.amin(dim=1)).mean()),
            "residual_std": float(d.std(dim=1).mean()) if group > 1 else 0.0,
            "entropy": -float(log_pi[by_policy].mean()),
            "effective_answers": effective_answers(
                [table.drawn[i : i + own] for i in range(0, len(table.drawn), group)]
            ),
        }
        for k, name in enumerate(reward.cluster_names):
            metrics |= {f"share/{name}": float(shares[k]), f"weight/{name}": float(weights[k])}
        if self._others.gated:
            metrics["valid"] = float(self._others.valid(table.scores)[by_policy].double().mean())
        return Targets(pooled, reward.offsets.log_normaliser(table.shown), metrics)

    def start(self, key: str, r: Tensor, scores: Tensor, log_pi_ref: Tensor) -> None:
        """Starts a prompt that is not known yet from completions of the reference.

        Args:
            key: Key of its offsets.
            r: `(n, K)` the jury's rewards, logits.
            scores: `(n, F)` what all reward functions gave, NaN for none.
            log_pi_ref: `(n,)` sequence log-probability under π₀, nats.
        """
        offsets = self._reward.offsets
        if key not in offsets:
            keys = [key] * len(r)
            shaped = self._shaped(self._others.together(r, scores, keys), keys, log_pi_ref, training=True)
            offsets.initialise(key, shaped, self._reward.target.beta)
            self._observe_reference(key, r, torch.zeros_like(log_pi_ref))

    def gains(self, table: RewardTable, rows: Tensor) -> Tensor:
        """`(K,)` what some rows give each cluster above what π₀ gives it, logits; call it after they were aimed."""
        return (table.r - torch.stack([self._reference_means[key][0] for key in table.keys]))[rows].mean(dim=0)

    def _observe_reference(self, key: str, r: Tensor, log_weights: Tensor) -> None:
        """Takes completions into the average that estimates E_{π₀}[r]: of all visits, as one group tells too little.

        Weights π₀/π sum to about one a completion, whoever drew them, so visits count with what they tell.
        """
        seen, total = log_weights.softmax(0) @ r, log_weights.logsumexp(0)
        if key in self._reference_means:
            before, known = self._reference_means[key]
            seen, total = before + (total - known).sigmoid() * (seen - before), torch.logaddexp(total, known)
        self._reference_means[key] = seen, total

    def _shaped(self, r: Tensor, keys: list[str], log_pi_ref: Tensor, training: bool) -> Tensor:
        target = self._reward.target
        r = debias(r, log_pi_ref, target.typicality_alpha)
        anchor = self._anchor(r, keys, log_pi_ref) if target.uniform_floor > 0 else None
        return self._reward.shaped(r, keys, log_pi_ref, anchor, update=training)

    def _anchor(self, r: Tensor, keys: list[str], log_pi_ref: Tensor) -> Tensor:
        """`(N, K)` log π₀ of the most probable answer that ties with the best, over all visits of the prompt."""
        best, margin = self._reward.offsets.best(keys), self._reward.target.tie_margin
        for key, rows in rows_of(keys).items():
            highest = torch.maximum(best[rows[0]], r[rows].amax(dim=0))
            if bool((highest > best[rows[0]]).any()):
                self._anchors.pop(key, None)  # what tied with a lower best may tie no more
            tied = torch.where(r[rows] >= highest - margin, log_pi_ref[rows][:, None], -torch.inf).amax(dim=0)
            self._anchors[key] = torch.maximum(self._anchors.get(key, tied), tied)
        return torch.stack([self._anchors[key] for key in keys])
