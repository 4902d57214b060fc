"""Open a release, in local files or on the Hub, and yield its records as dictionaries.

CSV, TSV, JSON, JSON lines (gzipped or not) and Parquet are read in pieces where the format allows it, so that a limit
also limits the time. Values stay as the file has them: text in CSV, numbers and lists elsewhere. Knows nothing of any
particular release.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from reward_models.errors import JudgementError, did_you_mean


__all__ = [
    "TABLES",
    "Record",
    "Source",
    "beside",
    "check_columns",
    "files",
    "open_source",
    "read_below",
    "read_file",
    "records",
]

Record = dict[str, Any]
TABLES = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.json", "*.csv", "*.tsv")
"""File names of a release whose tables have no fixed names."""

_READABLE = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Where a release is read from: a local path, or else an id on the Hub.

    Attributes:
        release: Name of the release, for messages.
        path: A file or folder, None for the Hub.
        hub_id: Data set id, None for a local copy.
        limit: Records of the main table to read at most, None for all.
        streaming: Whether the Hub is read without downloading first.

    Example:
        >>> open_source("prism", "HannahRoseKirk/prism-alignment", "", None, limit=10, streaming=False)
        Source(release='prism', path=None, hub_id='HannahRoseKirk/prism-alignment', limit=10, streaming=True)
    """

    release: str
    path: Path | None
    hub_id: str | None
    limit: int | None
    streaming: bool


def open_source(
    release: str, own_id: str | None, url: str, source: str | Path | None, limit: int | None, streaming: bool
) -> Source:
    """Decide what `source` means: an existing path, an id on the Hub, or (None) the release's own id.

    Args:
        release: Name of the release, for messages.
        own_id: The release's id on the Hub, None if it has none.
        url: Where the release is described.
        source: What the user passed.
        limit: Records of the main table to read at most, None for all.
        streaming: Whether to read the Hub without downloading first; a limit implies it.

    Raises:
        FileNotFoundError: If it looks like a path and does not exist.
        JudgementError: If there is no source and the release is not on the Hub, or the limit is not positive.

    Example:
        >>> open_source("polis", None, "https://github.com/compdemocracy/openData", None, None, streaming=False)
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 'polis' is not published on the Hub. Fix: get it from https://...
    """
    if limit is not None and limit < 1:
        raise JudgementError(f"limit={limit} reads nothing. Fix: give a positive number, or None for all.")
    if source is None:
        if own_id is None:
            raise JudgementError(
                f"{release!r} is not published on the Hub. Fix: get it from {url} and pass source= the file or folder."
            )
        return Source(release, None, own_id, limit, streaming or limit is not None)
    path = Path(source).expanduser()
    if path.exists():
        return Source(release, path, None, limit, streaming)
    looks_local = isinstance(source, Path) or path.is_absolute() or path.suffix in {*_READABLE, ".gz", ".xml"}
    if looks_local or not _HUB_ID.fullmatch(str(source)):
        beside_it = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"{path} does not exist.{did_you_mean(path.name, beside_it)} Fix: check the path; {release!r} is "
            f"described at {url}."
        )
    return Source(release, None, str(source), limit, streaming or limit is not None)


