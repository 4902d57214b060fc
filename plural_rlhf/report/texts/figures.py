"""Plots of freely written texts: approval, the map of answers, answers covered, gain against divergence.

Every function takes `TextResults` and returns a figure, or None where there is nothing to draw. Knows no HTML.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, GREY, key_line, new_figure, panel_grid, title
from plural_rlhf.report.names import Method
from plural_rlhf.report.results_policies import CheckpointResult, TextResults
from plural_rlhf.report.tables import format_percent
from plural_rlhf.report.texts.tables import policy_name
from plural_rlhf.report.texts.writers import PEOPLE, clusters, judge, prompts, reference, writers


__all__ = ["not_mapped", "plot_approvals", "plot_covered", "plot_gain_against_kl", "plot_map", "policy_colours"]

KNOWN_COLOURS = {Method.PLURAL: "#0072b2", Method.GRPO: "#d55e00"}
COLOURS = ("#009e73", "#e69f00", "#56b4e9", "#7f5539", "#9467bd", "#44aa99", "#999933", "#aa4466")
MAPPED_PROMPTS = 4
MAPPED_POLICIES = 3
JURY_NAMES = {"training": "the jury of the training", "heldout": "a jury of raters that took no part"}


def policy_colours(results: TextResults) -> dict[str, str]:
    """Return a colour per policy; people are pink, the reference grey.

    Example:
        >>> settings = {"policies": ["warm", "plural"], "reference": "warm"}
        >>> policy_colours(TextResults(split="heldout", weighting="all", settings=settings))
        {'people': '#cc79a7', 'warm': '#8a929c', 'plural': '#0072b2'}
    """
    others = [policy for policy in writers(results) if policy not in (PEOPLE, reference(results))]
    unknown = [policy for policy in others if policy not in KNOWN_COLOURS]
    colours = {policy: KNOWN_COLOURS[Method(policy)] for policy in others if policy in KNOWN_COLOURS}
    colours |= {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(unknown)}
    return {PEOPLE: "#cc79a7", reference(results): GREY} | colours


@matplotlib.rc_context(FONT)
def plot_approvals(results: TextResults) -> Figure | None:
    """Plot the approval of every cluster, a panel per jury, with people and the policy before training beside."""
    juries = [jury for jury in ("training", "heldout") if clusters(results, jury)]
    colours = policy_colours(results)
    judged = {row.policy for row in results.rows if row.measure == "approval"}
    shown = [writer for writer in writers(results) if writer in judged]
    if not juries or not shown:
        return None
    most = max(len(clusters(results, jury)) for jury in juries)
    panel = (6.2, 0.35 + 0.14 * most * (len(shown) + 1.5))
    figure, grid = panel_grid(len(juries), 1, panel, gaps=(0.3, 0.75), left=1.75, top=1.15)
    for axes, jury in zip(grid, juries, strict=True):
        names = clusters(results, jury)
        for place, cluster in enumerate(names):
            for i, writer in enumerate(shown):
                row = results.row(writer, "approval", jury=jury, cluster=cluster)
                if row is None or row.value is None:
                    continue
                height = place * (len(shown) + 1.5) + i
                if row.ci_low is not None and row.ci_high is not None:
                    axes.plot([row.ci_low, row.ci_high], [height, height], color=colours[writer], lw=1.4)
                axes.plot(row.value, height, "D" if writer == PEOPLE else "o", color=colours[writer], ms=5)
        centre = (len(shown) - 1) / 2
        axes.set_yticks(
            [place * (len(shown) + 1.5) + centre for place in range(len(names))],
            [f"{_lines(name)}\n{format_percent(weight)}" for name, weight in names.items()],
        )
        axes.set_ylim(len(names) * (len(shown) + 1.5) - 1.2, -1)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "half", "all"])
        axes.axvline(0.5, color=GREY, lw=0.7, ls=":")
        axes.set_title(JURY_NAMES[jury], loc="left")
    title(figure, "Of 100 members of each cluster, how many approve of a text?")
    key_line(figure, [("D" if w == PEOPLE else "o", colours[w], _short(policy_name(w))) for w in shown], columns=4)
    return figure


@matplotlib.rc_context(FONT)
def plot_map(results: TextResults) -> Figure | None:
    """Plot the plane of people's answers to some prompts, with policies' answers on it, coloured by who approves.

    The colour is the approval of the first cluster less the mean of the others; with one cluster, its approval.
    """
    mapped = [text for text in results.texts if text.position is not None]
    shown, policies = _mapped_prompts(results)[:MAPPED_PROMPTS], _mapped_policies(results)[:MAPPED_POLICIES]
    names = list(clusters(results, judge(results)))
    if not shown or not names:
        return None
    figure, grid = panel_grid(
        len(shown) * len(policies), len(policies), (2.5, 2.2), gaps=(0.2, 0.55), left=0.25, top=0.85, bottom=0.75
    )
    limit = 1.0 if len(names) > 1 else 0.5
    norm = Normalize(-limit, limit)
    for index, axes in enumerate(grid):
        line, column = divmod(index, len(policies))
        here = [text for text in mapped if text.prompt == shown[line]]
        people = np.array([text.position for text in here if text.policy == PEOPLE])
        own = [text for text in here if text.policy == policies[column]]
        if len(people):
            axes.plot(people[:, 0], people[:, 1], ".", color="#c9ced6", ms=4, zorder=1)
        if own:
            xy = np.array([text.position for text in own])
            colour = [_leaning(text.heldout_approvals or text.approvals, names) for text in own]
            axes.scatter(xy[:, 0], xy[:, 1], c=colour, cmap="PuOr", norm=norm, s=22, edgecolor=GREY, lw=0.5, zorder=2)
        axes.set_xticks([])
        axes.set_yticks([])
        heading = f"{_short(policy_name(policies[column]), 24)}\n" if line == 0 else ""
        axes.set_title(heading + (_short(shown[line], 34) if column == 0 else ""), loc="left", fontsize=8.5)
    inch = 1 / figure.get_size_inches()[1]
    bar = figure.add_axes((0.25, 0.35 * inch, 0.5, 0.1 * inch))
    scale = ScalarMappable(norm, "PuOr")
    figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[-limit, 0, limit])
    two_sided = ["only others approve", "alike", f"only {_short(names[0], 24)} approves"]
    bar.set_xticklabels(two_sided if len(names) > 1 else ["nobody approves", "half", "everybody"], fontsize=8)
    title(figure, "Does the policy write where people write? Light grey: people's answers")
    return figure


def not_mapped(results: TextResults) -> str:
    """Say how many prompts and which policies the map leaves out, if any.

    Example:
        >>> settings = {"policies": ["people", "warm", "plural", "grpo", "mine"], "reference": "warm"}
        >>> not_mapped(TextResults(split="heldout", weighting="all", settings=settings))
        'Not drawn: mine.'
    """
    prompts_left = len(_mapped_prompts(results)[MAPPED_PROMPTS:])
    left = [policy_name(policy) for policy in _mapped_policies(results)[MAPPED_POLICIES:]]
    left += [f"{prompts_left} more prompt{'s' * (prompts_left > 1)}"] * (prompts_left > 0)
    return f"Not drawn: {', '.join(left)}." if left else ""


def _mapped_prompts(results: TextResults) -> list[str]:
    placed = {text.prompt for text in results.texts if text.position is not None}
    return [prompt for prompt in prompts(results) if prompt in placed]


def _mapped_policies(results: TextResults) -> list[str]:
    """The reference, ours, and a rival; the untouched model last."""
    others = [policy for policy in writers(results) if policy not in (PEOPLE, reference(results))]
    others.sort(key=lambda policy: (policy != Method.PLURAL, policy == Method.UNTOUCHED))
    return [reference(results), *others]


@matplotlib.rc_context(FONT)
def plot_covered(results: TextResults) -> Figure | None:
    """Plot the share of people's answers whose class is among the first k texts, against k."""
    if not results.curves:
        return None
    colours = policy_colours(results)
    figure = new_figure(6.4, 3.6)
    axes = figure.add_axes((0.11, 0.16, 0.84, 0.6))
    axes.patch.set_alpha(0)
    for name, curve in results.curves.items():
        known = [(int(k), value) for k, value in curve.items() if value is not None]
        if known:
            style = "--" if name == PEOPLE else "-"
            axes.plot(*zip(*known, strict=True), style, color=colours[name], marker="o", ms=3.5)
    axes.set_xscale("log", base=2)
    ticks = sorted({int(k) for curve in results.curves.values() for k in curve})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.set_xlabel("texts per prompt")
    axes.set_ylabel("people's answers covered")
    title(figure, "How much of what people say is among k texts?")
    names = {name: "other people" if name == PEOPLE else _short(policy_name(name)) for name in results.curves}
    key_line(figure, [("D" if n == PEOPLE else "o", colours[n], text) for n, text in names.items()], columns=4)
    return figure


