"""Features on disk: each text goes through a backbone once ever, also when the run that embeds it is killed.

A folder of safetensors shards per backbone. A row is found by the SHA-256 of the token ids that the backbone read, so
whatever changes them (the text, the chat template, the tokenizer, a shorter `max_length`) makes another row, and the
folder by the SHA-256 of the backbone's configuration (its number of layers is in there) and of every weight. Shards
hold float16, half the bytes of float32 and finer than what a bfloat16 backbone computes; a shard with a number beyond
float16's range holds float32. Knows nothing of texts, tokenizers or how features are computed.

Shapes: `U` rows, `n` rows of a shard, `D` features.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from reward_models.whole_file import write_arrays


__all__ = ["FeatureCache", "backbone_identity", "row_key"]

SHARD_ROWS = 512
FLOAT16_MAX = 65504.0
# Fields of a configuration that differ between a model and the same model saved and loaded again.
UNRELATED = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def backbone_identity(backbone: PreTrainedModel) -> str:
    """SHA-256 of what decides a backbone's features: its configuration and every weight, bit by bit.

    A second or two per gigabyte of weights. The same after saving and loading, on any device.
    """
    digest = hashlib.sha256()
    config = {name: value for name, value in backbone.config.to_dict().items() if name not in UNRELATED}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def row_key(token_ids: Sequence[int]) -> bytes:
    """SHA-256 of the token ids that a backbone reads, 32 bytes."""
    return hashlib.sha256(np.asarray(token_ids, dtype="<i8").tobytes()).digest()


class FeatureCache:
    """The stored features of one backbone.

    Several processes may use one folder at once: shards are written under a name of their own and then renamed. Of two
    that hold the same row, readers take the first by name. Deleting the folder loses time only.

    Args:
        cache_dir: Folder of all backbones' features; made when the first shard is written.
        backbone: Whose features these are.

    Attributes:
        folder: Where this backbone's shards are.
    """

    def __init__(self, cache_dir: str | Path, backbone: PreTrainedModel) -> None:
        self.folder = Path(cache_dir) / backbone_identity(backbone)[:32]

    def complete(
        self,
        keys: Sequence[bytes],
        out: np.ndarray,
        compute: Callable[[np.ndarray], Iterator[tuple[np.ndarray, np.ndarray]]],
    ) -> None:
        """Fill in all rows: what is stored from disk, the rest computed and stored a shard at a time.

        Args:
            keys: `U` keys, which may repeat.
            out: (U, D) float32; changed.
            compute: Takes positions in `keys`; yields some of them with their (n, D) float32 rows until all are done.
        """
        todo = self.read(keys, out)
        unsaved: list[int] = []

        def save() -> None:
            out[unsaved] = self.write([keys[i] for i in unsaved], out[unsaved])
            unsaved.clear()

        try:
            for positions, rows in compute(todo):
                out[positions] = rows
                unsaved.extend(positions.tolist())
                if len(unsaved) >= SHARD_ROWS:
                    save()
        finally:
            if unsaved:  # what an interruption cuts off is one batch
                save()
        first = {keys[i]: i for i in todo}
        for position, key in enumerate(keys):
            if key in first:
                out[position] = out[first[key]]

    def read(self, keys: Sequence[bytes], out: np.ndarray) -> np.ndarray:
        """Fill in the rows that are stored.

        Args:
            keys: `U` keys, which may repeat.
            out: (U, D) float32; changed in the rows that were found.

        Returns:
            Positions of the rows that are still to be computed, of equal keys only the first.

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
        """Store rows as one shard, in full or not at all.

        Args:
            keys: `n` keys.
            features: (n, D) float32.

        Returns:
            (n, D) float32 as `read` will give them: rounded to float16, unless one of them is out of its range.
        """
        in_range = bool((np.abs(features) <= FLOAT16_MAX).all())  # False where there is NaN, too
        stored = features.astype(np.float16 if in_range else np.float32)
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        arrays = {"keys": table, "features": stored}
        write_arrays(self.folder / f"{name}.safetensors", arrays, {"sha256": _checksum(table, stored)})
        return stored.astype(np.float32)

    @staticmethod
    def _read_shard(path: Path, wanted: dict[bytes, list[int]], out: np.ndarray) -> None:
        """Fill in what a shard has and take it off the list of what is wanted."""
        with safe_open(path, framework="np") as shard:
            if set(shard.keys()) != {"keys", "features"}:
                raise ValueError("it holds other tensors than keys and features")
            table = shard.get_tensor("keys")
            found = [(row, key.tobytes()) for row, key in enumerate(table) if key.tobytes() in wanted]
            if not found:
                return
            features = shard.get_tensor("features")
            if (shard.metadata() or {}).get("sha256") != _checksum(table, features):
                raise ValueError("its checksum does not match its content")
        for row, key in found:
            for position in wanted.pop(key, []):
                out[position] = features[row]


def _checksum(keys: np.ndarray, features: np.ndarray) -> str:
    return hashlib.sha256(keys.tobytes() + features.tobytes()).hexdigest()
