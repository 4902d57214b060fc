"""From the hidden states of a backbone to the vector of a text that the heads of a jury read.

The same for features before a fit and for scores after it: `ReadingSettings` says how. Knows nothing of texts.

Shapes: `B` texts, `T` tokens, `D` size of the hidden states, `L` layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reward_models.errors import JuryError
from reward_models.jury.reading import ReadingSettings


__all__ = ["last_token", "pool", "text_vectors", "vector_size"]

SMALLEST = 1e-6


def last_token(hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Select the hidden state of each row's last real token, whichever side the padding is on.

    The mask decides, not the token ids: where the padding token is also the end token, an id cannot tell them apart.

    Args:
        hidden: (B, T, D) hidden states.
        attention_mask: (B, T), 1 at real tokens; None when there is no padding.

    Returns:
        (B, D).

    Example:
        >>> hidden = torch.arange(3.0).view(1, 3, 1)
        >>> last_token(hidden, torch.tensor([[1, 1, 0]])).tolist(), last_token(hidden).tolist()
        ([[1.0]], [[2.0]])
    """
    if attention_mask is None:
        return hidden[:, -1]
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    last = (positions * attention_mask.to(hidden.device).ne(0)).argmax(-1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """Make one vector per text of the hidden states of its tokens.

    Args:
        hidden: (B, T, D).
        attention_mask: (B, T), 1 at real tokens; None when there is no padding.
        pooling: One of `reading.POOLINGS`.

    Returns:
        (B, D).

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> [pool(hidden, torch.tensor([[1, 1, 0]]), how).item() for how in ("last_token", "mean", "first_token")]
        [3.0, 2.0, 1.0]
    """
    if pooling == "last_token":
        return last_token(hidden, attention_mask)
    real = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask.to(hidden.device).ne(0)
    if pooling == "first_token":
        return hidden[torch.arange(len(hidden), device=hidden.device), real.int().argmax(-1)]
    weight = real[..., None].float()
    return (hidden.float() * weight).sum(1) / weight.sum(1)


def vector_size(backbone: PreTrainedModel, reading: ReadingSettings) -> int:
    """Return the number of features of a text.

    Raises:
        JuryError: The backbone has fewer layers than the settings name.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> vector_size(tiny_causal_lm(hidden_size=16), ReadingSettings(layers=(1, 2)))
        32
    """
    config = backbone.config.get_text_config()
    if reading.layers is None:
        return int(config.hidden_size)
    if max(reading.layers) > config.num_hidden_layers:
        raise JuryError(
            f"layers={reading.layers}, but {type(backbone).__name__} has {config.num_hidden_layers} layers. Name some "
            "of those."
        )
    return int(config.hidden_size) * len(reading.layers)


def text_vectors(
    backbone: PreTrainedModel,
    inputs: Mapping[str, Tensor | None],
    readings: Sequence[ReadingSettings],
) -> list[Tensor]:
    """Run a backbone once, and make the vector of each text by each of some settings.

    Args:
        backbone: An encoder, or a decoder without its head.
        inputs: `input_ids` or `inputs_embeds`, `attention_mask`, and whatever else it takes.
        readings: Settings that differ in pooling, layers and length only.

    Returns:
        A (B, vector_size) tensor for each.
    """
    several = any(reading.layers is not None for reading in readings)
    given: dict[str, Any] = {name: value for name, value in inputs.items() if value is not None}
    if "use_cache" in inspect.signature(type(backbone).forward).parameters:
        given["use_cache"] = False
    output = backbone(**given, **({"output_hidden_states": True} if several else {}))
    return [_vector(backbone, output, inputs.get("attention_mask"), reading) for reading in readings]


def _vector(backbone: PreTrainedModel, output: Any, attention_mask: Tensor | None, reading: ReadingSettings) -> Tensor:
    last: Tensor = output.last_hidden_state
    if reading.layers is None:
        vector = pool(last, attention_mask, reading.pooling)
    else:
        depth = backbone.config.get_text_config().num_hidden_layers
        states = [last if layer == depth else _scaled(output.hidden_states[layer]) for layer in reading.layers]
        vector = torch.cat([pool(state, attention_mask, reading.pooling) for state in states], dim=-1)
    return torch.nn.functional.normalize(vector.float(), dim=-1) if reading.unit_length else vector


def _scaled(hidden: Tensor) -> Tensor:
    """Scale the state of each token to a mean square of 1: a few tokens have states a thousand times as large."""
    as_float = hidden.float()
    return as_float * torch.rsqrt(as_float.square().mean(-1, keepdim=True) + SMALLEST)
