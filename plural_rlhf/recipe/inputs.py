"""The judgements that a run file names.

Knows the `data` section and the adapters of `reward_models.sources`; knows nothing of splits, models or training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plural_rlhf.recipe.settings.data import DataSection
from reward_models.errors import JudgementError


if TYPE_CHECKING:
    import numpy as np

    from reward_models.judgements.records import Judgements
    from reward_models.sources.codes import TableReading

__all__ = ["SourceData", "read_judgements", "read_other_tables", "read_source", "say_unread_tables"]


@dataclass(frozen=True)
class SourceData:
    """What the `data` section of a run file names.

    Attributes:
        judgements: The judgements, of the raters who were drawn and with their weights.
        reading: How the codes of a table were understood, and which answers are missing; None for other sources.
    """

    judgements: Judgements
    reading: TableReading | None


def read_judgements(
    data: DataSection,
    seed: int | np.random.Generator,
    show: Callable[[str], object] | None = None,
    *,
    by_rows: bool = False,
) -> Judgements:
    """Read the survey, table or release of a run; draw `max_raters` and weigh to `margins` where these are set.

    Further tables (`data.tables`) are not read, and `show` is told so.

    Args:
        data: The `data` section of the run file.
        seed: Random seed or generator of the choice of raters.
        show: Called with texts that say how the codes of a table were understood and what is not read, e.g. `print`.
        by_rows: Whether to draw from the raters as they occur, as runs of earlier versions did; else from their ids.

    Returns:
        The validated judgements.

    Raises:
        JudgementError: The data is not usable; the message lists every fault.
        FileNotFoundError: The file does not exist.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("rating", num_raters=20, num_items=6).judgements.frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "ratings.jsonl"
        ...     table.to_json(path, orient="records", lines=True)
        ...     judgements = read_judgements(DataSection(source="table", path=path, max_raters=5), seed=0)
        >>> judgements.kind, judgements.n_raters
        ('rating', 5)
    """
    judgements = read_source(data, seed, show, by_rows=by_rows).judgements
    say_unread_tables(data, show)
    return judgements


def read_source(
    data: DataSection,
    seed: int | np.random.Generator,
    show: Callable[[str], object] | None = None,
    *,
    by_rows: bool = False,
) -> SourceData:
    """Read the judgements of a run, and keep which answers are missing; see `read_judgements` for the arguments."""
    from reward_models.judgements.raking import rake_judgements
    from reward_models.seeds import seeded_rng
    from reward_models.sources import load_release, load_survey, read_table

    reading = None
    if data.source == "none":
        raise JudgementError(
            "data.source is none: there are no judgements to read. Fix: name a survey, table or release in `data`."
        )
    if data.source == "survey":
        judgements = load_survey(data.name, year=data.year, kind=data.kind)
    elif data.source == "release":
        source = None if data.path is None else str(data.path)
        judgements = load_release(data.name, source, limit=data.limit, **data.options)
    else:
        assert data.path is not None  # the section refuses source: table without a path
        reading = read_table(data.path, data.columns, duplicates=data.duplicates)
        if show is not None:
            show(str(reading))
        judgements = reading.judgements
    if data.max_raters is not None and data.max_raters < judgements.n_raters:
        raters = judgements.raters if by_rows else sorted(judgements.raters)
        kept = seeded_rng(seed, "raters of a run").choice(raters, size=data.max_raters, replace=False)
        judgements = judgements.select(judgements.frame["rater_id"].isin(kept).to_numpy())
    if data.margins:
        judgements = rake_judgements(judgements, data.margins)
    if show is not None and "rater_weight" in judgements.frame:
        show(
            f"sampling weights: {judgements.n_raters:,} raters count as {judgements.encode().effective_raters:,.1f} "
            "of equal weight (Kish)"
        )
    return SourceData(judgements, reading)


def read_other_tables(data: DataSection, show: Callable[[str], object] | None = None) -> list[Judgements]:
    """Read the further tables of a run (`data.tables`), which hold other kinds of judgements by the same raters.

    Args:
        data: The `data` section of the run file.
        show: As for `read_judgements`.

    Raises:
        JudgementError: A table is not usable; the message lists every fault.

    Example:
        >>> read_other_tables(DataSection())
        []
    """
    from reward_models.sources import load_release, read_table

    tables = []
    for section in data.tables:
        if section.release is not None:
            tables.append(load_release(section.release, str(section.path), **section.options))
            continue
        reading = read_table(section.path, section.columns, duplicates=section.duplicates)
        if show is not None:
            show(str(reading))
        tables.append(reading.judgements)
    return tables


def say_unread_tables(data: DataSection, show: Callable[[str], object] | None) -> None:
    """Say which further tables (`data.tables`) are left out where one table is used; nothing where there are none.

    Args:
        data: The `data` section of the run file.
        show: Called with the sentence; None: nothing is said.

    Example:
        >>> table = {"path": "pairs.csv"}
        >>> say_unread_tables(DataSection(source="table", path="votes.csv", tables=[table]), print)
        data.tables: 'pairs.csv' is left out, because one table is used here: that of data.path
    """
    if data.tables and show is not None:
        names = ", ".join(repr(str(table.path)) for table in data.tables)
        are = "is" if len(data.tables) == 1 else "are"
        used = "that of data.path" if data.source == "table" else f"that of the {data.source}"
        show(f"data.tables: {names} {are} left out, because one table is used here: {used}")
