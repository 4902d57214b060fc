"""Features on disk: each text is run through a backbone once for all runs, even if a run is interrupted.

Each backbone has a folder of safetensors shards. The key of a row is the SHA-256 of the token ids that the backbone
read, so whatever changes them (the text, the chat template, the tokenizer, a shorter `max_length`) makes another row.
The name of the folder is the SHA-256 of the backbone's configuration (with its number of layers) and of every weight.
Shards hold float16, half the bytes of float32 and more precise than what a bfloat16 backbone computes; a shard with a
number out of float16's range holds float32. On request all hold float32, in a folder of their own: then a row is what
it would be without a cache. Knows nothing of texts, tokenizers or how features are computed.

Shapes: `U` rows, `n` rows of a shard, `D` features.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from reward_models.borders import folder_fault
from reward_models.errors import JuryError
from reward_models.whole_file import write_arrays


__all__ = ["FeatureCache", "backbone_identity", "row_key"]

SHARD_ROWS = 512
SHARD_SECONDS = 60.0
"""A shard is written after so many rows or seconds, whichever comes first: a kill loses no more than that."""
FLOAT16_MAX = 65504.0
# Fields of a configuration that may differ between a model and the same model saved and loaded again.
UNRELATED = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def backbone_identity(backbone: PreTrainedModel) -> str:
    """Compute the SHA-256 of what determines a backbone's features: its configuration and every weight, bit by bit.

    It takes a second or two per gigabyte of weights, and is the same after saving and loading, on any device.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> identities = [backbone_identity(tiny_causal_lm(seed=seed).model) for seed in (0, 0, 1)]
        >>> identities[0] == identities[1], identities[0] == identities[2]
        (True, False)
    """
    digest = hashlib.sha256()
    config = {name: value for name, value in backbone.config.to_dict().items() if name not in UNRELATED}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def row_key(token_ids: Sequence[int]) -> bytes:
    """Compute the SHA-256 of the token ids that a backbone reads, 32 bytes.

    Example:
        >>> row_key([3, 1, 2]).hex()[:8], row_key(np.array([3, 1, 2])).hex()[:8], row_key([1, 2]).hex()[:8]
        ('7c4cec7a', '7c4cec7a', '0c730b69')
    """
    return hashlib.sha256(np.asarray(token_ids, dtype="<i8").tobytes()).digest()


class FeatureCache:
    """The stored features of one backbone.

    Several processes may use one folder at once: each shard has a name of its own and is written atomically. If two
    shards hold the same row, readers use the first by name. Deleting the folder costs time only.

    Args:
        cache_dir: Folder of all backbones' features; made if it is not there, and enough to read from if read-only.
        backbone: The backbone.
        exact: Keep float32 instead of rounding to float16.
        vector: Name of what is made of the hidden states, `ReadingSettings.vector_name`.

    Raises:
        JuryError: There is no such folder, and it cannot be made.

    Attributes:
        folder: Folder of this backbone's shards.

    Example:
        >>> import tempfile
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> keys, out = [row_key([3, 1, 2])], np.zeros((1, 2), dtype=np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = FeatureCache(folder, tiny_causal_lm().model)
        ...     _ = cache.write(keys, np.array([[0.5, 2.0]], dtype=np.float32))
        ...     cache.read(keys, out).tolist(), out.tolist()  # nothing is left to compute
        ([], [[0.5, 2.0]])
    """

    def __init__(
        self, cache_dir: str | Path, backbone: PreTrainedModel, *, exact: bool = False, vector: str = ""
    ) -> None:
        is_there = isinstance(cache_dir, str | os.PathLike) and os.path.isdir(cache_dir)
        if not is_there and (fault := folder_fault(cache_dir)):
            raise JuryError(f"cache_dir: {fault}, or leave it out.")
        name = f"{backbone_identity(backbone)[:32]}{'-float32' if exact else ''}"
        self.folder = Path(cache_dir) / (f"{name}-{vector}" if vector else name)
        self._exact = exact

    def complete(
        self,
        keys: Sequence[bytes],
        out: np.ndarray,
        compute: Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]],
    ) -> None:
        """Fill in all rows: stored rows are read, the others are computed and stored shard by shard.

        Args:
            keys: `U` keys, which may repeat.
            out: (U, D) float32; changed in place.
            compute: Maps positions in `keys` to batches of positions and their (n, D) float32 rows.

        Raises:
            JuryError: Rows are missing, and nothing can be stored in the folder; before they are computed.
        """
        todo = self.read(keys, out)
        if len(todo) and (fault := folder_fault(self.folder)):
            raise JuryError(f"cache_dir: {fault}, or leave it out.")
        unsaved: list[int] = []
        saved = time.monotonic()

        def save() -> None:
            nonlocal saved
            out[unsaved] = self.write([keys[i] for i in unsaved], out[unsaved])
            unsaved.clear()
            saved = time.monotonic()

        try:
            for positions, rows in compute(todo):
                out[positions] = rows
                unsaved.extend(positions.tolist())
                if len(unsaved) >= SHARD_ROWS or time.monotonic() - saved >= SHARD_SECONDS:
                    save()
        finally:
            if unsaved:  # an interruption loses one batch only
                save()
        first = {keys[i]: i for i in todo}
        for position, key in enumerate(keys):
            if key in first:
                out[position] = out[first[key]]

    def read(self, keys: Sequence[bytes], out: np.ndarray) -> np.ndarray:
        """Fill in the rows that are stored.

        Args:
            keys: `U` keys, which may repeat.
            out: (U, D) float32; stored rows are changed in place.

        Returns:
            Positions of the rows that must be computed; of equal keys only the first.

        Warns:
            UserWarning: A shard is damaged; it is deleted, so its rows are computed and stored again.
        """
        wanted: dict[bytes, list[int]] = {}
        for position, key in enumerate(keys):
            wanted.setdefault(key, []).append(position)
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self._read_shard(path, wanted, out)
            except (SafetensorError, OSError, ValueError) as error:
                warnings.warn(
                    f"the cached features in {str(path)!r} are damaged ({error}); the file is deleted and its texts "
                    "are embedded again.",
                    UserWarning,
                    stacklevel=4,
                )
                path.unlink(missing_ok=True)
        return np.array([positions[0] for positions in wanted.values()], dtype=np.int64)

    def write(self, keys: Sequence[bytes], features: np.ndarray) -> np.ndarray:
        """Store rows as one shard, atomically.

        Args:
            keys: `n` keys.
            features: (n, D) float32.

        Returns:
            (n, D) float32 as `read` will return them: rounded to float16, unless `exact` or one is out of its range.
        """
        in_range = bool((np.abs(features) <= FLOAT16_MAX).all())  # False where there is NaN, too
        stored = features.astype(np.float16 if in_range and not self._exact else np.float32)
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        arrays = {"keys": table, "features": stored}
        write_arrays(self.folder / f"{name}.safetensors", arrays, {"sha256": _checksum(table, stored)})
        return stored.astype(np.float32)

    @staticmethod
    def _read_shard(path: Path, wanted: dict[bytes, list[int]], out: np.ndarray) -> None:
        """Fill in the rows of a shard and remove them from `wanted`."""
        with safe_open(path, framework="np") as shard:
            if set(shard.keys()) != {"keys", "features"}:
                raise ValueError("it holds other tensors than keys and features")
            table = shard.get_tensor("keys")
            matches = [(row, key.tobytes()) for row, key in enumerate(table) if key.tobytes() in wanted]
            if not matches:
                return
            features = shard.get_tensor("features")
            if (shard.metadata() or {}).get("sha256") != _checksum(table, features):
                raise ValueError("its checksum does not match its content")
        for row, key in matches:
            for position in wanted.pop(key, []):
                out[position] = features[row]


def _checksum(keys: np.ndarray, features: np.ndarray) -> str:
    return hashlib.sha256(keys.tobytes() + features.tobytes()).hexdigest()
