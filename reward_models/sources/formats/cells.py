"""The cells of a file as text, and what the file itself says of its columns: wordings, labels of codes, missing codes.

Knows nothing of formats and of judgements.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from reward_models.judgements.faults import is_missing
from reward_models.judgements.spelling import LARGEST_EXACT, code_text, is_bool


__all__ = ["Cells", "cell_text"]


@dataclass(frozen=True)
class Cells:
    """A table of text cells.

    Attributes:
        frame: Columns of objects: text, None (empty), or lists or mappings of such cells.
        wordings: Text that describes a column, by column (the variable labels of SPSS and Stata).
        labels: Text of a code, by column and code; codes in their order (the value labels of SPSS and Stata).
        missing: Name of a code that means no answer, by column and code (the missing values of SPSS and Stata).
        dates: Texts of the cells that are dates, by column (Excel makes dates of texts such as "3-4").

    Example:
        >>> cells = Cells(pd.DataFrame({"q1": ["1", "2", "8"]}), labels={"q1": {"1": "yes", "2": "no"}})
        >>> cells.labels["q1"]["1"]
        'yes'
    """

    frame: pd.DataFrame
    wordings: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dates: Mapping[str, frozenset[str]] = field(default_factory=dict)


def cell_text(value: Any) -> Any:
    """Return a value as a cell: text, None, or a list or mapping of cells.

    Example:
        >>> cell_text(12345678901234567), cell_text(2.0), cell_text(True), cell_text(float("nan")), cell_text([1, "a"])
        ('12345678901234567', '2', 'true', None, ['1', 'a'])
        >>> cell_text(datetime.datetime(2024, 5, 1))
        '2024-05-01'
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, Mapping):
        return {key: part if isinstance(part, str) else cell_text(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [part if isinstance(part, str) else cell_text(part) for part in value]
    if is_missing(value) or value is pd.NaT:
        return None
    if is_bool(value) or (isinstance(value, float | np.floating) and abs(float(value)) < LARGEST_EXACT):
        return code_text(value)
    if isinstance(value, datetime.datetime):
        return str(value).removesuffix(" 00:00:00")
    return str(value)
