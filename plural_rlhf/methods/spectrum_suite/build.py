"""Tasks of the Spectrum Suite as files: one JSON Lines file per task, and a list of what was built and what not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plural_rlhf.methods.spectrum_suite.catalogue import Catalogue, SuiteTask
from plural_rlhf.methods.spectrum_suite.data import SuiteData, SuiteDataMissing
from reward_models.progress import track
from reward_models.whole_file import write_json, write_json_lines


__all__ = ["BuiltTask", "build_tasks"]


@dataclass(frozen=True)
class BuiltTask:
    """What became of a task.

    Attributes:
        task: Its name.
        split: train or test.
        source: Title of its source.
        licence: Of its source.
        file: The file below the output folder; "" if it could not be built.
        sequences: Sequences in the file.
        examples: Examples of all of them.
        reason: Why it could not be built; "" if it was.
    """

    task: str
    split: str
    source: str
    licence: str
    file: str = ""
    sequences: int = 0
    examples: int = 0
    reason: str = ""


def build_tasks(tasks: Sequence[SuiteTask], catalogue: Catalogue, out: str | Path, data: SuiteData) -> list[BuiltTask]:
    """Write `<split>/<task>.jsonl` per task, and `suite.json` with what was built, its licences and what is missing.

    Args:
        tasks: The tasks; those whose data is not there are named in the result, with the reason.
        catalogue: Where their sources stand.
        out: Folder for the files; made if it does not exist.
        data: Where data is and how much is used.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.methods.spectrum import read_sequences
        >>> from plural_rlhf.methods.spectrum_suite import read_catalogue
        >>> catalogue = read_catalogue()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tasks = catalogue.choose(["coin", "netflix-ratings"])
        ...     coin, netflix = build_tasks(tasks, catalogue, folder, SuiteData("nowhere", sequences=4))
        ...     len(read_sequences(Path(folder, coin.file)))
        4
        >>> netflix.reason
        'task netflix-ratings: there is no file nowhere/...'
    """
    out = Path(out)
    built = []
    for task in track(list(tasks), "building tasks"):
        source = catalogue.sources[task.source]
        row = BuiltTask(task.name, task.split, source.title, source.licence)
        try:
            sequences = task.sequences(data)
        except SuiteDataMissing as error:
            built.append(BuiltTask(**{**asdict(row), "reason": str(error)}))
            continue
        name = f"{task.split}/{task.name}.jsonl"
        write_json_lines(out / name, (sequence.to_dict() for sequence in sequences))
        examples = sum(len(sequence.examples) for sequence in sequences)
        built.append(BuiltTask(**{**asdict(row), "file": name, "sequences": len(sequences), "examples": examples}))
    write_json(
        out / "suite.json",
        {"settings": {**asdict(data), "folder": str(data.folder)}, "tasks": [asdict(row) for row in built]},
    )
    return built
