"""Which base weights an adapter was trained on: noted beside it, and compared before it is put on a model.

An adapter fits every model of the same shapes, and means something on one only. Knows nothing of training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from reward_models.jury.backbones.loading import state_hash


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["BASE_WEIGHTS_FILE", "BaseWeights"]

BASE_WEIGHTS_FILE = "base_weights.json"
"""The note beside an adapter: `sha256` and `dtype` of the weights below it."""


class BaseWeights:
    """The weights of a base model, with or without low-rank adapters on it.

    Args:
        model: The model.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm
        >>> from reward_models.whole_file import write_json
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     unknown = BaseWeights(tiny_causal_lm(seed=0)).known(folder)
        ...     write_json(Path(folder, BASE_WEIGHTS_FILE), BaseWeights(tiny_causal_lm(seed=0)).record())
        ...     faults = [BaseWeights(tiny_causal_lm(seed=seed)).fault(folder) for seed in (0, 1)]
        >>> unknown, faults[0], faults[1][:44]
        (False, None, 'it was trained on a base model of other weig')
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._model = model
        self._hashes: dict[str, str | None] = {}

    @property
    def dtype(self) -> str:
        """Precision of the weights, e.g. `float32`."""
        return str(self._model.dtype).removeprefix("torch.")

    def sha256(self, dtype: str | None = None) -> str | None:
        """Return the hash of the weights in their own precision, or rounded to a coarser one.

        Returns:
            The hash that `weights_hash` gives of the model without adapters; None where that cannot be known: the
            weights are already rounded, or an adapter replaces whole modules.
        """
        dtype = dtype or self.dtype
        if dtype not in self._hashes:
            self._hashes[dtype] = self._hash(dtype)
        return self._hashes[dtype]

    def record(self) -> dict[str, str | None]:
        """Return the content of `BASE_WEIGHTS_FILE`."""
        return {"sha256": self.sha256(), "dtype": self.dtype}

    def known(self, adapter: str | Path) -> bool:
        """Whether the folder of an adapter says on which weights it was trained, in a way that can be compared."""
        return self._both(adapter) is not None

    def fault(self, adapter: str | Path) -> str | None:
        """Say why the adapter in a folder is not one of these weights; None if it is, or where it is not known."""
        both = self._both(adapter)
        if both is None or both[0] == both[1]:
            return None
        return f"it was trained on a base model of other weights ({both[0][:8]}, given {both[1][:8]})"

    def _both(self, adapter: str | Path) -> tuple[str, str] | None:
        try:
            noted = json.loads(Path(adapter, BASE_WEIGHTS_FILE).read_text(encoding="utf-8"))
            there, dtype = noted["sha256"], noted["dtype"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        here = self.sha256(dtype) if there is not None else None
        return None if here is None else (str(there), here)

    def _hash(self, dtype: str) -> str | None:
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or (dtype != self.dtype and self.dtype != "float32"):
            return None
        weights: dict[str, torch.Tensor] = {}
        for name, tensor in self._model.state_dict().items():
            if ".lora_" in name:
                continue
            if any(part in name for part in ("modules_to_save", "original_module", "token_adapter")):
                return None
            plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            weights[plain] = tensor.to(kind) if dtype != self.dtype and tensor.is_floating_point() else tensor
        return state_hash(weights)
