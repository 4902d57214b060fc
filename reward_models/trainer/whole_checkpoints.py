"""Which checkpoint a training may resume from: one that was written to its end, with every file as it was written.

A checkpoint of a trainer here has a JSON file that is written last and lists its other files. Knows nothing of what
they hold.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from reward_models.content_hashes import FileRecord, changed_files, folder_records


__all__ = ["FILES", "Resume", "checkpoint_fault", "checkpoint_files", "resumed_checkpoint"]

Resume = bool | str | os.PathLike[str] | None
"""What `Trainer.train` takes as `resume_from_checkpoint`."""

FILES = "files"
"""Key of the list of files in the file that is written last."""


def checkpoint_files(folder: Path, last: str) -> dict[str, FileRecord]:
    """Return size and SHA-256 of every file of a checkpoint, weights and all: about a second per gigabyte.

    Args:
        folder: The checkpoint.
        last: Name of the file that is written last and will hold this list.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "memory.pt").write_bytes(b"abc")
        ...     checkpoint_files(Path(folder), "state.json")["memory.pt"]["size"]
        3
    """
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    names = {path.relative_to(folder).as_posix() for path in files} - {last}
    return folder_records(folder, names)


def checkpoint_fault(folder: Path, last: str) -> str | None:
    """Return what is wrong with a checkpoint, in a few words; None if it was written to its end and is undamaged.

    Args:
        folder: The checkpoint.
        last: Name of the file that was written last. One of an older version lists no files; then none is checked.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     size = (folder / "memory.pt").write_bytes(b"abc")
        ...     cut_short = checkpoint_fault(folder, "state.json")
        ...     size = (folder / "state.json").write_text(json.dumps({FILES: checkpoint_files(folder, "state.json")}))
        ...     whole = checkpoint_fault(folder, "state.json")
        ...     (folder / "memory.pt").unlink()
        ...     print(cut_short, whole, checkpoint_fault(folder, "state.json"), sep="; ")
        it has no state.json, which is written last: it was cut short, or another trainer wrote it; None;
        its file memory.pt is not as it was written: it is missing
    """
    if not (folder / last).is_file():
        return f"it has no {last}, which is written last: it was cut short, or another trainer wrote it"
    try:
        state = json.loads((folder / last).read_text(encoding="utf-8"))
        files = state.get(FILES, {}) if isinstance(state, Mapping) else None
        if not isinstance(files, Mapping):
            return f"its {last} is damaged: it does not say which files there are"
        # Earlier versions knew files above 64 MB by their size alone.
        hashed = {name: record for name, record in files.items() if record["sha256"] is not None}
        faults = changed_files(folder, hashed)
        faults |= changed_files(folder, {n: r for n, r in files.items() if n not in hashed}, contents=False)
    except (ValueError, TypeError, KeyError) as error:
        return f"its {last} is damaged: {error}"
    for name, fault in faults.items():
        return f"its file {name} is not as it was written: {fault}"
    return None


def resumed_checkpoint(resume: Resume, output_dir: str | None, fault_of: Callable[[Path], str | None]) -> Path | None:
    """Return the checkpoint that training resumes from; warn of later ones that are left out because of a fault.

    Args:
        resume: What `train` was given.
        output_dir: Where the last whole checkpoint is sought if `resume` is True.
        fault_of: Returns what is wrong with a checkpoint, or None.

    Returns:
        The folder; None where training starts afresh, or `resume` is no folder, which `Trainer` then refuses.

    Raises:
        ValueError: The checkpoint that was named, or every one there is, has a fault.

    Example:
        >>> import tempfile
        >>> fault_of = lambda folder: None if (folder / "end").exists() else "it was cut short"
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     for step in (9, 10):
        ...         (Path(runs) / f"checkpoint-{step}").mkdir()
        ...     (Path(runs) / "checkpoint-9" / "end").touch()
        ...     with warnings.catch_warnings(record=True) as caught:
        ...         folder = resumed_checkpoint(True, runs, fault_of)
        >>> folder.name, "checkpoint-10' is left out: it was cut short" in str(caught[0].message)
        ('checkpoint-9', True)
    """
    if not resume:
        return None
    if resume is not True:
        folder = Path(resume)
        fault = fault_of(folder) if folder.is_dir() else None
        if fault is not None:
            raise ValueError(_refusal(folder, fault, _steps(folder.parent), fault_of))
        return folder if folder.is_dir() else None
    folders = _steps(Path(output_dir)) if output_dir and Path(output_dir).is_dir() else []
    faults: list[str] = []
    for folder in folders:
        fault = fault_of(folder)
        if fault is None:
            for left_out in faults:
                warnings.warn(f"{left_out}. Training resumes from {str(folder)!r}.", stacklevel=3)
            return folder
        faults.append(f"the checkpoint {str(folder)!r} is left out: {fault}")
    if faults:
        raise ValueError(
            f"no checkpoint in {output_dir!r} is whole: {'; '.join(faults)}. Delete them and start again."
        )
    return None


def _steps(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the last step first."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.iterdir() if path.is_dir()]
    return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]


def _refusal(folder: Path, fault: str, others: list[Path], fault_of: Callable[[Path], str | None]) -> str:
    whole = next((str(path) for path in others if path.resolve() != folder.resolve() and fault_of(path) is None), None)
    advice = f"resume from {whole!r}" if whole else "start again"
    return f"the checkpoint {str(folder)!r} cannot be resumed from: {fault}. Delete it and {advice}."
