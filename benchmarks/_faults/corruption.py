"""Damaged files: what is read again after a byte, a line or a file is gone.

Each part is a function of `PARTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.outcomes import Effort, Outcome


__all__ = ["PARTS"]

PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {}
