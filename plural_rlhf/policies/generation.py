"""Sampling completions with every prompt prefilled once, and the log-probability of each sampled token.

The rest is `generate` of transformers: with the same seed the samples are those of a plain call of it. This file knows
nothing of rewards, targets or trainers.

Shapes: `N` completions, `B` different prompts, `P` prompt tokens, `T` completion tokens, `V` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers.utils import logging

from plural_rlhf.policies.log_probs import pad_left, repeatable_cache


if TYPE_CHECKING:
    from transformers import Cache, GenerationConfig, PreTrainedModel

__all__ = ["generate_with_shared_prefix"]

logger = logging.get_logger(__name__)


@torch.no_grad()
def generate_with_shared_prefix(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    generation_config: GenerationConfig,
    pad_token_id: int,
    eos_token_ids: Sequence[int],
) -> tuple[list[list[int]], list[list[float]]]:
    """Samples one completion for each prompt; prompts that are equal are prefilled once.

    Args:
        model: A decoder of transformers, PEFT-wrapped or not, without distributed wrappers.
        prompt_ids: `N` token lists. A group of completions is its prompt repeated.
        generation_config: As for `generate`; one sequence per prompt.
        pad_token_id: Stands before shorter prompts.
        eos_token_ids: Tokens that end a completion.

    Returns:
        The tokens of each completion, end token included and nothing after it, and as many log-probabilities in nats.
        These are the model's own: what `generation_config` does to the distribution (temperature, top-k, forbidden
        tokens) is not in them.

    Raises:
        ValueError: A model in training mode with gradient checkpointing, under which `generate` loses its context.
    """
    if model.training and model.is_activation_checkpointing:
        raise ValueError(
            f"{type(model).__name__} has gradient checkpointing on and is in training mode, where its layers drop the "
            "cache, so every token would be sampled as if it were the first: call model.eval() or "
            "model.activation_checkpointing_disable() before, and undo it after."
        )
    ids, mask = (tensor.to(model.device) for tensor in pad_left(prompt_ids, pad_token_id))
    cache = _prefilled(model, prompt_ids, ids, mask, generation_config)
    with _recorded(model) as recorder:
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config, **cache)
    sequences = out if isinstance(out, torch.Tensor) else out.sequences
    completions = sequences[:, ids.shape[1] :]
    ended = torch.isin(completions, torch.tensor(list(eos_token_ids), device=completions.device)).long()
    lengths = (ended.cumsum(dim=1) - ended == 0).sum(dim=1).tolist()
    log_probs = recorder.log_probs(completions)
    return (
        [row[:n] for row, n in zip(completions.tolist(), lengths, strict=True)],
        [row[:n] for row, n in zip(log_probs.tolist(), lengths, strict=True)],
    )


def _prefilled(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    ids: torch.Tensor,
    mask: torch.Tensor,
    generation_config: GenerationConfig,
) -> dict[str, Cache]:
    """The argument of `generate` with all but the last prompt token in the cache; empty where nothing is shared."""
    first: dict[tuple[int, ...], int] = {}
    for n, prompt in enumerate(prompts):
        first.setdefault(tuple(prompt), n)
    if len(first) == len(prompts) or ids.shape[1] == 1:
        return {}
    plain = generation_config.cache_implementation in (None, "dynamic") and generation_config.use_cache is not False
    cache = repeatable_cache(model) if plain else None
    if cache is not None:
        different = list(first.values())
        model(
            input_ids=ids[different, :-1],
            attention_mask=mask[different, :-1],
            position_ids=(mask[different, :-1].cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if cache.get_seq_length() == ids.shape[1] - 1:
            place = {prompt: b for b, prompt in enumerate(first)}
            cache.batch_select_indices(torch.tensor([place[tuple(p)] for p in prompts], device=ids.device))
            return {"past_key_values": cache}
    logger.warning_once(
        f"{type(model).__name__} cannot go on from a repeated cache (as it is set now), so the prompt of every "
        "completion is prefilled by itself: the same samples, more slowly."
    )
    return {}


class _Recorder:
    """Keeps the log-probability of each sampled token; of the `(N, V)` logits only those of the latest step.

    It reads what the model says and not what a logits processor is shown, which may lack forbidden tokens. A step's
    token is known in the next step only, hence the one step of delay.
    """

    def __init__(self) -> None:
        self._latest: torch.Tensor | None = None
        self._sampled: list[torch.Tensor] = []

    def after_forward(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook."""
        if self._latest is not None:
            self._take(kwargs["input_ids"][:, -1])
        self._latest = output.logits[:, -1].float().log_softmax(-1)

    def log_probs(self, completions: torch.Tensor) -> torch.Tensor:
        """`(N, T)` log-probabilities of the finished completions; meaningless after an end token."""
        if len(self._sampled) < completions.shape[1]:
            self._take(completions[:, -1])
        return torch.stack(self._sampled[: completions.shape[1]], dim=1)

    def _take(self, tokens: torch.Tensor) -> None:
        assert self._latest is not None
        self._sampled.append(self._latest.gather(-1, tokens[:, None])[:, 0])


@contextmanager
def _recorded(model: PreTrainedModel) -> Iterator[_Recorder]:
    recorder = _Recorder()
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    hook = base.register_forward_hook(recorder.after_forward, with_kwargs=True)
    try:
        yield recorder
    finally:
        hook.remove()
