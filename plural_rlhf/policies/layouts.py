"""How a question is put with its offered answers. Knows no table and needs no library.

A policy answers well where a question is put as it was in its training, so that each way has a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


__all__ = ["LAYOUTS", "OFFERED", "Layout", "with_options"]

Layout = Literal["line", "list", "sentence", "bare"]
OFFERED: tuple[Layout, ...] = ("line", "list", "sentence")
"""How a question is put with its offered answers: behind it in one line; one per line, then "Answer:"; in a sentence
that asks to choose."""
LAYOUTS: tuple[Layout, ...] = (*OFFERED, "bare")
"""The same, and the question alone."""


def with_options(wording: str, options: Sequence[str], layout: Layout = "line") -> str:
    """Return a question with its offered answers, as a model is asked it.

    Args:
        wording: The question.
        options: The offered answers, in the order in which they are shown.
        layout: One of `LAYOUTS`.

    Example:
        >>> for layout in LAYOUTS:
        ...     print(with_options("Build more parks?", ["yes", "no"], layout))
        Build more parks? yes; no?
        Build more parks?
        - yes
        - no
        Answer:
        Build more parks? Choose one answer: yes, or no.
        Build more parks?
    """
    if layout == "line":
        return f"{wording} {'; '.join(options)}?"
    if layout == "list":
        return "\n".join([wording, *(f"- {option}" for option in options), "Answer:"])
    if layout == "sentence":
        *others, last = options
        return f"{wording} Choose one answer: {', '.join(others)}{', or ' if others else ''}{last}."
    return wording
