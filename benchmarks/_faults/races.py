"""Two processes at once in one folder: one goes on, the other is told.

Each part is a function of `PARTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.outcomes import Effort, Outcome


__all__ = ["PARTS"]

PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {}
