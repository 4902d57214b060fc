"""Writing a file as a whole or not at all: a reader finds the old content or the new, never half of one.

Knows nothing of what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


__all__ = ["whole_file"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[TextIO]:
    """Opens a text file in UTF-8 that takes the place of `path` when the block ends without an error."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        yield file
    os.replace(unfinished, path)
