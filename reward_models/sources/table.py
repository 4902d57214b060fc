"""Judgements from a CSV, TSV, Parquet or JSONL file, driven by a column map.

Every cell is text until the map or the declared options say otherwise: `007` is not `7`, `1` is an option named "1"
and not the second one, `NA` is a word. A file whose columns have canonical names needs no map. A map is a mapping or a
YAML file with these keys, all optional:

| key | meaning |
|---|---|
| `kind` | preference, rating, choice or soft; inferred from the columns by default |
| `columns` | `canonical: column of the file`; several columns are joined: ids with a slash, texts with a blank line |
| `traits` | `trait: column of the file`, becomes `rater:<trait>` |
| `constants` | `canonical: value`, the same in every row |
| `options` | the list of options of every row, or the separator that splits the column `options` |
| `index` | 0 or 1: `choice` holds the number of an option, and the first one has this number |
| `values` | `canonical: {value of the file: new value}`; rows recoded to null are dropped |
| `missing` | values that mean no answer, e.g. `[NA, -1, 99]`; rows without an answer are dropped, traits are unknown |
| `drop_empty` | canonical columns; rows that are empty there are dropped |
| `levels` | the ordered levels of a rating |
| `duplicates` | what to do where a rater judged an item twice: refuse (the default), first, last or drop |
| `decimal`, `thousands` | signs in numbers, e.g. `decimal: ","` |
| `separator`, `encoding` | of a text file, where they are not recognised |

Rows are dropped only as the map says, and a warning states their number. Codes are compared as text: `1`, `1.0` and
`"1"` are one code, and so are `TRUE` and `true`. Knows nothing of any particular data set.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.judgements.spelling import one_form, plain_number
from reward_models.judgements.validation import canonicalise
from reward_models.sources.codes import TableReading, count_codes
from reward_models.sources.column_map import MAP_KEYS, load_map
from reward_models.sources.files import cell_text, existing_file, read_cells
from reward_models.sources.recoding import recode


__all__ = ["MAP_KEYS", "load_table", "read_table"]

_IDS = ("rater_id", "item_id")
_NUMBERS = ("rating", "weight", "n")
_LISTS = ("options", "probs")
_WHOLE = re.compile(r"-?\d+\.0")
_SHORTENED = re.compile(r"\d\.\d+[eE]\+\d+|\d{16,}\.0")


def load_table(
    path: str | Path, columns: Mapping[str, Any] | str | Path | None = None, *, duplicates: str | None = None
) -> Judgements:
    r"""Read judgements from a file.

    Args:
        path: A `.csv`, `.tsv`, `.parquet` or `.jsonl` file with one judgement per row; text files may end in `.gz`.
        columns: The column map, as a mapping or as the path of a YAML file, with the keys of the table in the module's
            docstring; None if the columns have canonical names already (or are TRL's `chosen` and `rejected`) and
            answers are the texts of options.
        duplicates: What to do where a rater judged an item more than once: `"refuse"`, keep the `"first"` or the
            `"last"` judgement, or `"drop"` all of them; None as the map says, which refuses by default.

    Returns:
        The validated judgements.

    Raises:
        FileNotFoundError: If the file or the map does not exist.
        JudgementError: If a key of the map or a column is unknown (with the closest known one), or rows are at fault.

    Warns:
        JudgementWarning: Number of rows that the map drops; keys of `values` and `missing` that matched nothing.

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
    return read_table(path, columns, duplicates=duplicates).judgements


def read_table(
    path: str | Path, columns: Mapping[str, Any] | str | Path | None = None, *, duplicates: str | None = None
) -> TableReading:
    r"""Read judgements from a file, and keep how its codes were understood; see `load_table` for the arguments.

    Returns:
        The judgements; printed, which code of the file became which option or level, and how often.

    Example:
        >>> import tempfile
        >>> text = "person,question,answer\nann,Tea?,1\nann,Milk?,2\nbob,Tea?,2\nbob,Milk?,2\n"
        >>> columns = {"rater_id": "person", "prompt": "question", "choice": "answer"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "answers.csv"
        ...     size = path.write_text(text)
        ...     reading = read_table(path, {"columns": columns, "options": ["no", "yes"], "index": 1})
        >>> print(reading)
        answers.csv: 4 judgements (choice); the column 'answer' was read as
          '1'  ->  'no'   1
          '2'  ->  'yes'  3
    """
    mapping = load_map(columns)
    path = existing_file(Path(path))
    cells = read_cells(path, mapping.get("encoding"), mapping.get("separator"))
    frame = _rename(cells, mapping, path)
    for column, value in mapping.get("constants", {}).items():
        frame[column] = pd.Series([cell_text(value)] * len(frame), index=frame.index, dtype=object)
    for column in _LISTS:
        if column in frame:
            frame[column] = frame[column].map(_json_list).astype(object)
    if "options" in mapping:
        frame["options"] = _options(frame, mapping["options"])
    recoded = recode(frame, mapping, path.name)
    frame = _numbers(recoded.frame, mapping)
    try:
        canonical = canonicalise(
            frame,
            mapping.get("kind"),
            mapping.get("levels"),
            duplicates=duplicates or mapping.get("duplicates", "refuse"),
            index=mapping.get("index"),
        )
    except JudgementError as error:
        hints = [f"  note: {sentence}" for sentence in recoded.unmatched]
        if columns is None:
            hints.append(
                "  Or pass a column map (columns), which says what the columns and the codes of the file are."
            )
        origin = f"{path.name}, read without a column map: " if columns is None else ""
        raise JudgementError("\n".join([f"{origin}{error}", *hints])) from error
    judgements = Judgements(canonical.kind, canonical.frame, canonical.levels)
    answer = {"rating": "rating", "soft": None}.get(canonical.kind, "choice")
    if answer is None or recoded.codes is None:
        return TableReading(judgements, path.name)
    codes = count_codes(judgements, recoded.codes.iloc[canonical.rows])
    column = mapping.get("columns", {}).get(answer, answer)
    return TableReading(judgements, path.name, column, codes, dict(recoded.dropped))


def _rename(cells: pd.DataFrame, mapping: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Return the mapped columns of the file under their canonical names; all of them if the map names none."""
    sources = dict(mapping.get("columns", {}))
    sources |= {f"rater:{trait}": column for trait, column in mapping.get("traits", {}).items()}
    parts = {
        name: [one_form(str(column)).strip() for column in (columns if isinstance(columns, list) else [columns])]
        for name, columns in sources.items()
    }
    missing = {
        f"  {name}: {column!r} is not a column of the file.{did_you_mean(column, cells.columns)}"
        for name, columns in parts.items()
        for column in columns
        if column not in cells
    }
    if missing:
        fix = f"  Fix: choose from: {', '.join(map(repr, cells.columns))}."
        raise JudgementError("\n".join([f"the column map does not fit {path}:", *sorted(missing), fix]))
    traits = {column for name, columns in parts.items() for column in columns if name.startswith("rater:")}
    out = pd.DataFrame(index=cells.index) if mapping.get("columns") else cells.drop(columns=list(traits))
    for name, columns in parts.items():
        out[name] = cells[columns[0]] if len(columns) == 1 else _join(cells[columns], name)
    for column in [c for c in out if c in _IDS or str(c).startswith("rater:")]:
        out[column] = _without_decimals(out[column], str(column), path)
    return out


def _join(parts: pd.DataFrame, name: str) -> pd.Series:
    """Join ids with a slash, empty if a part is; join texts with a blank line, without empty parts."""
    rows = [tuple(row) for row in parts.itertuples(index=False, name=None)]
    if name not in _IDS:
        texts = [
            "\n\n".join(str(cell) for cell in row if cell is not None and str(cell).strip()) or None for row in rows
        ]
        return pd.Series(texts, index=parts.index, dtype=object)
    ids = [None if None in row else "/".join(str(cell).strip() for cell in row) for row in rows]
    if len({id_ for id_ in ids if id_}) < len(
        {tuple(str(cell).strip() for cell in row) for row in rows if None not in row}
    ):
        raise JudgementError(
            f"{name}: the columns {', '.join(map(repr, parts.columns))} make the same id of different rows when they "
            "are joined with a slash. Fix: remove slashes from these columns."
        )
    return pd.Series(ids, index=parts.index, dtype=object)


def _without_decimals(cells: pd.Series, column: str, path: Path) -> pd.Series:
    """Return ids without ".0" where all have it, as numbers have that passed through a table with a gap.

    Raises:
        JudgementError: Ids of which a spreadsheet or a float kept the first digits only.
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    shortened = [text for text in texts if _SHORTENED.fullmatch(text.strip())] if column in _IDS else []
    if shortened:
        raise JudgementError(
            f"{path}, column {column!r}: {shortened[0]!r} is a long number that a program rounded; several ids may "
            "have become one. Fix: export the column as text, from where all digits are."
        )
    if texts and all(_WHOLE.fullmatch(text.strip()) for text in texts):
        return cells.map(lambda cell: cell.strip()[:-2] if isinstance(cell, str) else cell).astype(object)
    return cells


def _options(frame: pd.DataFrame, options: Any) -> pd.Series:
    """Return the options of each row: the same list in every row, or the column `options` split at a separator."""
    if isinstance(options, list | tuple):
        texts = tuple(cell_text(option) for option in options)
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


def _numbers(frame: pd.DataFrame, mapping: Mapping[str, Any]) -> pd.DataFrame:
    """Read numbers from their text; what is none stays text, and is refused as such."""
    decimal, thousands = mapping.get("decimal", "."), mapping.get("thousands")

    def number(cell: Any) -> Any:
        value = plain_number(cell, decimal, thousands) if isinstance(cell, str) else None
        return cell if value is None else value

    for column in _NUMBERS:
        if column in frame:
            frame[column] = frame[column].map(number).infer_objects()
    if "probs" in frame:
        shares = [[number(share) for share in cell] if isinstance(cell, list) else cell for cell in frame["probs"]]
        frame["probs"] = pd.Series(shares, index=frame.index, dtype=object)
    return frame
