"""The tiny language model of `reward_models.jury.tiny` under the names that tests use, and a way to save it.

It is small enough to train inside a test, downloads nothing, and is the same on every call with the same arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


__all__ = ["save_tiny", "tiny_causal_lm", "tiny_tokenizer"]


def save_tiny(path: str | Path, seed: int = 0, **config: Any) -> str:
    """Save the tiny model and its tokenizer under `path` in `from_pretrained` form; return the path as a string."""
    tokenizer = tiny_tokenizer()
    tiny_causal_lm(tokenizer, seed=seed, **config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
