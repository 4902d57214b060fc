"""The Overton grid: which clusters of people agree with how many of a model's answers, question by question.

Takes `SuiteResults` and returns a figure, or None where there is nothing to draw. Knows no HTML.
"""

from __future__ import annotations

import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, new_figure, title, title_lines
from plural_rlhf.report.suite.results import PEOPLE, ClusterAgreement, SuiteResults
from plural_rlhf.report.suite.style import short_names


__all__ = ["plot_overton"]

LEFT, COLUMN, ROW = 3.6, 0.55, 0.21
"""Room for names at the left, width and height of a cell, in inches."""


@matplotlib.rc_context(FONT)
def plot_overton(results: SuiteResults) -> Figure | None:
    """Plot the share of answers with which each cluster agrees: a line per cluster, a column per model.

    Example:
        >>> numbers = {"task": "overton", "question": "More parks?", "n_answers": 8}
        >>> cells = [
        ...     ClusterAgreement(model="base", cluster="old", share=0.5, **numbers),
        ...     ClusterAgreement(model="base", cluster="young", share=0.0, **numbers),
        ... ]
        >>> " ".join(plot_overton(SuiteResults(agreement=cells)).texts[0].get_text().split())
        'Of 2 clusters, those that agree with none of 8 answers: base 1'
    """
    cells = results.agreement
    if not cells:
        return None
    columns = list(dict.fromkeys(cell.model for cell in cells))
    names = short_names(columns)
    share = {(cell.task, cell.question, cell.cluster, cell.model): cell.share for cell in cells}
    clusters: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        of_question = clusters.setdefault((cell.task, cell.question), [])
        if cell.cluster not in of_question:
            of_question.append(cell.cluster)
    labels: list[tuple[str, bool]] = []
    table = []
    for (task, question), of_question in clusters.items():
        labels.append((textwrap.shorten(question, 62, placeholder="…"), True))
        table.append([np.nan] * len(columns))
        for cluster in of_question:
            labels.append((cluster if len(cluster) < 49 else f"{cluster[:47]}…", False))
            table.append([share.get((task, question, cluster, model), np.nan) for model in columns])
    longest = max(map(len, names.values()))  # of letters of 0.06 inches, at 40 degrees
    top, right = 0.45 + 0.045 * longest, 0.1 + 0.05 * longest
    finding = _finding(cells, names)
    width = LEFT + COLUMN * len(columns) + right
    lines = title_lines(finding, width)
    top += 0.19 * (len(lines) - 1)
    height = top + ROW * len(labels) + 0.15
    figure = new_figure(width, height)
    box = LEFT / width, 0.15 / height, COLUMN * len(columns) / width, ROW * len(labels) / height
    axes = figure.add_axes(box)
    axes.patch.set_alpha(0)
    edges = np.arange(-0.5, len(columns)), np.arange(-0.5, len(labels))
    axes.pcolormesh(*edges, np.ma.masked_invalid(table), cmap="Blues", vmin=0, vmax=1, edgecolor="white", lw=0.6)
    for (row, column), value in np.ndenumerate(np.array(table)):
        if np.isfinite(value):
            colour = "white" if value > 0.6 else "#17202c"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks([row for row, (_, is_question) in enumerate(labels) if not is_question])
    axes.set_yticklabels([text for text, is_question in labels if not is_question], fontsize=7.5)
    for row, (text, is_question) in enumerate(labels):
        if is_question:
            axes.text(-0.5 - LEFT / COLUMN + 0.2, row, text, va="center", fontsize=8, fontweight="bold")
    axes.set_xticks(range(len(columns)), list(names.values()), rotation=40, ha="left", fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    title(figure, "\n".join(lines))
    return figure


def _finding(cells: list[ClusterAgreement], names: dict[str, str]) -> str:
    """Count the clusters without any answer that they agree with: of the first model, and of the best other one."""
    without: dict[str, list[bool]] = {}
    for cell in cells:
        if cell.model != PEOPLE:  # they wrote other numbers of answers
            without.setdefault(cell.model, []).append(cell.share == 0)
    answers = max((cell.n_answers for cell in cells if cell.model != PEOPLE), default=0)
    if not without:
        return "Of 100 answers, with how many does each cluster agree?"
    first, *others = without
    named = [first, *([min(others, key=lambda model: sum(without[model]))] if others else [])]
    counts = ", ".join(f"{names[model]} {sum(without[model])}" for model in named)
    return f"Of {len(without[first])} clusters, those that agree with none of {answers} answers: {counts}"
