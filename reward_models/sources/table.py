"""Judgements from a CSV, TSV, JSONL, Parquet, Excel, SPSS or Stata file, driven by a column map.

Every cell is text until the map or the declared options say otherwise: `007` is not `7`, `1` is an option named "1"
and not the second one, `NA` is a word. A file whose columns have canonical names needs no map. A map is a mapping or a
YAML file with these keys, all optional:

| key | meaning |
|---|---|
| `kind` | preference, rating, choice or soft; inferred from the columns of a long file by default |
| `layout` | `long` (a row per judgement, the default), `wide` (a row per respondent), `ranking` or `best_worst` |
| `columns` | `canonical: column of the file`; several columns are joined: ids with a slash, texts with a blank line |
| `questions` | wide: columns (`q*` is many), or `column: wording`, or `column: {prompt: ..., options: ..., ...}` |
| `ranks`, `unranked` | ranking: `column of ranks: text`, or columns of texts, the best first; `unranked: last` |
| `traits` | `trait: column of the file`, becomes `rater:<trait>` |
| `constants` | `canonical: value`, the same in every row |
| `options` | options of every row, or the separator that splits the column `options`; by default the file's labels |
| `index` | 0 or 1: `choice` holds the number of an option, and the first one has this number |
| `values` | `canonical: {value of the file: new value}`; rows recoded to null are dropped |
| `missing` | values that mean no answer: a list, or lists by kind, e.g. `{refused: [9]}`; such rows are dropped |
| `keep_as_option` | kinds of missing answers that stay, as the last options |
| `drop_empty` | canonical columns; rows that are empty there are dropped |
| `levels` | the ordered levels of a rating |
| `bins` | edges that cut ratings into levels 1, 2, ..., e.g. `[0, 25, 75, 100]` |
| `duplicates` | what to do where a rater judged an item twice: refuse (the default), first, last or drop |
| `decimal`, `thousands` | signs in numbers, e.g. `decimal: ","` |
| `separator`, `encoding` | of a text file, where they are not recognised |
| `sheet` | name or number (from 1) of an Excel sheet, where several hold rows |

Rows are dropped only as the map says, and a warning states their number. Codes are compared as text: `1`, `1.0` and
`"1"` are one code, and so are `TRUE` and `true`. Knows nothing of any particular data set.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.judgements.faults import Faults
from reward_models.judgements.raking import rake_judgements
from reward_models.judgements.records import Judgements
from reward_models.judgements.spelling import plain_number
from reward_models.judgements.validation import canonicalise
from reward_models.sources.codes import TableReading, count_codes
from reward_models.sources.column_map import MAP_KEYS, load_map
from reward_models.sources.formats.cells import Cells
from reward_models.sources.formats.files import existing_file, read_cells
from reward_models.sources.layouts import judgement_rows
from reward_models.sources.recoding import Recoder
from reward_models.sources.renaming import source_columns, unknown_columns
from reward_models.sources.suggestion import suggest_wide
from reward_models.sources.wide import question_settings


__all__ = ["MAP_KEYS", "load_table", "read_table"]

_NUMBERS = ("rating", "rater_weight", "count", "n")


def load_table(
    path: str | Path, columns: Mapping[str, Any] | str | Path | None = None, *, duplicates: str | None = None
) -> Judgements:
    r"""Read judgements from a file.

    Args:
        path: A `.csv`, `.tsv`, `.txt`, `.jsonl`, `.parquet`, `.xlsx`, `.sav` or `.dta` file; text files may end in
            `.gz`. Excel, SPSS and Stata files need the extra `files`.
        columns: The column map, as a mapping or as the path of a YAML file, with the keys of the table in the module's
            docstring; None if the columns have canonical names already (or are TRL's `chosen` and `rejected`) and
            answers are the texts of options.
        duplicates: What to do where a rater judged an item more than once: `"refuse"`, keep the `"first"` or the
            `"last"` judgement, or `"drop"` all of them; None as the map says, which refuses by default.

    Returns:
        The validated judgements.

    Raises:
        FileNotFoundError: If the file or the map does not exist.
        MissingExtraError: If the file needs the extra `files`, and it is not installed.
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
    cells = read_cells(path, mapping.get("encoding"), mapping.get("separator"), mapping.get("sheet"))
    unknown = unknown_columns(source_columns(mapping), cells)
    if unknown:
        fix = f"Fix: choose from: {', '.join(map(repr, cells.frame.columns))}."
        head = f"the column map does not fit {path}:"
        raise _with_wide_map("\n  ".join([head, *unknown, fix]), cells, mapping)
    recoder = Recoder(mapping)
    frame, missing = judgement_rows(cells, mapping, recoder, path.name)
    notes = recoder.unmatched()
    for sentence in notes:
        warnings.warn(f"{path.name}: {sentence}", JudgementWarning, stacklevel=3)
    codes = frame.pop("code") if "code" in frame else None
    frame = _numbers(frame, mapping)
    levels = mapping.get("levels")
    if "bins" in mapping:
        codes, levels = _binned(frame, mapping["bins"], path.name), range(1, len(mapping["bins"]))
    try:
        canonical = canonicalise(
            frame,
            mapping.get("kind", "preference" if mapping.get("layout") in ("ranking", "best_worst") else None),
            levels,
            duplicates=duplicates or mapping.get("duplicates", "refuse"),
            index=mapping.get("index") if mapping.get("layout") != "best_worst" else None,
        )
    except JudgementError as error:
        hints = [f"  note: {sentence}" for sentence in notes]
        if columns is None:
            hints.append(
                "  Or pass a column map (columns), which says what the columns and the codes of the file are."
            )
        origin = f"{path.name}, read without a column map: " if columns is None else ""
        raise _with_wide_map("\n".join([f"{origin}{error}", *hints]), cells, mapping) from error
    judgements = Judgements(canonical.kind, canonical.frame, canonical.levels)
    if mapping.get("margins"):
        judgements = rake_judgements(judgements, mapping["margins"])
    answer = {"rating": "rating", "soft": None}.get(canonical.kind, "choice")
    if answer is None or codes is None:
        return TableReading(
            judgements, path.name, missing=missing, origin=_origin(mapping, canonical.kind, len(cells.frame))
        )
    counts = count_codes(judgements, codes.iloc[canonical.rows])
    return TableReading(judgements, path.name, _answer_columns(cells, mapping, answer), counts, missing)


def _with_wide_map(message: str, cells: Cells, mapping: Mapping[str, Any]) -> JudgementError:
    """Return the error; for a wide file that was read as a long one, with the map to paste as its note."""
    sentence, column_map = suggest_wide(cells, mapping) if mapping.get("layout", "long") == "long" else ("", "")
    error = JudgementError(f"{message}\n  {sentence}" if sentence else message)
    if column_map:
        error.add_note(column_map)
    return error


def _origin(mapping: Mapping[str, Any], kind: str, rows: int) -> str:
    """Return what the judgements of a layout without a column of answers were made of."""
    if mapping.get("layout") == "best_worst":
        return f"the pairs of {rows:,} best-worst choices"
    if mapping.get("layout") == "ranking":
        parts = (
            "choices of the best, then of the best of the rest," if mapping.get("kind") == "choice" else "every pair"
        )
        return f"{parts} of {rows:,} rankings"
    return ""


def _answer_columns(cells: Cells, mapping: Mapping[str, Any], answer: str) -> tuple[str, ...]:
    if mapping.get("layout") == "wide":
        return tuple(question_settings(mapping, cells))
    return tuple(source_columns(mapping).get(answer, [answer]))


def _binned(frame: pd.DataFrame, edges: Sequence[float], name: str) -> pd.Series:
    """Replace ratings by the numbers of their bins, in place; return (N,) the bins as texts.

    A bin has its lower edge, the last one its upper edge, too.
    """
    if "rating" not in frame:
        raise JudgementError(f"{name}: bins: there is no column 'rating'. Fix: add it under columns.")
    ratings = pd.to_numeric(frame["rating"], errors="coerce")
    faults = Faults(len(frame))
    outside = ratings.notna() & ~ratings.between(edges[0], edges[-1])
    reason = f"is outside the bins, {edges[0]:g} to {edges[-1]:g}"
    faults.add(outside.to_numpy(), "rating", frame["rating"].tolist(), reason, "correct it, or add it to missing")
    faults.raise_if_any()
    number = np.minimum(np.searchsorted(edges, ratings.to_numpy(), side="right"), len(edges) - 1)
    frame["rating"] = frame["rating"].where(ratings.isna(), number)
    names = [f"{low:g} to below {high:g}" for low, high in itertools.pairwise(edges)]
    names[-1] = f"{edges[-2]:g} to {edges[-1]:g}"
    return pd.Series([names[place - 1] for place in number], index=frame.index, dtype=object)


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
