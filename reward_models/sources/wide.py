"""Turn a wide file (a row per respondent, a column per question) into a row per judgement, as a column map says.

Every question has its wording, and may have options, recoded values and missing values of its own. Knows nothing of
formats.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.spelling import code_text, one_form
from reward_models.sources.formats.cells import Cells, cell_text
from reward_models.sources.recoding import EMPTY, Meaning, Recoder, is_empty
from reward_models.sources.renaming import source_columns


__all__ = ["QUESTION_KEYS", "melt", "question_settings"]

QUESTION_KEYS = ("prompt", "response", "response_a", "response_b", "item_id", "options", "values", "missing")
"""What a map may say of one question."""
_WORDING = {"choice": "prompt", "preference": "prompt", "rating": "response"}
_CONTENT = {
    "choice": ("prompt",),
    "preference": ("prompt", "response_a", "response_b"),
    "rating": ("prompt", "response"),
}


def question_settings(mapping: Mapping[str, Any], cells: Cells) -> dict[str, dict[str, Any]]:
    """Return what the map says of each question, by column of the file and in the order of the map.

    Args:
        mapping: The column map. `questions` is a column or a list of columns, or a mapping from column to its wording
            or its settings. `*` and `?` in a column match any text and any sign; an exact name goes before a pattern.
        cells: The file. A question without a wording has the file's wording, or its column's name.

    Raises:
        JudgementError: A column or pattern matches nothing, or a column is a question and something else.

    Example:
        >>> cells = Cells(pd.DataFrame(columns=["id", "q1", "q2"]), wordings={"q1": "Tea?"})
        >>> mapping = {"kind": "choice", "questions": {"q*": None, "q2": "Milk?"}}
        >>> question_settings(mapping, cells)
        {'q1': {'prompt': 'Tea?'}, 'q2': {'prompt': 'Milk?'}}
    """
    questions = mapping["questions"]
    if not isinstance(questions, Mapping):
        questions = dict.fromkeys([questions] if isinstance(questions, str) else questions)
    entries = {one_form(str(name)).strip(): entry for name, entry in questions.items()}
    wording = _WORDING[mapping["kind"]]
    used = {column: name for name, columns in source_columns(mapping).items() for column in columns}
    settings: dict[str, dict[str, Any]] = {}
    problems = []
    for name, entry in entries.items():
        columns = [name] if name in cells.frame else _matching(name, cells.frame.columns, entries, used)
        if not columns:
            problems.append(f"questions: {name!r} is not a column of the file.{did_you_mean(name, cells.frame)}")
        for column in columns:
            if column in used:
                problems.append(f"questions: {column!r} is {used[column]!r}, too. Fix: remove it from one of the two.")
            given = {wording: entry} if isinstance(entry, str) else dict(entry or {})
            settings.setdefault(column, {wording: cells.wordings.get(column, column)} | given)
    if problems:
        fix = f"  Fix: choose from: {', '.join(map(repr, cells.frame.columns))}."
        raise JudgementError("\n".join(["the column map does not fit the file:", *(f"  {p}" for p in problems), fix]))
    return settings


def _matching(pattern: str, columns: Iterable[str], entries: Mapping[str, Any], used: Mapping[str, str]) -> list[str]:
    return [c for c in columns if fnmatchcase(c, pattern) and c not in entries and c not in used]


def melt(
    raters: pd.DataFrame,
    cells: Cells,
    mapping: Mapping[str, Any],
    recoder: Recoder,
    name: str,
    keep: pd.Series | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per answer in canonical columns, and a row per missing answer.

    Args:
        raters: (R, ...) what describes the rater, in canonical columns.
        cells: The file, with `R` rows.
        mapping: The column map.
        recoder: What recodes the answers.
        name: Name of the file, for messages.
        keep: (R,) rows to keep; None for all.

    Returns:
        The answers, respondent by respondent, with the code of the file as `code`; and the missing answers as
        `codes.MISSING_COLUMNS` names them.

    Raises:
        JudgementError: A question lacks a part, such as its options.

    Warns:
        JudgementWarning: There is no `rater_id`, or questions have no wording.

    Example:
        >>> cells = Cells(pd.DataFrame({"q1": ["1", "2"], "q2": ["2", None]}, dtype=object))
        >>> mapping = {"kind": "choice", "options": ["1", "2"], "questions": {"q1": "Tea?", "q2": "Milk?"}}
        >>> raters = pd.DataFrame({"rater_id": ["ann", "bob"]})
        >>> answers, missing = melt(raters, cells, mapping, Recoder(mapping), "a.csv")
        >>> answers[["rater_id", "prompt", "choice"]].values.tolist()
        [['ann', 'Tea?', '1'], ['ann', 'Milk?', '2'], ['bob', 'Tea?', '2']]
        >>> missing.values.tolist()
        [['bob', 'q2', '', 'empty']]
    """
    settings = question_settings(mapping, cells)
    keep = pd.Series(True, index=raters.index) if keep is None else keep
    if "rater_id" not in raters:
        raters = raters.assign(rater_id=[str(row) for row in range(1, len(raters) + 1)])
        message = f"{name}: no column is rater_id; every row is a rater, named by its number from 1."
        warnings.warn(message, JudgementWarning, stacklevel=4)
    _check_content(settings, mapping, name)
    answers, missing = [], []
    for column, entry in settings.items():
        there, gone = _one_question(column, entry, cells, mapping, recoder)
        answers.append(there)
        missing.append(gone)
    kept = np.flatnonzero(keep)
    rows, without = (_by_row(parts, kept) for parts in (answers, missing))
    raters = raters.drop(columns=[column for column in rows if column in raters])
    frame = pd.concat([raters.iloc[rows["row"]].reset_index(drop=True), rows.drop(columns="row")], axis=1)
    without["rater_id"] = raters["rater_id"].iloc[without["row"]].to_numpy()
    return frame, without.fillna({"kind": EMPTY})[["rater_id", "question", "code", "kind"]]


