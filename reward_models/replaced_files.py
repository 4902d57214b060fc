"""The files of a saved model in a folder are replaced as one: at every moment a reader finds the old model or the new.

A save prepares all files in a hidden folder of its own inside the target. One rename to `.saved` is the moment from
which the new model counts: readers go there while it exists (`folder_to_read`). Then each file is linked to its place,
and `.saved` is removed. A save that was killed after that rename is finished by the next save. Readers that know
nothing of this, such as transformers, find no weights while files are on the way, because weights are removed first
and come last.

Only files that are known to be of the earlier model are deleted: those that its list of files (`records` of
`content_hashes`) names, with the content that they had, and shards of weights. Two savers do not meet: each prepares
its own folder, and the files are moved under a lock. Knows nothing of what the files hold, but for that list.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from reward_models.content_hashes import file_fault, safe_name
from reward_models.errors import JuryError
from reward_models.whole_file import flush_folder, locked_folder, move_into_place, remove_left_over, unfinished_folder


__all__ = ["folder_to_read", "folder_version", "link_or_copy", "read_unchanged", "replaced_files"]

Result = TypeVar("Result")
TRIES = 5

SAVED = ".saved"
"""A complete model whose files are on their way to the folder that it lies in."""

_LINK = re.compile(r"\.[0-9a-f]{12}\.link")
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def folder_to_read(folder: str | Path) -> str:
    """Return where the newest whole model of a folder lies: the folder itself, or `.saved` in it.

    Example:
        >>> folder_to_read("runs/jury")
        'runs/jury'
    """
    saved = Path(folder) / SAVED
    return str(saved) if saved.is_dir() else str(folder)


def folder_version(folder: str | Path, listing: str) -> tuple[str, int | None, bytes | None]:
    """Return what tells one save of a folder from the next, also one of the same model: place, time and list of files.

    Args:
        folder: The folder; of an id on the Hub, which is not replaced, every version is the same.
        listing: See `replaced_files`.

    Example:
        >>> folder_version("runs/nothing-here", "jury.json")
        ('runs/nothing-here', None, None)
    """
    source = folder_to_read(folder)
    path = Path(source, listing)
    try:
        return source, path.stat().st_mtime_ns, path.read_bytes()
    except OSError:  # there is none, or it was replaced just now
        return source, None, None


@contextmanager
def replaced_files(folder: str | Path, listing: str) -> Iterator[Path]:
    """Give an empty folder for the files of a model, which replace those of `folder` when the block ends.

    Args:
        folder: Made if it does not exist. Files in it that are not the model's stay.
        listing: Name of the JSON file whose `files` are the records of the other files.

    Raises:
        JuryError: The folder cannot be made because a file lies there, or a folder lies where a file of the model
            belongs. What was there is untouched.
        OSError: The disk refuses. If that was after the new model had counted, it is whole in `.saved`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replaced_files(folder, "jury.json") as unfinished:
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
            f"{str(folder)!r} cannot be a folder to save in: a file lies there. Give another name."
        ) from error
    remove_left_over(target / "model")
    with unfinished_folder(target / "model") as unfinished:
        yield unfinished
        _check_places(unfinished, target)
        flush_folder(unfinished)
        with locked_folder(target):
            if (target / SAVED).is_dir():
                _move_files(target, listing)
            move_into_place(unfinished, target / SAVED)
            _move_files(target, listing)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _check_places(unfinished: Path, target: Path) -> None:
    for name in _names(unfinished):
        place = target / name
        if place.is_dir() or not all(parent.is_dir() for parent in place.parents if parent.exists()):
            raise JuryError(
                f"{name!r} cannot be saved in {str(target)!r}: a folder lies there, or a file in place of its folder. "
                "Move it away, or save into another folder."
            )


def _move_files(target: Path, listing: str) -> None:
    """Link the files of `.saved` to their places in the target, then remove it; may be repeated when killed."""
    saved = target / SAVED
    names = _names(saved)
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    for path in list(target.iterdir()):
        if path.is_file() and (_WEIGHTS.fullmatch(path.name) or _LINK.fullmatch(path.name)):
            path.unlink()
    # While the earlier list is there: a second attempt has to find what the first was about to delete.
    for name in _stale(target, names, listing):
        (target / name).unlink(missing_ok=True)
    others = [name for name in names if name not in {listing, *weights}]
    for name in [*(name for name in names if name == listing), *others, *weights]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link = target / f".{uuid.uuid4().hex[:12]}.link"  # see `_LINK`
        try:
            link_or_copy(saved / name, link)
            move_into_place(link, target / name)
        finally:
            link.unlink(missing_ok=True)
    done = target / f".model.{uuid.uuid4().hex[:12]}.unfinished"
    move_into_place(saved, done)
    shutil.rmtree(done, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file to a second place, or copy it where the file system has no links.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = Path(folder, "a").write_text("weights")
        ...     link_or_copy(Path(folder, "a"), Path(folder, "b"))
        ...     Path(folder, "b").read_text()
        'weights'
    """
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _stale(target: Path, names: Iterable[str], listing: str) -> list[str]:
    """Return the files that the model in the target was saved with, as they were saved, and that the new one lacks."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        records = json.loads((target / listing).read_text(encoding="utf-8"))["files"]
        return [
            safe_name(name)
            for name, record in records.items()
            if name not in set(names) and file_fault(target / safe_name(name), record) is None
        ]
    return []


def read_unchanged(load: Callable[[], Result], version: Callable[[], object], what: str) -> Result:
    """Return what `load` reads; again, if the model was replaced by another meanwhile.

    Args:
        load: Reads the model.
        version: Returns what tells one model of the folder from the next.
        what: Name of the model, for messages.

    Raises:
        JuryError: As `load`; or the model was replaced at every try.
        FileNotFoundError: As `load`, of a model that was not replaced.

    Example:
        >>> read_unchanged(lambda: "weights", lambda: 1, "the jury in 'runs/jury'")
        'weights'
    """
    for _ in range(TRIES):
        before = version()
        try:
            result = load()
        except (JuryError, FileNotFoundError):  # a file that was there may be gone when it is opened
            if before == version():
                raise
        else:
            if before == version():
                return result
    raise JuryError(
        f"{what} was replaced {TRIES} times while it was read: another process keeps saving there. Load it when that "
        "is done."
    )
