"""Questions that nobody was asked yet, from a file. Knows neither people nor models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.spelling import one_form
from reward_models.sources.formats.files import existing_file, read_cells


__all__ = ["NewQuestion", "read_new_questions"]

TEXT_COLUMNS = ("question", "prompt", "text", "wording")
"""Names of the column that holds the wording; the first that is there is read."""
ID_COLUMNS = ("item_id", "id")


@dataclass(frozen=True)
class NewQuestion:
    """A question that nobody was asked.

    Attributes:
        id: Its name.
        text: Its wording, without the offered answers.
        options: The offered answers; None for those of the table, if all its questions offer the same.

    Example:
        >>> NewQuestion("parks", "Should the city build more parks?", ("yes", "no")).options
        ('yes', 'no')
    """

    id: str
    text: str
    options: tuple[str, ...] | None = None


def read_new_questions(path: str | Path) -> list[NewQuestion]:
    r"""Read questions from a table, or from a text file with one question a line.

    Args:
        path: `.txt`: a question a line. Any other table: a column `question` (or `prompt`, `text`, `wording`), and
            perhaps `item_id` (or `id`) and `options`, a list or texts between semicolons or bars (`yes; no`).

    Raises:
        FileNotFoundError: There is no such file.
        JudgementError: No question, no column of wordings, a question without wording, or an id twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "new.csv"
        ...     _ = path.write_text("id,question,options\nparks,More parks?,yes; no\n")
        ...     read_new_questions(path)
        [NewQuestion(id='parks', text='More parks?', options=('yes', 'no'))]
    """
    path = existing_file(Path(path))
    if path.suffix.lower() == ".txt":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [(None, line, None) for line in lines if line.strip()]
    else:
        rows = _rows(path)
    if not rows:
        raise JudgementError(f"{path} holds no question. Fix: write one a row, in a column named question.")
    empty = [number for number, (_, text, _) in enumerate(rows, 1) if not isinstance(text, str) or not text.strip()]
    if empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise JudgementError(
            f"{path}: {len(empty)} of {len(rows)} questions have no wording (rows {shown}), and the wording is all "
            "that a prediction rests on. Fix: fill in their text, or remove them."
        )
    width = len(str(len(rows)))
    questions = [
        NewQuestion(
            f"new {number:0{width}d}" if name is None else str(name), one_form(text.strip()), _options(options)
        )
        for number, (name, text, options) in enumerate(rows, 1)
    ]
    twice = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise JudgementError(f"{path} has the id {twice[0]!r} twice. Fix: give each question an id of its own.")
    return questions


def _rows(path: Path) -> list[tuple[Any, Any, Any]]:
    """Return id, wording and options of each row; None for an id or options that the file does not have."""
    frame = read_cells(path).frame
    names = {str(name).casefold(): name for name in frame.columns}
    column = next((names[name] for name in TEXT_COLUMNS if name in names), None)
    if column is None:
        hint = next((hint for name in names if (hint := did_you_mean(name, TEXT_COLUMNS))), "")
        raise JudgementError(
            f"{path} has the columns {', '.join(map(repr, frame.columns)) or 'none'}, none of which holds the "
            f"wordings of questions.{hint} Fix: name that column question."
        )
    ids = next((names[name] for name in ID_COLUMNS if name in names), None)
    blank = [None] * len(frame)
    return list(
        zip(
            blank if ids is None else frame[ids],
            frame[column],
            frame[names["options"]] if "options" in names else blank,
            strict=True,
        )
    )


def _options(cell: Any) -> tuple[str, ...] | None:
    if cell is None:
        return None
    if isinstance(cell, str):
        cell = cell.split("|" if "|" in cell else ";")
    return tuple(one_form(str(option).strip()) for option in cell if str(option).strip())
