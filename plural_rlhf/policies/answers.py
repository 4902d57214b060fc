"""Prompts with finite sets of answers as tokens, and the log-probability of every answer.

The prompt is computed once for all its answers (`plural_rlhf.policies.log_probs`). Knows nothing of rewards, targets
or trainers.

Shapes: `B` prompts, `A` answers per prompt, `P` prompt tokens, `T` answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from plural_rlhf.policies.log_probs import completion_log_probs
from reward_models.inference import evaluating


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["AnswerBatch", "answer_log_probs", "answer_probabilities", "encode_answers", "encode_prompt"]


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts and their finite sets of answers as tokens.

    Attributes:
        prompt_ids: `(B, P)`, padded on the left.
        prompt_mask: `(B, P)`, 1 at real tokens.
        answer_ids: `(B, A, T)`, padded on the right; every real answer ends with the end-of-sequence token.
        answer_mask: `(B, A, T)`, 1 at real tokens; an answer without real tokens is padding of the set.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_tokenizer
        >>> batch = AnswerBatch.encode(["Parks or roads?"], [["yes", "no"]], tiny_tokenizer())
        >>> batch.answer_mask.sum(-1).tolist()  # "yes" has two tokens, "no" one, and each its end token
        [[3, 2]]
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    answer_ids: torch.Tensor
    answer_mask: torch.Tensor

    @property
    def support_mask(self) -> torch.Tensor:
        """Whether each answer exists, `(B, A)`."""
        return self.answer_mask.any(dim=-1)

    def to(self, device: torch.device | str) -> AnswerBatch:
        """Return the batch on `device`."""
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
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AnswerBatch:
        """Tokenise prompts (`encode_prompt`) and their answers, each followed by the tokenizer's end token."""
        return cls.collate(
            [encode_prompt(prompt, tokenizer, chat_template_kwargs) for prompt in prompts],
            [encode_answers(support, tokenizer, tokenizer.eos_token_id) for support in supports],
            tokenizer.pad_token_id,
        )

    @classmethod
    def collate(
        cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]], pad_token_id: int
    ) -> AnswerBatch:
        """Pad token lists: `prompts` on the left, `answers` (each already with its end token) on the right."""
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


def encode_prompt(
    prompt: str | list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    r"""Tokenise a prompt outside a trainer: by the chat template with the assistant's turn opened, or as plain text.

    A trainer has its own template, arguments and tools: see `plural_rlhf.trainers._trl.encode_prompt`.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> tokenizer.decode(encode_prompt([{"role": "user", "content": "Parks?"}], tokenizer))
        '<|im_start|>user\nParks?<|im_end|>\n<|im_start|>assistant\n'
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    encoded = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **(chat_template_kwargs or {})
    )
    return encoded["input_ids"]


def encode_answers(answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, eos_token_id: int) -> list[list[int]]:
    """Tokenise answers, each with the end token: without it, every longer answer would count towards its prefix.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> [tokenizer.decode(ids) for ids in encode_answers(["yes", "no"], tokenizer, tokenizer.eos_token_id)]
        ['yes<|im_end|>', 'no<|im_end|>']
    """
    encoded = tokenizer(list(answers), add_special_tokens=False)["input_ids"] if answers else []
    return [[*ids, eos_token_id] for ids in encoded]


def answer_log_probs(model: PreTrainedModel | torch.nn.Module, batch: AnswerBatch) -> torch.Tensor:
    """Compute the log-probability of every answer, summed over its tokens, end token included.

    Args:
        model: A decoder of transformers; may be wrapped by PEFT and by `DistributedDataParallel`.
        batch: The prompts and answers.

    Returns:
        `(B, A)` in nats, float32, `-inf` where the answer is padding. Gradients flow to the model.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
        >>> _ = model.lm_head.weight.data.zero_()  # all 398 tokens are equally probable
        >>> batch = AnswerBatch.encode(["Parks or roads?"], [["yes", "no"]], tokenizer)
        >>> -answer_log_probs(model, batch).detach() / torch.tensor(398.0).log()
        tensor([[3., 2.]])
    """
    owner, answer = batch.support_mask.nonzero(as_tuple=True)
    rows = {
        "prompt_ids": batch.prompt_ids[owner],
        "prompt_mask": batch.prompt_mask[owner],
        "completion_ids": batch.answer_ids[owner, answer],
        "completion_mask": batch.answer_mask[owner, answer],
    }
    scores = torch.full(batch.support_mask.shape, -torch.inf, device=batch.prompt_ids.device)
    return scores.index_put((owner, answer), completion_log_probs(model, rows).sum(-1))


@torch.no_grad()
def answer_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    supports: Sequence[Sequence[str]],
    *,
    batch_size: int = 12,
    description: str = "scoring",
    progress: bool = True,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[np.ndarray]:
    """Compute the exact probability of each offered answer, end token included; nothing is sampled.

    Args:
        model: The policy; in evaluation mode during the call.
        tokenizer: Its tokenizer.
        prompts: Strings or conversations.
        supports: The offered answers of each prompt.
        batch_size: Prompts per forward pass.
        description: Label of the progress bar.
        progress: Whether to show the progress bar.
        chat_template_kwargs: Arguments of the chat template in training, other than the conversation.

    Returns:
        Per prompt, `(A,)` probabilities; they sum to the coverage, at most 1.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
        >>> _ = model.lm_head.weight.data.zero_()  # all 398 tokens are equally probable
        >>> [p] = answer_probabilities(model, tokenizer, ["Parks or roads?"], [["yes", "no"]], progress=False)
        >>> (-np.log(p) / np.log(398)).round(3).tolist()  # "yes" has two tokens, "no" one, and each its end token
        [3.0, 2.0]
    """
    out: list[np.ndarray] = []
    starts = tqdm(range(0, len(prompts), batch_size), desc=description, disable=not progress, leave=False)
    with evaluating(model):
        for start in starts:
            part = slice(start, start + batch_size)
            batch = AnswerBatch.encode(prompts[part], supports[part], tokenizer, chat_template_kwargs)
            probabilities = answer_log_probs(model, batch.to(model.device)).double().exp().cpu().numpy()
            out += [p[: len(s)] for p, s in zip(probabilities, supports[part], strict=True)]
    return out