def _one_question(
    column: str, entry: Mapping[str, Any], cells: Cells, mapping: Mapping[str, Any], recoder: Recoder
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the answers to one question with the numbers of their rows, and the missing answers."""
    kind = mapping["kind"]
    answer = "rating" if kind == "rating" else "choice"
    meaning = Meaning(
        cells.labels.get(column, {}),
        cells.missing.get(column, {}),
        entry.get("values"),
        entry.get("missing"),
        cells.dates.get(column, frozenset()),
        place=f"questions: {column}",
    )
    stated = pd.Series([None if is_empty(cell) else cell for cell in cells.frame[column]], dtype=object)
    labelled = answer == "choice" and "index" not in mapping
    recoded, kinds = recoder.recode(stated, answer, meaning, labelled=labelled)
    codes = pd.Series(["" if cell is None else code_text(cell) for cell in stated], dtype=object)
    item = str(entry.get("item_id", column))
    there = recoded.notna()
    part = pd.DataFrame({"row": np.flatnonzero(there), answer: recoded[there], "code": codes[there], "item_id": item})
    if kind == "choice":
        options = _options(column, entry, mapping, recoder, meaning, recoded)
        part["options"] = pd.Series([options] * len(part), index=part.index, dtype=object)
    texts = {**mapping.get("constants", {}), **entry}
    gone = {"row": np.flatnonzero(~there), "code": codes[~there], "kind": kinds[~there], "question": item}
    return part.assign(**{name: texts[name] for name in _CONTENT[kind]}), pd.DataFrame(gone)


def _by_row(parts: list[pd.DataFrame], kept: np.ndarray) -> pd.DataFrame:
    """Return the parts as one table, respondent by respondent, without the rows that are not kept."""
    table = pd.concat(parts, ignore_index=True)
    return table[table["row"].isin(kept)].sort_values("row", kind="stable").reset_index(drop=True)


def _check_content(settings: Mapping[str, Mapping[str, Any]], mapping: Mapping[str, Any], name: str) -> None:
    """Raise if a question lacks a text that its kind needs; warn of wordings that are names of columns."""
    wording = _WORDING[mapping["kind"]]
    constant = {*mapping.get("constants", {})}
    for column, entry in settings.items():
        lacking = [part for part in _CONTENT[mapping["kind"]] if part not in entry and part not in constant]
        if lacking:
            raise JudgementError(
                f"questions: {column}: {lacking[0]!r} is missing; a {mapping['kind']!r} has "
                f"{' and '.join(_CONTENT[mapping['kind']])}, and the wording of a column is its {wording}. Fix: add "
                f"{lacking[0]} under the question, or for all questions under constants."
            )
    bare = [column for column, entry in settings.items() if entry[wording] == column and " " not in column]
    if bare:
        shown = ", ".join(map(repr, bare[:3])) + (", ..." if len(bare) > 3 else "")
        message = f"{name}: {len(bare):,} questions have no wording but the names of their columns ({shown})"
        fix = f"State them under questions, e.g. {bare[0]}: THE QUESTION, before a model reads them."
        warnings.warn(f"{message}. {fix}", JudgementWarning, stacklevel=5)


def _options(
    column: str,
    entry: Mapping[str, Any],
    mapping: Mapping[str, Any],
    recoder: Recoder,
    meaning: Meaning,
    answers: pd.Series,
) -> tuple[str, ...]:
    """Return the options of a question: its own, those of all questions, or the labels of its codes."""
    stated = entry.get("options", mapping.get("options"))
    if isinstance(stated, list | tuple):
        return tuple(dict.fromkeys([*map(cell_text, stated), *recoder.kept]))
    if meaning.labels:
        return tuple(recoder.options("choice", meaning))
    cells = ", ".join(map(repr, sorted(answers.dropna().unique())[:12]))
    raise JudgementError(
        f"questions: {column} has no options. Fix: list them in order under options, of all questions or of this one; "
        f"its answers are {cells}."
    )
