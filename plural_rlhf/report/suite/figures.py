"""The plots of a suite: skill on every task, and the items where people and model differ most.

Every function takes `SuiteResults` and returns a figure, or None where there is nothing to draw. Knows no HTML.
"""

from __future__ import annotations

import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, GREY, INK, panel_grid
from plural_rlhf.report.suite.results import ItemResult, SuiteResults
from plural_rlhf.report.suite.style import COLOURS, draw_head, head_height, model_key, short_names


__all__ = ["plot_skill", "plot_worst_items"]

WIDTH = 6.2
"""Of the plot of skills, in inches."""
WORST = 10
LEFTMOST = -1.5
"""Skill below it is drawn at the edge: a mode alone may have −5, beside which all else is one point."""


@matplotlib.rc_context(FONT)
def plot_skill(results: SuiteResults) -> Figure | None:
    """Plot the skill of every model on every task with its interval; 0 is a uniform guess, 1 the people themselves.

    Example:
        >>> from plural_rlhf.report.suite.results import MetricResult
        >>> row = MetricResult(metric="skill_uniform", value=0.4, headline=True, unit="skill")
        >>> models = [{"name": "base", "kind": "causal-lm", "identity": "1"}]
        >>> figure = plot_skill(SuiteResults(models=models, results={"base": {"urn": [row]}}))
        >>> figure.texts[0].get_text()
        'base beats a uniform guess on 1 of 1 tasks'
    """
    skills = {
        (model.name, task): row
        for model in results.models
        for task in results.tasks()
        if (row := results.skill(model.name, task)) is not None
    }
    tasks = [task for task in results.tasks() if any(task == of for _, of in skills)]
    shown = [m for m in results.real_models() or [m.name for m in results.models] if any(m == of for of, _ in skills)]
    if not tasks or not shown:
        return None
    styles, names, key = model_key(results.real_models() or shown, shown)
    step = len(shown) + 1.2
    has_marginal = any(("marginal", task) in skills for task in tasks)
    key += [("--", GREY, "people on other items")] * has_marginal
    beaten = [task for task in tasks if (row := skills.get((shown[0], task))) is not None and row.value > 0]
    finding = f"{names[shown[0]]} beats a uniform guess on {len(beaten)} of {len(tasks)} tasks"
    top = 0.18 + head_height(finding, key, WIDTH + 2.15)
    panel = (WIDTH, 0.25 + 0.17 * step * len(tasks))
    figure, [axes] = panel_grid(1, 1, panel, left=2.0, top=top, bottom=0.55)
    for number, task in enumerate(tasks):
        for place, model in enumerate(shown):
            row = skills.get((model, task))
            if row is None:
                continue
            height, (mark, colour) = number * step + place, styles[model]
            if row.ci_low is not None and row.ci_high is not None:
                axes.plot(np.clip([row.ci_low, row.ci_high], LEFTMOST, 1.2), [height, height], color=colour, lw=1.6)
            inside = row.value >= LEFTMOST
            axes.plot(max(row.value, LEFTMOST), height, mark if inside else "<", color=colour, ms=5, clip_on=False)
            if not inside:
                text = f"  {row.value:.1f}".replace("-", "−")
                end = LEFTMOST if row.ci_high is None else max(LEFTMOST, row.ci_high)
                axes.text(end, height, text, color=colour, va="center", fontsize=7.5)
        marginal = skills.get(("marginal", task))
        if marginal is not None and marginal.value >= LEFTMOST:
            ends = [number * step - 0.5, number * step + len(shown) - 0.5]
            axes.plot([marginal.value] * 2, ends, color=GREY, lw=1.4, ls="--")
    axes.axvline(0, color=GREY, lw=0.9)
    axes.axvline(1, color=GREY, lw=0.9)
    axes.set_yticks([number * step + (len(shown) - 1) / 2 for number in range(len(tasks))], tasks)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(tasks) * step - 0.9, -0.9)
    axes.set_xlim(LEFTMOST, 1.1)
    axes.set_xticks([-1, 0, 1], ["−1", "0\nuniform guess", "1\npeople"])
    draw_head(figure, finding, key)
    return figure


@matplotlib.rc_context(FONT)
def plot_worst_items(results: SuiteResults) -> Figure | None:
    """Plot people and the first model side by side on the items where they differ most.

    Example:
        >>> plot_worst_items(SuiteResults()) is None
        True
    """
    models = results.real_models() or [model.name for model in results.models]
    worst = [item for item in results.worst_items if models and item.model == models[0]][:WORST]
    if not worst:
        return None
    columns = min(2, len(worst))
    most = max(len(item.options) for item in worst)
    panel = (3.0, 0.2 + 0.2 * most)
    figure, grid = panel_grid(len(worst), columns, panel, gaps=(1.7, 0.75), left=1.55, top=1.15, bottom=0.25)
    for axes, item in zip(grid, worst, strict=False):
        _draw_item(axes, item)
    [name] = short_names(models[:1]).values()
    draw_head(figure, f"Where {name} is farthest from people", [("s", INK, "people"), ("s", COLOURS[0], name)])
    return figure


def _draw_item(axes: matplotlib.axes.Axes, item: ItemResult) -> None:
    heights = np.arange(len(item.options))
    axes.barh(heights - 0.19, item.people, height=0.36, color=INK)
    axes.barh(heights + 0.19, item.answer, height=0.36, color=COLOURS[0])
    axes.set_yticks(heights, [textwrap.shorten(option, 24, placeholder="…") for option in item.options])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(item.options) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[["bottom"]].set_visible(False)
    lines = textwrap.wrap(" ".join(item.text.split()), 52, max_lines=2, placeholder=" …")
    axes.set_title("\n".join([f"{item.task}: {item.score:.2f} nats", *lines]), fontsize=7.5, pad=3)
