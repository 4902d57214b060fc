"""The exact mode's rows: finite answer sets with tokens, reference log-probabilities, targets and responsibilities.

The reference policy π₀ is the policy at the time of the call of `score_references`, before the first update; each
different (prompt, support) is scored once. Knows no trainer and computes no gradient.

Shapes: `B` prompts, `A` answers, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from plural_rlhf.core.estimators import exact_divergence
from plural_rlhf.core.rules import Rule
from plural_rlhf.core.shares import cluster_shares
from plural_rlhf.core.targets import log_partition, responsibilities
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs, encode_answers
from plural_rlhf.rewards.completions import as_completions, prompt_key
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from reward_models.inference import evaluating


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ExactRows", "exact_metrics", "row_key", "target_kl_and_gains"]

Row = Mapping[str, Any]


class ExactRows:
    """Turns rows of the data set into the inputs of the exact loss.

    Args:
        reward: The jury, its rule and its target (other rules than the pool give π₀·exp(R/β)).
        tokenizer: The policy's tokenizer.
        eos_token_id: The token that ends an answer.
        encode_prompt: Tokenises a prompt as it is tokenised for generation.
        others: The reward functions beside the jury, which score the answers as they would score completions.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> likes = {"red": [99.0, 0.0], "blue": [0.0, 99.0]}  # two clusters that want opposite answers
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["warm", "cold"],
        ...     prevalence=np.array([0.75, 0.25]),
        ...     cluster_rewards=lambda prompts, completions: torch.tensor([likes[c] for c in completions]),
        ... )
        >>> tokenizer, data = tiny_tokenizer(), [{"prompt": "A colour? ", "support": ["red", "blue"]}]
        >>> rows = ExactRows(JuryReward(scorer), tokenizer, tokenizer.eos_token_id, tokenizer.encode)
        >>> rows.score_references(tiny_causal_lm(tokenizer), data, batch_size=1, progress=False)
        >>> [round(p, 2) for p in rows.collate(data)["log_p"][0].exp().tolist()]  # the prevalence of each favourite
        [0.75, 0.25]
    """

    def __init__(
        self,
        reward: JuryReward,
        tokenizer: PreTrainedTokenizerBase,
        eos_token_id: int,
        encode_prompt: Callable[[Any], list[int]],
        others: OtherRewards | None = None,
    ) -> None:
        self.reward = reward
        self.others = OtherRewards(reward, [reward]) if others is None else others
        self.tokenizer = tokenizer
        self.eos_token_id = eos_token_id
        self.encode_prompt = encode_prompt
        self._log_pi_ref: dict[str, torch.Tensor] = {}
        self._answer_ids: dict[tuple[str, ...], list[tuple[int, ...]]] = {}  # a support is read at every step

    def encode(self, rows: Sequence[Row], prompt: str = "prompt") -> AnswerBatch:
        """Return the tokens of the rows' prompts and answers.

        Args:
            rows: Rows with a support.
            prompt: The column to read, where a row has it; else the prompt that the policy sees.
        """
        return AnswerBatch.collate(
            [self.encode_prompt(row.get(prompt) or row["prompt"]) for row in rows],
            [self._encode_answers(row["support"]) for row in rows],
            self.tokenizer.pad_token_id,
        )

    def check_tokens(self, rows: Iterable[Row]) -> None:
        """Raise if the tokenizer cannot tell two answers of one support apart.

        An answer may begin with another ("1" and "10"): each ends with the end token, so they exclude each other.

        Raises:
            ValueError: Two answers have the same tokens, or one has none.
        """
        for support in {tuple(row["support"]) for row in rows if row["support"] is not None}:
            seen: dict[tuple[int, ...], str] = {}
            for answer, ids in zip(support, self._encode_answers(support), strict=True):
                if len(ids) < 2 or ids in seen:
                    other = f"the same tokens as {seen[ids]!r}" if ids in seen else "no token"
                    raise ValueError(
                        f"the answer {answer!r} has {other} for this tokenizer, so its probability is not its own: "
                        "write the answers of a support so that the tokenizer tells them apart."
                    )
                seen[ids] = answer

    @torch.no_grad()
    def score_references(self, model: PreTrainedModel, rows: Iterable[Row], batch_size: int, progress: bool) -> None:
        """Score every answer under the policy as it is now, which becomes π₀ of these rows.

        Args:
            model: The policy.
            rows: Rows with a support; those that were scored before are skipped.
            batch_size: Prompts per forward pass.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: See `check_tokens`.
        """
        rows = list(rows)
        self.check_tokens(rows)
        if not self.reward.target.reads_reference:
            return
        fresh = {row_key(row): row for row in rows if row_key(row) not in self._log_pi_ref}
        pending = list(fresh.items())
        starts = range(0, len(pending), batch_size)
        with evaluating(model):
            for start in tqdm(starts, desc="reference", disable=not progress or len(starts) < 4):
                chunk = pending[start : start + batch_size]
                batch = self.encode([row for _, row in chunk], "reference_prompt").to(model.device)
                scores = answer_log_probs(model, batch).cpu()
                for (key, row), log_probs in zip(chunk, scores, strict=True):
                    self._log_pi_ref[key] = log_probs[: len(row["support"])].clone()

    def log_z(self, row: Row) -> torch.Tensor:
        """Return log Z_k of a row's answers under all reward functions together, `(K,)` nats.

        Raises:
            ValueError: The row was not scored under the reference before training.
        """
        target, log_pi_ref = self.reward.target, self._reference(row)
        r = target.shaped(self._together(row, self._rewards(row)), log_pi_ref)
        return log_partition(r[None], log_pi_ref[None], target.beta)[0]

    def collate(self, rows: Sequence[Row], weights: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Return a batch for the loss.

        Args:
            rows: Rows with a support.
            weights: `(K,)` in place of every row's own.

        Returns:
            The tokens; `log_p` `(B, A)`, the target of all reward functions together, and `log_pi_ref` `(B, A)`, nats;
            `gamma` `(B, A, K)`, responsibilities; `rewards` `(B, A, K)`, the jury's alone, logits; `weights` `(B, K)`.

        Raises:
            ValueError: A row was not scored under the reference before training.
        """
        batch = self.encode(rows)
        shape = batch.support_mask.shape
        rewards = torch.zeros(*shape, len(self.reward.cluster_names), dtype=torch.float64)
        together, log_pi_ref = torch.zeros_like(rewards), torch.full(shape, -torch.inf, dtype=torch.float64)
        for b, row in enumerate(rows):
            n, r = len(row["support"]), self._rewards(row)
            rewards[b, :n], together[b, :n], log_pi_ref[b, :n] = r, self._together(row, r), self._reference(row)
        if weights is None:
            specs = [row["weights"] for row in rows] if "weights" in rows[0] else None
            weights = self.reward.row_weights(specs, len(rows))
        else:
            weights = weights.expand(len(rows), -1)
        rules = self.reward.row_rules([row.get("rule") for row in rows], len(rows))
        log_p, gamma = self._target(together, weights, log_pi_ref, batch.support_mask, rules)
        return {
            "prompt_ids": batch.prompt_ids,
            "prompt_mask": batch.prompt_mask,
            "answer_ids": batch.answer_ids,
            "answer_mask": batch.answer_mask,
            "log_p": log_p.float(),
            "log_pi_ref": log_pi_ref.float(),
            "gamma": gamma.float(),
            "rewards": rewards.float(),
            "weights": weights.float(),
        }

    def _encode_answers(self, support: Sequence[str]) -> list[tuple[int, ...]]:
        key = tuple(support)
        if key not in self._answer_ids:
            self._answer_ids[key] = [tuple(ids) for ids in encode_answers(key, self.tokenizer, self.eos_token_id)]
        return self._answer_ids[key]

    def _rewards(self, row: Row) -> torch.Tensor:
        return self.reward.support_rewards(row.get("jury_prompt") or row["prompt"], row["support"])

    def _together(self, row: Row, rewards: torch.Tensor) -> torch.Tensor:
        support, answers = row["support"], as_completions(row["prompt"], row["support"])
        scores = self.others.scores(row, answers, [list(ids) for ids in self._encode_answers(support)])
        return self.others.together(rewards, scores, [""] * len(support))

    def _reference(self, row: Row) -> torch.Tensor:
        if not self.reward.target.reads_reference:
            return torch.zeros(len(row["support"]), dtype=torch.float64)
        if row_key(row) not in self._log_pi_ref:
            raise ValueError(
                f"the prompt {row['prompt']!r} was not scored under the reference policy before training: pass "
                "its data as train_dataset or eval_dataset when the trainer is made."
            )
        return self._log_pi_ref[row_key(row)].double()

    def _target(
        self,
        rewards: torch.Tensor,
        weights: torch.Tensor,
        log_pi_ref: torch.Tensor,
        mask: torch.Tensor,
        rules: Sequence[Rule | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        target = self.reward.target
        shaped = target.shaped(rewards, log_pi_ref, mask=mask)
        log_ref = log_pi_ref.masked_fill(~mask, -torch.inf)
        log_z = log_partition(shaped, log_ref, target.beta, mask)[:, None]
        gamma = responsibilities(shaped, weights[:, None], log_z, target.beta, 1.0)
        log_p = target.log_probs(rewards, weights, log_pi_ref, mask)
        for b, rule in enumerate(rules):
            if rule is not None:
                pooled = rule.scores(shaped[b], weights[b], mask[b])
                log_p[b] = (pooled / target.beta + log_ref[b]).log_softmax(-1)
        return log_p, gamma


def exact_metrics(
    inputs: Mapping[str, torch.Tensor],
    log_pi: torch.Tensor,
    cluster_names: Sequence[str],
    other_mass: float,
    counted: torch.Tensor,
    beta: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Return what is logged of a batch: distance to the target, mass on the answers, range of rewards, shares.

    Args:
        inputs: From `ExactRows.collate`.
        log_pi: `(B, A)` log-probabilities of the answers under the policy, nats.
        cluster_names: `K` names.
        other_mass: Probability that the target leaves to anything else.
        counted: `(B,)` how often each row counts.
        beta: Temperature of the target, logits.

    Returns:
        `(2,)` sum over rows and number of rows by name.

    Example:
        >>> log_p = torch.tensor([[0.75, 0.25]]).log()
        >>> inputs = {
        ...     "answer_mask": torch.ones(1, 2, 1).bool(), "log_p": log_p, "gamma": torch.eye(2)[None],
        ...     "weights": torch.tensor([[0.75, 0.25]]), "log_pi_ref": torch.zeros(1, 2),
        ... }  # fmt: skip
        >>> sums = exact_metrics(inputs, log_p, ["warm", "cold"], 0.0, torch.ones(1))  # the policy is the target
        >>> {name: value.tolist() for name, value in sums.items() if "warm" in name or name == "coverage"}
        {'coverage': [1.0, 1.0], 'share/warm': [0.75, 1.0], 'weight/warm': [0.75, 1.0]}
    """
    log_pi, counted = log_pi.detach(), counted.to(log_pi)
    pi, mask = log_pi.exp(), inputs["answer_mask"].any(dim=-1)
    # Of the aggregated reward, which is β (log p − log π₀) up to a constant.
    tilt = beta * (inputs["log_p"] - inputs["log_pi_ref"]).to(log_pi)
    spread = tilt.masked_fill(~mask, -torch.inf).amax(-1) - tilt.masked_fill(~mask, torch.inf).amin(-1)
    rows = {
        "reward_range": spread,
        "jsd_nats": exact_divergence(inputs["log_p"], log_pi, "js", mask, p_other=other_mass),
        "coverage": pi.sum(-1),
    }
    shares, weights = cluster_shares(pi, inputs["gamma"]), inputs["weights"].to(log_pi)
    for k, name in enumerate(cluster_names):
        rows |= {f"share/{name}": shares[:, k], f"weight/{name}": weights[:, k]}
    return {name: torch.stack([values @ counted, counted.sum()]) for name, values in rows.items()}


def target_kl_and_gains(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return `(1 + K,)`: KL(p ‖ π₀) in nats, then the gain of each cluster under p over π₀ in logits; prompt means.

    Args:
        inputs: From `ExactRows.collate`.

    Example:
        >>> even, skewed = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
        >>> rewards = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
        >>> target_kl_and_gains({"log_p": skewed, "log_pi_ref": even, "rewards": rewards})[1:]
        tensor([ 1., -1.])
    """
    log_p, log_ref = inputs["log_p"], inputs["log_pi_ref"].log_softmax(-1)
    p = log_p.exp()
    kl = (p * (log_p - log_ref).masked_fill(p == 0, 0.0)).sum(-1).mean()
    gains = ((p - log_ref.exp())[..., None] * inputs["rewards"]).sum(1).mean(0)
    return torch.cat([kl[None], gains])


def row_key(row: Row, prompt: str = "reference_prompt") -> str:
    """Return a key of the question that a row asks and of the answers that it allows.

    The key does not depend on the weights that the prompt names, because `reference_prompt` does not name them.

    Args:
        row: A row of the data set.
        prompt: The column to read, where the row has it; else the prompt that the policy sees.

    Example:
        >>> steered = {"prompt": "For the warm public: a colour?", "reference_prompt": "A colour?"}
        >>> row_key(steered) == row_key({"prompt": "A colour?"})
        True
        >>> row_key(steered, "prompt") == row_key({"prompt": "A colour?"})
        False
    """
    question = row.get(prompt) or row["prompt"]
    return prompt_key([question, list(row["support"])] if row.get("support") else question)