def files(source: Source, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a local release: the path itself if it is a file, else those of the first pattern that fits.

    Args:
        source: A local source.
        patterns: Names in order of preference, at any depth. Later ones are used only if no file has an earlier name,
            so that copies of a table in two formats are not read twice.

    Returns:
        The files, sorted.

    Raises:
        JudgementError: If the source is the Hub, which has no such files, or no file matches.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.csv", "a.parquet", "b.csv"):
        ...         (Path(folder) / name).touch()
        ...     source = open_source("mine", None, "", folder, None, streaming=False)
        ...     [path.name for path in files(source, ("*.jsonl", "*.csv", "*.parquet"))]
        ['a.csv', 'b.csv']
    """
    if source.path is None:
        raise JudgementError(
            f"{source.release!r} cannot be read from the Hub ({source.hub_id!r}). Fix: pass source= a local copy."
        )
    if source.path.is_file():
        return [source.path]
    for pattern in patterns:
        if matches := sorted(path for path in source.path.rglob(pattern) if path.is_file()):
            return matches
    there = sorted(p.name for p in source.path.iterdir())
    shown = ", ".join(map(repr, there[:10])) + (", ..." if len(there) > 10 else "") if there else "nothing"
    raise JudgementError(
        f"{source.path} holds no {' or '.join(patterns)} of the release {source.release!r}; it holds {shown}. "
        "Fix: pass the folder as it was published, or the file itself."
    )


def beside(source: Source, pattern: str) -> Path | None:
    """Return a companion file of a local release (a survey, a description of raters), or None.

    Args:
        source: Where the release is read; on the Hub there is no companion.
        pattern: Name of the file: in the folder of the source's file, or at any depth of the source's folder.
    """
    if source.path is None:
        return None
    folder = source.path.parent if source.path.is_file() else source.path
    return next(iter(sorted(folder.glob(pattern) if source.path.is_file() else folder.rglob(pattern))), None)


def records(
    source: Source, patterns: Sequence[str], columns: Sequence[str], *, limited: bool = True, **hub: Any
) -> Iterator[Record]:
    r"""Read the records of one table of a release.

    Args:
        source: Where to read.
        patterns: Names of the files in a local folder.
        columns: Columns that the table must have; checked on the first record of every file.
        limited: Whether `source.limit` holds for this table.
        hub: Arguments of `datasets.load_dataset` (name, split, data_dir, revision); the split is `train` by default.

    Raises:
        JudgementError: If the Hub cannot be read, files are missing or unreadable, or a column is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "a.csv").write_text("rater,vote\nann,1\nbob,-1\ncy,0\n")
        ...     source = open_source("mine", None, "", folder, limit=2, streaming=False)
        ...     list(records(source, TABLES, ("rater", "vote")))
        [{'rater': 'ann', 'vote': '1'}, {'rater': 'bob', 'vote': '-1'}]
    """
    if source.path is None:
        table = _checked(_from_hub(source, **({"split": "train"} | hub)), f"{source.hub_id} on the Hub", columns)
    else:
        table = itertools.chain.from_iterable(read_file(path, columns) for path in files(source, patterns))
    return itertools.islice(table, source.limit) if limited else table


def read_file(path: Path, columns: Sequence[str] = ()) -> Iterator[Record]:
    """Read the records of a file by its suffix.

    A JSON file may hold a list of records, a mapping of ids to records (the id becomes the field `id` unless there is
    one), or one record per line.

    Args:
        path: A `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` file; the text formats may be gzipped (`.gz`).
        columns: Columns that the file must have.

    Raises:
        JudgementError: If the suffix is unknown, the file cannot be parsed or a column is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.json"
        ...     size = path.write_text('{"7": {"text": "Hi"}, "8": {"text": "Ho"}}')
        ...     list(read_file(path, ("text",)))
        [{'id': '7', 'text': 'Hi'}, {'id': '8', 'text': 'Ho'}]
    """
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _READABLE:
        raise JudgementError(f"{path.name!r} is none of {', '.join(_READABLE)}. Fix: convert it to one of them.")
    reader = {".json": _from_json, ".jsonl": _from_lines, ".parquet": _from_parquet}.get(suffix, _from_csv)
    return _checked(_parsed(path, reader(path)), str(path), columns)


def read_below(path: Path, columns: Sequence[str], preamble: dict[str, str] | None = None) -> Iterator[Record]:
    r"""Read a CSV file whose table stands below lines about the file, one name and value each.

    Args:
        path: The file.
        columns: Columns that the table must have; the first row that has them all is its header.
        preamble: Receives the names and values above the table.

    Yields:
        Records as in `read_file`: text, None for an empty cell; of columns with equal names the first.

    Raises:
        JudgementError: If no row has these columns, or the file is no text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "votes.csv"
        ...     size = path.write_text('"Title","Benches"\n\n"Person","Vote"\n"ann","yes"\n')
        ...     about = {}
        ...     list(read_below(path, ("Person", "Vote"), about)), about
        ([{'Person': 'ann', 'Vote': 'yes'}], {'Title': 'Benches'})
    """
    header: list[str] | None = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.reader(lines):
                if header is None:
                    if set(columns) <= set(row):
                        header = row
                    elif preamble is not None and len(row) > 1 and row[0]:
                        preamble[row[0]] = row[1]
                elif any(row):
                    record: Record = {}
                    for name, cell in itertools.zip_longest(header, row[: len(header)]):
                        if name:
                            record.setdefault(name, cell or None)
                    yield record
    except (UnicodeDecodeError, csv.Error) as error:
        raise JudgementError(f"{path} cannot be read: {error}. Fix: check that the download is whole.") from error
    if header is None:
        raise JudgementError(
            f"no row of {path} has the columns {', '.join(map(repr, columns))}. Fix: pass the release as it was "
            "published; for a table of your own use load_table."
        )


def _parsed(path: Path, table: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from table
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise JudgementError(f"{path} cannot be read: {error}. Fix: check that the download is whole.") from error


def _checked(table: Iterator[Record], name: str, columns: Sequence[str]) -> Iterator[Record]:
    first = next(table, None)
    if first is not None:
        check_columns(first, name, columns)
        yield first
        yield from table


def check_columns(record: Record, name: str, columns: Sequence[str]) -> None:
    """Raise if a record lacks a column.

    Args:
        record: The first record of a table.
        name: Name of the table, for the message.
        columns: Columns that it must have.

    Raises:
        JudgementError: With the table, the missing columns and those that it has.

    Example:
        >>> check_columns({"rater": "ann", "votes": 1}, "a.csv", ("rater", "vote"))
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 'vote' is not a column of a.csv. Did you mean 'votes'? It has ...
    """
    missing = [column for column in columns if column not in record]
    if missing:
        hints = " ".join(f"{column!r} is not a column of {name}.{did_you_mean(column, record)}" for column in missing)
        fix = "pass the release as it was published; for a table of your own use load_table"
        raise JudgementError(f"{hints} It has {', '.join(map(repr, record))}. Fix: {fix}.")


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8-sig")


def _from_csv(path: Path) -> Iterator[Record]:
    # Everything is text and only an empty cell is missing: "NA" and "None" are words that people write.
    separator = "\t" if ".tsv" in path.suffixes else ","
    with pd.read_csv(
        path, sep=separator, dtype=str, keep_default_na=False, na_values=[""], chunksize=10_000, encoding="utf-8-sig"
    ) as chunks:
        for chunk in chunks:
            names = [str(name) for name in chunk]
            cells = chunk.astype(object).where(chunk.notna(), None)
            yield from (dict(zip(names, row, strict=True)) for row in cells.itertuples(index=False, name=None))


def _from_lines(path: Path) -> Iterator[Record]:
    with _open(path) as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _from_json(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        first, second = file.readline(), file.readline()
    try:
        one_a_line = bool(second.strip()) and isinstance(json.loads(first), dict)
    except json.JSONDecodeError:
        one_a_line = False
    if one_a_line:
        yield from _from_lines(path)
        return
    with _open(path) as file:
        text = file.read()
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        # Some releases end their lists with a comma, as JavaScript allows.
        whole = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
    if isinstance(whole, dict) and whole and all(isinstance(value, dict) for value in whole.values()):
        yield from ({"id": key} | value for key, value in whole.items())
    else:
        yield from whole if isinstance(whole, list) else [whole]


def _from_parquet(path: Path) -> Iterator[Record]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path).iter_batches(batch_size=1_000):
        yield from batch.to_pylist()


def _from_hub(source: Source, **hub: Any) -> Iterator[Record]:
    import datasets

    assert source.hub_id is not None
    try:
        yield from datasets.load_dataset(source.hub_id, streaming=source.streaming, **hub)
    except Exception as error:
        # No network, a gated or renamed data set, a removed loading script: whatever it is, the way out is the same.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise JudgementError(
            f"{source.hub_id!r} cannot be read from the Hub ({reason}). Fix: check the network and the terms of the "
            f"data set, or download it elsewhere and pass load_release({source.release!r}, source='path/to/copy')."
        ) from error
