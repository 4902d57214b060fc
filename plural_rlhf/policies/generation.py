"""Sample completions with every prompt prefilled once, and return the log-probability of each sampled token.

The rest is `generate` of transformers: with the same seed the samples are those of a plain call of it. Knows nothing
of rewards, targets or trainers.

Shapes: `N` completions, `B` different prompts, `P` prompt tokens, `T` completion tokens, `V` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers.utils import logging

from plural_rlhf.policies.log_probs import pad_left, repeatable_cache


if TYPE_CHECKING:
    from transformers import Cache, GenerationConfig, PreTrainedModel

__all__ = ["OWN_DISTRIBUTION", "generate_with_shared_prefix"]

logger = logging.get_logger(__name__)

OWN_DISTRIBUTION: Mapping[str, Any] = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Settings that sample from a model's own distribution, as in training, whatever its generation_config says."""


@torch.no_grad()
def generate_with_shared_prefix(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    generation_config: GenerationConfig,
    pad_token_id: int,
    eos_token_ids: Sequence[int],
) -> tuple[list[list[int]], list[list[float]]]:
    """Sample one completion for each prompt; equal prompts are prefilled once.

    Args:
        model: A decoder of transformers, PEFT-wrapped or not, without distributed wrappers.
        prompt_ids: `N` token lists. A group of completions is its prompt repeated.
        generation_config: As for `generate`; one sequence per prompt.
        pad_token_id: Padding of shorter prompts, on the left.
        eos_token_ids: Tokens that end a completion.

    Returns:
        The tokens of each completion, end token included and nothing after it, and as many log-probabilities in nats.
        These are the model's own, without the changes of `generation_config` (temperature, top-k, forbidden tokens).

    Raises:
        ValueError: If the model is in training mode with gradient checkpointing, under which `generate` loses its
            context.

    Example:
        >>> from transformers import GenerationConfig
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
        >>> group = [tokenizer("Parks or roads?")["input_ids"]] * 2
        >>> config = GenerationConfig(do_sample=True, max_new_tokens=3, pad_token_id=tokenizer.pad_token_id)
        >>> tokens, log_probs = generate_with_shared_prefix(
        ...     model, group, config, tokenizer.pad_token_id, [tokenizer.eos_token_id]
        ... )
        >>> [len(row) for row in tokens] == [len(row) for row in log_probs]
        True
    """
    if model.training and model.is_activation_checkpointing:
        raise ValueError(
            f"{type(model).__name__} has gradient checkpointing on and is in training mode, in which its layers drop "
            "the cache, so every token would be sampled as if it were the first: call model.eval() or "
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
    """Return the argument of `generate` with all but the last prompt token in the cache; empty if none is shared."""
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
        f"{type(model).__name__} cannot continue from a repeated cache (with its present settings), so the prompt of "
        "every completion is prefilled by itself: the same samples, more slowly."
    )
    return {}


class _Recorder:
    """Records the log-probability of each sampled token; keeps the `(N, V)` logits of the latest step only.

    It reads the model's output and not the input of a logits processor, which may lack forbidden tokens. A step's
    token is known only in the next step, hence the delay of one step.
    """

    def __init__(self) -> None:
        self._latest: torch.Tensor | None = None
        self._sampled: list[torch.Tensor] = []

    def after_forward(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Record the latest input token; a forward hook."""
        if self._latest is not None:
            self._record(kwargs["input_ids"][:, -1])
        self._latest = output.logits[:, -1].float().log_softmax(-1)

    def log_probs(self, completions: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the finished completions, `(N, T)`; meaningless after an end token."""
        if len(self._sampled) < completions.shape[1]:
            self._record(completions[:, -1])
        return torch.stack(self._sampled[: completions.shape[1]], dim=1)

    def _record(self, tokens: torch.Tensor) -> None:
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
