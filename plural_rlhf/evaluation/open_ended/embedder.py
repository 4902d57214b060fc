"""Turn texts into vectors with a sentence embedder, or with the hidden states of any backbone; each text once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.evaluation.open_ended.scored import Embed
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.loading import load_backbone
from reward_models.jury.features import pooled_features
from reward_models.jury.protocol import scorable_text


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["text_embedder"]


def text_embedder(
    backbone: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    pooling: str | None = None,
) -> Embed:
    """Return a function from texts to vectors; it remembers those of texts that it has seen.

    Args:
        backbone: Folder or hub id of a sentence embedder or of another model, or a model.
        tokenizer: Tokenizer of a model.
        pooling: How hidden states become a vector; None: as the embedder says.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> embed = text_embedder(tiny_causal_lm(), tiny_tokenizer(), pooling="mean")
        >>> vectors = embed(["More parks.", "", "More parks."])
        >>> vectors.shape[0], bool(np.array_equal(vectors[0], vectors[2]))
        (3, True)
    """
    model, tokenizer, usual = load_backbone(backbone, tokenizer)
    reading = replace(usual, pooling=pooling or usual.pooling, read_prompt=False)
    vectors: dict[str, np.ndarray] = {}

    def embed(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in vectors]
        if new:
            readable = [Text("", scorable_text(text)) for text in new]
            rows = pooled_features(model, tokenizer, readable, reading=reading, exact=True)
            vectors.update(zip(new, rows, strict=True))
        return np.stack([vectors[text] for text in texts])

    return embed
