"""Recode the cells of a table and drop rows, as a column map says, and keep count of both.

Cells are text (see `files`). Codes are compared as text in one spelling (`code_text`). Knows nothing of files.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.spelling import code_text, is_bool
from reward_models.sources.files import cell_text


__all__ = ["Recoded", "recode"]

ANSWERS = ("choice", "rating")
_CODED = (*ANSWERS, "shown_first", "weight", "n")
_SHOWN = 8


@dataclass
class Recoded:
    """A table after recoding.

    Attributes:
        frame: The rows that are kept.
        codes: (N,) the answers of these rows as the file has them; None if no column holds answers.
        dropped: Answers of the file by the number of rows that were dropped with them; empty cells under "".
        unmatched: Sentences on keys of the map that occur in no cell.
    """

    frame: pd.DataFrame
    codes: pd.Series | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)


def recode(frame: pd.DataFrame, mapping: Mapping[str, Any], name: str) -> Recoded:
    """Apply `values`, `missing` and `drop_empty`.

    Args:
        frame: Text cells in canonical columns.
        mapping: The column map.
        name: Name of the file, for warnings.

    Raises:
        JudgementError: A column to recode is not there, or a key is a truth value in a column without any.

    Warns:
        JudgementWarning: Number of rows dropped; keys that matched nothing.

    Example:
        >>> frame = pd.DataFrame({"choice": ["1", "1.0", "2", "9"]}, dtype=object)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     recoded = recode(frame, {"values": {"choice": {1: "yes", 2: "no", 9: None}}}, "a.csv")
        >>> recoded.frame["choice"].tolist(), recoded.dropped["9"], str(caught[0].message)
        (['yes', 'yes', 'no'], 1, '1 of 4 rows of a.csv dropped, as the column map says (values, ...).')
    """
    out = Recoded(frame)
    answer = next((column for column in ANSWERS if column in frame), None)
    codes = None if answer is None else frame[answer].copy()
    drop = pd.Series(False, index=frame.index)
    done: dict[str, pd.Series] = {}
    for column, new_values in mapping.get("values", {}).items():
        _check_column(column, frame, "values")
        done[column] = _recode_column(frame, column, new_values, out)
        drop |= done[column] & frame[column].isna()
    if mapping.get("missing"):
        drop |= _recode_missing(frame, mapping["missing"], done, out)
    for column in mapping.get("drop_empty", ()):
        _check_column(column, frame, "drop_empty")
        drop |= (
            frame[column].map(lambda cell: cell is None or (isinstance(cell, str) and not cell.strip())).astype(bool)
        )
    for sentence in out.unmatched:
        warnings.warn(f"{name}: {sentence}", JudgementWarning, stacklevel=4)
    if drop.any():
        sentence = f"{int(drop.sum()):,} of {len(drop):,} rows of {name} dropped, as the column map says"
        warnings.warn(f"{sentence} (values, missing, drop_empty).", JudgementWarning, stacklevel=4)
    out.frame = frame[~drop].reset_index(drop=True)
    if codes is not None:
        out.codes = codes[~drop].reset_index(drop=True)
        out.dropped = Counter(codes[drop].map(lambda cell: "" if cell is None else str(cell)))
    return out


def _check_column(column: str, frame: pd.DataFrame, section: str) -> None:
    if column not in frame:
        what = f"no column {column!r}" + (" to recode" if section == "values" else "")
        raise JudgementError(f"{section}: there is {what}. Fix: add it under columns.")


def _recode_column(frame: pd.DataFrame, column: str, new_values: Mapping[Any, Any], out: Recoded) -> pd.Series:
    """Replace the cells of one column; return (N,) which were."""
    cells = frame[column].tolist()
    distinct = {cell: code_text(cell) for cell in cells if isinstance(cell, str)}
    bare = [key for key in new_values if is_bool(key) and code_text(key) not in distinct.values()]
    if bare:
        raise JudgementError(
            f"values: {column}: {bare[0]!r} is not text. Fix: put it in quotes; YAML reads a bare yes or no as true "
            "or false."
        )
    exact = {key: cell_text(value) for key, value in new_values.items() if isinstance(key, str)}
    alike = {code_text(key): cell_text(value) for key, value in new_values.items() if key is not None}
    empty = [cell_text(value) for key, value in new_values.items() if key is None or key == ""]

    def new(cell: Any) -> tuple[bool, Any]:
        if cell is None:
            return bool(empty), empty[0] if empty else None
        if not isinstance(cell, str):
            return False, cell
        if cell in exact:
            return True, exact[cell]
        code = distinct[cell]
        return (True, alike[code]) if code in alike else (False, cell)

    results = {cell: new(cell) for cell in {*distinct, None}}
    pairs = [results[cell] if cell is None or isinstance(cell, str) else (False, cell) for cell in cells]
    frame[column] = pd.Series([value for _, value in pairs], index=frame.index, dtype=object)
    wanted = [key for key in new_values if key is not None and key != ""]
    _name_unmatched(f"values: {column}", wanted, distinct, out)
    return pd.Series([known for known, _ in pairs], index=frame.index)


def _recode_missing(
    frame: pd.DataFrame, missing: Iterable[Any], done: Mapping[str, pd.Series], out: Recoded
) -> pd.Series:
    """Empty the cells of answers and traits that mean no answer; return (N,) rows that lost their answer."""
    codes = {code_text(value) for value in missing if value is not None}
    drop = pd.Series(False, index=frame.index)
    seen: dict[str, str] = {}
    for column in map(str, frame.columns):
        if column not in _CODED and not column.startswith("rater:"):
            continue
        distinct = {cell: code_text(cell) for cell in frame[column] if isinstance(cell, str)}
        seen |= distinct
        gone = frame[column].map(
            lambda cell, known=distinct: known.get(cell) in codes if isinstance(cell, str) else False
        )
        gone = gone.astype(bool) & ~done.get(column, pd.Series(False, index=frame.index))
        frame[column] = frame[column].mask(gone, None)
        if column in ANSWERS:
            drop |= gone
    _name_unmatched("missing", [value for value in missing if value is not None], seen, out)
    return drop


def _name_unmatched(where: str, keys: Iterable[Any], distinct: Mapping[str, str], out: Recoded) -> None:
    """Note the keys of the map that are in no cell, with the cells that there are."""
    unmatched = [key for key in keys if key not in distinct and code_text(key) not in distinct.values()]
    if unmatched:
        shown = ", ".join(map(repr, list(distinct)[:_SHOWN])) + (", ..." if len(distinct) > _SHOWN else "")
        hint = did_you_mean(unmatched[0], distinct)
        names = ", ".join(map(repr, unmatched))
        out.unmatched.append(f"{where}: {names} occurs in no cell.{hint} The cells hold {shown or 'nothing'}.")
