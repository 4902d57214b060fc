"""The answers of a model, kept line by line in a file, so that nothing is asked twice.

A file belongs to one model and one task; an answer is found by the hash of its request. A file whose last line was cut
off, by a kill or a full disk, is cut to its last whole line, with a warning. Knows nothing of what an answer means.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any


__all__ = ["AnswerStore"]


class AnswerStore:
    """Answers by the hash of their request.

    Args:
        path: JSONL file that is read and continued; None keeps answers in memory only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "urn.jsonl"
        ...     AnswerStore(path).add([("3f2a", [0.5, 0.5])])
        ...     AnswerStore(path).get("3f2a")
        [0.5, 0.5]
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._answers: dict[str, Any] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Any | None:
        """Return the answer to a request, or None."""
        return self._answers.get(key)

    def add(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep answers, those of one computation in one write."""
        answers = [(key, answer) for key, answer in answers if key not in self._answers]
        if self.path is not None and answers:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"".join(_line(key, answer) for key, answer in answers))
        self._answers.update(answers)

    def _read(self, path: Path) -> None:
        whole, lines = 0, path.read_bytes().splitlines(keepends=True)
        for line in lines:
            entry = _entry(line)
            if entry is None:
                break
            self._answers[entry[0]] = entry[1]
            whole += len(line)
        lost = len(lines) - len(self._answers)
        if whole < path.stat().st_size:
            warnings.warn(
                f"{path} is damaged after {len(self._answers)} whole answers: it was cut there, and what followed "
                f"({lost} line{'s' * (lost != 1)}) is asked again",
                stacklevel=2,
            )
            with path.open("rb+") as file:
                file.truncate(whole)


def _line(key: str, answer: Any) -> bytes:
    return (json.dumps([key, answer], ensure_ascii=True) + "\n").encode()


def _entry(line: bytes) -> tuple[str, Any] | None:
    """Read a line; None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return (entry[0], entry[1]) if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) else None
