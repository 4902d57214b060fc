"""Losses of candidates on disk: a comparison of clusters that was stopped goes on, with the same result.

One file per fold and candidate; its name is a hash of all that the losses depend on, so that another table, other
features or other settings never meet them. What cannot be read is computed again. Knows nothing of how a candidate is
fitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.content_hashes import arrays_hash, value_hash
from reward_models.whole_file import write_json


__all__ = ["Losses", "kept_losses"]

Losses = Mapping[str, np.ndarray]
"""By kind of text, (3, R): the loss of each rater, summed; weight; number of judgements. The same by unit of texts."""


def kept_losses(folder: Path | None, key: Any, compute: Callable[[], Losses]) -> Losses:
    """Return stored losses, or compute and store them.

    Args:
        folder: Where they are; made if it does not exist. None: nothing is stored.
        key: All that they depend on, see `arrays_hash`.
        compute: Does the work.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for _ in range(2):
        ...         def work():
        ...             print("computing")
        ...             return {"new texts": np.full((3, 1), 1 / 3)}
        ...         losses = kept_losses(Path(name), ["mixture", 2], work)
        computing
        >>> bool((losses["new texts"] == 1 / 3).all())
        True
    """
    if folder is None:
        return compute()
    path = folder / f"losses-{arrays_hash(key)[:32]}.json"
    stored = _read(path)
    if stored is None:
        stored = {kind: np.asarray(values, dtype=np.float64) for kind, values in compute().items()}
        plain = {kind: values.tolist() for kind, values in stored.items()}
        write_json(path, {"losses": plain, "sha256": value_hash(plain)}, exact=True, indent=None)
    return stored


def _read(path: Path) -> Losses | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["sha256"] != value_hash(content["losses"]):
            return None
        return {kind: np.array(values, dtype=np.float64) for kind, values in content["losses"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
