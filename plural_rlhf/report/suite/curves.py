"""The plot of in-context tasks: how the loss of a person's answer falls with the answers of theirs that were read.

Takes `SuiteResults` and returns a figure, or None where there is nothing to draw. Knows no HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, GREY, panel_grid
from plural_rlhf.report.suite.results import ALL, MetricResult, SuiteResults
from plural_rlhf.report.suite.style import draw_head, head_height, model_key
from plural_rlhf.report.tables import format_nats


__all__ = ["plot_person_curves"]

POSITION = re.compile(r"k = (\d+)")
"""The group of a row of a curve: the number of answers that were read."""
RIVALS = {
    "marginal": ("--", "what the others answer"),
    "own_answers": (":", "the person's own mode"),
    "naive_bayes": ("-.", "naive Bayes"),
    "ceiling": ("-", "best possible"),
}
"""Line and name of what needs no model."""
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
WIDE = 10.0
"""Ratio of losses from which an axis is logarithmic: that of a model without examples hides all others."""

Curve = Mapping[int, MetricResult]


@matplotlib.rc_context(FONT)
def plot_person_curves(results: SuiteResults) -> Figure | None:
    """Plot the loss against the answers read, a panel per task, with baselines and the control of the first model.

    Example:
        >>> rows = [
        ...     MetricResult(metric="person_gain_nats", value=0.25, headline=True),
        ...     MetricResult(metric="loss_nats", group="k = 0", value=0.7, baselines={"shuffled": 0.7}),
        ...     MetricResult(metric="loss_nats", group="k = 1", value=0.4, baselines={"shuffled": 0.6}),
        ... ]
        >>> models = [{"name": "base", "kind": "causal-lm", "identity": "1"}]
        >>> figure = plot_person_curves(SuiteResults(models=models, results={"base": {"individual-votes": rows}}))
        >>> " ".join(figure.texts[0].get_text().split())
        "individual-votes: nats saved by reading the right person's answers: base 0.250"
    """
    models = results.real_models()
    curves = {
        task: {model: curve for model in models if (curve := _curve(results, model, task))} for task in results.tasks()
    }
    curves = {task: of_task for task, of_task in curves.items() if of_task}
    if not curves:
        return None
    shown = [model for model in models if any(model in of_task for of_task in curves.values())]
    styles, names, key = model_key(models, shown)
    rows = [row for of_task in curves.values() for curve in of_task.values() for row in curve.values()]
    known = {name for row in rows for name in row.baselines}
    if "shuffled" in known:
        key.append(("--", styles[shown[0]][1], f"{names[shown[0]]}, other people's answers read"))
    key += [(line, GREY, text) for name, (line, text) in RIVALS.items() if name in known]
    finding = _gain_finding(results, next(iter(curves)), names)
    columns = min(2, len(curves))
    panel = (5.6 if columns == 1 else 3.8, 2.5)
    width = 0.9 + columns * panel[0] + (columns - 1) * 0.5
    top = 0.4 + head_height(finding, key, width)
    figure, grid = panel_grid(len(curves), columns, panel, gaps=(0.5, 1.0), left=0.75, top=top, bottom=0.55)
    for number, (axes, (task, of_task)) in enumerate(zip(grid, curves.items(), strict=True)):
        _draw_curves(axes, of_task, shown[0], styles)
        axes.set_title(task, loc="left", fontsize=9)
        axes.set_xlabel("answers of the person that were read")
        if number % columns == 0:
            axes.set_ylabel("loss of the next one (nats)")
    draw_head(figure, finding, key)
    return figure


def _curve(results: SuiteResults, model: str, task: str) -> dict[int, MetricResult]:
    rows = [row for row in results.results.get(model, {}).get(task, []) if row.metric == "loss_nats"]
    found = {int(k[1]): row for row in rows if (k := POSITION.fullmatch(row.group))}
    return dict(sorted(found.items()))


def _draw_curves(axes: Axes, curves: Mapping[str, Curve], first: str, styles: Mapping[str, tuple[str, str]]) -> None:
    positions = sorted({k for curve in curves.values() for k in curve})
    place = {k: i for i, k in enumerate(positions)}
    drawn: list[float] = []

    def line(values: Mapping[int, float], style: str, colour: str, width: float, mark: str = "") -> None:
        drawn.extend(values.values())
        x = [place[k] for k in values]
        axes.plot(x, list(values.values()), style, marker=mark, color=colour, lw=width, ms=5, clip_on=False)

    longest = max(curves.values(), key=len)
    for name, (style, _) in RIVALS.items():
        line(_beside(longest, name), style, GREY, 1.1)
    if first in curves:
        line(_beside(curves[first], "shuffled"), "--", styles[first][1], 1.1)
    for model, curve in curves.items():
        mark, colour = styles[model]
        line({k: row.value for k, row in curve.items()}, "-", colour, 1.5, mark)
        for k, row in curve.items():
            if row.ci_low is not None and row.ci_high is not None:
                axes.plot([place[k]] * 2, [row.ci_low, row.ci_high], color=colour, lw=0.8)
    axes.set_xticks(range(len(positions)), [str(k) for k in positions])
    _scale(axes, drawn)


def _beside(curve: Curve, name: str) -> dict[int, float]:
    return {k: row.baselines[name] for k, row in curve.items() if name in row.baselines}


def _scale(axes: Axes, drawn: Sequence[float]) -> None:
    """Choose a logarithmic axis where the losses differ much, with numbers at its ticks."""
    low, high = min(drawn), max(drawn)
    if low <= 0 or high / low < WIDE:
        axes.set_ylim(0, 1.08 * high)
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.15)
    ticks = [tick for tick in TICKS if low / 1.15 <= tick <= high * 1.15]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _gain_finding(results: SuiteResults, task: str, names: Mapping[str, str]) -> str:
    """Name the gain of the first model and of the best other one, where the control was measured."""
    gains = {
        name: row.value
        for model, name in names.items()
        for row in results.results.get(model, {}).get(task, [])
        if row.metric == "person_gain_nats" and row.group == ALL
    }
    if not gains:
        return "How the loss falls with the answers of the person that were read"
    first, *others = gains
    named = [first, *([max(others, key=gains.__getitem__)] if others else [])]
    worth = ", ".join(f"{name} {format_nats(gains[name])}" for name in named)
    return f"{task}: nats saved by reading the right person's answers: {worth}"
