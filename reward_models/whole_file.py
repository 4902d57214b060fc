"""Files that are written as a whole or not at all: a reader finds the old content or the new, never half of one.

The content goes to an unfinished file beside the target, is flushed to the disk (fsync) and is then renamed onto the
target; then the folder is flushed too, so that the new name survives a power cut. An error (full disk, read-only file
system, removed folder) keeps the old content and leaves nothing behind. Knows nothing of what is written, except that
`write_json` turns it into JSON.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np


try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


__all__ = [
    "flush_folder",
    "json_lines",
    "locked_folder",
    "move_into_place",
    "remove_left_over",
    "unfinished_folder",
    "whole_file",
    "whole_folder",
    "whole_path",
    "write_arrays",
    "write_json",
    "write_json_lines",
]

_SUFFIX = ".unfinished"
_held: dict[tuple[int, int], tuple[int, int]] = {}
"""Device and inode of each folder that this process has locked, with the process and thread that hold it."""
_HALF = re.compile("[\ud800-\udfff]")


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """Give the path of an unfinished file, which takes the place of `path` when the block ends without an error.

    For writers that open their file themselves, such as `safetensors` and `torch.save`. If the block raises, the
    unfinished file is removed and `path` keeps its content. A process that is killed leaves a hidden file
    `.<name>.<random>.unfinished` behind. A link is followed; what is neither file nor folder, such as `/dev/stdout`,
    is written to directly, because it cannot be replaced. A file that is replaced keeps its permissions.

    Args:
        path: The file to write. Its folder must exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     target = Path(folder) / "weights.bin"
        ...     with whole_path(target) as unfinished:
        ...         size = unfinished.write_bytes(b"1234")
        ...         before = target.exists()
        ...     before, target.read_bytes()
        (False, b'1234')
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = path.resolve()
    unfinished = _unfinished(path)
    try:
        yield unfinished
        with suppress(OSError):  # there is no earlier file, or the file system knows no permissions
            os.chmod(unfinished, stat.S_IMODE(path.stat().st_mode))
        move_into_place(unfinished, path)
    finally:
        with suppress(OSError):  # the error of the writer says more than that of the cleaning
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[TextIO]:
    """Open a text file in UTF-8 that takes the place of `path` when the block ends without an error.

    Args:
        path: The file to write. Its folder must exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "notes.txt"
        ...     with whole_file(path) as file:
        ...         _ = file.write("all of it")
        ...     path.read_text()
        'all of it'
    """
    with whole_path(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty unfinished folder, which is renamed to `path` when the block ends without an error.

    Writers do not meet: each has an unfinished folder of its own, and what a killed writer of the same folder left is
    removed. Of two writers at once, the second to finish raises and the folder of the first stays whole.

    Args:
        path: The folder to make. It must not exist yet, or be empty.

    Raises:
        OSError: The folder exists and is not empty, or the disk refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with whole_folder(Path(parent) / "model") as unfinished:
        ...         size = (unfinished / "config.json").write_text("{}")
        ...     sorted(path.name for path in Path(parent).rglob("*"))
        ['config.json', 'model']
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(path)
    with unfinished_folder(path) as unfinished:
        yield unfinished
        flush_folder(unfinished)
        os.replace(unfinished, path)
        _flush(path.parent)


@contextmanager
def unfinished_folder(path: str | Path) -> Iterator[Path]:
    """Give a new hidden folder beside `path` for files that are not finished; it is removed at the end of the block.

    While the block runs the folder is locked, which `remove_left_over` respects.

    Args:
        path: The file or folder that is being written. Its parent must exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with unfinished_folder(Path(parent) / "model") as folder:
        ...         inside = [folder.is_dir(), folder.name.startswith(".model.")]
        ...     inside, list(Path(parent).iterdir())
        ([True, True], [])
    """
    path = Path(path).resolve()
    for _ in range(3):  # somebody may clear up between the making and the lock
        folder = _unfinished(path)
        folder.mkdir()
        lock = _locked(folder)
        if lock is not None and folder.is_dir():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def remove_left_over(path: str | Path) -> None:
    """Remove the unfinished folders that killed writers of `path` left beside it; those of living writers stay.

    Args:
        path: As `unfinished_folder` was given.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     (Path(parent) / ".model.0123456789ab.unfinished").mkdir()  # as a killed writer leaves it
        ...     remove_left_over(Path(parent) / "model")
        ...     list(Path(parent).iterdir())
        []
    """
    path = Path(path).resolve()
    for folder in path.parent.iterdir():
        name = folder.name
        if name.startswith(f".{_short(path)}.") and name.endswith(_SUFFIX) and folder.is_dir():
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                _unlock(lock)


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder alone while the block runs: other processes and threads that ask for it wait.

    A thread that holds the folder already, by this function or as the `unfinished_folder` that it is writing, goes on
    at once: it would wait for itself. Nothing is written for the lock, and it ends with the process. On Windows, and
    on file systems that know no such locks, nobody waits.

    Args:
        folder: An existing folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked_folder(folder), locked_folder(folder):
        ...     print("nobody else writes here")
        nobody else writes here
    """
    lock = None if _is_held(Path(folder)) else _locked(Path(folder), wait=True)
    try:
        yield
    finally:
        _unlock(lock)


def move_into_place(unfinished: str | Path, path: str | Path) -> None:
    """Flush a finished file or folder to the disk, rename it onto `path` in one step, and flush the folder.

    Without the first flush, a power cut could leave the new name with content that was never written; without the
    second, the old name could come back.

    Args:
        unfinished: The file, or a folder whose files are flushed, on the same file system as `path`.
        path: Its name from now on; a file there is replaced, an empty folder too.
    """
    _flush(unfinished)
    os.replace(unfinished, path)
    _flush(Path(path).parent)


def flush_folder(folder: str | Path) -> None:
    """Flush a folder and everything below it to the disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "a.txt").write_text("a")
        ...     flush_folder(folder)
    """
    for path in [*Path(folder).rglob("*"), Path(folder)]:
        if path.is_file() or path.is_dir():
            _flush(path)


def write_json(path: str | Path, value: Any, *, exact: bool = False, indent: int | None = 1) -> None:
    r"""Write a value as JSON in UTF-8, as a whole or not at all.

    Numpy numbers and arrays become plain numbers and lists, paths become text.

    Args:
        path: The file to write. Its folder is made if it does not exist.
        value: Mappings, lists, tuples, text, numbers, None, numpy numbers and arrays, paths.
        exact: NaN and infinities are written as `NaN` and `Infinity`, which `json.loads` reads back and which strict
            JSON does not allow: for states that a run resumes from. Otherwise they become null.
        indent: Spaces per level; None writes one line.

    Raises:
        TypeError: Something that JSON cannot hold; no file is written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scores.json"
        ...     write_json(path, {"scores": np.array([0.5, np.nan]), "n": np.int64(2)}, indent=None)
        ...     path.read_text()
        '{"scores": [0.5, null], "n": 2}\n'
    """
    path = Path(path)
    plain = _plain(value, exact)
    text = json.dumps(plain, indent=indent, ensure_ascii=False, allow_nan=exact)
    if not text.isascii() and _HALF.search(text):  # half of a character, which UTF-8 cannot hold
        text = json.dumps(plain, indent=indent, allow_nan=exact)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text + "\n")


def write_json_lines(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line in UTF-8, as a whole or not at all; values as for `write_json`, NaN as null.

    Args:
        path: The file to write. Its folder is made if it does not exist.
        records: The objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json_lines(Path(folder) / "items.jsonl", [{"item": "q1", "score": np.nan}, {"item": "q2"}])
        ...     (Path(folder) / "items.jsonl").read_text().splitlines()
        ['{"item": "q1", "score": null}', '{"item": "q2"}']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        for record in records:
            plain = _plain(record, exact=False)
            text = json.dumps(plain, ensure_ascii=False)
            file.write((json.dumps(plain) if _HALF.search(text) else text) + "\n")


def json_lines(path: str | Path) -> list[tuple[int, str]]:
    r"""Read the lines of a file of JSON Lines that are not blank, each with its number in the file.

    A line ends at a line feed and nowhere else: JSON text may hold other characters that Python takes for the end of a
    line, such as U+2028, as they are.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json_lines(Path(folder) / "items.jsonl", [{"text": "a\u2028b"}])
        ...     [(number, json.loads(line)) for number, line in json_lines(Path(folder) / "items.jsonl")]
        [(1, {'text': 'a\u2028b'})]
    """
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def write_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as safetensors, as a whole or not at all, whatever their order in memory.

    `safetensors` writes the memory of an array as it lies, so that a transposed one would come back with its elements
    mixed.

    Args:
        path: The file to write. Its folder must exist.
        arrays: Arrays by name.
        metadata: Texts by name.

    Example:
        >>> import tempfile
        >>> from safetensors.numpy import load_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_arrays(Path(folder) / "a.safetensors", {"a": np.arange(4).reshape(2, 2).T})
        ...     load_file(Path(folder) / "a.safetensors")["a"].tolist()
        [[0, 2], [1, 3]]
    """
    from safetensors.numpy import save_file

    with whole_path(path) as unfinished:
        ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(ordered, unfinished, None if metadata is None else dict(metadata))


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{_short(path)}.{uuid.uuid4().hex[:12]}{_SUFFIX}")


