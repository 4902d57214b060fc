"""Collect every fault of a table and word them in one message.

Each fault names the row, the column, the value, why it cannot be used and how to fix it. Knows nothing of what a fault
is: `validation` decides that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError


__all__ = ["Faults", "is_missing", "show"]

MAX_LINES = 20
_MAX_VALUE = 60


class _Fault(NamedTuple):
    rows: np.ndarray
    column: str
    reasons: list[str]
    fix: str


def is_missing(value: Any) -> bool:
    """Return whether a value of any type, lists included, is None, NaN or pandas' NA.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), "", [])]
        [True, True, False, False]
    """
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def show(value: Any) -> str:
    """Return a value as Python would print it, shortened to 60 characters.

    Example:
        >>> show("x" * 100)
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    if is_missing(value):
        return "nan"
    if isinstance(value, np.generic):
        value = value.item()
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


class Faults:
    """The faults found so far in a table of `N` rows.

    Attributes:
        bad: (N,) bool, rows with at least one fault.

    Example:
        >>> faults = Faults(2)
        >>> faults.add(np.array([False, True]), "rating", [3, 9], "is outside the levels 1 to 5", "correct it")
        >>> faults.raise_if_any()
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 1 fault in a table of 2 judgements (...):
          row 1, column 'rating': 9 is outside the levels 1 to 5. Fix: correct it.
    """

    def __init__(self, n_rows: int) -> None:
        self.bad = np.zeros(n_rows, dtype=bool)
        self._faults: list[_Fault] = []
        self._table: list[str] = []

    def add(self, rows: np.ndarray, column: str, values: Sequence[Any], reason: str | Sequence[str], fix: str) -> None:
        """Add one kind of fault in one column.

        Args:
            rows: (N,) bool, or positions of the rows at fault. Nothing is added when there are none.
            column: The column at fault.
            values: (N,) all the values of that column.
            reason: What is wrong, following the value in the sentence; one text, or one per row at fault.
            fix: What to do, as an imperative.
        """
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(positions) == 0:
            return
        self.bad[positions] = True
        shown = positions[:MAX_LINES]
        reasons = [reason] * len(shown) if isinstance(reason, str) else list(reason[: len(shown)])
        lines = [f"{show(values[p])} {r}" for p, r in zip(shown, reasons, strict=True)]
        self._faults.append(_Fault(positions, column, lines, fix))

    def add_table(self, message: str) -> None:
        """Add a fault of the table as a whole: a full sentence with its fix."""
        self._table.append(message)

    def raise_if_any(self) -> None:
        """Raise one error that lists the faults.

        Raises:
            JudgementError: If there is any fault; at most 20 rows are listed, shared by the kinds of fault.
        """
        if not self._faults and not self._table:
            return
        total = len(self._table) + sum(len(fault.rows) for fault in self._faults)
        lines = [f"  {message}" for message in self._table]
        share = max(1, (MAX_LINES - len(lines)) // max(len(self._faults), 1))
        for rows, column, reasons, fix in self._faults:
            for row, reason in list(zip(rows, reasons, strict=False))[:share]:
                lines.append(
                    f"  row {row}, column {column!r}: {reason}{'' if reason.endswith(('?', '.')) else '.'} Fix: {fix}."
                )
            if len(rows) > share:
                lines.append(f"  ... and {len(rows) - share:,} more rows with this fault in column {column!r}")
        plural = "fault" if total == 1 else "faults"
        rows_note = "rows counted from 0; nothing was written"
        head = f"{total:,} {plural} in a table of {len(self.bad):,} judgements ({rows_note}):"
        raise JudgementError("\n".join([head, *lines]))
