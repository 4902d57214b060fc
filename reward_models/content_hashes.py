"""Hashes of the content of files and values: has anything changed since it was written down?

A record of a file is its size in bytes and its SHA-256. Names are those of files below one folder, and a name that
leads out of it is refused, because records are read from files that anyone may have written. Knows nothing of what
the files hold.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

import numpy as np


__all__ = [
    "FileRecord",
    "arrays_hash",
    "changed_files",
    "file_fault",
    "file_hash",
    "folder_records",
    "safe_name",
    "value_hash",
]


class FileRecord(TypedDict):
    """Size in bytes and SHA-256 of a file.

    Example:
        >>> FileRecord(size=0, sha256=hashlib.sha256(b"").hexdigest())["sha256"][:8]
        'e3b0c442'
    """

    size: int
    sha256: str


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal (about a second per gigabyte).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "answers.csv"
        ...     size = path.write_bytes(b"abc")
        ...     file_hash(path)[:8]
        'ba7816bf'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """Return the SHA-256 of a value as JSON, in hexadecimal; the order of keys does not matter.

    Args:
        value: Mappings with text keys, lists, text, numbers, truth values, None.

    Raises:
        TypeError: Something that JSON cannot hold.

    Example:
        >>> value_hash({"a": 1, "b": 2}) == value_hash({"b": 2, "a": 1})
        True
        >>> value_hash([1, 2]) == value_hash([2, 1])
        False
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def arrays_hash(value: Any) -> str:
    """Return the SHA-256 of a value that holds arrays, in hexadecimal: the same only for the same bits and types.

    Args:
        value: Arrays, dataclasses, mappings, lists and tuples. A function counts by its name, a partial one by its
            arguments too; anything else by its `repr`.

    Example:
        >>> arrays_hash({"a": np.ones(2)}) == arrays_hash({"a": np.ones(2)})
        True
        >>> arrays_hash([np.zeros((1, 2))]) == arrays_hash([np.zeros((2, 1))])
        False
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Bytes that tell a value from every other: each array and each leaf, between the names of what holds them."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
        return
    if dataclasses.is_dataclass(value):
        held: Iterable[Any] = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        held = value.items()
    elif isinstance(value, list | tuple):
        held = value
    elif isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif inspect.isroutine(value):  # whose repr holds its address in memory, another one in every process
        yield f"{value.__module__}.{value.__qualname__}".encode()
        return
    else:
        yield repr(value).encode()
        return
    yield f"{type(value).__name__} (".encode()
    for part in held:
        yield from _parts(part)
    yield b")"


def folder_records(folder: str | Path, names: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """Return the record of each file of a folder, by its name in the folder with slashes, in the order of names.

    Args:
        folder: The folder.
        names: The files; None for all below the folder, but for hidden ones.

    Raises:
        FileNotFoundError: A name without a file.
        ValueError: A name that leads out of the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "jury.json").write_bytes(b"{}")
        ...     records = folder_records(folder)
        ...     size = (Path(folder) / "jury.json").write_bytes(b"[]")
        ...     records["jury.json"]["size"], changed_files(folder, records)
        (2, {'jury.json': 'its SHA-256 is another'})
    """
    folder = Path(folder)
    if names is None:
        paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        names = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    paths_by_name = {name: folder / safe_name(name) for name in sorted(names)}
    return {name: FileRecord(size=path.stat().st_size, sha256=file_hash(path)) for name, path in paths_by_name.items()}


def changed_files(
    folder: str | Path, records: Mapping[str, Mapping[str, Any]], *, contents: bool = True
) -> dict[str, str]:
    """Return the files of a folder that are not as recorded, with what is wrong; empty if all are.

    Args:
        folder: The folder.
        records: See `folder_records`.
        contents: Compare hashes too; otherwise sizes only.

    Raises:
        ValueError: A name that leads out of the folder, or a record without size and SHA-256.

    Example:
        >>> changed_files(".", {"absent.json": {"size": 2, "sha256": "0" * 64}})
        {'absent.json': 'it is missing'}
    """
    return {
        name: fault
        for name, record in records.items()
        if (fault := file_fault(Path(folder) / safe_name(name), record, contents=contents)) is not None
    }


def file_fault(path: Path, record: Mapping[str, Any], *, contents: bool = True) -> str | None:
    """Return what is wrong with a file that was recorded, in a few words; None if it is as it was.

    Args:
        path: The file.
        record: See `FileRecord`.
        contents: Compare the hash too; otherwise the size only.

    Raises:
        ValueError: A record without size and SHA-256.

    Example:
        >>> file_fault(Path("absent.json"), {"size": 2, "sha256": "0" * 64})
        'it is missing'
    """
    if not isinstance(record, Mapping) or not {"size", "sha256"} <= set(record):
        raise ValueError(f"the record of {path.name!r} is {record!r}, which has no size and sha256")
    if not path.is_file():
        return "it is missing"
    try:
        size = path.stat().st_size
        if size != record["size"]:
            return f"it has {size:,} bytes instead of {record['size']}"
        if contents and file_hash(path) != record["sha256"]:
            return "its SHA-256 is another"
    except FileNotFoundError:  # another process took it away just now
        return "it is missing"
    return None


def safe_name(name: object) -> str:
    r"""Return the name of a file below a folder, or raise if it is none: names come from files that anyone may write.

    Raises:
        ValueError: An empty or absolute name, one with a step such as `..`, or with a backslash or control character.

    Example:
        >>> safe_name("model/part.safetensors")
        'model/part.safetensors'
        >>> safe_name("../secrets.txt")
        Traceback (most recent call last):
        ValueError: '../secrets.txt' is no name of a file in the folder
    """
    if isinstance(name, str) and name and name.isprintable() and not set(name) & {"\\", ":"}:
        path = PurePosixPath(name)
        if path.as_posix() == name and not path.is_absolute() and path.parts and ".." not in path.parts:
            return name
    raise ValueError(f"{name!r} is no name of a file in the folder")
