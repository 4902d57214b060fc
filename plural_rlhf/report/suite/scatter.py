"""The plots of a suite in which a model is a point: valid and different answers, and several objectives.

Every function takes `SuiteResults` and returns a figure, or None where there is nothing to draw. Knows no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, GREY, panel_grid
from plural_rlhf.report.suite.results import ALL, FrontMember, SuiteResults
from plural_rlhf.report.suite.style import draw_head, head_height, model_key


__all__ = ["plot_coverage", "plot_objectives"]

YIELDS = (1, 3, 10, 30)
"""Different valid answers per 100 texts to which a line is drawn."""
ON_FRONT = 0.5
"""Probability of being on the front from which a model is drawn on it."""


@matplotlib.rc_context(FONT)
def plot_coverage(results: SuiteResults) -> Figure | None:
    """Plot how many texts are valid against how many of the valid ones differ, a panel per task that counts both.

    The second share is that of all valid texts together, so that the product of both is the yield exactly; the mean
    over generation tasks, `uniqueness`, has another weight for each. Arrows lead from the first model to the others.

    Example:
        >>> from plural_rlhf.report.suite.results import MetricResult
        >>> rows = [
        ...     MetricResult(metric="validity", value=0.5), MetricResult(metric="yield", value=20.0),
        ...     MetricResult(metric="yield", value=20.0, group="towns", n_items=100),
        ... ]
        >>> models = [{"name": "base", "kind": "causal-lm", "identity": "1"}]
        >>> figure = plot_coverage(SuiteResults(models=models, results={"base": {"coverage-both": rows}}))
        >>> figure.texts[0].get_text()
        'Of 100 texts, different valid answers: base 20.0'
    """
    models = results.real_models()
    points = {
        task: {model: point for model in models if (point := _point(results, model, task)) is not None}
        for task in results.tasks()
    }
    points = {task: of_task for task, of_task in points.items() if of_task}
    if not points:
        return None
    shown = [model for model in models if any(model in of_task for of_task in points.values())]
    styles, names, key = model_key(models, shown)
    of_first = next(iter(points.values()))
    finding = _coverage_finding({names[model]: x * y / 100 for model, (x, y) in of_first.items()})
    columns = min(2, len(points))
    panel = (5.6 if columns == 1 else 3.8, 3.0)
    width = 0.9 + columns * panel[0] + (columns - 1) * 0.7
    top = 0.4 + head_height(finding, key, width)
    figure, grid = panel_grid(len(points), columns, panel, gaps=(0.7, 1.0), left=0.75, top=top, bottom=0.55)
    for axes, (task, of_task) in zip(grid, points.items(), strict=True):
        _iso_yields(axes, of_task)
        start = of_task.get(shown[0])
        for place, (model, (valid, different)) in enumerate(of_task.items()):
            mark, colour = styles[model]
            if start is not None and (valid, different) != start:
                arrow = {"arrowstyle": "->", "color": GREY, "lw": 0.8, "shrinkA": 5, "shrinkB": 5}
                axes.annotate("", (valid, different), start, arrowprops=arrow)
            # Models at one point are rings in each other.
            size = 10 - 4 * place / max(1, len(of_task) - 1)
            axes.plot(valid, different, mark, color=colour, ms=size, clip_on=False, zorder=3)
        axes.set_xlabel("valid texts, of 100")
        axes.set_ylabel("different ones, of 100 valid")
        axes.set_title(task, loc="left", fontsize=9)
    draw_head(figure, finding, key)
    return figure


def _point(results: SuiteResults, model: str, task: str) -> tuple[float, float] | None:
    """Return valid texts of 100, and different ones of 100 valid."""
    rows = results.results.get(model, {}).get(task, [])
    valid = next((row.value for row in rows if row.metric == "validity" and row.group == ALL), None)
    mean = next((row.value for row in rows if row.metric == "yield" and row.group == ALL), None)
    draws = [row.n_items for row in rows if row.metric == "yield" and row.group != ALL]
    if valid is None or mean is None or not draws:
        return None
    return 100 * valid, 100 * mean / (float(np.mean(draws)) * valid) if valid else 0.0


def _iso_yields(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Draw lines of equal yield, named at the right edge."""
    xs, ys = (np.array([point[side] for point in points.values()]) for side in (0, 1))
    right, upper = min(100.0, max(5.0, 1.3 * xs.max())), min(105.0, max(5.0, 1.3 * ys.max()))
    axes.set_xlim(0, right)
    axes.set_ylim(0, upper)
    for count in YIELDS:
        leftmost = 100 * count / upper
        if leftmost < right:
            x = np.geomspace(leftmost, right, 60)
            axes.plot(x, 100 * count / x, color=GREY, lw=0.7, ls=":", zorder=0)
            axes.text(right, 100 * count / right, f"{count} ", color=GREY, fontsize=7.5, va="bottom", ha="right")


