"""Values, rights and duties, and situations in which people or a model said what each of them supports.

Read from files of ValuePrism's shape (Sorensen et al. 2023, https://arxiv.org/abs/2309.00779). Knows nothing of
models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reward_models.errors import did_you_mean
from reward_models.judgements.faults import is_missing
from reward_models.sources.formats.files import existing_file, read_cells


__all__ = [
    "KINDS",
    "VALENCES",
    "Value",
    "ValuedSituation",
    "ValuesError",
    "planted_valued_situations",
    "read_valued_situations",
]

KINDS = ("Value", "Right", "Duty")
VALENCES = ("supports", "opposes", "either")
"""What a value says of a situation; `either` depends on more than is told."""

_COLUMNS = {
    "situation": ("situation", "action"),
    "text": ("text", "value"),
    "kind": ("vrd", "kind"),
    "valence": ("valence", "label_text", "label"),
    "explanation": ("explanation",),
}
"""Names that the columns have in ValuePrism, in the files of Modular Pluralism, and here."""


class ValuesError(ValueError):
    """Values, situations or a judge of them cannot be used; the message says why and what to do.

    Example:
        >>> issubclass(ValuesError, ValueError)
        True
    """


@dataclass(frozen=True)
class Value:
    """A value, a right or a duty.

    Attributes:
        text: In words, e.g. `"Fairness"`, `"Right to privacy"`, `"Duty to help"`.
        kind: One of `KINDS`.

    Raises:
        ValuesError: The text is empty, or the kind is unknown.

    Example:
        >>> Value.from_text("Right to privacy")
        Value(text='Right to privacy', kind='Right')
        >>> Value(" ")
        Traceback (most recent call last):
        plural_rlhf.evaluation.tables.valued_situations.ValuesError: a value has an empty text. Fix: name it, ...
    """

    text: str
    kind: str = "Value"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValuesError("a value has an empty text. Fix: name it, or leave the row out.")
        if self.kind not in KINDS:
            raise ValuesError(
                f"kind={self.kind!r} is unknown.{did_you_mean(self.kind, KINDS)} Fix: {', '.join(KINDS)}."
            )

    @classmethod
    def from_text(cls, text: str) -> Value:
        """Return the value of a text, whose kind is what it begins with: "Right to ...", "Duty to ...", or neither.

        Example:
            >>> Value.from_text("Honesty").kind
            'Value'
        """
        first = text.strip().split(" ")[0].capitalize()
        return cls(text.strip(), first if first in KINDS[1:] else "Value")


@dataclass(frozen=True)
class ValuedSituation:
    """A value in a situation.

    Attributes:
        situation: What somebody does, e.g. `"Lying to a friend to spare her feelings"`.
        value: The value.
        valence: What it says of the situation: one of `VALENCES`; None where only relevance is known.
        explanation: Why, in a sentence; empty if nobody wrote one.

    Raises:
        ValuesError: The situation is empty.

    Example:
        >>> row = ValuedSituation("Telling a white lie", Value("Honesty"), "opposes")
        >>> row.value.kind, row.valence
        ('Value', 'opposes')
    """

    situation: str
    value: Value
    valence: str | None = None
    explanation: str = ""

    def __post_init__(self) -> None:
        if not self.situation.strip():
            raise ValuesError(f"the situation is empty (value {self.value.text!r}). Fix: say what somebody does.")


def read_valued_situations(path: str | Path) -> list[ValuedSituation]:
    r"""Read situations with their values and valences.

    Args:
        path: A table in any format that judgements are read from (CSV, Excel, Parquet, ...), or a list in JSON.
            Columns `situation` (or `action`), `text` (or `value`), `vrd` (Value, Right or Duty), `valence` (or
            `label`) and, if present, `explanation`: those of ValuePrism's `full` and `valence` files. Where `vrd`
            holds the value's text, as in the files of Modular Pluralism, its kind is what the text begins with.

    Raises:
        FileNotFoundError: There is no such file.
        ValuesError: A column is missing, a text is empty or a valence unknown; the message names the row.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> _ = file.write_text("situation,vrd,text,valence\nTelling a white lie,Value,Honesty,Opposes\n")
        >>> read_valued_situations(file)[0].valence
        'opposes'
    """
    cells = _cells(Path(path))
    columns = list(cells.columns)
    if not len(cells):
        raise ValuesError(f"{path} has no row. Fix: give situations with their values.")
    names = {key: next((n for n in options if n in columns), None) for key, options in _COLUMNS.items()}
    if names["text"] is None and names["kind"] is not None:  # Modular Pluralism writes the text into that column
        names["text"], names["kind"] = names["kind"], None
    missing = [key for key in ("situation", "text") if names[key] is None]
    if missing:
        wanted = "; ".join(f"{key}: one of {', '.join(_COLUMNS[key])}" for key in missing)
        raise ValuesError(f"{path} lacks a column for {wanted}. It has {', '.join(columns)}.")
    rows = [{str(key): cell for key, cell in row.items()} for row in cells.to_dict("records")]
    return [_row(row, names, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def planted_valued_situations() -> list[ValuedSituation]:
    """Return situations of which the valences are known, for examples and tests.

    Honesty matters where somebody steals, finds or returns a thing: it opposes the first, supports the last, and may
    do either in between. Generosity matters likewise where somebody hoards, lends or gives one.

    Example:
        >>> rows = planted_valued_situations()
        >>> len(rows), rows[0].situation, rows[0].value.text, rows[0].valence
        (288, 'stealing a phone', 'Honesty', 'opposes')
    """
    said = {
        "Honesty": {"stealing": "opposes", "finding": "either", "returning": "supports"},
        "Generosity": {"hoarding": "opposes", "lending": "either", "giving": "supports"},
    }
    things = ("a phone", "some food", "a book", "money", "a coat", "tools", "a ticket", "a car")
    kinds = ("{}", "{} at work", "{} at home", "{} at school", "{} abroad", "{} in public")
    return [
        ValuedSituation(f"{verb} {thing}", Value(kind.format(value)), valence)
        for value, by_verb in said.items()
        for verb, valence in by_verb.items()
        for thing in things
        for kind in kinds
    ]


def _cells(path: Path) -> pd.DataFrame:
    if path.suffix != ".json":
        return read_cells(path).frame
    try:
        rows = json.loads(existing_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValuesError(
            f"{path} is not JSON ({error}). Fix: give a list of objects in JSON, or a CSV file."
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValuesError(f"{path} is no list of objects in JSON. Fix: give one, or a CSV file.")
    return pd.DataFrame(rows)


def _row(row: Mapping[str, Any], names: Mapping[str, str | None], where: str) -> ValuedSituation:
    def field(key: str) -> str:
        name = names[key]
        value = None if name is None else row.get(name)
        return "" if is_missing(value) else str(value).strip()  # also a key that this row of JSON has not

    try:
        if not field("situation"):
            raise ValuesError("the situation is empty. Fix: say what happens, or leave the row out.")
        value = Value(field("text"), field("kind").capitalize()) if field("kind") else Value.from_text(field("text"))
        valence = field("valence").lower() or None
        valence = {"support": "supports", "oppose": "opposes"}.get(valence or "", valence)
        if valence is not None and valence not in VALENCES:
            raise ValuesError(f"the valence {valence!r} is unknown. Fix: {', '.join(VALENCES)}, or nothing.")
    except ValuesError as error:
        raise ValuesError(f"{where}: {error}") from error
    return ValuedSituation(field("situation"), value, valence, field("explanation"))
