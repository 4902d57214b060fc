"""What a figure of matplotlib shows, as lines of text that are stored and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def figure_lines(figure: Figure) -> Iterator[str]:
    """Yield the size, texts and legends of a figure, then what each panel draws."""
    yield "size " + numbers(figure.get_size_inches())
    yield from (f"text {text.get_text()!r} wrap={text.get_wrap()}" for text in figure.texts)
    for legend in figure.legends:
        handles = [to_hex(handle.get_color()) for handle in legend.legend_handles]
        entries = zip(legend.get_texts(), handles, strict=True)
        yield f"legend frame={legend.get_frame_on()} " + ", ".join(
            f"{text.get_text()!r} {colour}" for text, colour in entries
        )
    for number, axes in enumerate(figure.axes):
        yield f"## panel {number}"
        yield from axes_lines(axes)


def axes_lines(axes: Axes) -> Iterator[str]:
    yield f"title {axes.get_title(loc='left')!r} x {axes.get_xlabel()!r} y {axes.get_ylabel()!r}"
    for name, labels in (("x ticks", axes.get_xticklabels()), ("y ticks", axes.get_yticklabels())):
        yield f"{name} " + ", ".join(repr(label.get_text()) for label in labels)
    yield from (
        f"{axis.axis_name} scale {axis.get_scale()}"
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() != "linear"
    )
    yield "spines " + ", ".join(name for name, spine in axes.spines.items() if spine.get_visible())
    yield from (f"text {t.get_text()!r} at {numbers(t.get_position())}" for t in axes.texts)
    for patch in axes.patches:
        box = (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height())
        yield f"bar {numbers(box)} {to_hex(patch.get_facecolor(), keep_alpha=True)}"
    for line in axes.lines:
        ends = f"{numbers(line.get_xdata())} | {numbers(line.get_ydata())}"
        style = "" if line.get_linestyle() in ("-", "None") else f" {line.get_linestyle()}"
        filled = to_hex(line.get_markerfacecolor())
        style += "" if filled == to_hex(line.get_color()) else f" filled {filled}"
        yield f"line {line.get_marker()} {to_hex(line.get_color())}{style} {ends}"
    for points in axes.collections:
        if isinstance(points, PolyCollection):
            outline = numbers(points.get_paths()[0].vertices)
            yield f"area {to_hex(points.get_facecolor()[0], keep_alpha=True)} {outline}"
            continue
        values = points.get_array()
        colours = "" if values is None else f" of {numbers(values)}"
        yield f"points {numbers(np.asarray(points.get_offsets()).ravel())}{colours}"
    yield from (f"image {numbers(np.asarray(image.get_array()).ravel())}" for image in axes.images)


def numbers(array: Any) -> str:
    return " ".join(f"{round(float(value), 12) + 0.0:.3g}" for value in np.ravel(np.asarray(array, dtype=float)))
