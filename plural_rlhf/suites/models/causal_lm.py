"""Language models of transformers under evaluation: plain or with a chat template, with an adapter, steered or not.

A model with a chat template gets a prompt as the user's message, and an answer ends with its end token. A plain model
gets the prompt as it is and the answer after a space, which ends with a line break. Loading is in `loading`.

Shapes: `A` options, `S` segments of a sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import GenerationConfig

from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs, encode_prompt
from plural_rlhf.policies.generation import generate_with_shared_prefix
from plural_rlhf.policies.log_probs import pad_left, span_losses
from plural_rlhf.policies.steerer import end_tokens
from plural_rlhf.suites.models.protocol import (
    EvaluatedModel,
    NotSupported,
    OptionRequest,
    Segment,
    SegmentLosses,
    Steering,
    TextSettings,
)
from reward_models.inference import evaluating
from reward_models.seeds import derived_seed


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from plural_rlhf.weights.wording import TRLPrompt

__all__ = ["CausalLM"]

SEQUENCES = 64
"""Texts that are sampled at once."""
TOKENS = 2048
"""Tokens of sequences that are scored at once, padding included."""


class CausalLM(EvaluatedModel):
    """A decoder of transformers, on its device.

    Args:
        name: What the report calls it.
        model: The model, with its adapter if it has one.
        tokenizer: Its tokenizer.
        identity: Hash of the weights and of `render`; by default of the parameters in memory, which takes seconds for
            a large model.
        chat: Whether prompts are sent through the chat template; None: if the tokenizer has one.
        batch_size: Prompts per forward pass.
        render: Changes a prompt before it is encoded, e.g. writes steering weights into it.
        steering: How the model is steered to other weights; None: it cannot be steered.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> model = tiny_causal_lm()
        >>> _ = model.lm_head.weight.data.zero_()  # all 398 tokens are equally probable
        >>> tiny = CausalLM("tiny", model, tiny_tokenizer())
        >>> [log_probs] = tiny.option_log_probs([OptionRequest("Parks or roads?", ("yes", "no"))])
        >>> (-log_probs / np.log(398)).round(3).tolist()  # "yes" has two tokens, "no" one, and each its end token
        [3.0, 2.0]
        >>> [texts] = tiny.sample(["Parks or roads?"], 2, max_new_tokens=4)
        >>> len(texts)
        2
    """

    kind = "causal-lm"

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        identity: str | None = None,
        chat: bool | None = None,
        batch_size: int = 16,
        render: Callable[[TRLPrompt], TRLPrompt] | None = None,
        steering: Steering | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None if chat is None else chat
        if self.chat and tokenizer.chat_template is None:
            raise ValueError(f"{name}: chat is true, but the tokenizer has no chat template. Fix: set chat to false")
        self.batch_size = batch_size
        self.render = render
        self._steering = steering
        self.identity = f"{identity or _parameters_hash(model)}-{'chat' if self.chat else 'plain'}"
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        self._end = [tokenizer.eos_token_id] if self.chat or not line_break else line_break

    @property
    def steering(self) -> Steering:
        """How the policy is steered to other weights."""
        return super().steering if self._steering is None else self._steering

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the log-probability of each whole answer, its end included, prompts computed once.

        Raises:
            NotSupported: An option has no tokens.
        """
        answers = [[self._output_ids(option, r.prompt) for option in r.options] for r in requests]
        out: list[np.ndarray] = []
        with evaluating(self.model), torch.no_grad():
            for start in range(0, len(requests), self.batch_size):
                part = slice(start, start + self.batch_size)
                prompts = [self._prompt_ids(request.prompt) for request in requests[part]]
                batch = AnswerBatch.collate(prompts, answers[part], self._padding)
                log_probs = answer_log_probs(self.model, batch.to(self.model.device)).double().cpu().numpy()
                out += [row[: len(a)] for row, a in zip(log_probs, answers[part], strict=True)]
        return out

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Sample texts from the model's own distribution: no top-k, no top-p."""
        ends = [*end_tokens(self.model, self.tokenizer), *self._tokens_with(settings.stop)]
        config = GenerationConfig(
            do_sample=settings.temperature > 0,
            temperature=settings.temperature if settings.temperature > 0 else None,
            top_k=0,
            top_p=1.0,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=self._padding,
            eos_token_id=ends,
        )
        rows = [ids for prompt in prompts for ids in [self._prompt_ids(prompt)] * n]
        texts: list[str] = []
        with evaluating(self.model), torch.random.fork_rng(devices=self._accelerators()):
            torch.manual_seed(derived_seed(settings.seed, "texts of a model of a suite"))
            for start in range(0, len(rows), SEQUENCES):
                part = rows[start : start + SEQUENCES]
                tokens, _ = generate_with_shared_prefix(self.model, part, config, self._padding, ends)
                texts += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]

    def sequence_losses(self, sequences: Sequence[Sequence[Segment]]) -> list[SegmentLosses]:
        """Return the loss of each output: all segments of a sequence are one context, a chat model's turns.

        Raises:
            NotSupported: A sequence is longer than the context of the model.
        """
        encoded = [self._sequence_ids(sequence) for sequence in sequences]
        longest = getattr(self.model.config, "max_position_embeddings", None)
        too_long = max((len(ids) for ids, _ in encoded), default=0)
        if longest is not None and too_long > longest:
            raise NotSupported(f"a sequence has {too_long} tokens, and the context of {self.name} has {longest}")
        losses: list[SegmentLosses | None] = [None] * len(sequences)
        order = sorted(range(len(encoded)), key=lambda position: len(encoded[position][0]))
        with evaluating(self.model), torch.no_grad():
            for part in _parts(order, [len(ids) for ids, _ in encoded]):
                for position, found in zip(part, self._losses([encoded[p] for p in part]), strict=True):
                    losses[position] = found
        return [found for found in losses if found is not None]

    def _losses(self, encoded: Sequence[tuple[list[int], list[tuple[int, int]]]]) -> Iterator[SegmentLosses]:
        device = self.model.device
        ids, mask = (tensor.to(device) for tensor in pad_left([ids for ids, _ in encoded], self._padding))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        for row, (tokens, spans) in enumerate(encoded):
            first = ids.shape[1] - len(tokens)
            yield SegmentLosses(*span_losses(logits[row, first:], ids[row, first:], spans))

    def _sequence_ids(self, sequence: Sequence[Segment]) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of a sequence and the places of its outputs, each with its end."""
        ids: list[int] = []
        spans = []
        for between, segment in zip(self._contexts(sequence), sequence, strict=True):
            ids += self.tokenizer(between, add_special_tokens=not ids and not self.chat)["input_ids"]
            output = self._output_ids(segment.output, segment.input)
            spans.append((len(ids), len(ids) + len(output)))
            ids += output
        return ids, spans

    def _contexts(self, sequence: Sequence[Segment]) -> Iterator[str]:
        """Yield the text before each output that the outputs before it do not hold."""
        if not self.chat:
            for number, segment in enumerate(sequence):
                yield ("\n" if number else "") + segment.input
            return
        turns: list[dict[str, str]] = []
        written = ""
        for segment in sequence:
            turns.append({"role": "user", "content": segment.input})
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            if not text.startswith(written):
                raise NotSupported(
                    f"the chat template of {self.name} changes earlier turns, so that a conversation cannot be scored "
                    "in one pass. Set chat to false"
                )
            yield text[len(written) :]
            written = text + segment.output + self.tokenizer.eos_token
            turns.append({"role": "assistant", "content": segment.output})

    def _prompt_ids(self, prompt: str) -> list[int]:
        shown: TRLPrompt = [{"role": "user", "content": prompt}] if self.chat else prompt
        return encode_prompt(shown if self.render is None else self.render(shown), self.tokenizer)

    def _output_ids(self, output: str, before: str) -> list[int]:
        text = output if self.chat or before[-1:].isspace() else f" {output}"
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or not output.strip():
            raise NotSupported(f"the answer {output!r} to {before[-60:]!r} has no tokens, so it has no probability")
        return [*ids, *self._end]

    @property
    def _padding(self) -> int:
        return self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    def _tokens_with(self, stop: tuple[str, ...]) -> list[int]:
        """Return the tokens that hold a text at which samples are cut, so that nothing is written after it."""
        return _tokens_with(self.tokenizer, stop)

    def _accelerators(self) -> list[torch.device]:
        return [] if self.model.device.type == "cpu" else [self.model.device]


@lru_cache(maxsize=32)
def _tokens_with(tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> list[int]:
    if not stop:
        return []
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if any(end in text for end in stop)]


def _parts(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield positions, sorted by length, in parts of at most `TOKENS` padded tokens, or of one."""
    part: list[int] = []
    for position in order:
        if part and (len(part) + 1) * lengths[position] > TOKENS:
            yield part
            part = []
        part.append(position)
    if part:
        yield part


def _parameters_hash(model: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
