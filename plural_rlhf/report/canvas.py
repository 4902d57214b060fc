"""What all plots share: panels measured in inches, titles, a legend, colours.

Knows matplotlib, and of a run the names of the methods only. Colours are from the Okabe-Ito set, which colour-blind
readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from plural_rlhf.report.names import Method
from reward_models.borders import FIGURE_STYLE


__all__ = [
    "FONT",
    "GREY",
    "INK",
    "METHOD_COLOURS",
    "OTHER",
    "key_line",
    "new_figure",
    "option_colours",
    "panel_grid",
    "title",
    "title_lines",
]

TITLE_SIZE = 11.0
INK = "#17202b"
"""Colour of text and axes. No data are drawn in it, so that a page may replace it by its own text colour."""
GREY = "#8a929c"
"""Colour of baselines and controls."""
OTHER = "none"
"""Colour of what is no offered answer: an empty mark with a grey edge."""
LINES = ("-", "--", "-.", ":")
"""What a key shows as a line."""
METHOD_COLOURS: Mapping[str, str] = {
    Method.UNTOUCHED: GREY,
    Method.WARM: "#56b4e9",
    Method.GRPO: "#d55e00",
    Method.PLURAL: "#0072b2",
    Method.JURY: "#009e73",
}
"""The methods that are drawn, from top to bottom, and their colours."""
FONT = {
    **FIGURE_STYLE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def new_figure(width: float, height: float) -> Figure:
    """Make a transparent figure that is drawn without a display.

    Args:
        width: Width in inches.
        height: Height in inches.

    Example:
        >>> new_figure(3.0, 2.0).get_size_inches().tolist()
        [3.0, 2.0]
    """
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    return figure


def panel_grid(
    panels: int,
    columns: int,
    panel: tuple[float, float],
    *,
    gaps: tuple[float, float] = (0.3, 0.3),
    left: float = 0.6,
    top: float = 0.95,
    bottom: float = 0.5,
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, measured in inches so that text never collides whatever their number.

    Args:
        panels: Number of panels.
        columns: Panels per line.
        panel: Width and height of a panel.
        gaps: Horizontal and vertical distance between panels.
        left: Room at the left edge, for labels.
        top: Room at the top, for title and legend.
        bottom: Room at the bottom.

    Returns:
        The figure, and its axes line by line.

    Example:
        >>> figure, axes = panel_grid(3, 2, (2.0, 1.0), gaps=(0.5, 0.5), left=1.0, top=1.0, bottom=0.5)
        >>> len(axes), [round(size, 2) for size in figure.get_size_inches().tolist()]  # two lines of two columns
        (3, [5.65, 4.0])
    """
    lines = math.ceil(panels / columns)
    width = left + columns * panel[0] + (columns - 1) * gaps[0] + 0.15
    height = top + lines * panel[1] + (lines - 1) * gaps[1] + bottom
    figure = new_figure(width, height)
    grid = []
    for index in range(panels):
        line, column = divmod(index, columns)
        x = left + column * (panel[0] + gaps[0])
        y = height - top - (line + 1) * panel[1] - line * gaps[1]
        axes = figure.add_axes((x / width, y / height, panel[0] / width, panel[1] / height))
        axes.patch.set_alpha(0)
        grid.append(axes)
    return figure, grid


def title(figure: Figure, text: str) -> None:
    """Write the finding above everything else.

    Example:
        >>> figure = new_figure(3.0, 2.0)
        >>> title(figure, "Plural is closest")
        >>> figure.texts[0].get_text()
        'Plural is closest'
    """
    width, height = figure.get_size_inches()
    font = FontProperties(size=TITLE_SIZE, weight="bold")
    wraps = "$" not in text  # matplotlib measures dollars as mathematics when it wraps, even where it draws none
    figure.text(
        0.1 / width,
        1 - 0.1 / height,
        text if wraps else _wrapped(text, font, width - 0.2),
        fontproperties=font,
        color=INK,
        va="top",
        ha="left",
        wrap=wraps,
    )


def _wrapped(text: str, font: FontProperties, width: float) -> str:
    """Break a text into lines of at most so many inches."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        points, _, _ = text_to_path.get_text_width_height_descent(longer, font, ismath=False)
        if points <= 72 * width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def title_lines(text: str, width: float) -> list[str]:
    """Break a title into the lines that it needs in a figure of so many inches.

    Example:
        >>> title_lines("Plural is closest", 1.0)
        ['Plural is', 'closest']
    """
    return _wrapped(text, FontProperties(size=TITLE_SIZE, weight="bold"), width - 0.2).split("\n")


def key_line(
    figure: Figure, entries: Sequence[tuple[str, str, str]], columns: int | None = None, below: float = 0.32
) -> None:
    """Draw a legend under the title.

    Args:
        figure: The figure.
        entries: Marker, or style of a line such as "--", colour and text of each entry.
        columns: Entries per line; None for all in one.
        below: Height of the title in inches.

    Example:
        >>> figure = new_figure(3.0, 2.0)
        >>> key_line(figure, [("o", GREY, "trained question")])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['trained question']
    """
    _, height = figure.get_size_inches()
    handles = [
        Line2D(
            [],
            [],
            ls=marker if marker in LINES else "",
            marker="" if marker in LINES else marker,
            color=colour,
            markersize=8,
            markeredgecolor=GREY if colour == OTHER else colour,
        )
        for marker, colour, _ in entries
    ]
    figure.legend(
        handles,
        [f" {name}" if marker in LINES else name for marker, _, name in entries],
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - below / height),
        ncols=columns or len(entries),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.4,
        borderaxespad=0.1,
    )


def option_colours(count: int) -> list[str]:
    """Return a colour per ordered answer: orange, light grey, blue; for two answers the ends, for more a gradient.

    Example:
        >>> option_colours(3)
        ['#e69f00', '#c9ced6', '#0072b2']
    """
    ends = {2: ["#e69f00", "#0072b2"], 3: ["#e69f00", "#c9ced6", "#0072b2"]}
    return (
        ends[count]
        if count in ends
        else [to_hex(c) for c in matplotlib.colormaps["cividis"](np.linspace(0, 1, count))]
    )
