"""A backbone that a jury's folder refers to instead of holding it: where it lies, and the hash of its weights.

A jury on a frozen language model has two new matrices; its folder would be a copy of the language model. A reference
saves that copy, and ties the folder to the machine: nothing is scored until a backbone with exactly these weights is
found. Knows nothing of heads or texts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from reward_models.errors import JuryError
from reward_models.jury.features import truncate_backbone


__all__ = ["find_backbone", "refer_to_backbone", "weights_hash"]


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
