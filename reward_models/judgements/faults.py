"""Collect every fault of a table and word them in one message, a line per kind of fault.

A line names the rows, the column, the values, why they cannot be used and how to fix it. Knows nothing of what a fault
is: `validation` decides that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError


__all__ = ["Faults", "is_missing", "show", "whole_characters"]

_ROWS = 3
_DISTINCT = 6
_MAX_VALUE = 60


def is_missing(value: Any) -> bool:
    """Return whether a value of any type, lists included, is None, NaN or pandas' NA.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), "", [])]
        [True, True, False, False]
    """
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


@contextmanager
def whole_characters() -> Iterator[None]:
    r"""Raise an error of this package where a text holds half of a character, which no file and no tokenizer takes.

    Raises:
        JudgementError: See above.

    Example:
        >>> with whole_characters():
        ...     "\ud83d".encode()
        Traceback (most recent call last):
        reward_models.errors.JudgementError: a text holds half of a character ('\ud83d'), which cannot be written. ...
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise JudgementError(
            f"a text holds half of a character ({error.object[error.start : error.end]!a}), which cannot be "
            "written. Fix: remove it, or read the file that it comes from in its own encoding."
        ) from error


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
        >>> faults = Faults(4)
        >>> faults.add(np.array([False, True, True, True]), "rating", [3, 9, 8, 9], "is not a level", "correct it")
        >>> faults.raise_if_any()
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 3 faults in a table of 4 judgements (...):
          rows 1, 2, 3, column 'rating': 9 is not a level. Values: 9 (2 times), 8. Fix: correct it.
    """

    def __init__(self, n_rows: int) -> None:
        self.bad = np.zeros(n_rows, dtype=bool)
        self._faults: list[tuple[int, str]] = []
        self._table: list[str] = []

    def add(self, rows: np.ndarray, column: str, values: Sequence[Any], reason: str | Sequence[str], fix: str) -> None:
        """Add one kind of fault in one column.

        Args:
            rows: (N,) bool, or positions of the rows at fault. Nothing is added when there are none.
            column: The column at fault.
            values: (N,) all the values of that column.
            reason: What is wrong, following the value in the sentence; one text, or one per row at fault, of which the
                first is shown.
            fix: What to do, as an imperative.
        """
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(positions) == 0:
            return
        self.bad[positions] = True
        first = reason if isinstance(reason, str) else reason[0]
        end = "" if first.endswith(("?", ".")) else "."
        counts = Counter(show(values[position]) for position in positions.tolist()).most_common()
        line = (
            f"{_rows(positions)}, column {column!r}: {show(values[int(positions[0])])} {first}{end}{_values(counts)}"
        )
        self._faults.append((len(positions), f"{line} Fix: {fix}."))

    def add_table(self, message: str) -> None:
        """Add a fault of the table as a whole: a full sentence with its fix."""
        self._table.append(message)

    def raise_if_any(self) -> None:
        """Raise one error with a line per kind of fault.

        Raises:
            JudgementError: If there is any fault.
        """
        if not self._faults and not self._table:
            return
        total = len(self._table) + sum(count for count, _ in self._faults)
        plural = "fault" if total == 1 else "faults"
        rows_note = "rows counted from 0; nothing was written"
        head = f"{total:,} {plural} in a table of {len(self.bad):,} judgements ({rows_note}):"
        lines = [*self._table, *(line for _, line in self._faults)]
        raise JudgementError("\n".join([head, *(f"  {line}" for line in lines)]))


def _rows(positions: np.ndarray) -> str:
    """Name the first rows and the number of the others."""
    shown = ", ".join(str(position) for position in positions[:_ROWS])
    more = len(positions) - _ROWS
    return f"row{'s' * (len(positions) > 1)} {shown}" + (f" and {more:,} more" if more > 0 else "")


def _values(counts: list[tuple[str, int]]) -> str:
    """Name the most frequent of several values at fault, and how often those occur that occur more than once."""
    if len(counts) == 1:
        return ""
    shown = ", ".join(value + (f" ({count:,} times)" if count > 1 else "") for value, count in counts[:_DISTINCT])
    more = len(counts) - _DISTINCT
    return f" Values: {shown}" + (f" and {more:,} others." if more > 0 else ".")
