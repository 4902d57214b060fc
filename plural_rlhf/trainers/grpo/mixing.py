"""Rows with and without a support in one batch: answers of the ones are scored, completions of the others drawn.

The data set has every row as often as a group is large. Of a row with a support one copy is kept, which stands for the
completions that would have been drawn for it. Knows nothing of models, targets or losses.

Shapes: `n` completions of a micro-batch, `B` its rows with a support, `G` a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


__all__ = ["exact_columns", "exact_share", "mixed_micro_batches"]

_EXACT = "exact/"  # prefix of the columns that belong to rows with a support

Rows = list[dict[str, Any]]


def mixed_micro_batches(
    batch: Rows,
    parts: int,
    group: int,
    draw: Callable[[Rows], Mapping[str, Any]],
    collate: Callable[[Rows], Mapping[str, torch.Tensor]],
) -> list[dict[str, Any]]:
    """Micro-batches of a generation batch, in its order.

    Args:
        batch: Rows of the data set, the copies of one side by side.
        parts: How many micro-batches.
        group: G.
        draw: Columns of all rows without a support, one entry a completion.
        collate: Columns of rows with a support.

    Returns:
        Of each micro-batch the columns of its completions, as they are, and those of its answers, marked; a kind of
        row that it does not have leaves no columns.
    """
    sampled = [row for row in batch if row.get("support") is None]
    drawn = draw(sampled) if sampled else {}
    size, at, found = len(batch) // parts, 0, []
    for part in range(parts):
        rows = batch[part * size : (part + 1) * size]
        count = sum(row.get("support") is None for row in rows)
        columns = {name: value[at : at + count] for name, value in drawn.items() if _per_row(value)} if count else {}
        at += count
        answered = [row for row in rows if row.get("support") is not None][::group]
        if answered:
            columns |= {_EXACT + name: value for name, value in collate(answered).items()}
        found.append(columns)
    return found


def exact_columns(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The columns of a micro-batch that `collate` gave; empty where it has no row with a support."""
    return {name.removeprefix(_EXACT): value for name, value in inputs.items() if name.startswith(_EXACT)}


def exact_share(n_exact: int, n_sampled: int, group: int) -> float:
    """Part of a micro-batch's loss that is its `B` exact rows', beside `n` completions."""
    return n_exact * group / (n_sampled + n_exact * group)


def _per_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0