@matplotlib.rc_context(FONT)
def plot_gain_against_kl(results: TextResults, along: Sequence[CheckpointResult] = ()) -> Figure | None:
    """Plot the gain in approval against the divergence from the reference, by the training and by the heldout jury.

    Args:
        results: What was measured of the policies.
        along: What was measured along their trainings, on the same prompts: a line per policy and jury.
    """
    colours = policy_colours(results)
    points = []
    for policy in writers(results):
        divergence = results.row(policy, "kl_to_reference")
        if policy == reference(results) or divergence is None or divergence.value is None:
            continue
        gains = {
            jury: _mean_gain(results, policy, jury) for jury in ("training", "heldout") if clusters(results, jury)
        }
        points.append((policy, divergence.value, gains))
    if not points:
        return None
    figure = new_figure(6.4, 3.6)
    axes = figure.add_axes((0.17, 0.16, 0.78, 0.6))
    axes.patch.set_alpha(0)
    for policy, nats, gains in points:
        axes.plot([nats] * len(gains), list(gains.values()), "-", color=colours[policy], lw=1.0)
        for jury, gain in gains.items():
            filled = colours[policy] if jury == "training" else "white"
            axes.plot(nats, gain, "o", color=colours[policy], markerfacecolor=filled, ms=7)
    for policy, _, _ in points:
        way = sorted((one for one in along if one.policy == policy), key=lambda one: one.step)
        nats_on_the_way = [0.0, *(one.kl_to_reference for one in way)]
        seen = [0.0, *(one.heldout_gain for one in way if one.heldout_gain is not None)]
        if way:
            gained = [0.0, *(one.gain for one in way)]
            axes.plot(nats_on_the_way, gained, "-", color=colours[policy], lw=1.2, alpha=0.7)
        if way and len(seen) == len(nats_on_the_way):
            axes.plot(nats_on_the_way, seen, "--", color=colours[policy], lw=1.2, alpha=0.7)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_xlim(min(0.0, *(nats for _, nats, _ in points)), None)
    axes.set_xlabel("divergence from the policy before training (nats per text)")
    axes.set_ylabel("gain by the training jury (filled)\nand the heldout jury (empty)")
    title(figure, "Does the heldout jury see the gain in approval?")
    key_line(figure, [("o", colours[policy], _short(policy_name(policy))) for policy, _, _ in points], columns=4)
    return figure


def _mean_gain(results: TextResults, policy: str, jury: str) -> float:
    total = 0.0
    for cluster, weight in clusters(results, jury).items():
        row = results.row(policy, "approval", jury=jury, cluster=cluster)
        total += weight * (math.nan if row is None or row.gain is None else row.gain)
    return total


def _leaning(approvals: dict[str, float], names: list[str]) -> float:
    first = approvals[names[0]]
    if len(names) == 1:
        return first - 0.5
    return first - float(np.mean([approvals[name] for name in names[1:]]))


def _lines(text: str) -> str:
    """Return a name on at most two lines."""
    return "\n".join(textwrap.wrap(_short(text, 44), 24))


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
