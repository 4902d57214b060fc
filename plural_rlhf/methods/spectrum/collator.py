"""Sequences in one row, each on its own: no token attends to another sequence's, and none predicts its first token.

Knows nothing of what a sequence means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plural_rlhf.methods.spectrum.tokens import IGNORED


__all__ = ["PackedCollator"]


@dataclass(frozen=True)
class PackedCollator:
    """Put the sequences of a batch into one row without padding.

    Positions begin at 0 with every sequence; where a batch has positions, no attention mask and no cache
    (`use_cache=False`, which TRL sets), models of `transformers` let a token attend to its own sequence only, whatever
    the attention implementation.

    Attributes:
        pad_to_multiple_of: Pad the row to a multiple of so many tokens, as a sequence of its own without loss.

    Example:
        >>> batch = PackedCollator()([{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7], "labels": [7]}])
        >>> batch["position_ids"].tolist(), batch["labels"].tolist()
        ([[0, 1, 0]], [[-100, 6, -100]])
    """

    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `labels` and `position_ids`, each `(1, tokens of all rows)`."""
        ids = [token for row in rows for token in row["input_ids"]]
        labels = [label for row in rows for label in [IGNORED, *row["labels"][1:]]]
        positions = [place for row in rows for place in range(len(row["input_ids"]))]
        if self.pad_to_multiple_of is not None:
            missing = -len(ids) % self.pad_to_multiple_of
            ids, labels = ids + [ids[0]] * missing, labels + [IGNORED] * missing
            positions += range(missing)
        return {
            "input_ids": torch.tensor([ids]),
            "labels": torch.tensor([labels]),
            "position_ids": torch.tensor([positions]),
        }
