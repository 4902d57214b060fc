"""Read a CSV, TSV, JSONL, Parquet, Excel, SPSS or Stata file into cells of text: no type is guessed.

A cell is text, None (empty), or a list or mapping of such cells. Numbers keep the digits that the file has: `007`,
`12e4` and integers of twenty digits stay what they are. The separator and a compressed file (`.gz`) are recognised.
Knows nothing of judgements.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reward_models.borders import path_fault
from reward_models.errors import JudgementError, MissingExtraError, did_you_mean
from reward_models.judgements.spelling import one_form
from reward_models.sources.formats.cells import Cells, cell_text
from reward_models.sources.formats.excel import EXCEL, read_excel
from reward_models.sources.formats.labelled_files import LABELLED, read_labelled
from reward_models.sources.formats.qualtrics import without_title_rows


__all__ = ["SUFFIXES", "existing_file", "read_cells"]

_TEXTS = (".csv", ".tsv", ".txt", ".jsonl")
SUFFIXES = (*_TEXTS, ".parquet", *EXCEL, *LABELLED)
"""File types that `read_cells` reads; those of text may be compressed (`.csv.gz`)."""
_OTHERS = {
    ".xls": "save it as .xlsx",
    ".ods": "save it as .xlsx",
    ".por": "save it as .sav",
    ".sas7bdat": "export it as .csv",
    ".rds": "write it as .csv or .parquet",
    ".rdata": "write it as .csv or .parquet",
    ".json": "write one record per line (.jsonl)",
}
_SEPARATORS = (",", ";", "\t", "|")
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SAMPLE = 50
_HALF = re.compile("[\ud800-\udfff]")


def read_cells(
    path: Path, encoding: str | None = None, separator: str | None = None, sheet: str | int | None = None
) -> Cells:
    r"""Read a file as a table of text cells.

    Args:
        path: A file with one of the endings `SUFFIXES`, in any case; `.csv`, `.tsv`, `.txt` and `.jsonl` may be
            compressed (`.csv.gz`).
        encoding: Encoding of a text file; None for UTF-8, or UTF-16 with its byte order mark. Of an SPSS or Stata
            file: None for what the file states.
        separator: Separator of a `.csv`, `.tsv` or `.txt` file; None to recognise comma, semicolon, tab or bar.
        sheet: Name or number (from 1) of an Excel sheet; None if one sheet only holds rows.

    Returns:
        The cells. An empty text is None. The two further rows of titles of a Qualtrics export are no rows; see
        `qualtrics`.

    Raises:
        JudgementError: The file is of another type, cannot be read, or has a column twice.
        MissingExtraError: The file is of Excel, SPSS or Stata, and what reads it is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "votes.csv"
        ...     size = path.write_text("person;vote\n007;1,5\n7;\n")
        ...     read_cells(path).frame.to_dict("list")
        {'person': ['007', '7'], 'vote': ['1,5', None]}
    """
    suffix = _suffix(path)
    if sheet is not None and suffix not in EXCEL:
        raise JudgementError(f"sheet: {path.name!r} has no sheets. Fix: leave sheet out.")
    try:
        if suffix in LABELLED:
            cells = read_labelled(path, encoding)
        elif suffix in EXCEL:
            cells = read_excel(path, sheet)
        elif suffix == ".parquet":
            cells = _table(_from_parquet(path))
        elif suffix == ".jsonl":
            cells = _table(_from_records(_json_lines(_decoded(path, encoding))))
        else:
            cells = _table(_from_rows(_decoded(path, encoding), separator, "," if suffix == ".csv" else "\t"))
    except JudgementError:
        raise
    except (ValueError, OSError, EOFError, csv.Error) as error:
        if isinstance(error, MissingExtraError):
            raise
        raise JudgementError(f"{path} cannot be read as {suffix}: {error}. Fix: check the file.") from error
    names = [one_form(str(name).strip()) for name in cells.frame.columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise JudgementError(f"{path} has the column {twice[0]!r} more than once. Fix: rename or remove one of them.")
    cells.frame.columns = pd.Index(names, dtype=object)
    return cells if suffix in LABELLED else without_title_rows(cells, path.name)


def _suffix(path: Path) -> str:
    """Return the type of a file, or raise with what to do about a type that is not read."""
    name = path.name.lower()
    whole = name.removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if whole.endswith(suffix)), None)
    if suffix is None:
        fix = next((fix for other, fix in _OTHERS.items() if whole.endswith(other)), "convert it to one of them")
        raise JudgementError(f"{path.name!r} is none of {', '.join(SUFFIXES)}. Fix: {fix}.")
    if whole != name and suffix not in _TEXTS:
        raise JudgementError(f"{path.name!r} is compressed. Fix: unpack it; only text files are read from .gz.")
    return suffix


def _table(columns: list[tuple[str, list[Any]]]) -> Cells:
    # Not from a mapping: a name may be there twice, which the caller refuses.
    frame = pd.DataFrame({place: pd.Series(cells, dtype=object) for place, (_, cells) in enumerate(columns)})
    frame.columns = pd.Index([name for name, _ in columns], dtype=object)
    return Cells(frame)


def existing_file(path: Path) -> Path:
    """Return the path, or raise if there is no such file.

    Raises:
        FileNotFoundError: With the closest name in that folder.

    Example:
        >>> existing_file(Path("votes-that-nobody-cast.csv"))
        Traceback (most recent call last):
        FileNotFoundError: votes-that-nobody-cast.csv does not exist. Fix: check the path.
    """
    if not path.is_file():
        if fault := path_fault(path):
            raise FileNotFoundError(f"there is no such file, or {fault}.")
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path} does not exist.{did_you_mean(path.name, siblings)} Fix: check the path.")
    return path


def _decoded(path: Path, encoding: str | None) -> str:
    """Return the text of a file, or raise with the encodings that might fit."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    mark = next((name for bom, name in _BOMS.items() if content.startswith(bom)), None)
    try:
        return content.decode(encoding or mark or "utf-8").removeprefix("\ufeff")
    except LookupError as error:
        raise JudgementError(f"encoding: {encoding!r} is not an encoding. Fix: e.g. utf-8 or windows-1252.") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        known = f"{path} is not {encoding or mark or 'UTF-8'}: byte 0x{content[error.start]:02x} in line {line}."
        start, end = max(content.rfind(b"\n", 0, error.start) + 1, error.start - 20), error.start + 20
        cut = content[start:end].splitlines()[0].decode("windows-1252", errors="replace")
        raise JudgementError(
            f"{known} In windows-1252 it reads {cut!r}. Fix: state `encoding: windows-1252` (or latin-1, or what the "
            "program that wrote the file calls it) in the column map, or save the file as UTF-8."
        ) from error


