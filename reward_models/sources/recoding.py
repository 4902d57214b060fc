"""Recode the cells of a column, as a column map and the file itself say, and tell why an answer is missing.

Cells are text (see `cells`). Codes are compared as text in one spelling (`code_text`). Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.faults import is_missing
from reward_models.judgements.spelling import code_text, is_bool
from reward_models.sources.formats.cells import cell_text


__all__ = ["EMPTY", "Meaning", "Recoder", "is_empty", "missing_kinds"]

EMPTY = "empty"
"""Kind of a missing answer whose cell is empty and of which the map says nothing."""
_SHOWN = 8


@dataclass(frozen=True)
class Meaning:
    """What is known of the codes of one column besides what the map says of all columns.

    Attributes:
        labels: Label by code, in the order of the codes, as the file states them.
        declared: Kind by code that the file declares missing.
        values: New value by code or label, of this column alone; None for what the map says of the canonical column.
        missing: Values that mean no answer, of this column alone, as in a map; None for what the map says of all.
        dates: Cells that Excel took for dates.
        place: Where the map says so, for messages.

    Example:
        >>> Meaning(labels={"1": "yes", "2": "no"}).labels["2"]
        'no'
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    declared: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[Any, Any] | None = None
    missing: Any = None
    dates: frozenset[str] = frozenset()
    place: str = ""


def is_empty(cell: Any) -> bool:
    """Return whether a cell is empty or holds white space only.

    Example:
        >>> is_empty(None), is_empty(" "), is_empty("0")
        (True, True, False)
    """
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def missing_kinds(missing: Sequence[Any] | Mapping[str, Sequence[Any]]) -> dict[Any, str]:
    """Return the kind of missing answer by value; a value of a plain list is a kind of its own.

    Example:
        >>> missing_kinds({"don't know": [8, "DK"], "refused": [9]})
        {8: "don't know", 'DK': "don't know", 9: 'refused'}
        >>> missing_kinds(["NA", -1, None])
        {'NA': 'NA', -1: '-1', None: 'empty'}
    """
    if isinstance(missing, Mapping):
        return {value: kind for kind, values in missing.items() for value in values}
    return {value: EMPTY if value is None or value == "" else code_text(value) for value in missing}


