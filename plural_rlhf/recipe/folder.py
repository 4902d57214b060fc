"""The folder of a run: complete stages are kept, and a folder that holds anything else is never touched.

Each stage writes `stages/<name>.json` when it is complete, so that a run that was stopped continues after its last
complete stage. Knows nothing of what the stages do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reward_models.whole_file import write_json


__all__ = ["RunFolder", "RunFolderError", "check_folder"]

CONFIG_FILE = "config.json"
STAGES = "stages"
_MAY_DIFFER = ("output_dir", "name")


class RunFolderError(ValueError):
    """The output folder cannot be used as it is.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "thesis.tex").write_text("years of work")
        ...     try:
        ...         check_folder(Path(folder), {}, overwrite=True)
        ...     except RunFolderError as error:
        ...         "choose another folder with --output" in str(error)
        True
    """


def check_folder(path: Path, config: dict[str, Any], *, overwrite: bool) -> None:
    """Raise what `RunFolder` would raise for this folder, and touch nothing.

    Args:
        path: The folder.
        config: The resolved configuration as plain JSON.
        overwrite: Whether a run with other settings may be deleted.

    Raises:
        RunFolderError: As `RunFolder`.

    Example:
        >>> check_folder(Path("a folder that does not exist"), {"seed": 0}, overwrite=False)
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output_dir is {str(path)!r}, which is a file. Fix: give the name of a folder.")
    if not path.exists() or not any(path.iterdir()):
        return
    config_file = path / CONFIG_FILE
    # A saved model has a config.json too, and must never be deleted as if it were a run.
    if not (config_file.exists() and (path / STAGES).is_dir()):
        raise RunFolderError(
            f"the output folder {str(path)!r} holds files but no run (no {CONFIG_FILE} beside a folder "
            f"{STAGES}), so nothing was written. Fix: choose another folder with --output."
        )
    if not overwrite:
        _check_same(json.loads(config_file.read_text(encoding="utf-8")), config, path)


class RunFolder:
    """Open the folder of a run, or make it.

    Args:
        path: The folder; made if it does not exist.
        config: The resolved configuration as plain JSON.
        overwrite: Delete the run that it holds first.

    Raises:
        RunFolderError: The folder holds a run with other settings, or something that is not a run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = RunFolder(Path(parent) / "run", {"seed": 0}, overwrite=False)
        ...     before = folder.finished("jury")
        ...     folder.finish("jury", {"seconds": 1.5})
        ...     again = RunFolder(Path(parent) / "run", {"seed": 0}, overwrite=False)
        ...     before, again.finished("jury")
        {'seconds': 1.5}
        (None, {'seconds': 1.5})
    """

    def __init__(self, path: Path, config: dict[str, Any], *, overwrite: bool) -> None:
        self.path = Path(path)
        check_folder(self.path, config, overwrite=overwrite)
        if overwrite and (self.path / STAGES).is_dir():
            shutil.rmtree(self.path)
        (self.path / STAGES).mkdir(parents=True, exist_ok=True)
        write_json(self.path / CONFIG_FILE, config)

    def finished(self, stage: str) -> Any:
        """Return the record of a complete stage, or None."""
        path = self.path / STAGES / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, stage: str, record: Any) -> Any:
        """Mark a stage as complete and return its record as a later run will read it."""
        write_json(self.path / STAGES / f"{stage}.json", record)
        return self.finished(stage)


def _check_same(stored: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    a, b = _flat(stored), _flat(config)
    changed = [k for k in sorted({*a, *b}) if a.get(k) != b.get(k) and k not in _MAY_DIFFER]
    if changed:
        shown = "; ".join(f"{k}: {a.get(k)!r} there, {b.get(k)!r} here" for k in changed[:6])
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        raise RunFolderError(
            f"the output folder {str(path)!r} holds a run with other settings ({shown}{more}), so nothing was "
            "written. Fix: --output for another folder, or --overwrite to delete that run and start over."
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return out
