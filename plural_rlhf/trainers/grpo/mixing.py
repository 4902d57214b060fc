"""Rows with and rows without a support in one batch: answers of the first are scored, completions of the others drawn.

The sampler repeats every row as often as a group is large. One copy of a row with a support is kept, which stands for
the completions that would have been drawn for it. Knows nothing of models, targets or losses.

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
    """Return the micro-batches of a generation batch, in its order.

    Args:
        batch: Rows of the data set, the copies of one row side by side.
        parts: Number of micro-batches.
        group: G.
        draw: Returns columns of rows without a support, one entry per completion.
        collate: Returns columns of rows with a support.

    Returns:
        For each micro-batch, the columns of its completions under their own names and those of its answers under
        marked names; no columns for a kind of row that it does not have.

    Example:
        >>> rows = [{"support": None}] * 2 + [{"support": ["yes", "no"]}] * 2
        >>> mixed_micro_batches(
        ...     rows, 1, 2,
        ...     draw=lambda rows: {"row": torch.arange(len(rows))},
        ...     collate=lambda rows: {"log_p": torch.zeros(len(rows), 2)},
        ... )  # fmt: skip
        [{'row': tensor([0, 1]), 'exact/log_p': tensor([[0., 0.]])}]
    """
    sampled = [row for row in batch if row.get("support") is None]
    drawn = draw(sampled) if sampled else {}
    size, at, micro_batches = len(batch) // parts, 0, []
    for part in range(parts):
        rows = batch[part * size : (part + 1) * size]
        count = sum(row.get("support") is None for row in rows)
        columns = {name: value[at : at + count] for name, value in drawn.items() if _per_row(value)} if count else {}
        at += count
        answered = [row for row in rows if row.get("support") is not None][::group]
        if answered:
            columns |= {_EXACT + name: value for name, value in collate(answered).items()}
        micro_batches.append(columns)
    return micro_batches


def exact_columns(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the columns of a micro-batch that `collate` made; empty if it has no row with a support.

    Example:
        >>> sorted(exact_columns({"row": torch.tensor([0]), "exact/log_p": torch.zeros(1, 2)}))
        ['log_p']
    """
    return {name.removeprefix(_EXACT): value for name, value in inputs.items() if name.startswith(_EXACT)}


def exact_share(n_exact: int, n_sampled: int, group: int) -> float:
    """Return the share of the `B` exact rows in the loss of a micro-batch, beside `n` completions.

    Example:
        >>> exact_share(n_exact=1, n_sampled=8, group=4)  # one row counts like the four completions it stands for
        0.3333333333333333
    """
    return n_exact * group / (n_sampled + n_exact * group)


def _per_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0
