"""A decoder of which the last layers are trained: what the layers before them make of a text is computed once.

Adapters in the last layers leave the states below them as they are, and most of the time goes there. Knows nothing of
judgements and trainings.

Shapes: `B` texts, `T` tokens, `D` size of the hidden states.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel

from reward_models.jury.backbones.loading import truncate_backbone


__all__ = ["LowerLayers", "upper_layers"]


@cache
def _lower_layers(model: PreTrainedModel, number: int) -> nn.Module:
    """The first layers of a decoder, shared by all trainings of its last ones."""
    return LowerLayers(model, number)


def upper_layers(model: PreTrainedModel, number: int) -> PreTrainedModel:
    """Make a decoder of copies of the last layers, whose embedding is what the layers before them make of a text.

    Args:
        model: A decoder of Llama's form, in evaluation mode; it stays as it is.
        number: Number of layers; all of them if it has no more.
    """
    depth = model.config.num_hidden_layers
    lowest = depth - min(number, depth)
    embedding, layers = model.embed_tokens, model.layers
    upper = truncate_backbone(model, depth - lowest)
    upper.layers, upper.embed_tokens = layers[lowest:], nn.Identity()
    upper = copy.deepcopy(upper)
    for index, layer in enumerate(upper.layers):
        layer.self_attn.layer_idx = index
    upper.embed_tokens = _lower_layers(model, lowest) if lowest else copy.deepcopy(embedding)
    return upper


class LowerLayers(nn.Module):
    """The first layers of a decoder in the place of its embedding: each text is run once, and looked up afterwards.

    No text may end with the padding token.

    Args:
        model: The decoder.
        number: How many of its layers.
    """

    def __init__(self, model: PreTrainedModel, number: int) -> None:
        super().__init__()
        lower = truncate_backbone(model, number)
        lower.norm = nn.Identity()
        self._run = [lower]  # in a list, so that its weights are none of the model in training
        self._padding = model.config.pad_token_id
        self._states: dict[tuple[int, ...], torch.Tensor] = {}

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Map (B, T) token ids, padded on the right, to (B, T, D) states; those of padding are 0."""
        rows = [self._without_padding(row) for row in input_ids.tolist()]
        with torch.no_grad():
            new = [row for row in dict.fromkeys(rows) if row not in self._states]
            if new:
                ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in new], batch_first=True)
                mask = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in new], batch_first=True)
                hidden = self._run[0](input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                self._states |= {row: states[: len(row)].clone() for row, states in zip(new, hidden, strict=True)}
        out = torch.zeros(*input_ids.shape, self._run[0].config.hidden_size)
        for states, row in zip(out, rows, strict=True):
            states[: len(row)] = self._states[row]
        return out

    def _without_padding(self, row: list[int]) -> tuple[int, ...]:
        length = len(row)
        while length > 1 and row[length - 1] == self._padding:
            length -= 1
        return tuple(row[:length])
