"""The plots of a report: each answers one question and says the answer in its title.

Every function takes the results of a run and returns a matplotlib figure, or None where there is nothing to draw.
Reads `RunResults`; knows nothing of HTML or files.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatter

from plural_rlhf.report.canvas import (
    FONT,
    GREY,
    INK,
    METHOD_COLOURS,
    OTHER,
    key_line,
    new_figure,
    option_colours,
    panel_grid,
    title,
)
from plural_rlhf.report.names import BASELINES, METHOD_NAMES, Method, Metric, Split, Stage
from plural_rlhf.report.points import margins
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_jury import Grouping, Groupings
from plural_rlhf.report.results_policies import LoggedStep, QuestionResult
from plural_rlhf.report.tables import Rows, distance_metric, format_nats, format_percent, format_points, short_labels


__all__ = [
    "plot_clusters",
    "plot_distances",
    "plot_distributions",
    "plot_information",
    "plot_steering",
    "plot_training",
]

SHORT_NAMES: Mapping[str, str] = {
    Method.UNTOUCHED: "before",
    Method.WARM: "warm-up",
    Method.GRPO: "GRPO",
    Method.PLURAL: "plural",
}
ON_ANY_COLOUR = withStroke(linewidth=2.4, foreground="white")
"""Outline of a line that is drawn on bars."""
BASELINE_LINES = {Method.UNIFORM: ":", Method.MARGINAL: "--", Method.WORDING: "-.", Method.FLOOR: "-"}
DISTANCES: Mapping[Metric, tuple[Callable[[float], str], str]] = {
    Metric.POINTS: (format_points, "points off, of 100 people"),
    Metric.JSD: (format_nats, "JS divergence (nats)"),
}
"""How a distance is printed, and its unit."""
SPLIT_MARKS = {
    Split.TRAIN: ("o", "#0072b2", "trained question"),
    Split.HELDOUT: ("^", "#e69f00", "held-out question"),
}


@matplotlib.rc_context(FONT)
def plot_distributions(results: RunResults) -> Figure | None:
    r"""Plot what everybody answers: one panel per question, one bar per speaker, split by answer.

    Example:
        >>> question = QuestionResult(
        ...     id="q", prompt="More parks?", options=["yes", "no"], split="train", n=9, human=[0.75, 0.25],
        ...     jury=[0.7, 0.3], clusters={}, policy={},
        ... )
        >>> figure = plot_distributions(RunResults(questions=[question]))
        >>> figure.texts[0].get_text().replace("\xa0", " ")
        'Share of the most common answer, on average: people 75.0 %'
    """
    if not results.questions:
        return None
    ordered = sorted(results.questions, key=lambda q: q.split != Split.TRAIN)
    labels = short_labels(ordered)
    shared = _share_options(ordered)
    columns = min(3, len(ordered))
    policies = [m for m in (Method.PLURAL, Method.GRPO, Method.UNTOUCHED) if any(m in q.policy for q in ordered)]
    panel = (3.2, 0.2 + 0.225 * (1 + len(policies)))
    figure, grid = panel_grid(len(ordered), columns, panel, gaps=(0.25, 0.42), left=0.75, bottom=0.1)
    for axes, question in zip(grid, ordered, strict=False):
        bars = [("people", question.human)]
        bars += [
            (SHORT_NAMES[method], probs)
            for method in policies
            if (probs := question.population_answers(method)) is not None
        ]
        colours = option_colours(len(question.options))
        for height, (_, probs) in enumerate(bars):
            _stack(axes, height, probs, colours)
            if height == 0:
                _margins(axes, question)
            if not shared and height == 0:
                _name_parts(axes, height, probs, question.options, colours)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.set_ylim(len(bars) - 0.45, -0.55)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.tick_params(axis="y", length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        mark = "  (held out)" if question.split == Split.HELDOUT else ""
        axes.set_title(f"{labels[question.id]}{mark}", fontweight="bold" if mark else "normal", pad=3)
        if axes not in grid[::columns]:
            axes.set_yticklabels([])
    title(figure, _distribution_finding(results))
    if shared:
        _legend(figure, ordered[0].options, others=bool(policies))
    return figure


@matplotlib.rc_context(FONT)
def plot_clusters(results: RunResults) -> Figure | None:
    """Plot how the clusters differ from everybody: clusters by questions; colour is the shift of the answers."""
    clusters = results.clusters
    questions = [q for q in results.questions if all(cluster.name in q.clusters for cluster in clusters)]
    if not clusters or not questions:
        return None
    labels = short_labels(questions, width=24)
    options = questions[0].options
    shared = _share_options(questions)
    shift = np.array([[_shift(q, cluster.name, shared) for q in questions] for cluster in clusters])
    limit = max(0.05, float(np.abs(shift).max()))
    width = 3.2 + 0.52 * len(questions)
    height = 1.75 + 0.5 * len(clusters)
    figure = new_figure(width, height)
    axes = figure.add_axes((2.3 / width, 0.15 / height, (width - 3.2) / width, 0.5 * len(clusters) / height))
    edges = np.arange(-0.5, len(questions)), np.arange(-0.5, len(clusters))
    axes.pcolormesh(*edges, shift, cmap="PuOr" if shared else "Blues", vmin=-limit if shared else 0, vmax=limit)
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(shift):
        dark = abs(value) > 0.6 * limit
        points = round(100 * value)
        text = f"{points:+d}".replace("-", "−") if shared and points else str(points)
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "#17202c")
    names = [f"{_wrap(cluster.name, 30)}\n{format_percent(cluster.prevalence)} of raters" for cluster in clusters]
    axes.set_yticks(range(len(clusters)), names, fontsize=8)
    axes.set_xticks(range(len(questions)), [labels[q.id] for q in questions], rotation=40, ha="left", fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if shared:
        finding = f"Shift against all raters, from “{options[0]}” (−100, orange) to “{options[-1]}” (+100, purple)"
    else:
        finding = "Answers that differ from those of all raters (total variation, in points of 100)"
    title(figure, finding)
    return figure


@matplotlib.rc_context(FONT)
def plot_distances(results: RunResults) -> Figure | None:
    """Plot who is closest to the people: bars of the JS divergence, beside what needs no training.

    Example:
        >>> from plural_rlhf.report.results_policies import Row
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> plot_distances(RunResults(rows=[row])).texts[0].get_text()
        'On held-out questions plural is 0.020 nats from the people'
    """
    rows = Rows(results.rows)
    methods = [method for method in METHOD_COLOURS if method in rows.methods()]
    if not methods:
        return None
    metric = distance_metric(rows)
    show, unit = DISTANCES[metric]
    splits = {Split.TRAIN: "trained questions", Split.HELDOUT: "held-out questions"}
    reach = [0.0]
    for method in (*methods, *BASELINES):
        for split in splits:
            reach += rows.interval(method, split, metric) or ()
            reach.append(rows.value(method, split, metric) or 0.0)
    top = max(reach) or 1.0
    figure, grid = panel_grid(2, 2, (3.8, 0.36 * len(methods)), left=1.75, top=0.8)
    for axes, (split, name) in zip(grid, splits.items(), strict=True):
        for height, method in enumerate(methods):
            value, interval = rows.value(method, split, metric), rows.interval(method, split, metric)
            if value is None:
                continue
            axes.barh(height, value, color=METHOD_COLOURS[method], height=0.66)
            if interval is not None:
                axes.plot(interval, [height, height], color=INK, lw=1.2)
            weight = "bold" if method == Method.PLURAL else "normal"
            axes.text(1.19 * top, height, show(value), va="center", ha="right", fontweight=weight)
        if metric == Metric.POINTS:
            axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
        axes.set_ylim(len(methods) - 0.5, -0.62)
        axes.set_xlim(0, 1.2 * top)
        _mark_baselines(axes, {name: rows.value(name, split, metric) for name in BASELINES}, show)
        axes.set_yticks(range(len(methods)), [METHOD_NAMES[m] for m in methods] if split == Split.TRAIN else [])
        axes.set_xlabel(f"{name}: {unit}, lower is better")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    title(figure, _distance_finding(rows, metric))
    return figure


@matplotlib.rc_context(FONT)
def plot_training(results: RunResults) -> Figure | None:
    """Plot whether the training settled: one panel per trained policy.

    Example:
        >>> history = [LoggedStep(step=1, loss=0.4), LoggedStep(step=2, loss=0.3)]
        >>> figure = plot_training(RunResults(training={"plural": history}))
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['plural: loss (nats)']
    """
    curves = {
        stage: _curve(results.training.get(stage, []), reward=stage == Stage.GRPO)
        for stage in (Stage.WARM, Stage.PLURAL, Stage.GRPO)
    }
    curves = {stage: points for stage, points in curves.items() if len(points)}
    if not curves:
        return None
    figure, grid = panel_grid(len(curves), len(curves), (2.9, 1.9), gaps=(0.75, 0.0), top=0.7)
    for axes, (stage, points) in zip(grid, curves.items(), strict=True):
        steps, values = points.T
        axes.plot(steps, values, color=METHOD_COLOURS[stage], lw=1, alpha=0.45)
        axes.plot(steps, _smooth(values), color=METHOD_COLOURS[stage], lw=2)
        axes.set_title(f"{SHORT_NAMES[stage]}: {'mean reward' if stage == Stage.GRPO else 'loss (nats)'}")
        axes.set_xlabel("optimiser step")
        if stage != Stage.GRPO and values.min() > 0 and values.max() / values.min() > 20:
            axes.set_yscale("log")
            for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                axis_format(LogFormatter(minor_thresholds=(2, 0.5)))  # numbers, where the usual one writes mathematics
    seconds = {} if results.meta is None else results.meta.seconds
    spent = [f"{SHORT_NAMES[stage]} {seconds[stage]:.0f} s" for stage in curves if stage in seconds]
    title(figure, "Time spent: " + ", ".join(spent) if spent else "Loss and reward per step")
    return figure


@matplotlib.rc_context(FONT)
def plot_steering(results: RunResults) -> Figure | None:
    r"""Plot whether the policy follows its weights: predicted against achieved shares, one panel per weighting.

    Example:
        >>> from plural_rlhf.report.results_policies import SteeringResult
        >>> entry = SteeringResult(
        ...     weighting="council", weights={"urban": 1.0}, question="q", split="train", predicted=[0.6, 0.4],
        ...     achieved=[0.5, 0.5], jsd_nats=0.005,
        ... )
        >>> plot_steering(RunResults(steering=[entry])).axes[0].get_title(loc="left")
        'council\nJS 0.0050 nats'
    """
    entries = results.steering
    if not entries:
        return None
    weightings = list(dict.fromkeys(entry.weighting for entry in entries))
    columns = min(4, len(weightings))
    figure, grid = panel_grid(len(weightings), columns, (2.25, 2.25), gaps=(0.35, 1.0), top=1.1)
    for number, (axes, weighting) in enumerate(zip(grid, weightings, strict=False)):
        panel = [entry for entry in entries if entry.weighting == weighting]
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, zorder=0)
        for split, (marker, colour, _) in SPLIT_MARKS.items():
            points = [entry for entry in panel if entry.split == split]
            predicted = np.concatenate([[], *(entry.predicted for entry in points)])
            achieved = np.concatenate([[], *(entry.achieved for entry in points)])
            axes.scatter(predicted, achieved, s=16, marker=marker, color=colour, alpha=0.8, linewidths=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if number % columns == 0 else [])
        mean = float(np.mean([entry.jsd_nats for entry in panel]))
        axes.set_title(f"{_wrap(weighting, 30)}\nJS {format_nats(mean)} nats", fontsize=8.5)
        axes.set_xlabel("predicted share")
        if number % columns == 0:
            axes.set_ylabel("achieved share")
    overall = float(np.mean([entry.jsd_nats for entry in entries]))
    title(
        figure,
        f"Under all weightings, what the policy says is {format_nats(overall)} nats from what the jury predicts",
    )
    key_line(figure, list(SPLIT_MARKS.values()))
    return figure


@matplotlib.rc_context(FONT)
def plot_information(results: RunResults) -> Figure | None:
    """Plot what it helps to know about a rater: nats per answer, clusters beside demographic groups and controls.

    Example:
        >>> clusters = Grouping(grouping="clusters", n_groups=2, info=0.026, low=0.021, high=0.031)
        >>> party = Grouping(grouping="party", source="trait", n_groups=3, info=0.016, low=0.012, high=0.020)
        >>> groupings = Groupings(
        ...     rows=[clusters, party], clusters=clusters, best_demographic=party, paired_difference=None
        ... )
        >>> plot_information(RunResults(groupings=groupings)).texts[0].get_text()
        'Knowing the cluster is worth 0.026 nats per answer; knowing party, 0.016'
    """
    groupings = results.groupings
    if groupings is None or not groupings.rows:
        return None
    rows = sorted(groupings.rows, key=lambda row: -row.info)
    figure, grid = panel_grid(1, 1, (5.6, 0.3 * len(rows)), left=2.5, top=0.5)
    axes = grid[0]
    ends = [np.nanmax([row.high, row.info]) for row in rows]  # no interval where raters or questions are few
    top = max(ends)
    for height, row in enumerate(rows):
        axes.barh(height, row.info, height=0.66, color=_grouping_colour(row, groupings))
        axes.plot([row.low, row.high], [height, height], color=INK, lw=1.2)
        axes.text(max(ends[height], 0) + 0.015 * top, height, format_nats(row.info), va="center")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.grouping}, {row.n_groups} groups" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(right=1.17 * top)
    axes.set_xlabel("nats per answer gained on raters and answers not used for fitting")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    best = groupings.best_demographic
    finding = f"Knowing the cluster is worth {format_nats(groupings.clusters.info)} nats per answer"
    if best is not None:
        finding += f"; knowing {best.grouping}, {format_nats(best.info)}"
    title(figure, finding)
    return figure


def _legend(figure: Figure, options: Sequence[str], *, others: bool) -> None:
    colours = option_colours(len(options))
    key_line(
        figure,
        [("s", colour, option) for option, colour in zip(options, colours, strict=True)]
        + [("s", OTHER, "anything else")] * others,
    )


def _stack(axes: Axes, height: int, probs: Sequence[float], colours: Sequence[str]) -> None:
    left = 0.0
    for p, colour in zip(probs, colours, strict=True):
        axes.barh(height, p, left=left, color=colour, height=0.74, linewidth=0)
        left += p
    axes.barh(height, 1, color="none", edgecolor=GREY, height=0.74, linewidth=0.5)


def _margins(axes: Axes, question: QuestionResult) -> None:
    """The margins of error of people's shares, at each boundary between two answers."""
    boundaries = np.cumsum(question.human)[:-1]
    for place, low, high in zip(boundaries, *margins(question, boundaries), strict=True):
        if np.isfinite([place, low, high]).all():
            axes.plot([low, high], [0, 0], color=INK, lw=1.1, solid_capstyle="butt", path_effects=[ON_ANY_COLOUR])


