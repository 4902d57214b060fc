"""Texts to vectors: batches sorted by length, and the hidden state of the last token.

How a text becomes tokens is in `reading`, for features and for scores alike. The backbone may be any decoder of
transformers. A jury's folder may refer to it, by place and hash of its weights, instead of holding it. Knows nothing
of judgements, raters or rewards.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError
from reward_models.inference import evaluating
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.feature_cache import FeatureCache, row_key
from reward_models.jury.reading import ReadingSettings, shorten


__all__ = [
    "Batch",
    "batches",
    "find_backbone",
    "last_token",
    "pooled_features",
    "refer_to_backbone",
    "truncate_backbone",
    "weights_hash",
]

Batch = tuple[list[int], torch.Tensor, torch.Tensor]
FEW_BATCHES = 4


def last_token(hidden: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
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
    reading = reading or ReadingSettings()
    if max_length is not None:
        reading = replace(reading, max_length=max_length)
    base = backbone.base_model
    rows, cut = shorten(reading.tokenise(reading.render_all(texts, tokenizer), tokenizer), reading.max_length)
    if cut is not None:
        warnings.warn(f"{cut} Raise max_length to read them whole.", UserWarning, stacklevel=3)  # past no_grad
    features = np.empty((len(rows), base.config.get_text_config().hidden_size), dtype=np.float32)

    def embed(todo: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, input_ids, mask in batches([rows[i] for i in todo], batch_size=batch_size, progress=progress):
            mask = mask.to(base.device)
            hidden = base(input_ids=input_ids.to(base.device), attention_mask=mask, use_cache=False).last_hidden_state
            yield todo[index], last_token(hidden, mask).float().cpu().numpy()

    with evaluating(base):
        if cache_dir is None:
            for index, vectors in embed(np.arange(len(rows))):
                features[index] = vectors
        else:
            FeatureCache(cache_dir, base, exact=exact).complete([row_key(row) for row in rows], features, embed)
    return features


def truncate_backbone(model: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Keep the first layers of a decoder only, so that features come from its middle and cost less.

    Embeddings and final norm are kept. The layers are shared with `model`, not copied: training one trains the other.

    Args:
        model: A decoder such as `AutoModel` gives, or a causal language model, whose head is dropped.
        num_layers: How many layers to keep, from 1 to all of them.

    Returns:
        A model of the same class as `model`'s decoder. Its last hidden state is the final norm of
        `hidden_states[num_layers]`.

    Raises:
        JuryError: `num_layers` is out of range, or the decoder does not keep its layers in one list.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> len(truncate_backbone(tiny_causal_lm(num_hidden_layers=4), 3).layers)
        3
    """
    base = model.base_model
    total = base.config.num_hidden_layers
    if not 1 <= num_layers <= total:
        raise JuryError(
            f"num_layers={num_layers}: {type(base).__name__} has {total} layers; give a number from 1 to {total}."
        )
    names = [name for name, child in base.named_children() if isinstance(child, nn.ModuleList) and len(child) == total]
    if len(names) != 1:
        raise JuryError(
            f"{type(base).__name__} does not keep its {total} layers in one torch.nn.ModuleList, so the first "
            f"{num_layers} cannot be cut out. Use the whole backbone."
        )
    config = copy.deepcopy(base.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:num_layers]
    truncated = copy.copy(base)
    # A shallow copy shares the dictionary of submodules too; ours must be its own before a list in it is replaced.
    truncated._modules = {**base._modules, names[0]: base.get_submodule(names[0])[:num_layers]}
    truncated.config = config
    return truncated


def weights_hash(model: PreTrainedModel) -> str:
    """Return the SHA-256 of a model's weights: names, precision, shapes and values, whatever files they lie in.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> model = tiny_causal_lm().base_model
        >>> before = weights_hash(model)
        >>> with torch.no_grad():
        ...     _ = next(model.parameters()).add_(1e-3)
        >>> before == weights_hash(model)
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refer_to_backbone(backbone: PreTrainedModel) -> dict[str, Any]:
    """Make the reference to a backbone that was not changed since it was loaded.

    Args:
        backbone: The decoder in a jury; its `name_or_path` says where it came from.

    Returns:
        `source` (an absolute path, or an id of the Hub) and `sha256` of the weights, for `JuryConfig.backbone`.

    Raises:
        JuryError: It was not loaded from a place that is still there, or its weights are others than there.
    """
    source = str(backbone.config.name_or_path or "")
    source = str(Path(source).resolve()) if source and Path(source).is_dir() else source
    copied = "Fix: save with include_backbone=True, which copies the backbone."
    if not source:
        raise JuryError(f"include_backbone=False: the backbone was not loaded from a folder or from the Hub. {copied}")
    reference = {"source": source, "sha256": weights_hash(backbone)}
    layers, dtype = backbone.config.get_text_config().num_hidden_layers, next(backbone.parameters()).dtype
    try:
        find_backbone(reference, layers, dtype)
    except JuryError as error:
        raise JuryError(f"include_backbone=False: {error} {copied}") from error
    return reference


def find_backbone(
    reference: dict[str, Any], layers: int, dtype: torch.dtype, source: str | Path | None = None
) -> PreTrainedModel:
    """Load the backbone that a reference names, and check that it is the one.

    Args:
        reference: See `refer_to_backbone`.
        layers: Number of its layers that are used.
        dtype: Precision of the weights.
        source: Where it lies now; None: where the reference says.

    Returns:
        The decoder, on the CPU.

    Raises:
        JuryError: It is not there, or has other weights.

    Example:
        >>> find_backbone({"source": "models/moved-away", "sha256": "0"}, 2, torch.float32)
        Traceback (most recent call last):
        reward_models.errors.JuryError: the backbone 'models/moved-away' is not there, or cannot be read (...).
    """
    name = str(source or reference["source"])
    try:
        backbone = AutoModel.from_pretrained(name, dtype=dtype, trust_remote_code=False, use_safetensors=True)
    except Exception as error:  # whatever a missing or damaged folder makes of transformers
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JuryError(f"the backbone {name!r} is not there, or cannot be read ({line}).") from error
    if layers < backbone.config.get_text_config().num_hidden_layers:
        backbone = truncate_backbone(backbone, layers)
    if weights_hash(backbone) != reference["sha256"]:
        raise JuryError(f"the backbone {name!r} has other weights than the one that the jury was fitted on (SHA-256).")
    return backbone.eval()
