"""Judgements from a CSV, TSV, Parquet or JSONL file, driven by a column map.

A file whose columns have canonical names needs no map. A map is a mapping or a YAML file with these keys, all optional
but `columns`:

| key | meaning |
|---|---|
| `kind` | preference, rating, choice or soft; inferred from the columns by default |
| `columns` | `canonical: column of the file`; a list of columns is joined with a blank line |
| `traits` | `trait: column of the file`, becomes `rater:<trait>` |
| `constants` | `canonical: value`, the same in every row |
| `options` | the list of options of every row, or the separator that splits the column `options` |
| `values` | `canonical: {value of the file: new value}`; rows recoded to null are dropped |
| `drop_empty` | canonical columns; rows that are empty there are dropped |
| `levels` | the ordered levels of a rating |

Rows are dropped only as the map says, and a warning states their number. Knows nothing of any particular data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.judgements.validation import KINDS, OPTIONAL, REQUIRED


__all__ = ["MAP_KEYS", "load_table"]

MAP_KEYS = ("kind", "columns", "traits", "constants", "options", "values", "drop_empty", "levels")
_CANONICAL = tuple(
    dict.fromkeys([c for kind in KINDS for c in (*REQUIRED[kind], *OPTIONAL[kind])] + ["chosen", "rejected"])
)
_SECTIONS = ("columns", "traits", "constants", "values")


def _read_csv(path: Path) -> pd.DataFrame:
    # Only an empty cell is missing: "NA", "None" and "null" are words that people write.
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False, na_values=[""])


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": pd.read_parquet,
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
}


def load_table(path: str | Path, columns: Mapping[str, Any] | str | Path | None = None) -> Judgements:
    r"""Read judgements from a file.

    Args:
        path: A `.csv`, `.tsv`, `.parquet` or `.jsonl` file with one judgement per row.
        columns: The column map, as a mapping or as the path of a YAML file, with the keys of the table in the module's
            docstring; None if the columns have canonical names already (or are TRL's `chosen` and `rejected`).

    Returns:
        The validated judgements.

    Raises:
        FileNotFoundError: If the file or the map does not exist.
        JudgementError: If a key of the map or a column is unknown (with the closest known one), or rows are at fault.

    Warns:
        JudgementWarning: Number of rows that the map drops.

    Example:
        >>> import tempfile
        >>> text = "person,statement,vote\nann,Ban cars.,1\nann,Plant trees.,1\nbob,Ban cars.,-1\nbob,Plant trees.,0\n"
        >>> columns = {"rater_id": "person", "response": "statement", "rating": "vote"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "votes.csv"
        ...     size = path.write_text(text)
        ...     judgements = load_table(path, {"columns": columns, "constants": {"prompt": "Our city should"}})
        >>> judgements.kind, judgements.levels, judgements.raters
        ('rating', (-1.0, 0.0, 1.0), ['ann', 'bob'])
    """
    mapping = None if columns is None else _check_map(_load_map(columns))
    path = _existing(Path(path))
    if path.suffix not in _READERS:
        raise JudgementError(f"{path.name!r} is none of {', '.join(_READERS)}. Fix: convert it to one of them.")
    try:
        table = _READERS[path.suffix](path)
    except (ValueError, UnicodeDecodeError) as error:
        raise JudgementError(f"{path} cannot be read as {path.suffix}: {error}. Fix: check the file.") from error
    if mapping is None:
        try:
            return Judgements.from_frame(table)
        except JudgementError as error:
            hint = "  Or pass a column map (columns), which names the file's column of each canonical column."
            raise JudgementError(f"{path.name}, read without a column map: {error}\n{hint}") from error
    frame = _rename(table, mapping, path)
    for column, value in mapping.get("constants", {}).items():
        frame[column] = [value] * len(frame)
    if "options" in mapping:
        frame["options"] = _options(frame, mapping["options"])
    frame = _recode_and_drop(frame, mapping, path)
    return Judgements.from_frame(frame, kind=mapping.get("kind"), levels=mapping.get("levels"))


def _existing(path: Path) -> Path:
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path} does not exist.{did_you_mean(path.name, siblings)} Fix: check the path.")
    return path


def _load_map(columns: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(columns, Mapping):
        return columns
    path = _existing(Path(columns))
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise JudgementError(f"{path} is not YAML: {error}. Fix: check the indentation and the quotes.") from error
    if not isinstance(loaded, dict):
        raise JudgementError(f"{path} holds no column map. Fix: add 'columns' with 'canonical: column of the file'.")
    return loaded


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
    if not problems:
        for section in ("columns", "constants", "values", "drop_empty"):
            for column in mapping.get(section, ()):
                if column not in _CANONICAL:
                    hint = did_you_mean(column, _CANONICAL)
                    problems.append(
                        f"{section}: {column!r} is not a canonical column.{hint} Fix: one of {', '.join(_CANONICAL)}."
                    )
        if not mapping.get("columns"):
            problems.append("'columns' is missing. Fix: add 'columns' with 'canonical: column of the file'.")
    if problems:
        raise JudgementError("\n".join(["the column map cannot be used:", *(f"  {problem}" for problem in problems)]))
    return mapping


def _rename(table: pd.DataFrame, mapping: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Return the mapped columns of the file under their canonical names."""
    sources = dict(mapping["columns"])
    sources |= {f"rater:{trait}": column for trait, column in mapping.get("traits", {}).items()}
    parts = {name: columns if isinstance(columns, list) else [columns] for name, columns in sources.items()}
    missing = {
        f"  {name}: {column!r} is not a column of the file.{did_you_mean(column, table.columns)}"
        for name, columns in parts.items()
        for column in columns
        if column not in table
    }
    if missing:
        fix = f"  Fix: choose from: {', '.join(map(repr, table.columns))}."
        raise JudgementError("\n".join([f"the column map does not fit {path}:", *sorted(missing), fix]))
    out = pd.DataFrame(index=table.index)
    for name, columns in parts.items():
        out[name] = table[columns[0]] if len(columns) == 1 else _join(table[columns])
    return out


def _join(parts: pd.DataFrame) -> pd.Series:
    """Join text columns with a blank line, without empty cells."""
    texts = parts.astype(object).where(parts.notna(), "").astype(str)
    rows = zip(*(texts[column] for column in texts), strict=True)
    return pd.Series(["\n\n".join(text for text in row if text.strip()) for row in rows], index=parts.index)


def _options(frame: pd.DataFrame, options: Any) -> pd.Series:
    """Return the options of each row: the same list in every row, or the column `options` split at a separator."""
    if isinstance(options, list):
        strange = [option for option in options if not isinstance(option, str)]
        if strange:
            raise JudgementError(
                f"options: {strange[0]!r} is not text. Fix: put the options in quotes; YAML reads a bare yes or no as "
                "true or false."
            )
        return pd.Series([tuple(options)] * len(frame), index=frame.index, dtype=object)
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


def _recode_and_drop(frame: pd.DataFrame, mapping: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Recode values, drop the rows that the map says, and read columns of numbers from their text."""
    keep = pd.Series(True, index=frame.index)
    for column, recode in mapping.get("values", {}).items():
        if column not in frame:
            raise JudgementError(f"values: there is no column {column!r} to recode. Fix: add it under columns.")
        bare = [key for key in recode if isinstance(key, bool)]
        if bare and not pd.api.types.is_bool_dtype(frame[column]):
            raise JudgementError(
                f"values: {column}: {bare[0]!r} is not text. Fix: put the answer in quotes; YAML reads a bare yes or "
                "no as true or false."
            )
        known = frame[column].isin(list(recode))
        recoded = frame[column].astype(object).where(~known, frame[column].map(recode).astype(object))
        keep &= ~(known & recoded.isna())
        frame[column] = recoded.infer_objects()
    for column in mapping.get("drop_empty", ()):
        if column not in frame:
            raise JudgementError(f"drop_empty: there is no column {column!r}. Fix: add it under columns.")
        text = frame[column].map(lambda value: not value.strip() if isinstance(value, str) else False)
        keep &= ~(frame[column].isna() | text.astype(bool))
    for column in ("rating", "choice", "weight", "n"):
        if column in frame and not pd.api.types.is_numeric_dtype(frame[column]):
            number = pd.to_numeric(frame.loc[keep, column], errors="coerce")
            if number.notna().all():
                frame[column] = number.reindex(frame.index)
    if not keep.all():
        dropped = f"{int((~keep).sum()):,} of {len(keep):,} rows of {path.name} dropped, as the column map says"
        warnings.warn(f"{dropped} (values, drop_empty).", JudgementWarning, stacklevel=3)
    return frame[keep].reset_index(drop=True)
