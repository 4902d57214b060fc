"""Conversations that a language model makes up by itself: what it says where nobody trains it.

A chat model is given the opening of its template, before anything that a user says; it goes on with a user's message,
and then answers it (Xu et al. 2024, Magpie, arXiv:2406.08464). A model without a chat template begins a text. Knows
nothing of rewards or trainings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.generation import OWN_DISTRIBUTION, generate_with_shared_prefix
from reward_models.inference import evaluating
from reward_models.progress import track
from reward_models.seeds import derived_seed


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OwnText", "draw_own_texts"]

logger = logging.getLogger(__name__)

MESSAGE_TOKENS = 32
"""Longest message of a user in tokens; a longer one is cut."""
_BATCH = 32
_SPARE = 96
"""So many messages may be empty."""
_OPENING = 4
"""Tokens of a text without a chat template that count as its prompt."""
_MARK = "\u2603"


@dataclass(frozen=True)
class OwnText:
    """A prompt and what the model says after it.

    Attributes:
        prompt: What a user says, or the beginning of a text.
        completion: What follows; cut where it is longer than was asked for.
        chat: Whether the prompt is a user's message.

    Example:
        >>> OwnText("Parks?", "Yes.", chat=True).row
        {'prompt': [{'role': 'user', 'content': 'Parks?'}], 'completion': 'Yes.'}
    """

    prompt: str
    completion: str
    chat: bool

    @property
    def row(self) -> dict[str, Any]:
        """As a row of a data set: `prompt`, a conversation or plain text, and `completion`."""
        prompt = [{"role": "user", "content": self.prompt}] if self.chat else self.prompt
        return {"prompt": prompt, "completion": self.completion}


@torch.no_grad()
def draw_own_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
    *,
    max_new_tokens: int = 48,
    seed: int = 0,
) -> list[OwnText]:
    """Draw conversations of one message and its answer, at temperature 1.

    Args:
        model: A decoder; in evaluation mode during the call.
        tokenizer: Its tokenizer. Without a chat template texts are drawn from their beginning.
        number: How many; fewer come back, and a warning is logged, where most messages of the model are empty.
        max_new_tokens: Longest answer in tokens.
        seed: Random seed.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> texts = draw_own_texts(tiny_causal_lm(tokenizer), tokenizer, 3, max_new_tokens=4)
        >>> len(texts), texts[0].chat
        (3, True)
    """
    opening = _opening(tokenizer)
    chat = opening is not None
    start = opening or [_first_token(tokenizer)]
    texts: list[OwnText] = []
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "own texts of a model"))
        for _ in track(range(0, number + _SPARE, _BATCH), "own texts"):
            wanted = min(_BATCH, number - len(texts))
            if not wanted:
                break
            if chat:
                drawn = _drawn(model, tokenizer, [start] * wanted, MESSAGE_TOKENS)
                prompts = [text for ids in drawn if (text := _text(tokenizer, ids))]
                if not prompts:
                    continue
                asked = [encode_prompt([{"role": "user", "content": prompt}], tokenizer) for prompt in prompts]
                answers = _drawn(model, tokenizer, asked, max_new_tokens)
            else:
                drawn = _drawn(model, tokenizer, [start] * wanted, _OPENING + max_new_tokens)
                prompts = [_text(tokenizer, ids[:_OPENING]) for ids in drawn]
                answers = [ids[_OPENING:] for ids in drawn]
            pairs = zip(prompts, answers, strict=True)
            texts += [OwnText(prompt, _text(tokenizer, ids), chat) for prompt, ids in pairs if prompt]
    if len(texts) < number:
        logger.warning("the model made up %d of %d texts by itself: its other messages were empty", len(texts), number)
    return texts


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """Tokens of a chat up to where the user speaks; None without a chat template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    text = str(tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False))
    before, found, _ = text.partition(_MARK)
    ids = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    return ids if found and ids else None


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(first)


def _drawn(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], longest: int
) -> list[list[int]]:
    # A user's message may end with another token than an answer does, and nothing after it belongs to the message.
    ends: list[int] = sorted({int(token) for token in tokenizer.all_special_ids})
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    settings = GenerationConfig(max_new_tokens=longest, pad_token_id=pad, eos_token_id=ends, **OWN_DISTRIBUTION)
    tokens, _ = generate_with_shared_prefix(model, prompts, settings, pad, ends)
    return tokens


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