class Recoder:
    """Recode columns one by one, and remember which keys of the map matched a cell.

    Args:
        mapping: The column map; its `values`, `missing` and `keep_as_option` are used.

    Example:
        >>> recoder = Recoder({"values": {"choice": {1: "yes", 2: "no"}}, "missing": {"refused": [9, 77]}})
        >>> answers, kinds = recoder.recode(pd.Series(["1", "2.0", "9"], dtype=object), "choice")
        >>> answers.tolist(), kinds.tolist()
        (['yes', 'no', None], [None, None, 'refused'])
        >>> recoder.unmatched()
        ["missing: 77 occurs in no cell. The cells hold '1', '2.0', '9'."]
    """

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self._values: Mapping[str, Mapping[Any, Any]] = mapping.get("values", {})
        self._missing = mapping.get("missing", [])
        self.kept: list[str] = list(mapping.get("keep_as_option", []))
        self._keys: dict[str, list[Any]] = {}
        self._cells: dict[str, dict[str, set[str]]] = {}
        self._kinds: set[str] = set()

    def recode(
        self, cells: pd.Series, column: str, meaning: Meaning | None = None, *, labelled: bool = False
    ) -> tuple[pd.Series, pd.Series]:
        """Recode one column.

        A cell becomes what `values` says of its code or label; else it is missing if `missing` or the file says so,
        unless the map keeps that kind as an option; else its label, if `labelled`; else it stays.

        Args:
            cells: (N,) cells.
            column: Its canonical name.
            meaning: What the file, or the map of this column alone, says of its codes.
            labelled: Whether to replace codes by their labels.

        Returns:
            (N,) new cells, and (N,) the kind of each missing answer, None where there is an answer or nothing is said.

        Raises:
            JudgementError: A key of `values` is a truth value in a column without any, or an answer is a date.
        """
        meaning = meaning or Meaning()
        values = self._values.get(column, {}) if meaning.values is None else meaning.values
        missing = missing_kinds(self._missing if meaning.missing is None else meaning.missing)
        texts = dict.fromkeys(cell for cell in cells if isinstance(cell, str))
        spellings = {cell: self._spellings(cell, meaning) for cell in texts}
        place = meaning.place and f"{meaning.place}: "
        self._note(f"{place if meaning.values is not None else ''}values: {column}", values, spellings)
        self._note(f"{place if meaning.missing is not None else ''}missing", missing, spellings)
        bare = [key for key in values if is_bool(key) and code_text(key) not in _all(spellings)]
        if bare:
            raise JudgementError(
                f"{place}values: {column}: {bare[0]!r} is not text. Fix: put it in quotes; YAML reads a bare yes or "
                "no as true or false."
            )
        lookup, kind_of = _by_spelling(values), _by_spelling(missing)
        results: dict[Any, tuple[Any, str | None]] = {
            cell: self._one(cell, spellings.get(cell or "", {"": None}), lookup, kind_of, meaning, labelled)
            for cell in {*spellings, None}
        }
        dates = [cell for cell in meaning.dates if results.get(cell) == (cell, None)]
        if dates and not column.startswith("rater:"):
            raise JudgementError(
                f"{place or column + ': '}Excel made a date of an answer ({dates[0]!r}), perhaps of '3-4' or '1.2'. "
                f"Fix: recode it under values, e.g. {dates[0]!r}: '3-4', or format the column as text in Excel and "
                "type the cell again."
            )
        pairs = [
            results[cell] if isinstance(cell, str) else (results[None] if is_missing(cell) else (cell, None))
            for cell in cells
        ]
        new = pd.Series([value for value, _ in pairs], index=cells.index, dtype=object)
        return new, pd.Series([kind for _, kind in pairs], index=cells.index, dtype=object)

    def _spellings(self, cell: str, meaning: Meaning) -> dict[str, None]:
        """Return the texts by which a map may name a cell, the most exact first."""
        label = meaning.labels.get(code_text(cell))
        return dict.fromkeys([cell, code_text(cell)] + ([] if label is None else [label, code_text(label)]))

    def _one(
        self,
        cell: Any,
        spellings: Iterable[str],
        values: Mapping[str, Any],
        missing: Mapping[str, str],
        meaning: Meaning,
        labelled: bool,
    ) -> tuple[Any, str | None]:
        """Return the new cell, and the kind of the missing answer, if it is one."""
        code = "" if cell is None else code_text(cell)
        label = meaning.labels.get(code)
        key = next((text for text in spellings if text in values), None)
        if key is not None and values[key] is not None:
            return values[key], None
        kind = next((missing[text] for text in spellings if text in missing), meaning.declared.get(code))
        if key is not None:
            kind = kind or label or code or EMPTY
        if kind is not None:
            self._kinds.add(kind)
            return (kind, None) if kind in self.kept else (None, kind)
        return (label if labelled and label is not None else cell), None

    def options(self, column: str, meaning: Meaning) -> list[str]:
        """Return the options that the labels of a column make, recoded as its cells are, in the order of the codes."""
        codes = pd.Series(list(meaning.labels), dtype=object)
        texts, _ = Recoder({"values": self._values, "missing": self._missing, "keep_as_option": self.kept}).recode(
            codes, column, meaning, labelled=True
        )
        offered = [text for text in dict.fromkeys(texts) if text is not None]
        return [*(text for text in offered if text not in self.kept), *(k for k in self.kept if k in offered)]

    def _note(self, where: str, keys: Mapping[Any, Any], spellings: Mapping[str, Iterable[str]]) -> None:
        if keys:
            self._keys.setdefault(where, [key for key in keys if key is not None and key != ""])
            self._cells.setdefault(where, {}).update({cell: set(texts) for cell, texts in spellings.items()})

    def unmatched(self) -> list[str]:
        """Return sentences on the keys of the map that occur in no cell, with the cells that there are."""
        sentences = []
        for where, keys in self._keys.items():
            cells = self._cells[where]
            known = _all(cells)
            unmatched = [key for key in keys if key not in known and code_text(key) not in known]
            if unmatched:
                shown = ", ".join(map(repr, list(cells)[:_SHOWN])) + (", ..." if len(cells) > _SHOWN else "")
                names = ", ".join(map(repr, unmatched))
                hint = did_you_mean(unmatched[0], known)
                sentences.append(f"{where}: {names} occurs in no cell.{hint} The cells hold {shown or 'nothing'}.")
        for kind in self.kept:
            if kind not in self._kinds:
                kinds = ", ".join(map(repr, sorted(self._kinds))) or "none"
                hint = did_you_mean(kind, self._kinds)
                sentences.append(f"keep_as_option: no answer is missing as {kind!r}.{hint} Kinds that occur: {kinds}.")
        return sentences


def _by_spelling(keys: Mapping[Any, Any]) -> dict[str, Any]:
    """Return cells by key: as the map writes a text, and in the one spelling of a code."""
    exact = {key: cell_text(value) for key, value in keys.items() if isinstance(key, str)}
    alike = {"" if key is None else code_text(key): cell_text(value) for key, value in keys.items()}
    return alike | exact


def _all(spellings: Mapping[str, Iterable[str]]) -> set[str]:
    return {text for texts in spellings.values() for text in texts}
