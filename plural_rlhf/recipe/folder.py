"""The folder of a run: what is finished is kept, what belongs to another run is never touched.

Each stage leaves `stages/<name>.json` when it is complete, so that a run that was stopped goes on after its last
complete stage. This file knows nothing of what the stages do.
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
_WHERE_IT_LIES = ("output_dir", "name")


class RunFolderError(ValueError):
    """The output folder cannot be used as it is."""


def check_folder(path: Path, config: dict[str, Any], *, overwrite: bool) -> None:
    """Says whether `RunFolder` would open the folder, and touches nothing.

    Raises:
        RunFolderError: As `RunFolder`.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"output_dir is {str(path)!r}, which is a file: give the name of a folder.")
    if not path.exists() or not any(path.iterdir()):
        return
    found = path / CONFIG_FILE
    # A saved model has a config.json too, and must never be taken for a run that may be deleted.
    if not (found.exists() and (path / STAGES).is_dir()):
        raise RunFolderError(
            f"the output folder {str(path)!r} holds files but no run (no {CONFIG_FILE} beside a folder "
            f"{STAGES}), so nothing was written: choose another folder with --output."
        )
    if not overwrite:
        _check_same(json.loads(found.read_text()), config, path)


class RunFolder:
    """Opens a run's folder, or says why not.

    Args:
        path: The folder; made if it is not there.
        config: The resolved configuration as plain JSON.
        overwrite: Delete the run that is there first.

    Raises:
        RunFolderError: The folder holds a run with other settings, or something that is no run.
    """

    def __init__(self, path: Path, config: dict[str, Any], *, overwrite: bool) -> None:
        self.path = Path(path)
        check_folder(self.path, config, overwrite=overwrite)
        if overwrite and (self.path / STAGES).is_dir():
            shutil.rmtree(self.path)
        (self.path / STAGES).mkdir(parents=True, exist_ok=True)
        write_json(self.path / CONFIG_FILE, config)

    def finished(self, stage: str) -> Any:
        """What a complete stage left, or None."""
        path = self.path / STAGES / f"{stage}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, stage: str, result: Any) -> Any:
        """Marks a stage complete and returns its result as a later run will read it."""
        write_json(self.path / STAGES / f"{stage}.json", result)
        return self.finished(stage)


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], path: Path) -> None:
    a, b = _flat(theirs), _flat(ours)
    changed = [k for k in sorted({*a, *b}) if a.get(k) != b.get(k) and k not in _WHERE_IT_LIES]
    if changed:
        shown = "; ".join(f"{k}: {a.get(k)!r} there, {b.get(k)!r} here" for k in changed[:6])
        more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
        raise RunFolderError(
            f"the output folder {str(path)!r} holds a run with other settings ({shown}{more}), so nothing was "
            "written: use --output for another folder, or --overwrite to delete that run and start over."
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return out
