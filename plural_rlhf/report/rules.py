"""The report's section on welfare rules: what each picks, and who gains and who loses by it.

Reads `RunResults.rules`; knows nothing of HTML or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, INK, key_line, option_colours, panel_grid, title
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import Change, RuleResult
from plural_rlhf.report.tables import TextTable, format_interval, format_percent, short_labels


__all__ = ["picks_table", "plot_rules", "rules_sentence", "rules_table"]


@matplotlib.rc_context(FONT)
def plot_rules(results: RunResults) -> Figure | None:
    r"""Plot who gains and who loses by a rule: per rule and cluster, the change of its reward against the baseline.

    Example:
        >>> change = Change(value=0.2, ci_low=0.1, ci_high=0.3, n=4)
        >>> effect = RuleResult(rule="min", baseline="mean", agreement=0.75, picks={}, clusters={"a": change})
        >>> plot_rules(RunResults(rules=[effect])).texts[0].get_text().replace("\xa0", " ")
        'The rule min leaves the mean on 25.0 % of questions'
    """
    rivals = _rivals(results)
    if not rivals:
        return None
    clusters = list(rivals[0].clusters)
    colours = option_colours(max(len(clusters), 2))
    figure, (axes,) = panel_grid(
        1, 1, (5.6, 0.24 * len(rivals) * (len(clusters) + 1)), left=1.9, top=0.55 + 0.2 * len(clusters)
    )
    for i, rival in enumerate(rivals):
        for k, name in enumerate(clusters):
            height, change = i * (len(clusters) + 1) + k, rival.clusters[name]
            if math.isfinite(change.ci_low):
                axes.plot([change.ci_low, change.ci_high], [height, height], color=INK, lw=1.2)
            axes.plot(change.value, height, "o", color=colours[k], markersize=6)
    middle = (len(clusters) - 1) / 2
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks([i * (len(clusters) + 1) + middle for i in range(len(rivals))], [rival.rule for rival in rivals])
    axes.set_ylim(len(rivals) * (len(clusters) + 1) - 1, -1)
    axes.set_xlabel(f"change of a cluster's reward against the rule {rivals[0].baseline} (standard deviations)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    key_line(figure, [("o", colours[k], name) for k, name in enumerate(clusters)], columns=1)
    title(figure, _finding(rivals))
    return figure


def rules_table(results: RunResults) -> TextTable:
    """Tabulate one row per rule: how often it agrees with the baseline, and each cluster's change.

    Example:
        >>> change = Change(value=0.2, ci_low=0.1, ci_high=0.3, n=9)
        >>> effect = RuleResult(rule="min", baseline="mean", agreement=1, picks={"q": "yes"}, clusters={"a": change})
        >>> rules_table(RunResults(rules=[effect])).header
        ['rule', 'same pick as the first', 'a']
    """
    clusters = list(results.rules[0].clusters) if results.rules else []
    body = [
        [
            effect.rule,
            format_percent(effect.agreement),
            *("0" if effect.rule == effect.baseline else _interval(effect.clusters[c]) for c in clusters),
        ]
        for effect in results.rules
    ]
    questions = next((change.n for effect in results.rules for change in effect.clusters.values()), 0)
    return TextTable(
        ["rule", "same pick as the first", *clusters],
        body,
        f"Change of each cluster's calibrated reward against the first rule, mean over {questions} questions with its "
        "interval over questions; 1 is one standard deviation of the cluster's rewards of the offered answers.",
    )


def picks_table(results: RunResults) -> TextTable:
    """Tabulate what each rule picks on each question.

    Example:
        >>> effect = RuleResult(rule="min", baseline="min", agreement=1, picks={"q": "yes"}, clusters={})
        >>> picks_table(RunResults(rules=[effect])).rows
        [['q', 'yes']]
    """
    labels = short_labels(results.questions)
    questions = results.rules[0].picks if results.rules else {}
    body = [[labels.get(q, q), *(effect.picks[q] for effect in results.rules)] for q in questions]
    return TextTable(
        ["question", *(effect.rule for effect in results.rules)], body, "The answer that each rule picks."
    )


def rules_sentence(results: RunResults) -> str:
    """Say for the headline which rule differs most from the baseline, and which clusters surely gain or lose by it.

    Example:
        >>> change = Change(value=0.2, ci_low=0.1, ci_high=0.3, n=4)
        >>> effect = RuleResult(rule="min", baseline="mean", agreement=1, picks={}, clusters={"a": change})
        >>> rules_sentence(RunResults(rules=[effect])).split(":")[0]
        'All rules pick what the mean picks'
    """
    rivals = _rivals(results)
    if not rivals:
        return ""
    changes = _most_different(rivals).clusters
    sure = {name: change for name, change in changes.items() if change.ci_low > 0 or change.ci_high < 0}
    clauses = [
        f"“{name}” {'gains' if change.value > 0 else 'loses'} {_interval(change)} standard deviations"
        for name, change in sure.items()
    ]
    return f"{_finding(rivals)}{': ' if clauses else ''}{', '.join(clauses)}."


def _rivals(results: RunResults) -> list[RuleResult]:
    """The rules that are compared with another one."""
    return [effect for effect in results.rules if effect.rule != effect.baseline]


def _most_different(rivals: Sequence[RuleResult]) -> RuleResult:
    return min(rivals, key=lambda rival: rival.agreement)


def _finding(rivals: Sequence[RuleResult]) -> str:
    rival = _most_different(rivals)
    if rival.agreement > 1 - 1e-9:
        return f"All rules pick what the {rival.baseline} picks"
    share = format_percent(1 - rival.agreement)
    return f"The rule {rival.rule} leaves the {rival.baseline} on {share} of questions"


def _interval(change: Change) -> str:
    return format_interval(change.value, change.ci_low, change.ci_high)
