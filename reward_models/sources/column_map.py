"""The column map: which column of a file is what, and what its codes mean.

Reads a map from a mapping or a YAML file and checks its keys before any row is read. Knows nothing of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.items import DUPLICATES
from reward_models.judgements.sampling import WEIGHT_FIX
from reward_models.judgements.spelling import code_text, is_bool
from reward_models.judgements.validation import KINDS, OPTIONAL, REQUIRED
from reward_models.sources.formats.files import existing_file
from reward_models.sources.map_layouts import faulty_layout, faulty_values
from reward_models.sources.recoding import missing_kinds
from reward_models.yaml_text import YamlError, read_yaml


__all__ = ["MAP_KEYS", "load_map"]

MAP_KEYS = (
    "kind",
    "layout",
    "columns",
    "questions",
    "ranks",
    "unranked",
    "traits",
    "constants",
    "options",
    "index",
    "values",
    "missing",
    "keep_as_option",
    "drop_empty",
    "levels",
    "bins",
    "duplicates",
    "margins",
    "decimal",
    "thousands",
    "separator",
    "encoding",
    "sheet",
)
_CANONICAL = tuple(
    dict.fromkeys(
        [c for kind in KINDS for c in (*REQUIRED[kind], *OPTIONAL[kind])] + ["chosen", "rejected", "best", "worst"]
    )
)
_SECTIONS = ("columns", "traits", "constants", "values", "margins")
_LISTS = ("drop_empty", "keep_as_option")
_QUOTES = "put it in quotes; YAML reads a bare yes or no as true or false"


def load_map(columns: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    """Read a column map and check its keys.

    Args:
        columns: The map, the path of a YAML file with one, or None for an empty map.

    Raises:
        FileNotFoundError: The file does not exist.
        JudgementError: The file holds no map, or keys are unknown or misused; all of them are named.

    Example:
        >>> load_map({"colums": {"rater_id": "person"}})
        Traceback (most recent call last):
        reward_models.errors.JudgementError: the column map cannot be used:
          'colums' is not a key of a column map. Did you mean 'columns'? Fix: one of kind, layout, columns, ...
    """
    if columns is None:
        return {}
    if isinstance(columns, Mapping):
        return _check_map(columns)
    path = existing_file(Path(columns))
    try:
        loaded = read_yaml(path)
    except YamlError as error:
        raise JudgementError(f"{path} is not YAML: {error}. Fix: check the indentation and the quotes.") from error
    if not isinstance(loaded, dict):
        raise JudgementError(f"{path} holds no column map. Fix: add 'columns' with 'canonical: column of the file'.")
    return _check_map(loaded)


def _check_map(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raise if keys of the map are unknown or misused, with a message that lists all of them."""
    problems = [
        f"{key!r} is not a key of a column map.{did_you_mean(key, MAP_KEYS)} Fix: one of {', '.join(MAP_KEYS)}."
        for key in mapping
        if key not in MAP_KEYS
    ]
    for section in _SECTIONS:
        if not isinstance(mapping.get(section, {}), Mapping):
            problems.append(f"{section}: {mapping[section]!r} is not a mapping. Fix: write 'name: value' below it.")
    for section in _LISTS:
        if not isinstance(mapping.get(section, []), list | tuple):
            problems.append(f"{section}: {mapping[section]!r} is not a list. Fix: put it in brackets.")
    if not isinstance(mapping.get("missing", []), list | tuple | Mapping):
        problems.append(f"missing: {mapping['missing']!r} is not a list. Fix: put it in brackets.")
    problems = problems or [*_nested_values(mapping)]
    if not problems:
        problems = [
            *_unknown_columns(mapping),
            *_ambiguous_words(mapping),
            *_faulty_missing(mapping),
            *_faulty_settings(mapping),
            *faulty_layout(mapping),
        ]
    if problems:
        raise JudgementError("\n".join(["the column map cannot be used:", *(f"  {problem}" for problem in problems)]))
    return mapping


def _nested_values(mapping: Mapping[str, Any]) -> Iterator[str]:
    """Name lists and mappings where one value is meant, and columns that are made of none."""
    missing = mapping.get("missing", [])
    lists = {"options": mapping.get("options"), "levels": mapping.get("levels"), "missing": missing}
    if isinstance(missing, Mapping):
        lists |= {f"missing: {kind}": values for kind, values in missing.items()}
    for place, values in lists.items():
        for value in values if isinstance(values, list | tuple) else ():
            if isinstance(value, list | tuple | Mapping):
                yield f"{place}: {value!r} is not one value. Fix: write the values side by side in one list."
    for section in ("columns", "traits"):
        for name, column in mapping.get(section, {}).items():
            parts = column if isinstance(column, list | tuple) else [column]
            if not parts or any(part is None or isinstance(part, list | tuple | Mapping) for part in parts):
                yield f"{section}: {name}: {column!r} is no column. Fix: give the title of one, or several in a list."


