"""Judgement rows from the cells of a file, in whichever way the file is laid out.

`long` has a row per judgement, `wide` a row per respondent and a column per question, `ranking` and `best_worst` a row
per ranking or task. Knows nothing of formats, and does not decide what is valid (see `judgements.validation`).
"""

from __future__ import annotations

import ast
import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.judgements.spelling import one_form
from reward_models.sources.codes import MISSING_COLUMNS, question_of
from reward_models.sources.formats.cells import Cells, cell_text
from reward_models.sources.rankings import best_worst_pairs, ranked_rows
from reward_models.sources.recoding import EMPTY, Meaning, Recoder, is_empty
from reward_models.sources.renaming import rename, source_columns
from reward_models.sources.wide import melt


__all__ = ["LAYOUTS", "judgement_rows"]

ANSWERS = ("choice", "rating")
_CODED = ("shown_first", "rater_weight", "count", "n")
_LISTS = ("options", "probs")


def judgement_rows(
    cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per judgement in canonical columns, and a row per missing answer.

    Args:
        cells: The file.
        mapping: The column map; the columns that it names are in the file.
        recoder: What recodes the cells.
        name: Name of the file, for messages.

    Returns:
        The judgements, with the code of the file as `code` where there is one answer per row; and the missing answers,
        as `codes.MISSING_COLUMNS` names them.

    Raises:
        JudgementError: A column to recode is not there, or cells cannot be understood.

    Warns:
        JudgementWarning: Number of rows that are dropped.

    Example:
        >>> cells = Cells(pd.DataFrame({"who": ["ann", "bob"], "vote": ["1", "9"]}))
        >>> mapping = {"columns": {"rater_id": "who", "rating": "vote"}, "missing": [9]}
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     judgements, missing = judgement_rows(cells, mapping, Recoder(mapping), "a.csv")
        >>> judgements.values.tolist(), str(caught[0].message)
        ([['ann', '1', '1']], '1 of 2 rows of a.csv dropped, as the column map says (values, ...).')
    """
    layout = mapping.get("layout", "long")
    columns = mapping.get("columns", {})
    if layout == "best_worst" and isinstance(columns.get("options"), list):
        # A text per column, which are not joined to one.
        columns = {column: source for column, source in columns.items() if column != "options"}
    frame = rename(cells, {**mapping, "columns": columns}, name)
    for column in _LISTS:
        if column in frame:
            frame[column] = frame[column].map(_json_list).astype(object)
    return LAYOUTS[layout](frame, cells, mapping, recoder, name)


def _long(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Recode the one column of answers; rows whose answer is missing are dropped."""
    answer = next((column for column in ANSWERS if column in frame), None)
    drop = _recode_columns(frame, cells, mapping, recoder, answer)
    if "options" in mapping:
        frame["options"] = _options(frame, mapping["options"], recoder)
    missing = _no_missing()
    if answer is not None:
        source = source_columns(mapping).get(answer, [answer])
        meaning = _meaning(cells, source)
        offers_labels = answer == "choice" and "index" not in mapping and "response_a" not in frame
        stated = frame[answer]
        frame[answer], kinds = recoder.recode(stated, answer, meaning, labelled=offers_labels)
        if offers_labels and meaning.labels and "options" not in frame:
            texts = tuple(recoder.options(answer, meaning))
            frame["options"] = pd.Series([texts] * len(frame), index=frame.index, dtype=object)
        empty = stated.map(is_empty).astype(bool)
        drop |= kinds.notna()
        frame["code"] = stated
        lost = drop & (kinds.notna() | empty)
        rater = frame["rater_id"] if "rater_id" in frame else pd.Series("", index=frame.index)
        missing = pd.DataFrame(
            {
                "rater_id": rater,
                "question": question_of(frame),
                "code": stated,
                "kind": kinds.where(kinds.notna(), EMPTY),
            }
        )[lost].fillna({"code": ""})
    _say_dropped(drop, name)
    return frame[~drop].reset_index(drop=True), missing.reset_index(drop=True)


def _wide(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    drop = _recode_columns(frame, cells, mapping, recoder, "rating" if mapping["kind"] == "rating" else "choice")
    _say_dropped(drop, name)
    return melt(frame, cells, mapping, recoder, name, ~drop)


def _ranking(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = _kept(
        frame, cells, mapping, recoder, "rating" if isinstance(mapping["ranks"], Mapping) else "choice", name
    )
    cells = dataclasses.replace(cells, frame=cells.frame.loc[frame.index])
    return ranked_rows(frame, cells, mapping, recoder), _no_missing()


def _best_worst(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = _kept(frame, cells, mapping, recoder, "choice", name)
    columns = mapping["columns"].get("options")
    if isinstance(columns, list):
        texts = cells.frame.loc[frame.index, [one_form(str(column)).strip() for column in columns]]
        shown = [[cell for cell in row if not is_empty(cell)] for row in texts.itertuples(index=False, name=None)]
    else:
        shown = _options(frame, mapping.get("options"), recoder).tolist()
    frame = frame.drop(columns="options", errors="ignore")
    return best_worst_pairs(frame, shown, cells, mapping, recoder), _no_missing()


LAYOUTS: Mapping[str, Callable[..., tuple[pd.DataFrame, pd.DataFrame]]] = {
    "long": _long,
    "wide": _wide,
    "ranking": _ranking,
    "best_worst": _best_worst,
}
"""How a file may be laid out."""


def _kept(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, answer: str, name: str
) -> pd.DataFrame:
    drop = _recode_columns(frame, cells, mapping, recoder, answer)
    _say_dropped(drop, name)
    return frame[~drop]


def _no_missing() -> pd.DataFrame:
    return pd.DataFrame(columns=list(MISSING_COLUMNS))


def _recode_columns(
    frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder, answer: str | None
) -> pd.Series:
    """Recode what is no answer, in place; return (N,) rows that `values` or `drop_empty` drop."""
    drop = pd.Series(False, index=frame.index)
    values = [column for column in mapping.get("values", {}) if column != answer]
    for column in values:
        _check_column(column, frame, "values")
    sources = source_columns(mapping)
    for column in map(str, frame.columns):
        is_trait = column.startswith("rater:")
        if column == answer or not (column in values or column in _CODED or is_trait):
            continue
        meaning = _meaning(cells, sources.get(column, [column]))
        if not (column in _CODED or is_trait):
            meaning = Meaning(missing=())
        frame[column], kinds = recoder.recode(frame[column], column, meaning, labelled=is_trait)
        if column in values:
            drop |= kinds.notna()
    for column in mapping.get("drop_empty", ()):
        if not (column == answer and mapping.get("layout") == "wide"):  # a wide file has empty cells anyway
            _check_column(column, frame, "drop_empty")
            drop |= frame[column].map(is_empty).astype(bool)
    return drop


def _meaning(cells: Cells, source: list[str]) -> Meaning:
    """Return what the file says of the codes of one column; nothing where several columns are joined."""
    if len(source) > 1:
        return Meaning()
    column = source[0]
    return Meaning(
        cells.labels.get(column, {}), cells.missing.get(column, {}), dates=cells.dates.get(column, frozenset())
    )


def _check_column(column: str, frame: pd.DataFrame, section: str) -> None:
    if column not in frame:
        what = f"no column {column!r}" + (" to recode" if section == "values" else "")
        raise JudgementError(f"{section}: there is {what}. Fix: add it under columns.")


def _say_dropped(drop: pd.Series, name: str) -> None:
    if drop.any():
        sentence = f"{int(drop.sum()):,} of {len(drop):,} rows of {name} dropped, as the column map says"
        warnings.warn(f"{sentence} (values, missing, drop_empty).", JudgementWarning, stacklevel=6)


def _options(frame: pd.DataFrame, options: Any, recoder: Recoder) -> pd.Series:
    """Return the options of each row: the same list in every row, or the column `options` split at a separator."""
    if isinstance(options, list | tuple):
        texts = tuple(dict.fromkeys([*map(cell_text, options), *recoder.kept]))
        return pd.Series([texts] * len(frame), index=frame.index, dtype=object)
    if not isinstance(options, str) or not options:
        raise JudgementError(
            f"options: {options!r} is neither a list nor a separator. Fix: e.g. options: ['yes', 'no']."
        )
    if "options" not in frame:
        raise JudgementError(
            f"options: the separator {options!r} has no column to split. Fix: map the column 'options'."
        )
    split = [text.split(options) if isinstance(text, str) else text for text in frame["options"]]
    return pd.Series(split, index=frame.index, dtype=object)


def _json_list(cell: Any) -> Any:
    """Return the list that a cell of a text file holds as JSON or as Python prints it; other cells as they are."""
    if not isinstance(cell, str) or not cell.lstrip().startswith(("[", "(")):
        return cell
    for parse in (partial(json.loads, parse_int=str, parse_float=str), ast.literal_eval):
        try:
            parsed = parse(cell.strip())
        except (ValueError, SyntaxError):
            continue
        return cell_text(parsed) if isinstance(parsed, list | tuple) else cell
    return cell