def _from_rows(text: str, separator: str | None, usual: str) -> list[tuple[str, list[Any]]]:
    """Return the columns of a text with separated fields; the first row names them."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        separator = separator or _separator(text, usual)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise ValueError("it is empty")
    header, *body = rows
    width = len(header)
    if body and all(len(row) == width + 1 for row in body):
        # R's row names have no title; some programs end each row, but not the titles, with a separator.
        drop = -1 if all(row[-1] == "" for row in body) else 0
        for row in body:
            del row[drop]
    for number, row in enumerate(body, 2):
        if len(row) > width:
            raise ValueError(
                f"row {number} has {len(row)} fields, and the first row names {width}; a text that holds the "
                f"separator {separator!r} needs quotes"
            )
    names = [title if title.strip() else f"Unnamed: {place}" for place, title in enumerate(header)]
    return [
        (name, [(row[place] if place < len(row) else "") or None for row in body]) for place, name in enumerate(names)
    ]


def _separator(text: str, usual: str) -> str:
    """Return the separator that cuts the first rows into the same number of fields, the more fields the better."""
    best, most = usual, 1
    titles: dict[str, int] = {}
    for candidate in dict.fromkeys((usual, *_SEPARATORS)):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=candidate)
        widths: list[int] = [len(row) for row, _ in zip(reader, range(_SAMPLE), strict=False) if row] or [0]
        header, body = widths[0], widths[1:]
        # Rows may have one field more than there are titles; see `_from_rows`.
        if header > most and len({*body}) <= 1 and all(width - header in (0, 1) for width in body):
            best, most = candidate, header
        titles[candidate] = header
    if most == 1 and titles[usual] == 1:
        return max(titles, key=lambda name: titles[name])  # rows at fault are named later
    return best


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            # Numbers stay the text that the file has.
            record = json.loads(line, parse_int=str, parse_float=str)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from error
        except RecursionError as error:
            raise ValueError(f"line {number} has brackets in brackets without end") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is not a mapping from column to value")
        if "\\ud" in line.lower() and _HALF.search(json.dumps(record, ensure_ascii=False)):
            raise ValueError(f"line {number} holds half of a character (such as \\ud83d), which is no text")
        yield record


def _from_records(records: Iterator[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    rows = list(records)
    names = dict.fromkeys(name for row in rows for name in row)
    return [(name, [cell_text(row.get(name)) for row in rows]) for name in names]


def _from_parquet(path: Path) -> list[tuple[str, list[Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    # Not through pandas, which makes floats of integers where there is a gap.
    table = parquet.ParquetFile(path).read()
    columns = []
    for name in table.column_names:
        values = table[name].to_pylist()
        if pa.types.is_float32(table[name].type) or pa.types.is_float16(table[name].type):
            values = [None if value is None else float(str(np.float32(value))) for value in values]
        if not name.startswith("__index_level_"):
            columns.append((name, [cell_text(value) for value in values]))
    return columns