def _mark_baselines(axes: Axes, values: Mapping[Method, float | None], show: Callable[[float], str]) -> None:
    """Lines across the bars, named above them from left to right, each in its part of the width."""
    known = sorted((value, name) for name, value in values.items() if value is not None)
    room = axes.get_xlim()[1] / max(1, len(known))
    for place, (value, name) in enumerate(known):
        axes.axvline(value, color=GREY, ls=BASELINE_LINES[name], lw=1.1, zorder=0)
        axes.annotate(
            f"{name} {show(value)}",
            (value, -0.62),
            (room * (place + 0.05), -1.05),
            fontsize=8,
            color=GREY,
            va="bottom",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkA": 0, "shrinkB": 0},
        )


def _name_parts(
    axes: Axes, height: int, probs: Sequence[float], options: Sequence[str], colours: Sequence[str]
) -> None:
    left = 0.0
    for p, option, colour in zip(probs, options, colours, strict=True):
        if p * 48 > len(option):
            dark = np.mean([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) < 120
            axes.text(
                left + p / 2,
                height,
                option,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "#17202c",
            )
        left += p


def _share_options(questions: Sequence[QuestionResult]) -> bool:
    """Whether all questions offer the same answers, which then count as ordered."""
    return all(question.options == questions[0].options for question in questions)


def _shift(question: QuestionResult, cluster: str, ordered: bool) -> float:
    """How far a cluster's answers lie from all raters': signed on ordered options, else total variation."""
    difference = np.array(question.clusters[cluster].human) - np.array(question.human)
    if not ordered:
        return float(0.5 * np.abs(difference).sum())
    return float(difference @ np.linspace(0, 1, len(difference)))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a tenth of the curve."""
    half = len(values) // 20
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width, max_lines=2, placeholder="…")


def _grouping_colour(row: Grouping, groupings: Groupings) -> str:
    if row.grouping == groupings.clusters.grouping:
        return METHOD_COLOURS[Method.PLURAL]
    return GREY if row.source == "control" else "#e69f00"


def _curve(history: Sequence[LoggedStep], *, reward: bool) -> np.ndarray:
    """`(steps, 2)` step and mean reward, or step and loss, of the steps that logged it."""
    points = [(entry.step, entry.reward if reward else entry.loss) for entry in history]
    return np.array([point for point in points if point[1] is not None], dtype=float)


def _distribution_finding(results: RunResults) -> str:
    """The mean probability of the most likely answer says whether a policy collapsed."""

    def peak(distributions: Sequence[Sequence[float]]) -> float:
        return float(np.mean([max(d) for d in distributions]))

    parts = [f"people {format_percent(peak([q.human for q in results.questions]))}"]
    for method in (Method.PLURAL, Method.GRPO):
        answers = [probs for q in results.questions if (probs := q.population_answers(method)) is not None]
        if answers:
            parts.append(f"{SHORT_NAMES[method]} {format_percent(peak(answers))}")
    return "Share of the most common answer, on average: " + ", ".join(parts)


def _distance_finding(rows: Rows, metric: Metric) -> str:
    show, _ = DISTANCES[metric]
    unit = "points off" if metric == Metric.POINTS else "nats from the people"
    split = Split.HELDOUT if rows.value(Method.PLURAL, Split.HELDOUT, metric) is not None else Split.TRAIN
    ours, grpo = (rows.value(method, split, metric) for method in (Method.PLURAL, Method.GRPO))
    if ours is None:
        return "Distance to the people (plural was not trained)"
    text = f"On {'held-out' if split == Split.HELDOUT else 'trained'} questions plural is {show(ours)} {unit}"
    return text + (f", GRPO {show(grpo)}" if grpo is not None else "")
