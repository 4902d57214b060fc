"""Plots of candidate responses under a jury; each says its finding in the title.

Figures are drawn without a display. Colours are from the Okabe-Ito set, which colour-blind readers can tell apart.
Knows nothing of how the numbers were made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reward_models.borders import FIGURE_STYLE, visible
from reward_models.evaluation.candidates.best_of_n import BestOfN
from reward_models.evaluation.candidates.landscape import Landscape, PromptLandscape
from reward_models.whole_file import whole_path


__all__ = ["plot_best_of_n", "plot_landscape"]

COLOURS = ("#8a929c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
INK = "#17202b"
MARKS = (
    (COLOURS[3], "^", "favourite of the cluster across"),
    (COLOURS[4], "v", "favourite of the cluster upwards"),
    (COLOURS[1], "o", "compromise"),
)
SCATTERED = 3  # prompts that are shown response by response
LINE_HEIGHT, PANEL = 0.2, (3.6, 2.9)  # inches


@matplotlib.rc_context(FIGURE_STYLE)
def plot_best_of_n(curves: BestOfN, path: str | Path) -> None:
    """Draw the gain of each method over the number of candidates, a panel per cluster, with intervals.

    Args:
        curves: What to draw.
        path: Image file to write; its ending says the format.

    Example:
        >>> import tempfile
        >>> from reward_models.evaluation.candidates.best_of_n import best_of_n
        >>> from reward_models.evaluation.candidates.pools import Pool
        >>> worth = [Pool(f"{i}?", ["a", "b"], np.array([[1.0], [0.0]])) for i in range(5)]
        >>> curves = best_of_n({"bt": [np.zeros(2)] * 5}, worth, ["all"], np.ones(1), base="bt", counts=(1, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_best_of_n(curves, f"{folder}/curves.png")
        ...     Path(folder, "curves.png").stat().st_size > 1_000
        True
    """
    used = [n for n in curves.counts if any(curves.mean(m, n, curves.columns[0]).n for m in curves.gains)]
    best = [_best(curves, used[-1], column) for column in curves.columns]
    finding = "; ".join(f"{column}: {method}" for column, method in zip(curves.columns, best, strict=True))
    figure, axes = _panels(len(curves.columns), f"Best of {used[-1]}, who gains most by which selection: {finding}")
    for panel, column in zip(axes, curves.columns, strict=True):
        for colour, method in zip(COLOURS, curves.gains, strict=False):
            means = [curves.mean(method, n, column) for n in used]
            low, high = ([getattr(mean, end) for mean in means] for end in ("low", "high"))
            panel.fill_between(used, low, high, color=colour, alpha=0.12, linewidth=0)
            panel.plot(used, [mean.value for mean in means], "o-", color=colour, markersize=3, label=method)
        panel.set_xscale("log", base=2)
        panel.set_xticks(used, [str(n) for n in used])
        panel.set_title(f"worth to: {visible(column)}")
        panel.set_xlabel("candidates")
        panel.axhline(0, color=INK, linewidth=0.6)
    axes[0].set_ylabel("gain over a random response, logits")
    _legend(figure, axes[0])
    _save(figure, path)


@matplotlib.rc_context(FIGURE_STYLE)
def plot_landscape(landscape: Landscape, path: str | Path) -> None:
    """Draw what one answer costs on each prompt, and the candidates of the most, a middling and the least divided one.

    Args:
        landscape: What to draw; with one cluster only the first panel.
        path: Image file to write; its ending says the format.

    Example:
        >>> import tempfile
        >>> from reward_models.evaluation.candidates.landscape import landscape
        >>> from reward_models.evaluation.candidates.pools import Pool
        >>> pools = [Pool("Pet?", ["cat", "dog"], np.array([[1.0, 0.0], [0.0, 1.0]]))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_landscape(landscape(pools, np.array([0.5, 0.5])), f"{folder}/landscape.png")
        ...     Path(folder, "landscape.png").stat().st_size > 1_000
        True
    """
    order = sorted(landscape.prompts, key=lambda p: -p.regrets.max())
    shown = _spread(order) if len(landscape.names) > 1 else []
    figure, axes = _panels(1 + len(shown), landscape.verdict())
    first = axes[0]
    rank = np.arange(1, len(order) + 1)
    for colour, label, regrets in (
        (COLOURS[2], "best response under the mean", [p.regrets_of_mean.max() for p in order]),
        (COLOURS[1], "compromise", [p.regrets.max() for p in order]),
    ):
        first.plot(rank, regrets, "o", color=colour, markersize=4, label=label)
    first.axhline(landscape.margin, color=INK, linewidth=0.8, linestyle="--", label="near-best")
    first.set_title("What one answer costs the worst-off cluster")
    first.set_xlabel("prompts, most divided first")
    first.set_ylabel("regret, logits")
    first.set_ylim(bottom=0)
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel, prompt in zip(axes[1:], shown, strict=True):
        _scatter(panel, prompt, landscape)
    for colour, marker, label in MARKS if shown else ():
        first.plot([], [], marker, color=colour, markerfacecolor="none", markersize=8, label=label)
    _legend(figure, first)
    _save(figure, path)


def _scatter(panel: Axes, prompt: PromptLandscape, landscape: Landscape) -> None:
    """Draw the candidates of one prompt by their rewards in the two clusters that are furthest apart in favourites."""
    rewards = prompt.pool.rewards
    gap = rewards.max(0) - rewards[prompt.favourites]  # (K of the favourite, K)
    one, other = np.unravel_index(np.argmax(gap + gap.T - np.eye(len(gap))), gap.shape)
    panel.plot(rewards[:, one], rewards[:, other], ".", color=COLOURS[0], markersize=4, alpha=0.6)
    places = (prompt.favourites[one], prompt.favourites[other], prompt.compromise)
    for (colour, marker, _), index in zip(MARKS, places, strict=True):
        panel.plot(
            rewards[index, one], rewards[index, other], marker, color=colour, markersize=8, markerfacecolor="none"
        )
    asked = prompt.pool.prompt if isinstance(prompt.pool.prompt, str) else prompt.pool.prompt[-1][1]
    panel.set_title("\n".join(textwrap.wrap(textwrap.shorten(visible(asked), 90, placeholder="…"), 46)), fontsize=8)
    panel.set_xlabel(f"reward of {visible(landscape.names[int(one)])}")
    panel.set_ylabel(f"reward of {visible(landscape.names[int(other)])}")


def _spread(order: Sequence[PromptLandscape]) -> list[PromptLandscape]:
    """Select the first, the middle and the last of the prompts."""
    places = np.unique(np.linspace(0, len(order) - 1, min(SCATTERED, len(order))).round().astype(int))
    return [order[i] for i in places]


def _best(curves: BestOfN, n: int, column: str) -> str:
    """Return the method with the largest gain."""
    gains = {method: curves.mean(method, n, column).value for method in curves.gains}
    return max((method for method in gains if not np.isnan(gains[method])), key=gains.__getitem__)


def _panels(count: int, finding: str) -> tuple[Figure, list[Axes]]:
    """Make a line of panels under a finding and room for a legend."""
    width = 0.5 + count * (PANEL[0] + 0.6)
    lines = textwrap.wrap(visible(finding), int(width * 10))
    height = PANEL[1] + 1.5 + LINE_HEIGHT * len(lines)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.text(0.1 / width, 1 - 0.1 / height, "\n".join(lines), va="top", fontsize=11, fontweight="bold", color=INK)
    axes = []
    for i in range(count):
        x, y = 0.6 + i * (PANEL[0] + 0.6), 0.55
        axes.append(figure.add_axes((x / width, y / height, PANEL[0] / width, PANEL[1] / height)))
    return figure, axes


def _legend(figure: Figure, panel: Axes) -> None:
    """Draw the legend of a panel between the finding and the panels."""
    _, height = figure.get_size_inches()
    handles, labels = panel.get_legend_handles_labels()
    lines = figure.texts[0].get_text().count("\n") + 1
    place = (0.0, 1 - (0.15 + LINE_HEIGHT * lines) / height)
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=place, ncols=6, frameon=False)


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure whole."""
    path = Path(path)
    with whole_path(path) as unfinished:
        figure.savefig(unfinished, dpi=120, format=path.suffix.lstrip(".") or "png", facecolor="white")
