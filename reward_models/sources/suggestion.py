"""Recognise a wide file that is read as a long one, and write the column map that reads it.

A file looks wide if a column names every row once and several columns share a few codes. Knows nothing of formats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from reward_models.judgements.spelling import code_text, plain_number
from reward_models.judgements.traits import MISSING_WORDS
from reward_models.sources.formats.cells import Cells


__all__ = ["suggest_wide"]

_ID = re.compile(
    r"(.*[_ .-])?(id|rater|respondent|person|participant|case|user|worker|number|nr|no|who)", re.IGNORECASE
)
_MOST_CODES = 11
_LONG_TEXT = 60
_CARRIED = ("missing", "levels", "decimal", "thousands", "separator", "encoding", "sheet")
_ASKED = "THE SENTENCE BEFORE EVERY STATEMENT"


def suggest_wide(cells: Cells, mapping: Mapping[str, Any]) -> tuple[str, str]:
    """Return a sentence and a column map if a file looks wide, else two empty texts.

    Args:
        cells: The file.
        mapping: The map of a long file that did not fit it; what it says of codes is kept.

    Returns:
        What to do, and the map as YAML, which reads the file; wordings are those of the file, or columns' names.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"id": ["a", "b", "c"], "q1": ["1", "2", "1"], "q2": ["2", "2", "1"]})
        >>> sentence, column_map = suggest_wide(Cells(frame), {})
        >>> sentence
        "The file looks wide: a row per respondent, a column per question ('q1', 'q2'). Fix: use the column map ...
        >>> print(column_map)
        kind: choice
        layout: wide
        columns:
          rater_id: id
        options: ['1', '2']
        questions:
          q1: q1
          q2: q2
        <BLANKLINE>
    """
    codes = {column: _codes(cells, column) for column in map(str, cells.frame.columns)}
    rater = _rater_column(cells)
    batteries = _batteries({column: texts for column, texts in codes.items() if texts and column != rater})
    questions = [column for column in codes if any(column in battery for battery in batteries)]
    if len(questions) < (2 if rater else 3) or len(cells.frame) < 2:
        return "", ""
    offered = {
        column: () if cells.labels.get(column) else _in_order({code for other in battery for code in codes[other]})
        for column in questions
        for battery in batteries
        if column in battery
    }
    shown = ", ".join(map(repr, questions[:3])) + (f" and {len(questions) - 3:,} more" if len(questions) > 3 else "")
    message = (
        f"The file looks wide: a row per respondent, a column per question ({shown}). Fix: use the column map below, "
    )
    text = _yaml(_map(cells, mapping, rater, offered, codes))
    return f"{message}after a look at the wordings and the order of the options.", text


def _codes(cells: Cells, column: str) -> tuple[str, ...]:
    """Return the codes of a column that may be answers, in order; none if there are many, or one, or long texts."""
    texts = [cell for cell in cells.frame[column] if cell is not None]
    if not all(isinstance(cell, str) for cell in texts):
        return ()
    declared = cells.missing.get(column, {})
    codes = {code_text(cell) for cell in texts}
    codes = {code for code in codes if code.lower() not in MISSING_WORDS and code not in declared}
    if not 1 < len(codes) <= _MOST_CODES or max(map(len, codes)) > _LONG_TEXT:
        return ()
    return _in_order(codes)


def _in_order(codes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(codes, key=lambda code: (plain_number(code) is None, plain_number(code) or 0.0, code)))


def _rater_column(cells: Cells) -> str | None:
    """Return the column that names every row once: by its name, else the first one of short texts."""
    unique = [
        str(column)
        for column in cells.frame.columns
        if cells.frame[column].notna().all()
        and all(isinstance(cell, str) and len(cell) <= _LONG_TEXT for cell in cells.frame[column])
        and cells.frame[column].is_unique
    ]
    named = [column for column in unique if _ID.fullmatch(column)]
    return next(iter(named or unique[:1]), None)


def _batteries(codes: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Return groups of columns of which each shares two codes with another one of the group."""
    batteries: list[list[str]] = []
    for column in codes:
        homes = [group for group in batteries if any(len({*codes[column]} & {*codes[c]}) > 1 for c in group)]
        batteries = [group for group in batteries if group not in homes] + [[*(c for g in homes for c in g), column]]
    return [group for group in batteries if len(group) > 1]


def _map(
    cells: Cells,
    mapping: Mapping[str, Any],
    rater: str | None,
    offered: Mapping[str, tuple[str, ...]],
    codes: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    kind = mapping.get("kind") if mapping.get("kind") in ("choice", "rating") else "choice"
    values = {name: recode for name, recode in mapping.get("values", {}).items() if name == kind}
    out: dict[str, Any] = {"kind": kind, "layout": "wide"}
    if rater is not None:
        out["columns"] = {"rater_id": rater}
    traits = [column for column in codes if codes[column] and column not in offered and column != rater]
    if traits:
        out["traits"] = {column: column for column in traits}
    words = {cell for column in offered for cell in cells.frame[column] if cell and cell.lower() in MISSING_WORDS}
    out |= {key: mapping[key] for key in _CARRIED if key in mapping} | ({"values": values} if values else {})
    if words and isinstance(out.get("missing", []), list):
        out["missing"] = list(dict.fromkeys([*out.get("missing", []), *sorted(words)]))
    usual: tuple[str, ...] = ()
    if kind == "rating":
        out["constants"] = {"prompt": mapping.get("constants", {}).get("prompt", _ASKED)}
    elif isinstance(mapping.get("options"), list):
        out["options"] = mapping["options"]
    else:
        usual = Counter(offered.values()).most_common(1)[0][0] if all(offered.values()) else ()
        if usual:
            out["options"] = list(usual)
    questions: dict[str, Any] = {}
    for column, options in offered.items():
        wording = cells.wordings.get(column, column)
        own = kind == "choice" and "options" not in mapping and options not in (usual, ())
        questions[column] = {"prompt": wording, "options": list(options)} if own else wording
    return out | {"questions": questions}


def _yaml(mapping: Mapping[str, Any]) -> str:
    """Return a map as YAML, lists of codes in one line."""
    text = ""
    for key, value in mapping.items():
        listed = isinstance(value, list)
        part = yaml.safe_dump(
            {key: value}, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=listed
        )
        text += part.strip()[1:-1] + "\n" if listed else part
    return text
