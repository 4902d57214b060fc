"""Scoring many answers to one prompt while the prompt is computed once, in the forward and in the backward pass.

Two ways with the same values and gradients as scoring every prompt–answer pair by itself. Packed: the whole batch is
one token trie, so that what the prompts share is computed once too. Cached: the key/value cache of each prompt is
repeated for its answers; for models whose attention takes no mask of ours. This file knows nothing of rewards, targets
or trainers.

Shapes: `B` prompts, `A` answers a prompt, `P` prompt tokens, `T` answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.trainers.packing import build_tries, supports_packing, trie_log_probs


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["AnswerBatch", "answer_log_probs", "encode_answers", "encode_prompt"]


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts and their finite sets of answers as tokens.

    Attributes:
        prompt_ids: `(B, P)`, padded on the left.
        prompt_mask: `(B, P)`, 1 at real tokens.
        answer_ids: `(B, A, T)`, padded on the right; every real answer ends with the end-of-sequence token.
        answer_mask: `(B, A, T)`, 1 at real tokens; an answer without any is padding of the set.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    answer_ids: torch.Tensor
    answer_mask: torch.Tensor

    @property
    def support_mask(self) -> torch.Tensor:
        """`(B, A)`, true where the answer exists."""
        return self.answer_mask.any(dim=-1)

    def to(self, device: torch.device | str) -> AnswerBatch:
        """Returns the batch on `device`."""
        return AnswerBatch(
            self.prompt_ids.to(device),
            self.prompt_mask.to(device),
            self.answer_ids.to(device),
            self.answer_mask.to(device),
        )

    @classmethod
    def encode(
        cls,
        prompts: Sequence[str | list[dict[str, Any]]],
        supports: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        eos_token_id: int | None = None,
    ) -> AnswerBatch:
        """Tokenises prompts and their answers; `eos_token_id` ends an answer, by default the tokenizer's own."""
        eos = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        return cls.collate(
            [encode_prompt(prompt, tokenizer) for prompt in prompts],
            [encode_answers(support, tokenizer, eos) for support in supports],
            tokenizer.pad_token_id,
        )

    @classmethod
    def collate(
        cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]], pad_token_id: int
    ) -> AnswerBatch:
        """Pads token lists: `prompts` on the left, `answers` (already closed by the end token) on the right."""
        n_prompt = max(len(p) for p in prompts)
        n_answers = max(len(a) for a in answers)
        n_tokens = max(len(tokens) for row in answers for tokens in row)
        prompt_ids = torch.full((len(prompts), n_prompt), pad_token_id, dtype=torch.long)
        prompt_mask = torch.zeros_like(prompt_ids)
        answer_ids = torch.full((len(prompts), n_answers, n_tokens), pad_token_id, dtype=torch.long)
        answer_mask = torch.zeros_like(answer_ids)
        for b, (prompt, row) in enumerate(zip(prompts, answers, strict=True)):
            prompt_ids[b, n_prompt - len(prompt) :] = torch.tensor(prompt)
            prompt_mask[b, n_prompt - len(prompt) :] = 1
            for a, tokens in enumerate(row):
                answer_ids[b, a, : len(tokens)] = torch.tensor(tokens)
                answer_mask[b, a, : len(tokens)] = 1
        return cls(prompt_ids, prompt_mask, answer_ids, answer_mask)


def encode_prompt(prompt: str | list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of a prompt as TRL makes them: the chat template with the assistant's turn opened, or the plain text."""
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return encoded["input_ids"]


def encode_answers(answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, eos_token_id: int) -> list[list[int]]:
    """Tokens of each answer, closed by the end-of-sequence token (without it a prefix would count as an answer)."""
    return [[*tokenizer(answer, add_special_tokens=False)["input_ids"], eos_token_id] for answer in answers]


def answer_log_probs(model: PreTrainedModel | torch.nn.Module, batch: AnswerBatch) -> torch.Tensor:
    """Log-probability of every answer, summed over its tokens, end-of-sequence included.

    Args:
        model: A decoder of transformers (PEFT-wrapped or not), without gradient checkpointing, which does not go
            together with a cache.
        batch: The prompts and answers.

    Returns:
        `(B, A)` in nats, float32, `-inf` where the answer is padding. Gradients flow to the model.
    """
    inner = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    longest = batch.prompt_ids.shape[1] + batch.answer_ids.shape[2]
    return _packed_log_probs(model, batch) if supports_packing(inner, longest) else _cached_log_probs(model, batch)


def _packed_log_probs(model: torch.nn.Module, batch: AnswerBatch) -> torch.Tensor:
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]
    pairs = batch.support_mask.nonzero().tolist()
    answers = [batch.answer_ids[b, a][batch.answer_mask[b, a].bool()].tolist() for b, a in pairs]
    device = batch.prompt_ids.device
    scores = torch.full(batch.support_mask.shape, -torch.inf, device=device)
    for trie in build_tries([prompts[b] + answer for (b, _), answer in zip(pairs, answers, strict=True)]):
        members = [pairs[n] for n in trie.members]
        found = trie_log_probs(model, trie, [len(prompts[b]) for b, _ in members], device)
        rows, columns = torch.tensor(members, device=device).T
        scores = scores.index_put((rows, columns), found)
    return scores


def _cached_log_probs(model: torch.nn.Module, batch: AnswerBatch) -> torch.Tensor:
    from transformers import DynamicCache

    n_prompts, n_answers, n_tokens = batch.answer_ids.shape
    cache = DynamicCache()
    positions = (batch.prompt_mask.cumsum(-1) - 1).clamp(min=0)
    prompt_out = model(
        input_ids=batch.prompt_ids,
        attention_mask=batch.prompt_mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    first = prompt_out.logits[:, -1].float().log_softmax(-1)  # (B, V)
    log_probs = first.gather(-1, batch.answer_ids[..., 0])  # (B, A)
    if n_tokens > 1:
        cache.batch_repeat_interleave(n_answers)
        ids = batch.answer_ids.reshape(n_prompts * n_answers, n_tokens)
        mask = batch.answer_mask.reshape(n_prompts * n_answers, n_tokens)
        start = (positions[:, -1] + 1).repeat_interleave(n_answers)
        out = model(
            input_ids=ids[:, :-1],
            # Padding is attended to only from padding: an answer's padding stands after its last token.
            attention_mask=torch.cat([batch.prompt_mask.repeat_interleave(n_answers, dim=0), mask[:, :-1]], dim=1),
            position_ids=start[:, None] + torch.arange(n_tokens - 1, device=start.device),
            past_key_values=cache,
            use_cache=True,
        )
        rest = out.logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # (B·A, T-1)
        rest = torch.where(mask[:, 1:].bool(), rest, rest.new_zeros(()))
        log_probs = log_probs + rest.sum(-1).view(n_prompts, n_answers)
    return log_probs.masked_fill(~batch.support_mask, -torch.inf)
