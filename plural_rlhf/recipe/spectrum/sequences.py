"""The sequences of a run: those that are imitated and those that are held out, with no source in both.

Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence, read_sequences
from plural_rlhf.methods.spectrum_suite import Catalogue, SuiteData, SuiteTask, read_catalogue
from plural_rlhf.recipe.spectrum.config import SpectrumData
from plural_rlhf.settings.faults import ConfigError


__all__ = ["RunSequences", "load_run_sequences"]


@dataclass(frozen=True)
class RunSequences:
    """Sequences of a run, by task; a file counts as a task of its name.

    Attributes:
        train: What is imitated.
        heldout: What is measured.
        dropped: Training tasks that share a source with a held-out one, and were left out.
    """

    train: dict[str, list[SpectrumSequence]]
    heldout: dict[str, list[SpectrumSequence]]
    dropped: list[str]


def load_run_sequences(section: SpectrumData, seed: int) -> RunSequences:
    """Build the tasks and read the files of a run.

    Args:
        section: Section `data` of the run file.
        seed: Random seed.

    Raises:
        ConfigError: A task is unknown, trained on and held out, or empty, or nothing is left to train on.
        SuiteDataMissing: The data of a task that is named is not there.

    Example:
        >>> section = SpectrumData(tasks=["coin", "urn-hidden"], heldout=["urn"], sequences=3, heldout_sequences=2)
        >>> loaded = load_run_sequences(section, seed=0)
        >>> {task: len(sequences) for task, sequences in loaded.train.items()}, loaded.dropped
        ({'coin': 3}, ['urn-hidden'])
    """
    catalogue = read_catalogue(section.catalogue)
    heldout = _tasks(section.heldout, "test", catalogue, section.folder)
    train = _tasks(section.tasks, "train", catalogue, section.folder)
    both = [task.name for task in train if task in heldout]
    if both:
        raise ConfigError("data", [f"heldout = {both[0]!r}: it is in `tasks` too. Fix: name it in one of them only"])
    sources = {task.source for task in heldout}
    dropped = [task.name for task in train if task.source in sources and section.same_source == "drop"]
    used = [task for task in train if task.name not in dropped]
    data = SuiteData(section.folder, section.sequences, section.examples, seed)
    measured = SuiteData(section.folder, section.heldout_sequences, section.examples, seed + 1)
    loaded = RunSequences(
        {task.name: task.sequences(data) for task in used} | _files(section.files),
        {task.name: task.sequences(measured) for task in heldout} | _files(section.heldout_files),
        dropped,
    )
    for which, of_split in (("tasks", loaded.train), ("heldout", loaded.heldout)):
        empty = [name for name, sequences in of_split.items() if not sequences]
        if empty:
            raise ConfigError(
                "data", [f"{which}: the task {empty[0]!r} has no sequence. Fix: check its file, or leave it out"]
            )
    if not loaded.train:
        because = f" ({', '.join(dropped)} share a source with a held-out task)" if dropped else ""
        raise ConfigError("data", [f"tasks: nothing is left to train on{because}. Fix: name other tasks or files"])
    return loaded


def _tasks(names: Sequence[str], split: str, catalogue: Catalogue, folder: Path) -> list[SuiteTask]:
    """Return the tasks that are named; the name of a split stands for its tasks whose data is here."""
    chosen: dict[str, SuiteTask] = {}
    for name in names:
        if name == split:
            found = catalogue.choose(split=split, present_in=folder)
        else:
            found = catalogue.choose([name])
        chosen |= {task.name: task for task in found}
    return list(chosen.values())


def _files(paths: Sequence[Path]) -> dict[str, list[SpectrumSequence]]:
    return {path.stem: read_sequences(path) for path in paths}
