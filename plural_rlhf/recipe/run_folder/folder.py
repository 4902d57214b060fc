"""The folder of a run: complete stages are kept, and a folder that holds anything else is never touched.

Each stage writes `stages/<name>.json` when it is complete, so that a run that was stopped continues after its last
complete stage. Whatever moment a process is killed at, the folder it leaves can be used again. Knows nothing of what
the stages do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plural_rlhf.recipe.run_folder.disk import explain_removal
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.recipe.run_folder.lock import HOLDER_FILE, LOCK_FILE, only_run
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord, damage
from plural_rlhf.report.names import Stage
from reward_models.evaluation.heldout import HELDOUT_FILE
from reward_models.whole_file import whole_file, whole_folder, write_json


__all__ = [
    "CONFIG_FILE",
    "HELDOUT_JURY",
    "META",
    "SAMPLES_FILE",
    "STAGES",
    "TUNED",
    "TUNED_BASE",
    "RunFolder",
    "check_folder",
    "check_reused",
    "copy_outputs",
    "kept_in",
    "open_run_folder",
]

CONFIG_FILE = "config.json"
STAGES = "stages"
TUNED = "tuned"
"""What Spectrum Tuning leaves: the adapter, or the whole model."""
TUNED_BASE = "base"
"""The base model of that adapter, where it is not the one of the run file: the chat tokens are a sibling's."""
META = "meta"
"""The adapter after tuning on people of other tables, before those of the table itself."""
CHECKPOINTS = "checkpoints"
INPUTS_FILE = "inputs.json"
_MISSING = object()
SAMPLES_FILE = "samples.jsonl"
HELDOUT_JURY = "heldout_jury"
MADE_BY_RUNS = (
    *("results.json", "report.html", "report.md", "figures", SAMPLES_FILE, HELDOUT_JURY),
    *(HELDOUT_FILE, CHECKPOINTS, META, TUNED, TUNED_BASE, *Stage),
)
"""What a run makes, besides its records and its configuration; --overwrite deletes these and nothing else."""