def _coverage_finding(yields: Mapping[str, float]) -> str:
    """Name the yields of the first model and of the best other one."""
    first, *others = yields
    named = [first, *([max(others, key=yields.__getitem__)] if others else [])]
    return "Of 100 texts, different valid answers: " + ", ".join(f"{name} {yields[name]:.1f}" for name in named)


@matplotlib.rc_context(FONT)
def plot_objectives(results: SuiteResults) -> Figure | None:
    """Plot every model in all objectives, a panel per task; dashed is what another model is better than in all.

    Two objectives span a plane, in which the front is a line; of more, each is a line of its own with a mark per
    model.

    Example:
        >>> numbers = {"task": "talk", "n_items": 5, "improves_on": {}}
        >>> members = [
        ...     FrontMember(model="people", objectives={"brief": 0.7, "kind": 0.2}, on_front=1.0, **numbers),
        ...     FrontMember(model="ours", objectives={"brief": 0.6, "kind": 0.1}, on_front=0.1, **numbers),
        ... ]
        >>> plot_objectives(SuiteResults(fronts=members)).texts[0].get_text()
        'talk: on the front is people'
    """
    by_task: dict[str, list[FrontMember]] = {}
    for member in results.fronts:
        by_task.setdefault(member.task, []).append(member)
    if not by_task:
        return None
    shown = list(dict.fromkeys(member.model for member in results.fronts))
    styles, names, key = model_key(results.real_models() or shown, shown)
    task, members = next(iter(by_task.items()))
    best = [names[member.model] for member in members if member.on_front >= ON_FRONT]
    verb = "is" if len(best) == 1 else "are"
    finding = f"{task}: on the front {verb} {', '.join(best) if len(best) < 4 else f'{len(best)} of {len(members)}'}"
    most = max(len(member.objectives) for member in results.fronts)
    height = 3.0 if most == 2 else 0.3 + 0.42 * most
    top = 0.4 + head_height(finding, key, 7.0)
    figure, grid = panel_grid(len(by_task), 1, (4.65, height), gaps=(0.3, 1.0), left=2.2, top=top, bottom=0.55)
    for axes, (task, members) in zip(grid, by_task.items(), strict=True):
        objectives = list(members[0].objectives)
        (_draw_plane if len(objectives) == 2 else _draw_profiles)(axes, members, objectives, styles)
        axes.set_title(task, loc="left", fontsize=9)
    draw_head(figure, finding, key)
    return figure


def _draw_plane(
    axes: Axes, members: Sequence[FrontMember], objectives: Sequence[str], styles: Mapping[str, tuple[str, str]]
) -> None:
    points = {member.model: [member.objectives[name] for name in objectives] for member in members}
    front = sorted(points[member.model] for member in members if member.on_front >= ON_FRONT)
    axes.plot(*zip(*front, strict=True), color=GREY, lw=1.0, zorder=0) if front else None
    for place, (model, (x, y)) in enumerate(points.items()):
        mark, colour = styles[model]
        size = 10 - 4 * place / max(1, len(points) - 1)
        axes.plot(x, y, mark, color=colour, ms=size, clip_on=False)
    axes.set_xlabel(objectives[0])
    axes.set_ylabel(objectives[1])


def _draw_profiles(
    axes: Axes, members: Sequence[FrontMember], objectives: Sequence[str], styles: Mapping[str, tuple[str, str]]
) -> None:
    heights = range(len(objectives))
    for member in members:
        mark, colour = styles[member.model]
        values = [member.objectives[name] for name in objectives]
        line = "-" if member.on_front >= ON_FRONT else "--"
        axes.plot(values, heights, line, marker=mark, color=colour, lw=1.1, ms=5.5, clip_on=False)
    axes.set_yticks(heights, [_short(text) for text in objectives], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(objectives) - 0.6, -0.4)
    axes.set_xlabel("mean of the objective (right is better; dashed: another is better in all)")


def _short(text: str) -> str:
    return text if len(text) < 33 else f"{text[:31]}…"
