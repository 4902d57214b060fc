"""The exact mode's rows: finite answer sets with tokens, reference log-probabilities, targets and responsibilities.

The reference policy π₀ is the policy as it stands when `score_references` is called, that is before the first update;
each different (prompt, support) is scored once. This file knows no trainer and takes no gradient.

Shapes: `B` prompts, `A` answers, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from plural_rlhf.core.aggregation import aggregate
from plural_rlhf.core.offsets import prompt_key
from plural_rlhf.core.targets import PoolTarget, log_partition, responsibilities
from plural_rlhf.rewards import POOL, JuryReward
from plural_rlhf.trainers.shared_prefix import AnswerBatch, answer_log_probs


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ExactRows", "check_support"]

Row = Mapping[str, Any]


def check_support(rows: Iterable[Row]) -> None:
    """Refuses, before any training, answer sets that no distribution can be matched on.

    Raises:
        ValueError: A support that is missing, has fewer than two answers, an empty one, or one twice; names the row.
    """
    for n, row in enumerate(rows):
        support = row.get("support")
        if not isinstance(support, list | tuple) or not all(isinstance(answer, str) for answer in support):
            raise ValueError(
                f"row {n}: support is {support!r}, but the exact mode needs the list of all allowed answers as "
                "strings: give every row one, or set exact=False to sample instead."
            )
        if len(support) < 2 or len(set(support)) < len(support) or not all(answer.strip() for answer in support):
            raise ValueError(
                f"row {n}: support is {list(support)!r}: give at least two different answers, none of them empty."
            )


class ExactRows:
    """Turns data set rows into what the exact loss needs.

    Args:
        reward: The jury and its rule.
        target: Which distribution is aimed at (used when the rule is the pool; other rules give π₀·exp(R/β)).
        tokenizer: The policy's tokenizer.
        eos_token_id: The token that ends an answer.
    """

    def __init__(
        self, reward: JuryReward, target: PoolTarget, tokenizer: PreTrainedTokenizerBase, eos_token_id: int
    ) -> None:
        self.reward = reward
        self.target = target
        self.tokenizer = tokenizer
        self.eos_token_id = eos_token_id
        self._log_pi_ref: dict[tuple[str, tuple[str, ...]], torch.Tensor] = {}

    def encode(self, rows: Sequence[Row]) -> AnswerBatch:
        """Tokens of the rows' prompts and answers."""
        prompts, supports = [row["prompt"] for row in rows], [row["support"] for row in rows]
        return AnswerBatch.encode(prompts, supports, self.tokenizer, self.eos_token_id)

    @torch.no_grad()
    def score_references(self, model: PreTrainedModel, rows: Iterable[Row], batch_size: int, progress: bool) -> None:
        """Scores every answer under the policy as it is now, which becomes π₀ of these rows."""
        if self.target.reference_power == 0:
            return  # The target does not read π₀.
        fresh = {_key(row): row for row in rows if _key(row) not in self._log_pi_ref}
        was_training = model.training
        model.eval()
        pending = list(fresh.items())
        starts = range(0, len(pending), batch_size)
        for start in tqdm(starts, desc="reference", disable=not progress or len(starts) < 4):
            chunk = pending[start : start + batch_size]
            scores = answer_log_probs(model, self.encode([row for _, row in chunk]).to(model.device)).cpu()
            for (key, row), log_probs in zip(chunk, scores, strict=True):
                self._log_pi_ref[key] = log_probs[: len(row["support"])].clone()
        model.train(was_training)

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """A batch for the loss: tokens, `log_p` `(B, A)`, `gamma` `(B, A, K)` and `weights` `(B, K)`.

        Raises:
            ValueError: A row whose reference was not scored before training.
        """
        batch = self.encode(rows)
        shape = batch.support_mask.shape
        rewards = torch.zeros(*shape, len(self.reward.cluster_names), dtype=torch.float64)
        log_pi_ref = torch.full(shape, -torch.inf)
        for b, row in enumerate(rows):
            n = len(row["support"])
            rewards[b, :n] = self.reward.support_rewards(row.get("jury_prompt", row["prompt"]), row["support"])
            if self.target.reference_power == 0:
                log_pi_ref[b, :n] = 0.0
                continue
            if _key(row) not in self._log_pi_ref:
                raise ValueError(
                    f"the prompt {row['prompt']!r} was not scored under the reference policy before training: pass "
                    "its data as train_dataset or eval_dataset when the trainer is made."
                )
            log_pi_ref[b, :n] = self._log_pi_ref[_key(row)]
        specs = [row["weights"] for row in rows] if "weights" in rows[0] else None
        weights = self.reward.row_weights(specs, len(rows))
        log_p, gamma = self._target(rewards, weights, log_pi_ref.double(), batch.support_mask)
        return {
            "prompt_ids": batch.prompt_ids,
            "prompt_mask": batch.prompt_mask,
            "answer_ids": batch.answer_ids,
            "answer_mask": batch.answer_mask,
            "log_p": log_p.float(),
            "gamma": gamma.float(),
            "weights": weights.float(),
        }

    def _target(
        self, rewards: torch.Tensor, weights: torch.Tensor, log_pi_ref: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        target = self.target
        log_ref = (target.reference_power * log_pi_ref).masked_fill(~mask, -torch.inf)
        log_z = log_partition(rewards, log_ref, target.beta, mask)[:, None]
        gamma = responsibilities(rewards, weights[:, None], log_z, target.beta, 1.0)
        if self.reward.rule == POOL:
            return target.log_probs(rewards, weights, log_pi_ref, mask), gamma
        pooled = aggregate(rewards, weights[:, None], self.reward.rule, **self.reward.rule_options)
        return (pooled / target.beta + log_ref).log_softmax(-1), gamma


def _key(row: Row) -> tuple[str, tuple[str, ...]]:
    return prompt_key(row["prompt"]), tuple(row["support"])
