"""The files of a jury in a folder are replaced as one: at every moment a reader finds the old jury or the new one.

A save prepares all files in a hidden folder of its own inside the target. One rename to `.jury.saved` is the moment
from which the new jury counts: readers go there while it exists (`folder_to_read`). Then each file is linked to its
place, and `.jury.saved` is removed. A save that was killed after that rename is finished by the next save. Readers
that know nothing of this, such as transformers, find no weights while files are on the way, because weights are
removed first and come last.

Only files that are known to be a jury's are deleted: those that the earlier `jury.json` lists with the content that
they have, and shards of weights. Two savers do not meet: each prepares its own folder, and the files are moved under a
lock. Knows nothing of what the files hold, but for the list in `jury.json`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reward_models.content_hashes import file_fault, safe_name
from reward_models.errors import JuryError
from reward_models.whole_file import flush_folder, locked_folder, move_into_place, remove_left_over, unfinished_folder


__all__ = ["STATE_FILE", "folder_to_read", "replaced_jury"]

STATE_FILE = "jury.json"
SAVED = ".jury.saved"
"""A complete jury whose files are on their way to the folder that it lies in."""

_LINK = re.compile(r"\.jury\.[0-9a-f]{12}\.link")
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def folder_to_read(folder: str | Path) -> str:
    """Return where the newest whole jury of a folder lies: the folder itself, or `.jury.saved` in it.

    Example:
        >>> folder_to_read("runs/jury")
        'runs/jury'
    """
    saved = Path(folder) / SAVED
    return str(saved) if saved.is_dir() else str(folder)


@contextmanager
def replaced_jury(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder for the files of a jury, which replaces that of `folder` when the block ends.

    Args:
        folder: Made if it does not exist. Files in it that are not a jury's stay.

    Raises:
        JuryError: The folder cannot be made because a file lies there, or a folder lies where a file of the jury
            belongs. The jury that was there is untouched.
        OSError: The disk refuses. If that was after the new jury had counted, it is whole in `.jury.saved`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replaced_jury(folder) as unfinished:
        ...         size = (unfinished / "jury.json").write_text('{"files": {}}')
        ...         folder_to_read(folder) == folder
        ...     sorted(path.name for path in Path(folder).iterdir())
        True
        ['jury.json']
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise JuryError(
            f"the jury cannot be saved in {str(folder)!r}: a file lies there. Give another name."
        ) from error
    remove_left_over(target / "jury")
    with unfinished_folder(target / "jury") as unfinished:
        yield unfinished
        _check_places(unfinished, target)
        flush_folder(unfinished)
        with locked_folder(target):
            if (target / SAVED).is_dir():
                _move_files(target)
            move_into_place(unfinished, target / SAVED)
            _move_files(target)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _check_places(unfinished: Path, target: Path) -> None:
    for name in _names(unfinished):
        place = target / name
        if place.is_dir() or not all(parent.is_dir() for parent in place.parents if parent.exists()):
            raise JuryError(
                f"{name!r} of the jury cannot be saved in {str(target)!r}: a folder lies there, or a file in place of "
                "its folder. Move it away, or save the jury into another folder."
            )


def _move_files(target: Path) -> None:
    """Link the files of `.jury.saved` to their places in the target, then remove it; may be repeated when killed."""
    saved = target / SAVED
    names = _names(saved)
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    for path in list(target.iterdir()):
        if path.is_file() and (_WEIGHTS.fullmatch(path.name) or _LINK.fullmatch(path.name)):
            path.unlink()
    # While the earlier jury.json is there: a second attempt has to find what the first was about to delete.
    for name in _stale(target, names):
        (target / name).unlink(missing_ok=True)
    others = [name for name in names if name not in {STATE_FILE, *weights}]
    for name in [*(name for name in names if name == STATE_FILE), *others, *weights]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link = target / f".jury.{uuid.uuid4().hex[:12]}.link"  # see `_LINK`
        try:
            _link(saved / name, link)
            move_into_place(link, target / name)
        finally:
            link.unlink(missing_ok=True)
    done = target / f".jury.{uuid.uuid4().hex[:12]}.unfinished"
    move_into_place(saved, done)
    shutil.rmtree(done, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _stale(target: Path, names: Iterable[str]) -> list[str]:
    """Return the files that the jury in the target was saved with, as they were saved, and that the new one lacks."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        records = json.loads((target / STATE_FILE).read_text(encoding="utf-8"))["files"]
        return [
            safe_name(name)
            for name, record in records.items()
            if name not in set(names) and file_fault(target / safe_name(name), record) is None
        ]
    return []
