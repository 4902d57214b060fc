"""Files that are written as a whole or not at all: a reader finds the old content or the new, never half of one.

The content goes to an unfinished file beside the target, is flushed to the disk (fsync) and is then renamed onto the
target. Knows nothing of what is written, except that `write_json` turns it into JSON.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np


__all__ = ["move_into_place", "whole_file", "whole_folder", "whole_path", "write_arrays", "write_json"]


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """Give the path of an unfinished file, which takes the place of `path` when the block ends without an error.

    For writers that open their file themselves, such as `safetensors` and `torch.save`. If the block raises, the
    unfinished file is removed and `path` keeps its content. A process that is killed leaves a hidden file
    `.<name>.<random>.unfinished` behind. A link is followed; what is neither file nor folder, such as `/dev/stdout`,
    is written to directly, because it cannot be replaced.

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
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.unfinished")
    try:
        yield unfinished
        move_into_place(unfinished, path)
    finally:
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

    One writer at a time: what an interrupted one left is removed first. Its name is fixed, so that an unfinished
    folder, which may be large, is never left behind twice.

    Args:
        path: The folder to make. It must not exist yet, or be empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with whole_folder(Path(parent) / "model") as unfinished:
        ...         size = (unfinished / "config.json").write_text("{}")
        ...     sorted(path.name for path in Path(parent).rglob("*"))
        ['config.json', 'model']
    """
    path = Path(path).resolve()
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                _flush(file)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def move_into_place(unfinished: str | Path, path: str | Path) -> None:
    """Flush a finished file to the disk and rename it onto `path` in one step.

    Without the flush, a power cut could leave the new name with content that was never written.

    Args:
        unfinished: The file, on the same file system as `path`.
        path: Its name from now on; replaced if it exists.
    """
    _flush(unfinished)
    os.replace(unfinished, path)


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
    text = json.dumps(_plain(value, exact), indent=indent, ensure_ascii=False, allow_nan=exact)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text + "\n")


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


def _flush(path: str | Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


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
