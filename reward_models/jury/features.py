"""Texts to vectors: batches sorted by length, and a vector of the hidden states of each text.

How a text becomes tokens is in `reading`, and what becomes of hidden states in `backbones.pooling`, for features and
for scores alike. The backbone may be any decoder or encoder of transformers. Knows nothing of judgements, raters or
rewards.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError, settings_or_default
from reward_models.inference import evaluating
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.feature_cache import FeatureCache, row_key
from reward_models.jury.backbones.pooling import text_vectors, vector_size
from reward_models.jury.reading import ReadingSettings, shorten


__all__ = ["Batch", "batches", "pooled_features", "pooled_features_of_readings"]

Batch = tuple[list[int], torch.Tensor, torch.Tensor]
FEW_BATCHES = 4


def batches(
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int,
    progress: bool = False,
    description: str = "features",
) -> Iterator[Batch]:
    """Yield rows of token ids longest first, in batches padded on the right.

    Args:
        rows: `U` rows of at least one id.
        batch_size: Rows per batch.
        progress: Show a bar over rows if there are more than four batches.
        description: Label of the bar.

    Yields:
        The positions in `rows`, `input_ids` (B, T) and `attention_mask` (B, T).

    Raises:
        JuryError: `batch_size` is below one.

    Example:
        >>> for index, input_ids, mask in batches([[7], [3, 1, 2], [5, 6]], batch_size=2):
        ...     index, mask.tolist()
        ([1, 2], [[1, 1, 1], [1, 1, 0]])
        ([0], [[1]])
    """
    if batch_size < 1:
        raise JuryError(f"batch_size={batch_size} leaves nothing to score: give at least 1.")
    # Longest first: memory runs out at once or never. Ties keep their order, so the batches are reproducible.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    bar = tqdm(
        total=len(rows), desc=description, unit="text", disable=not progress or len(rows) <= FEW_BATCHES * batch_size
    )
    with bar:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            ids = [torch.tensor(rows[i]) for i in index]
            mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            # Any id does as padding: nothing reads it past the mask.
            yield index, pad_sequence(ids, batch_first=True), mask
            bar.update(len(index))


@torch.no_grad()
def pooled_features(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
    exact: bool = False,
    reading: ReadingSettings | None = None,
) -> np.ndarray:
    """Compute the backbone's vector of each text: the final hidden state of its last token.

    With `cache_dir` each different text is embedded once for all runs: vectors are stored while they are computed
    (see `feature_cache`), and an interrupted run continues where it stopped. Stored and new vectors are both rounded
    to float16, so that a text has the same vector in every run; with `exact` neither is.

    Args:
        backbone: A decoder or a causal language model (its head is not run). Left on its device and in its mode;
            dropout is off while it works.
        tokenizer: The backbone's tokenizer.
        texts: `U` texts.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. None: that of `reading`.
        progress: Show a progress bar when there are more than four batches.
        cache_dir: Folder of stored vectors, of any number of backbones; None computes all and stores none.
        exact: Store vectors in float32, so that the result is what it is without `cache_dir`.
        reading: How texts are read; None: as they come, up to 1,024 tokens. Give the same to the jury:
            `JuryRewardModel.from_fit(..., reading=reading)`.

    Returns:
        (U, D) float32, in the order of `texts`.

    Raises:
        JuryError: A text has no token, or see `reading.render` and `batches`.

    Warns:
        UserWarning: Texts were cut, and how many.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> texts = [Text("Which is best?", " the city"), Text("Which is best?", " the country")]
        >>> pooled_features(tiny_causal_lm(hidden_size=16), tiny_tokenizer(), texts).shape
        (2, 16)
    """
    reading = settings_or_default(reading, ReadingSettings)
    if max_length is not None:
        reading = replace(reading, max_length=max_length)
    return pooled_features_of_readings(
        backbone,
        tokenizer,
        texts,
        [reading],
        batch_size=batch_size,
        progress=progress,
        cache_dir=cache_dir,
        exact=exact,
        stacklevel=4,
    )[0]


@torch.no_grad()
def pooled_features_of_readings(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    readings: Sequence[ReadingSettings],
    *,
    batch_size: int = 16,
    progress: bool = True,
    cache_dir: str | Path | None = None,
    exact: bool = False,
    stacklevel: int = 3,
) -> list[np.ndarray]:
    """Compute the vectors of each text by several settings in one pass; texts that read the same are run once.

    Args:
        backbone: As for `pooled_features`, like all that follow.
        tokenizer: The backbone's tokenizer.
        texts: `U` texts.
        readings: Settings that differ in pooling, layers and length of the vectors only.
        batch_size: Texts per forward pass.
        progress: Show a progress bar.
        cache_dir: Folder of stored vectors. With it, every setting takes a pass of its own.
        exact: Store vectors in float32.
        stacklevel: Of the warning about texts that were cut.

    Returns:
        (U, D) float32 for each setting.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> texts = [Text("Which is best?", " the city"), Text("Which is best?", " the country")]
        >>> readings = [ReadingSettings(), ReadingSettings(pooling="mean", layers=(1, 2))]
        >>> [x.shape for x in pooled_features_of_readings(tiny_causal_lm(), tiny_tokenizer(), texts, readings)]
        [(2, 32), (2, 64)]
    """
    base, first = backbone.base_model, readings[0]
    rows, cut = shorten(first.tokenise(first.render_all(texts, tokenizer), tokenizer), first.max_length)
    if cut is not None:
        message = f"{cut} Raise max_length to read them whole."
        warnings.warn(message, UserWarning, stacklevel=stacklevel)  # past no_grad
    number: dict[bytes, int] = {}
    text_row = np.array([number.setdefault(row_key(row), len(number)) for row in rows], dtype=np.int64)
    unique = [rows[i] for i in np.unique(text_row, return_index=True)[1]]

    def embed(todo: np.ndarray, some: Sequence[ReadingSettings]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        for index, input_ids, mask in batches([unique[i] for i in todo], batch_size=batch_size, progress=progress):
            inputs = {"input_ids": input_ids.to(base.device), "attention_mask": mask.to(base.device)}
            vectors = text_vectors(base, inputs, some)
            yield todo[index], [vector.float().cpu().numpy() for vector in vectors]

    def embed_by(reading: ReadingSettings, todo: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, vectors in embed(todo, [reading]):
            yield index, vectors[0]

    features = [np.empty((len(unique), vector_size(base, reading)), dtype=np.float32) for reading in readings]
    with evaluating(base):
        if cache_dir is None:
            for index, vectors in embed(np.arange(len(unique)), readings):
                for of_reading, vector in zip(features, vectors, strict=True):
                    of_reading[index] = vector
        else:
            for of_reading, reading in zip(features, readings, strict=True):
                cache = FeatureCache(cache_dir, base, exact=exact, vector=reading.vector_name)
                cache.complete([row_key(row) for row in unique], of_reading, partial(embed_by, reading))
    return [of_reading[text_row] for of_reading in features]
