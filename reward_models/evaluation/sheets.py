"""Tables of results, written once and shown alike in a terminal and in Markdown.

Knows nothing of what the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from reward_models.borders import cell, markdown_text


__all__ = ["Sheet", "interval_text", "markdown", "number_text", "show"]


@dataclass(frozen=True)
class Sheet:
    """One table with its title and a note below it.

    Attributes:
        title: What the numbers are.
        columns: `C` headings.
        rows: Rows of `C` cells.
        note: How to read the table; empty for none.
        words: Number of columns, from the left, that hold words; numbers are set to the right.

    Example:
        >>> sheet = Sheet("accuracy", ["model", "value"], [["jury", "0.71"]], "share of pairs ordered rightly")
        >>> print(sheet.markdown())
        ### accuracy
        <BLANKLINE>
        | model | value |
        |---|--:|
        | jury | 0.71 |
        <BLANKLINE>
        share of pairs ordered rightly
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: int = 1

    def table(self) -> Table:
        """Return the sheet as a table of `rich`."""
        legend = cell(self.note) if self.note else None
        table = Table(title=cell(self.title), title_justify="left", caption=legend, caption_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(cell(column), justify="left" if i < self.words else "right")
        for row in self.rows:
            table.add_row(*map(cell, row))
        return table

    def markdown(self) -> str:
        """Return the sheet as a section of a Markdown page."""
        rule = ["---" if i < self.words else "--:" for i in range(len(self.columns))]
        lines = [f"### {markdown_text(self.title)}", ""]
        lines += [
            f"| {' | '.join(map(markdown_text, self.columns))} |",
            f"|{'|'.join(rule)}|",
            *(f"| {' | '.join(map(markdown_text, row))} |" for row in self.rows),
        ]
        return "\n".join([*lines, *(["", *map(markdown_text, self.note.splitlines())] if self.note else [])])


def show(sheets: Sequence[Sheet | str], console: Console) -> None:
    """Print tables, and paragraphs between them.

    Example:
        >>> show(["Verdict: the jury is better than one reward."], Console(width=60))
        Verdict: the jury is better than one reward.
    """
    for sheet in sheets:
        console.print(cell(sheet) if isinstance(sheet, str) else sheet.table())


def markdown(title: str, sheets: Sequence[Sheet | str]) -> str:
    """Return tables and paragraphs as a Markdown page.

    Example:
        >>> print(markdown("Evaluation", ["Verdict: undecided."]))
        # Evaluation
        <BLANKLINE>
        Verdict: undecided.
    """
    sections = [markdown_text(sheet) if isinstance(sheet, str) else sheet.markdown() for sheet in sheets]
    return "\n\n".join([f"# {markdown_text(title)}", *sections])


def number_text(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number, or a dash where there is none.

    Example:
        >>> number_text(0.5), number_text(0.5, 2, sign=True), number_text(None), number_text(float("nan"))
        ('0.500', '+0.50', '-', '-')
        >>> number_text(-1e-9), number_text(-1e-9, sign=True)  # no sign of its own
        ('0.000', '+0.000')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{round(float(value), digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def interval_text(row: Mapping[str, Any], digits: int = 3, sign: bool = True) -> str:
    """Return the value of a row of results with its interval, if it has one.

    Example:
        >>> interval_text({"value": 0.1, "ci_low": 0.05, "ci_high": 0.15}, 2)
        '+0.10 [+0.05, +0.15]'
        >>> interval_text({"value": 0.1, "ci_low": float("nan"), "ci_high": float("nan")}, 2)
        '+0.10'
    """
    value = number_text(row["value"], digits, sign)
    if value == "-" or row["ci_low"] is None or math.isnan(row["ci_low"]):
        return value
    return f"{value} [{number_text(row['ci_low'], digits, sign)}, {number_text(row['ci_high'], digits, sign)}]"
