"""The report's section on welfare rules: what each picks, and who gains and who loses by it.

Knows the key `rules` of `results.json`; knows nothing of HTML or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, INK, key_line, option_colours, panel_grid, title
from plural_rlhf.report.tables import TextTable, format_interval, format_percent, short_labels


__all__ = ["picks_table", "plot_rules", "rules_sentence", "rules_table"]

Results = Mapping[str, Any]


@matplotlib.rc_context(FONT)
def plot_rules(results: Results) -> Figure | None:
    """Who gains and who loses by a rule? Per rule and cluster, the change of its reward against the baseline rule."""
    effects = [effect for effect in results.get("rules", []) if effect["rule"] != effect["baseline"]]
    if not effects:
        return None
    clusters = list(effects[0]["clusters"])
    colours = option_colours(max(len(clusters), 2))
    figure, (axes,) = panel_grid(
        1, 1, (5.6, 0.24 * len(effects) * (len(clusters) + 1)), left=1.9, top=0.55 + 0.2 * len(clusters)
    )
    for i, effect in enumerate(effects):
        for k, name in enumerate(clusters):
            height, row = i * (len(clusters) + 1) + k, effect["clusters"][name]
            if row["ci_low"] is not None:
                axes.plot([row["ci_low"], row["ci_high"]], [height, height], color=INK, lw=1.2)
            axes.plot(row["value"], height, "o", color=colours[k], markersize=6)
    middle = (len(clusters) - 1) / 2
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(
        [i * (len(clusters) + 1) + middle for i in range(len(effects))], [effect["rule"] for effect in effects]
    )
    axes.set_ylim(len(effects) * (len(clusters) + 1) - 1, -1)
    axes.set_xlabel(f"change of a cluster's reward against the rule {effects[0]['baseline']} (standard deviations)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    key_line(figure, [("o", colours[k], name) for k, name in enumerate(clusters)], columns=1)
    title(figure, _finding(effects))
    return figure


def rules_table(results: Results) -> TextTable:
    """One row per rule: how often it agrees with the baseline, and each cluster's change."""
    effects = results.get("rules", [])
    clusters = list(effects[0]["clusters"]) if effects else []
    body = [
        [
            effect["rule"],
            format_percent(effect["agreement"]),
            *(
                "0" if effect["rule"] == effect["baseline"] else format_interval(effect["clusters"][c])
                for c in clusters
            ),
        ]
        for effect in effects
    ]
    questions = next((row["n"] for effect in effects for row in effect["clusters"].values()), 0)
    return TextTable(
        ["rule", "same pick as the first", *clusters],
        body,
        f"Change of each cluster's calibrated reward against the first rule, mean over {questions} questions with its "
        "interval over questions; 1 is one standard deviation of the cluster's rewards of the offered answers.",
    )


def picks_table(results: Results) -> TextTable:
    """What each rule picks on each question."""
    effects = results.get("rules", [])
    labels = short_labels(results.get("questions", []))
    asked = effects[0]["picks"] if effects else {}
    body = [[labels.get(q, q), *(effect["picks"][q] for effect in effects)] for q in asked]
    return TextTable(["question", *(effect["rule"] for effect in effects)], body, "The answer that each rule picks.")


def rules_sentence(results: Results) -> str:
    """For the headline: the rule that goes furthest from the baseline, and to whose good and harm."""
    effects = [effect for effect in results.get("rules", []) if effect["rule"] != effect["baseline"]]
    if not effects:
        return ""
    changes = min(effects, key=lambda effect: effect["agreement"])["clusters"]
    sure = {name: row for name, row in changes.items() if (row["ci_low"] or 0) > 0 or (row["ci_high"] or 0) < 0}
    said = [
        f"“{name}” {'gains' if row['value'] > 0 else 'loses'} {format_interval(row)} standard deviations"
        for name, row in sure.items()
    ]
    return f"{_finding(effects)}{': ' if said else ''}{', '.join(said)}."


def _finding(effects: list[Mapping[str, Any]]) -> str:
    odd = min(effects, key=lambda effect: effect["agreement"])
    if odd["agreement"] > 1 - 1e-9:
        return f"All rules pick what the {odd['baseline']} picks"
    return (
        f"The rule {odd['rule']} leaves the {odd['baseline']} on {format_percent(1 - odd['agreement'])} of questions"
    )
