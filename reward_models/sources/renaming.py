"""Bring the columns of a file under their canonical names, as a column map says.

Several columns make one: ids are joined with a slash, texts with a blank line. Knows nothing of codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.spelling import one_form
from reward_models.sources.formats.cells import Cells, cell_text


__all__ = ["IDS", "rename", "source_columns", "unknown_columns"]

IDS = ("rater_id", "item_id")
_WHOLE = re.compile(r"-?\d+\.0")
_SHORTENED = re.compile(r"\d\.\d+[eE]\+\d+|\d{16,}\.0")


def source_columns(mapping: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the columns of the file by canonical name, traits as `rater:<trait>`.

    Example:
        >>> source_columns({"columns": {"prompt": ["title", "body"]}, "traits": {"age": "years"}})
        {'prompt': ['title', 'body'], 'rater:age': ['years']}
    """
    sources = dict(mapping.get("columns", {}))
    sources |= {f"rater:{trait}": column for trait, column in mapping.get("traits", {}).items()}
    return {
        name: [one_form(str(column)).strip() for column in (columns if isinstance(columns, list) else [columns])]
        for name, columns in sources.items()
    }


def unknown_columns(sources: Mapping[str, Iterable[str]], cells: Cells) -> list[str]:
    """Return a sentence per column that the file does not have, with the closest one.

    Example:
        >>> unknown_columns({"choice": ["anwser"]}, Cells(pd.DataFrame({"answer": ["1"]})))
        ["choice: 'anwser' is not a column of the file. Did you mean 'answer'?"]
    """
    return sorted(
        {
            f"{name}: {column!r} is not a column of the file.{did_you_mean(column, cells.frame.columns)}"
            for name, columns in sources.items()
            for column in columns
            if column not in cells.frame
        }
    )


def rename(cells: Cells, mapping: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Return the mapped columns of the file under their canonical names, and the constants of the map.

    Args:
        cells: The file.
        mapping: The column map; all its columns are in the file. All columns of a long file are
            kept if it names none.
        name: Name of the file, for messages.

    Raises:
        JudgementError: Ids that are rounded numbers, that Excel made dates of, or that meet when they are joined.

    Example:
        >>> cells = Cells(pd.DataFrame({"sample": ["a", "b"], "id": ["1", "1"]}))
        >>> rename(cells, {"columns": {"rater_id": ["sample", "id"]}}, "a.csv")["rater_id"].tolist()
        ['a/1', 'b/1']
    """
    parts = source_columns(mapping)
    traits = {column for canonical, columns in parts.items() for column in columns if canonical.startswith("rater:")}
    frame = cells.frame
    named = mapping.get("columns") or mapping.get("layout", "long") != "long"
    out = pd.DataFrame(index=frame.index) if named else frame.drop(columns=list(traits))
    for canonical, columns in parts.items():
        out[canonical] = frame[columns[0]] if len(columns) == 1 else _join(frame[columns], canonical)
    for column, value in mapping.get("constants", {}).items():
        out[column] = pd.Series([cell_text(value)] * len(out), index=out.index, dtype=object)
    for column in IDS:
        dates = [date for source in parts.get(column, [column]) for date in cells.dates.get(source, ())]
        if column in out and dates:
            raise JudgementError(
                f"{name}, column {column!r}: Excel made a date of an id ({sorted(dates)[0]!r}), perhaps of '3-4'. "
                "Fix: format the column as text in Excel and type the cell again."
            )
    for column in [c for c in out if c in IDS or str(c).startswith("rater:")]:
        out[column] = _without_decimals(out[column], str(column), name)
    return out


def _join(parts: pd.DataFrame, canonical: str) -> pd.Series:
    """Join ids with a slash, empty if a part is; join texts with a blank line, without empty parts."""
    rows = [tuple(row) for row in parts.itertuples(index=False, name=None)]
    if canonical not in IDS:
        texts = [
            "\n\n".join(str(cell) for cell in row if cell is not None and str(cell).strip()) or None for row in rows
        ]
        return pd.Series(texts, index=parts.index, dtype=object)
    ids = [None if None in row else "/".join(str(cell).strip() for cell in row) for row in rows]
    if len({id_ for id_ in ids if id_}) < len(
        {tuple(str(cell).strip() for cell in row) for row in rows if None not in row}
    ):
        raise JudgementError(
            f"{canonical}: the columns {', '.join(map(repr, parts.columns))} make the same id of different rows when "
            "they are joined with a slash. Fix: remove slashes from these columns."
        )
    return pd.Series(ids, index=parts.index, dtype=object)


def _without_decimals(cells: pd.Series, column: str, name: str) -> pd.Series:
    """Return ids without ".0" where all have it, as numbers have that passed through a table with a gap.

    Raises:
        JudgementError: Ids of which a spreadsheet or a float kept the first digits only.
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    shortened = [text for text in texts if _SHORTENED.fullmatch(text.strip())] if column in IDS else []
    if shortened:
        raise JudgementError(
            f"{name}, column {column!r}: {shortened[0]!r} is a long number that a program rounded; several ids may "
            "have become one. Fix: export the column as text, from where all digits are."
        )
    if texts and all(_WHOLE.fullmatch(text.strip()) for text in texts):
        return cells.map(lambda cell: cell.strip()[:-2] if isinstance(cell, str) else cell).astype(object)
    return cells