def _short(path: Path) -> str:
    """Cut the name of a path, so that the longest name that the file system allows has an unfinished one too."""
    return path.name.encode()[:200].decode(errors="ignore")


def _locked(folder: Path, *, wait: bool = False) -> int | None:
    """Lock a folder and return its descriptor; None if somebody else has it, or where there are no such locks."""
    if fcntl is None:
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            _held[_identity(os.fstat(descriptor))] = _caller()
            return descriptor
    return None


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        _held.pop(_identity(os.fstat(descriptor)), None)
        os.close(descriptor)


def _is_held(folder: Path) -> bool:
    """Whether the calling thread holds the lock of a folder; the system would let it wait for itself for ever."""
    with suppress(OSError):
        return _held.get(_identity(folder.stat())) == _caller()
    return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _caller() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()  # a forked process has the entries of its parent, but not its locks


def _flush(path: str | Path) -> None:
    """Write what the system still holds of a file, or the names in a folder, to the disk."""
    if os.name == "nt":
        if Path(path).is_dir():  # which Windows cannot open
            return
        flags = os.O_RDWR
    else:
        flags = os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that flushes no folders
            raise
    finally:
        os.close(descriptor)


def _plain(value: Any, exact: bool) -> Any:
    if isinstance(value, Mapping):
        return {k if isinstance(k, str | int | float | None) else str(k): _plain(v, exact) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, exact) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), exact)
    if isinstance(value, float) and not exact and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
