"""Inputs that nobody meant: every parser answers at once, with a result or with an error of its own.

Each part is a function of `PARTS`; an input that is read is `survived`, one that is refused with our error `refused`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.outcomes import Effort, Outcome


__all__ = ["PARTS"]

PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {}