def _unknown_columns(mapping: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{section}: 'weight' does not say what is weighed. Fix: {WEIGHT_FIX}."
        if column == "weight"
        else f"{section}: {column!r} is not a canonical column.{did_you_mean(column, _CANONICAL)} Fix: one of "
        f"{', '.join(_CANONICAL)}."
        for section in ("columns", "constants", "values", "drop_empty")
        for column in mapping.get(section, ())
        if column not in _CANONICAL
    ]
    if "columns" in mapping and not mapping["columns"] and mapping.get("layout") != "wide":
        problems.append("'columns' is missing. Fix: add 'columns' with 'canonical: column of the file'.")
    return problems


def _ambiguous_words(mapping: Mapping[str, Any]) -> list[str]:
    """Name truth values where a text is meant; as keys of `values` they may be the file's own TRUE and FALSE."""
    places: list[tuple[str, Any]] = [
        (f"constants: {name}", value) for name, value in mapping.get("constants", {}).items()
    ]
    options = mapping.get("options", [])
    places += [("options", option) for option in (options if isinstance(options, list | tuple) else [])]
    problems = []
    for column, recode in mapping.get("values", {}).items():
        problems += faulty_values(f"values: {column}", recode)
        if isinstance(recode, Mapping):
            places += [(f"values: {column}: {key!r}", value) for key, value in recode.items()]
    return problems + [f"{place}: {value!r} is not text. Fix: {_QUOTES}." for place, value in places if is_bool(value)]


def _faulty_missing(mapping: Mapping[str, Any]) -> list[str]:
    missing = mapping.get("missing", [])
    problems = []
    if isinstance(missing, Mapping):
        problems += [
            f"missing: {kind}: {values!r} is not a list. Fix: put it in brackets."
            for kind, values in missing.items()
            if not isinstance(values, list | tuple)
        ]
        problems += [
            f"missing: {kind!r} is not text. Fix: {_QUOTES}." for kind in missing if not isinstance(kind, str)
        ]
    if problems:
        return problems
    kinds = missing_kinds(missing)
    problems += [f"missing: {value!r} is not text. Fix: {_QUOTES}." for value in kinds if is_bool(value)]
    spellings: dict[str, str] = {}
    for value, kind in kinds.items():
        if spellings.setdefault(code_text(value), kind) != kind:
            problems.append(f"missing: {value!r} is of two kinds. Fix: remove it from one of them.")
    options, levels = mapping.get("options", []), mapping.get("levels") or []
    used = [*(options if isinstance(options, list | tuple) else []), *levels]
    return problems + [
        f"missing: {value!r} is an option or a level, too. Fix: remove it from one of the two."
        for value in used
        if code_text(value) in spellings
    ]


def _faulty_settings(mapping: Mapping[str, Any]) -> list[str]:
    problems = []
    index, duplicates = mapping.get("index"), mapping.get("duplicates", "refuse")
    if index is not None and (is_bool(index) or index not in (0, 1)):
        problems.append(f"index: {index!r} is not the number of the first option. Fix: 0 or 1.")
    if duplicates not in DUPLICATES:
        hint = did_you_mean(duplicates, DUPLICATES)
        problems.append(f"duplicates: {duplicates!r} is not known.{hint} Fix: one of {', '.join(DUPLICATES)}.")
    bins = mapping.get("bins")
    if bins is not None:
        numbers = isinstance(bins, list) and all(isinstance(e, int | float) and not is_bool(e) for e in bins)
        if not numbers or len(bins) < 3 or any(low >= high for low, high in itertools.pairwise(bins)):
            problems.append(
                f"bins: {bins!r} are not three or more increasing edges. Fix: e.g. bins: [0, 25, 75, 100]."
            )
        if mapping.get("levels") is not None:
            problems.append("bins: the levels are the numbers of the bins. Fix: remove levels.")
    for name in ("decimal", "thousands", "separator"):
        sign = mapping.get(name)
        if sign is not None and not (isinstance(sign, str) and len(sign) == 1):
            problems.append(f"{name}: {sign!r} is not one sign. Fix: e.g. {name}: ','.")
    if mapping.get("thousands") is not None and mapping["thousands"] == mapping.get("decimal", "."):
        problems.append(
            f"thousands: {mapping['thousands']!r} is the decimal sign too. Fix: state both, e.g. decimal: ','."
        )
    return problems
