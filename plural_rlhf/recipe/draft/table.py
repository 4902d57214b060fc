"""Read a table whose columns have names of its own: find the column map that reads it.

Knows nothing of runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.sources import read_table
from reward_models.sources.formats.files import read_cells
from reward_models.sources.suggestion import suggest_wide
from reward_models.yaml_text import parse_yaml


__all__ = ["find_column_map"]

NAMES: Mapping[str, tuple[str, ...]] = {
    "rater_id": ("rater", "user", "worker", "annotator", "person", "participant", "respondent", "voter", "judge"),
    "prompt": ("question", "instruction", "query", "topic", "context", "input"),
    "response_a": ("answer_a", "response_1", "answer_1", "output_1", "completion_a", "text_a", "option_a"),
    "response_b": ("answer_b", "response_2", "answer_2", "output_2", "completion_b", "text_b", "option_b"),
    "response": ("answer", "completion", "output", "text", "statement", "comment"),
    "choice": ("preference", "preferred", "winner", "label", "answer", "vote"),
    "rating": ("score", "vote", "stars", "grade", "value"),
    "options": ("choices", "alternatives", "answers"),
}
"""Names that columns often have, by the canonical name."""


def find_column_map(path: Path) -> tuple[Judgements, dict[str, Any] | None]:
    r"""Read a table as it is, else by frequent names of columns, else as one with a column per question.

    Args:
        path: The file.

    Returns:
        The judgements, and the column map that reads them; None if the columns have the standard names.

    Raises:
        JudgementError: No map was found; the message is that of the file as it is.

    Example:
        >>> import tempfile
        >>> text = "user,question,response_1,response_2,winner\nann,Tea?,yes,no,a\nbob,Tea?,yes,no,b\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "pairs.csv"
        ...     size = path.write_text(text)
        ...     judgements, column_map = find_column_map(path)
        >>> judgements.kind, column_map["columns"]["rater_id"]
        ('preference', 'user')
    """
    try:
        return read_table(path, None).judgements, None
    except JudgementError as error:
        as_it_is = error
    cells = read_cells(path)
    names = [str(column) for column in cells.frame.columns]
    _, wide = suggest_wide(cells, {})
    for column_map in (*_by_name(names), *([parse_yaml(wide)] if wide else [])):
        try:
            return read_table(path, column_map).judgements, column_map
        except JudgementError:
            continue
    raise as_it_is


def _by_name(names: list[str]) -> list[dict[str, Any]]:
    """Maps by the names of columns, for each kind that they could be of."""
    maps = []
    for wanted in (
        ("rater_id", "prompt", "response_a", "response_b", "choice"),
        ("rater_id", "prompt", "response", "rating"),
        ("rater_id", "prompt", "options", "choice"),
    ):
        columns: dict[str, str] = {}
        for canonical in wanted:
            known = (canonical, *NAMES[canonical])
            free = [name for name in names if name not in columns.values()]
            alike = [name for word in known for name in free if _plain(name) in (_plain(word), f"{_plain(word)}id")]
            if alike:
                columns[canonical] = alike[0]
        if set(columns) == set(wanted):
            maps.append(
                {"columns": {canonical: column for canonical, column in columns.items() if canonical != column}}
            )
    return maps


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
