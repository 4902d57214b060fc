"""The answers of a model, kept line by line in a file, so that nothing is asked twice.

A file belongs to one model and one task; an answer is found by the hash of its request. A file whose last line was cut
off, by a kill or a full disk, is cut to its last whole line, with a warning. Several processes may use one file: each
reads and writes under a lock, and sees what the others have added. Knows nothing of what an answer means.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reward_models.whole_file import locked_folder


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
        self._read_to = 0
        if path is not None and path.exists():
            with locked_folder(path.parent):
                self._read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Any | None:
        """Return the answer to a request, or None."""
        return self._answers.get(key)

    def add(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep answers, those of one computation in one write; one that another process kept meanwhile stands."""
        answers = list(answers)
        if self.path is not None and any(key not in self._answers for key, _ in answers):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked_folder(self.path.parent):
                if self.path.exists():
                    self._read(self.path)
                lines = b"".join(_line(key, answer) for key, answer in answers if key not in self._answers)
                with self.path.open("ab") as file:
                    file.write(lines)
                self._read_to += len(lines)
        for key, answer in answers:
            self._answers.setdefault(key, answer)

    def _read(self, path: Path) -> None:
        """Read what was added since the last time; the lock is held, so that a line that is not whole stays so."""
        with path.open("rb") as file:
            file.seek(self._read_to)
            lines = file.read().splitlines(keepends=True)
        for position, line in enumerate(lines):
            entry = _entry(line)
            if entry is None:
                lost = len(lines) - position
                warnings.warn(
                    f"{path} is damaged after {len(self._answers)} whole answers: it was cut there, and what followed "
                    f"({lost} line{'s' * (lost != 1)}) is asked again",
                    stacklevel=3,
                )
                with path.open("rb+") as file:
                    file.truncate(self._read_to)
                return
            self._answers.setdefault(*entry)
            self._read_to += len(line)


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
