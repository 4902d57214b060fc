"""Texts, and what a model says after each of their places: how far has another policy moved from it there?

Of the model the most probable tokens of each place are kept, and the rest as one event, so that neither a second model
nor its whole distributions are needed later. Merging events makes a divergence smaller, never larger. Knows nothing of
trainings.

Shapes: `T` texts, `M` places, `k` kept tokens, `V` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.policies.log_probs import next_token_log_probs
from reward_models.inference import evaluating
from reward_models.progress import track


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ReferenceTexts", "check_text_rows"]

TOP_TOKENS = 128
"""Most probable tokens that are compared one by one."""


@dataclass(frozen=True)
class ReferenceTexts:
    """What a model says after each place of the completions of some texts.

    Attributes:
        sequences: `T` token lists, prompt and completion.
        starts: For each the first place that counts, that of the last token of the prompt.
        tokens: For each `(M, k)`, the most probable next tokens at each place.
        log_probs: For each `(M, k + 1)` nats, those of `tokens` and of all others together.

    Example:
        >>> from plural_rlhf.policies.answers import encode_prompt
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
        >>> rows = [{"prompt": "A colour? ", "completion": "red"}]
        >>> before = ReferenceTexts.of(model, tokenizer, rows, lambda prompt: encode_prompt(prompt, tokenizer))
        >>> before.divergences(model, [0]).detach().abs().round(decimals=5)  # nothing has changed yet
        tensor([0.])
    """

    sequences: list[list[int]]
    starts: list[int]
    tokens: list[torch.Tensor]
    log_probs: list[torch.Tensor]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Mapping[str, Any]],
        encode_prompt: Callable[[Any], list[int]],
        *,
        max_tokens: int = 48,
        batch_size: int = 8,
    ) -> ReferenceTexts:
        """Ask a model what it would say next at every place of some completions.

        Args:
            model: The model, in evaluation mode during the call.
            tokenizer: Its tokenizer.
            rows: Texts with `prompt` and `completion`, see `check_text_rows`.
            encode_prompt: Tokenises a prompt.
            max_tokens: Tokens of a completion that are read, from its beginning.
            batch_size: Texts per forward pass.
        """
        encoded = [_encoded(row, tokenizer, encode_prompt, max_tokens) for row in rows]
        sequences, starts = [ids for ids, _ in encoded], [start for _, start in encoded]
        tokens, log_probs = list[torch.Tensor](), list[torch.Tensor]()
        with evaluating(model):
            for first in track(range(0, len(rows), batch_size), "reference texts"):
                part = slice(first, first + batch_size)
                after = next_token_log_probs(model, sequences[part], starts[part])
                top = after.topk(min(TOP_TOKENS, after.shape[1] - 1), dim=-1).indices
                sizes = [len(ids) - start for ids, start in zip(sequences[part], starts[part], strict=True)]
                tokens += top.split(sizes)
                log_probs += _with_rest(after, top).split(sizes)
        return cls(sequences, starts, tokens, log_probs)

    def __len__(self) -> int:
        return len(self.sequences)

    def divergences(self, model: torch.nn.Module, chosen: Sequence[int]) -> torch.Tensor:
        """Return KL(before ‖ model) of some of the texts, mean over their places, `(len(chosen),)` nats per token.

        Args:
            model: Another policy, or the same one later; gradients flow to it.
            chosen: Indices of the texts.
        """
        after = next_token_log_probs(model, [self.sequences[i] for i in chosen], [self.starts[i] for i in chosen])
        tokens = torch.cat([self.tokens[i] for i in chosen]).to(after.device)
        before = torch.cat([self.log_probs[i] for i in chosen]).to(after.device)
        by_place = (before.exp() * (before - _with_rest(after, tokens))).sum(-1)
        return torch.stack([places.mean() for places in by_place.split([len(self.tokens[i]) for i in chosen])])


def _with_rest(log_probs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of some tokens and of all others together, `(M, k + 1)`, from `(M, V)`."""
    others = log_probs.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, tokens), others], dim=-1)


def _encoded(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    encode_prompt: Callable[[Any], list[int]],
    max_tokens: int,
) -> tuple[list[int], int]:
    completion = row["completion"]
    text = completion if isinstance(completion, str) else completion[0]["content"]
    prompt = encode_prompt(row["prompt"])
    if not prompt:
        raise ValueError(f"the prompt {row['prompt']!r} has no token, so that nothing says what comes after it.")
    return prompt + tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens], len(prompt) - 1


def check_text_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise if there is no text, or a row is none.

    Args:
        rows: Texts with `prompt` and `completion`: strings, or conversations as TRL takes them.

    Raises:
        ValueError: Says the row, what it has and what it needs.

    Example:
        >>> check_text_rows([{"prompt": "Parks?", "completion": "Yes."}])
        >>> check_text_rows([{"prompt": "Parks?", "completion": None}])
        Traceback (most recent call last):
        ValueError: text 0: completion is None: give a string, or a conversation of role and content.
    """
    if not len(rows):
        raise ValueError("there are no texts: give one or more, each with prompt and completion.")
    for n, row in enumerate(rows):
        for name in ("prompt", "completion"):
            value = row.get(name) if isinstance(row, Mapping) else None
            turns = value if isinstance(value, list) else []
            is_chat = bool(turns) and all(isinstance(t, Mapping) and isinstance(t.get("content"), str) for t in turns)
            is_text = isinstance(value, str) and (bool(value) or name == "completion")  # which may end at once
            if not (is_text or (is_chat and (name == "prompt" or len(turns) == 1))):
                raise ValueError(
                    f"text {n}: {name} is {value!r}: give a string, or a conversation of role and content."
                )