def check_folder(
    path: Path,
    inputs: Mapping[str, StageInputs],
    defaults: Mapping[str, Any] | None = None,
    *,
    overwrite: bool,
) -> None:
    """Raise if a run with these settings may not go on in this folder; touch nothing.

    Args:
        path: The folder.
        inputs: What each stage would read now, by stage; content that is not known yet may be missing.
        defaults: What a setting was in versions that did not have it.
        overwrite: Whether the run in the folder may be deleted.

    Raises:
        RunFolderError: The folder holds something that is not a run, or a run with other settings or data, or a record
            that is damaged.

    Example:
        >>> check_folder(Path("a folder that does not exist"), {}, overwrite=False)
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output_dir is {str(path)!r}, which is a file. Fix: give the name of a folder.")
    if not path.exists() or _is_blank(path):
        return
    # A saved model has a config.json too, and must never be deleted as if it were a run.
    if not ((path / CONFIG_FILE).exists() and (path / STAGES).is_dir()):
        raise RunFolderError(
            f"the output folder {str(path)!r} holds files but no run (no {CONFIG_FILE} beside a folder "
            f"{STAGES}), so nothing was written. Fix: choose another folder with --output."
        )
    if not overwrite:
        _check_inputs(path, inputs, defaults or {})


def check_reused(reuse: Path | None, path: Path) -> None:
    """Raise if stages are to be copied from a folder that holds no run, or from the run itself.

    Args:
        reuse: The folder to copy from; None to copy nothing.
        path: Folder of the run.

    Raises:
        RunFolderError: See above.

    Example:
        >>> check_reused(Path("no such folder"), Path("runs/second"))
        Traceback (most recent call last):
        plural_rlhf.recipe.run_folder.errors.RunFolderError: --reuse: 'no such folder' holds no run ...
    """
    if reuse is None:
        return
    if not (reuse / STAGES).is_dir():
        raise RunFolderError(
            f"--reuse: {str(reuse)!r} holds no run (no folder {STAGES}), so nothing was written. Fix: name the output "
            "folder of a run."
        )
    if reuse.resolve() == path.resolve():
        raise RunFolderError(
            f"--reuse: {str(reuse)!r} is the output folder of this run. Fix: choose another folder with --output."
        )


class RunFolder:
    """The stages of a run on disk; `open_run_folder` makes one.

    Attributes:
        path: The folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with open_run_folder(Path(parent) / "run", {"seed": 0}) as folder:
        ...         before = folder.record("jury")
        ...         _ = folder.finish("jury", StageRecord({"clusters": 2}, seconds=1.5))
        ...     with open_run_folder(Path(parent) / "run", {"seed": 0}) as folder:
        ...         before, folder.record("jury").result
        (None, {'clusters': 2})
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, stage: str) -> StageRecord | None:
        """Return the record of a complete stage, or None."""
        path = self.path / STAGES / f"{stage}.json"
        return StageRecord.read(path) if path.exists() else None

    def finish(self, stage: str, record: StageRecord) -> StageRecord:
        """Mark a stage as complete, delete its checkpoints, and return the record as a later run will read it."""
        path = self.path / STAGES / f"{stage}.json"
        record.write(path)
        self.drop_checkpoints(stage)
        return StageRecord.read(path)

    def begin(self, stage: str, inputs: StageInputs, show: Callable[[str], object] = print) -> Path:
        """Return the folder for what a stage goes on from, with a note of what the stage reads.

        What was kept for other inputs, because an earlier stage was done again since, is deleted.

        Args:
            stage: The stage.
            inputs: What it reads.
            show: Called with a sentence if what is kept is of an earlier version, which did not note all of that.
        """
        folder, now = self.path / CHECKPOINTS / stage, json.loads(json.dumps(asdict(inputs)))
        try:
            kept = json.loads((folder / INPUTS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = None
        if kept is None or kept["settings"] != now["settings"] or _differ(kept["content"], now["content"]):
            self.drop_checkpoints(stage)
        elif (unknown := StageInputs(content=kept["content"]).unknown(inputs)) and len(list(folder.iterdir())) > 1:
            show(f"{stage}: goes on from what is kept{unknown}")
        write_json(folder / INPUTS_FILE, now)
        return folder

    def drop_checkpoints(self, stage: str) -> None:
        """Delete the checkpoints of a stage, if there are any."""
        shutil.rmtree(self.path / CHECKPOINTS / stage, ignore_errors=True)
        if (self.path / CHECKPOINTS).is_dir() and not any((self.path / CHECKPOINTS).iterdir()):
            (self.path / CHECKPOINTS).rmdir()

    def check_stage(self, stage: str, now: StageInputs, written: Sequence[str]) -> None:
        """Raise if a complete stage does not go with the others, or its output was damaged.

        Args:
            stage: The stage.
            now: What it would read now.
            written: What it leaves in the folder.

        Raises:
            RunFolderError: What has changed, or is missing, and what to do.
        """
        record = self.record(stage)
        assert record is not None
        if record.inputs is not None:
            _refuse(self.path, {change: [stage] for change in record.inputs.changes(now, now.settings)}, [stage])
        if record.files is None:  # of an earlier version
            missing = [
                name for name in written if name != HELDOUT_FILE and not any((self.path / name).glob("*.safetensors"))
            ]
            if missing:
                raise RunFolderError(
                    damage(self.path, stage, f"output of the stage {stage}", f"{missing[0]}: it is missing")
                )
        record.check_files(self.path, stage)
        self.drop_checkpoints(stage)  # of a process that was killed between the record and this


@contextmanager
def open_run_folder(
    path: Path,
    config: Mapping[str, Any],
    inputs: Mapping[str, StageInputs] | None = None,
    defaults: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[RunFolder]:
    """Open the folder of a run, or make it, and keep other runs out of it while the block runs.

    Args:
        path: The folder; made if it does not exist.
        config: The resolved configuration as plain JSON.
        inputs: As for `check_folder`.
        defaults: As for `check_folder`.
        overwrite: Delete the run that it holds first; files that no run made are kept.

    Raises:
        RunFolderError: As `check_folder`, or another run is at work in the folder.
    """
    path = Path(path)
    check_folder(path, inputs or {}, defaults, overwrite=overwrite)
    path.mkdir(parents=True, exist_ok=True)
    with only_run(path):
        check_folder(path, inputs or {}, defaults, overwrite=overwrite)  # nobody else can change it from here
        if overwrite:
            _delete_run(path)
        # A kill before the configuration is written leaves nothing but an empty folder of stages: still blank.
        (path / STAGES).mkdir(exist_ok=True)
        write_json(path / CONFIG_FILE, config)
        with explain_removal(path, path / CONFIG_FILE):
            yield RunFolder(path)


def copy_outputs(source: Path, target: Path, names: Sequence[str], files: Iterable[str]) -> None:
    """Copy what a stage wrote from one run's folder into another's, each folder as a whole.

    Args:
        source: Folder of the run that has it.
        target: Folder of the run that gets it.
        names: Files and folders that the stage writes.
        files: The files, by path relative to the run's folder; what else lies beside them is not copied.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ...     (Path(one) / "warm").mkdir()
        ...     _ = (Path(one) / "warm" / "adapter_config.json").write_text("{}")
        ...     copy_outputs(Path(one), Path(other), ["warm"], ["warm/adapter_config.json"])
        ...     (Path(other) / "warm" / "adapter_config.json").read_text()
        '{}'
    """
    files = sorted(files)
    for name in names:
        inside = [Path(file).relative_to(name) for file in files if file.startswith(f"{name}/")]
        if inside:
            shutil.rmtree(target / name, ignore_errors=True)
            with whole_folder(target / name) as unfinished:
                for path in inside:
                    (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name / path, unfinished / path)
        elif name in files:
            with whole_file(target / name) as file:
                file.write((source / name).read_text(encoding="utf-8"))


def kept_in(path: Path) -> str:
    """Return a sentence that says what of a run is complete, for messages.

    Example:
        >>> kept_in(Path("a folder that does not exist"))
        'No stage is complete.'
    """
    complete = [stage.value for stage in Stage if (path / STAGES / f"{stage}.json").exists()]
    begun = []
    for folder in (path / CHECKPOINTS / stage for stage in Stage if stage not in complete):
        steps = [int(c.name.rpartition("-")[2]) for c in folder.glob("checkpoint-*[0-9]")]
        if steps:
            begun.append(f"{folder.name} up to step {max(steps)}")
        elif any(entry.name != INPUTS_FILE for entry in folder.glob("*")):
            begun.append(f"a part of {folder.name}")
    return f"Kept: {', '.join([*complete, *begun])}." if complete or begun else "No stage is complete."


def _differ(kept: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a stage that has begun read something else; what its version did not note yet does not count."""
    return any(name not in now or now[name] != digest for name, digest in kept.items())


def _is_blank(path: Path) -> bool:
    """Whether a folder holds nothing, or only what a run makes before its configuration."""
    for entry in path.iterdir():
        unfinished = entry.name.startswith(".") and entry.name.endswith(".unfinished")
        empty_stages = entry.name == STAGES and entry.is_dir() and not any(entry.iterdir())
        if not (entry.name in (LOCK_FILE, HOLDER_FILE) or unfinished or empty_stages):
            return False
    return True


def _delete_run(path: Path) -> None:
    """Delete a run in an order in which every moment leaves a folder that can be used: records first.

    The configuration stays until the new one takes its place, since without it the folder would not be known as a run.
    """
    for record in (path / STAGES).glob("*"):
        record.unlink()
    for made in (*(path / name for name in MADE_BY_RUNS), *path.glob(".*.unfinished")):
        if made.is_dir() and not made.is_symlink():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)


def _check_inputs(path: Path, inputs: Mapping[str, StageInputs], defaults: Mapping[str, Any]) -> None:
    changes: dict[str, list[str]] = {}
    for stage, now in inputs.items():
        stored = _stored_inputs(path, stage, now)
        for change in () if stored is None else stored.changes(now, defaults):
            changes.setdefault(change, []).append(stage)
    _refuse(path, changes, list(inputs))


def _refuse(path: Path, changes: Mapping[str, Sequence[str]], order: Sequence[str]) -> None:
    """Raise if there are changes, given with the stages that each concerns."""
    if not changes:
        return
    shown = "; ".join(sorted(changes)[:6]) + (f" and {len(changes) - 6} more" if len(changes) > 6 else "")
    stages = sorted({stage for affected in changes.values() for stage in affected}, key=order.index)
    raise RunFolderError(
        f"the output folder {str(path)!r} holds a run with other settings or data ({shown}), so nothing was written; "
        f"it concerns what was kept of {', '.join(stages)}. Fix: bring back what it was, --output for another folder, "
        "or --overwrite to delete that run and start over."
    )


def _stored_inputs(path: Path, stage: str, now: StageInputs) -> StageInputs | None:
    """What a stage read that is complete or has checkpoints; None if it has not begun.

    A record of an earlier version has no inputs: its settings are those of the run's configuration.
    """
    record_file, begun = path / STAGES / f"{stage}.json", path / CHECKPOINTS / stage / INPUTS_FILE
    if record_file.exists():
        inputs = StageRecord.read(record_file).inputs
        return inputs or StageInputs(_settings_of_run(path, list(now.settings)))
    if begun.exists():
        return StageInputs(**_read_json(begun, f"note {CHECKPOINTS}/{stage}/{INPUTS_FILE}"))
    return None


def _settings_of_run(path: Path, keys: list[str]) -> dict[str, Any]:
    """Some settings of the run in a folder; one that its version did not have is left out."""
    config, settings = _read_json(path / CONFIG_FILE, f"file {CONFIG_FILE}"), {}
    for key in keys:
        value: Any = config
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            settings[key] = value
    return settings


def _read_json(path: Path, part: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise RunFolderError(
            f"the {part} of the run in {str(path.parent)!r} is damaged ({value}). Fix: put it back from a copy, or "
            "start over with --overwrite."
        )
    return value
