"""How the models of a suite look in all its plots: a colour and a mark each, their names, the key. Draws no data."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from plural_rlhf.report.canvas import GREY, key_line, title, title_lines
from plural_rlhf.report.suite.results import PEOPLE


__all__ = ["COLOURS", "draw_head", "head_height", "key_columns", "model_key", "model_styles", "short_names"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539", "#9467bd")
MARKS = ("o", "s", "D", "^", "v")
LINE = 0.21
"""Height of a line of the key in inches."""
LONGEST = 32


def model_styles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the mark and colour of each model: the colours in turn, then again with the next mark. People are grey.

    Example:
        >>> model_styles(["base", "tuned"])
        {'people': ('P', '#8a929c'), 'base': ('o', '#0072b2'), 'tuned': ('o', '#d55e00')}
    """
    styles = {
        name: (MARKS[place // len(COLOURS) % len(MARKS)], COLOURS[place % len(COLOURS)])
        for place, name in enumerate(names)
    }
    return {PEOPLE: ("P", GREY)} | styles


def model_key(
    models: Sequence[str], shown: Sequence[str]
) -> tuple[dict[str, tuple[str, str]], dict[str, str], list[tuple[str, str, str]]]:
    """Return the style of each model, the short names of those that a plot shows, and their entries of the key.

    Example:
        >>> styles, names, key = model_key(["base", "tuned"], ["tuned"])
        >>> names, key
        ({'tuned': 'tuned'}, [('o', '#d55e00', 'tuned')])
    """
    styles, names = model_styles(models), short_names(shown)
    return styles, names, [(*styles[model], name) for model, name in names.items()]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten long names in their middle, except those that would become the same.

    Example:
        >>> short_names(["base", "organisation/a-model-of-a-long-name-8B-instruct"])
        {'base': 'base', 'organisation/a-model-of-a-long-name-8B-instruct': 'organisation/a-m…ame-8B-instruct'}
    """
    short = {name: _shortened(name) for name in names}
    return {name: text if list(short.values()).count(text) == 1 else name for name, text in short.items()}


def _shortened(name: str) -> str:
    head = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:head]}…{name[head + 1 - LONGEST :]}"


def key_columns(texts: Sequence[str], width: float) -> int:
    """Count the entries of a key that are side by side in so many inches.

    Example:
        >>> key_columns(["a", "b", "c"], 6.0), key_columns(["a" * 30, "b" * 30, "c" * 30], 6.0)
        (3, 2)
    """
    font = FontProperties(size=9)
    widest = max(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts) / 72
    return max(1, min(len(texts), int(width / (widest + 0.46))))


def head_height(text: str, entries: Sequence[tuple[str, str, str]], width: float) -> float:
    """Return the room that title and key need at the top of a figure, in inches.

    Example:
        >>> head_height("base is nearest", [("o", COLOURS[0], "base")], 6.0)
        0.53
    """
    lines = -(-len(entries) // key_columns([name for *_, name in entries], width))
    return _title_height(text, width) + LINE * lines


def draw_head(figure: Figure, text: str, entries: Sequence[tuple[str, str, str]]) -> None:
    """Draw the title, and under it the key on as many lines as it needs.

    Args:
        figure: The figure.
        text: The finding.
        entries: Marker or style of a line, colour and text of each entry.

    Example:
        >>> from plural_rlhf.report.canvas import new_figure
        >>> figure = new_figure(3.0, 2.0)
        >>> draw_head(figure, "base is nearest", [("o", COLOURS[0], "base")])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['base']
    """
    width, _ = figure.get_size_inches()
    title(figure, "\n".join(title_lines(text, width)))
    key_line(figure, entries, key_columns([name for *_, name in entries], width), _title_height(text, width))


def _title_height(text: str, width: float) -> float:
    return 0.32 + 0.19 * (len(title_lines(text, width)) - 1)
