"""The report's sections for social scientists: who the clusters are, how well they fit, how reliable the answers are.

Reads `RunResults.survey`; knows nothing of HTML or files, nor of how anything was estimated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plural_rlhf.report.canvas import FONT, GREY, INK, key_line, option_colours, panel_grid, title
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_survey import TraitShares
from plural_rlhf.report.tables import DASH, NO_BREAK, TextTable, format_percent


__all__ = [
    "NO_KINDS_OF_PEOPLE",
    "by_table",
    "dependence_table",
    "missing_table",
    "plot_traits",
    "reliability_table",
    "sizes_table",
    "traits_table",
]

NO_KINDS_OF_PEOPLE = (
    "Read with care: a cluster is a way of answering these questions, not a kind of person. Nobody was put into a "
    "cluster by a trait, people of all traits are in all clusters, and that a trait is more frequent in one says "
    "neither that it causes the answers nor what any one person thinks."
)
MOST_DRAWN = 30  # values of traits in the plot
OF_SHARES = (
    "In brackets: 95 % interval over raters (none for fewer than 12). Shares are corrected for uncertain memberships "
    "(Bolck, Croon and Hagenaars); the clusters themselves are taken as known."
)


def traits_table(results: RunResults) -> TextTable:
    """Tabulate the traits of the raters of each cluster: one row per value, one column per cluster.

    Example:
        >>> from plural_rlhf.report.results_survey import SurveyResults
        >>> row = TraitShares(trait="region", value="north", n=40, overall=0.4, shares=[0.8], low=[0.7], high=[0.9])
        >>> survey = SurveyResults(n_raters=100, shares_low=[1], shares_high=[1], refitted=True, traits=[row])
        >>> [cell.replace(NO_BREAK, " ") for cell in traits_table(RunResults(survey=survey)).rows[0]]
        ['region: north', '40', '40 %', '80 % [70, 90]']
    """
    survey = results.survey
    if survey is None:
        return TextTable([], [])
    left_out = "".join(f" Not shown: {trait}, with {n} values." for trait, n in survey.omitted_traits.items())
    caption = f"Of the raters of a cluster, so many have this trait. {OF_SHARES}{left_out}"
    return _shares_table(survey.traits, ["all raters", *_names(results)], caption)


def by_table(results: RunResults) -> TextTable:
    """Tabulate the shares of the clusters by wave, country or what else `jury.by` names.

    Example:
        >>> by_table(RunResults()).rows
        []
    """
    survey = results.survey
    if survey is None:
        return TextTable([], [])
    caption = f"Of the raters with this trait, so many belong to each cluster. {OF_SHARES}"
    return _shares_table(survey.by, ["share of all", *_names(results)], caption)


def sizes_table(results: RunResults) -> TextTable:
    """Tabulate how well each number of clusters fits and tells raters apart.

    Example:
        >>> sizes_table(RunResults()).rows
        []
    """
    header = ["clusters", "log-likelihood", "parameters", "BIC", "entropy", "misclassified", "certainty by cluster"]
    survey = results.survey
    if survey is None:
        return TextTable(header, [])
    chosen = len(results.clusters)
    body = [
        [
            f"{size.num_clusters} (chosen)" if size.num_clusters == chosen else str(size.num_clusters),
            f"{size.log_likelihood:,.0f}".replace("-", "−"),
            DASH if size.n_parameters is None else str(size.n_parameters),
            DASH if size.bic is None else f"{size.bic:,.0f}",
            f"{size.entropy:.2f}",
            format_percent(size.misclassified),
            ", ".join(DASH if math.isnan(c) else f"{c:.2f}" for c in size.certainty),
        ]
        for size in survey.sizes
    ]
    return TextTable(
        header,
        body,
        "BIC: lower is better; it often asks for more clusters than held-out raters do, which decide here. Entropy: 1 "
        "if every rater's cluster is certain, 0 if none is known; above .8 is usually called clear. Misclassified: "
        "raters expected to be in another cluster than their most probable one. Certainty: mean probability of the "
        "most probable cluster. All on the raters the clusters were fitted to.",
    )


def shares_sentence(results: RunResults) -> str:
    """Say how large the clusters are, with the bootstrap intervals of their shares."""
    survey = results.survey
    if survey is None or len(results.clusters) < 2:
        return ""
    parts = [
        f"“{cluster.name}” {_interval(cluster.prevalence, low, high)}"
        for cluster, low, high in zip(results.clusters, survey.shares_low, survey.shares_high, strict=True)
    ]
    again = "fitted again to each resample of the raters" if survey.refitted else "with their answers held fixed"
    return f"Shares of the clusters with 95 % bootstrap intervals ({again}): {', '.join(parts)}."


def dependence_table(results: RunResults) -> TextTable:
    """Tabulate the pairs of questions whose answers go together more than the clusters explain.

    Example:
        >>> dependence_table(RunResults()).rows
        []
    """
    header = ["question", "and question", "raters", "bivariate residual", "unexplained", "without clusters"]
    survey = results.survey
    if survey is None:
        return TextTable(header, [])
    body = [
        [
            pair.first,
            pair.second,
            str(pair.n),
            f"{pair.residual:.1f}",
            format_percent(pair.unexplained),
            format_percent(pair.alone),
        ]
        for pair in survey.dependence
    ]
    return TextTable(
        header,
        body,
        f"Local dependence: the {len(body)} of {survey.n_pairs} pairs with the largest residual (X² per degree of "
        "freedom; about 1 if the clusters explain how the two answers go together, and growing with the number of "
        "raters). Unexplained: of 100 raters, so many give a pair of answers that the clusters do not explain; "
        "without clusters: the same if the two had nothing to do with each other. Two questions that ask nearly the "
        "same can make a cluster of their own.",
    )


def reliability_table(results: RunResults) -> TextTable:
    """Tabulate how far the answers can be relied on.

    Example:
        >>> reliability_table(RunResults()).rows
        []
    """
    header = ["measure", "value", "how to read it"]
    if results.survey is None or results.survey.reliability is None:
        return TextTable(header, [])
    found = results.survey.reliability
    span = "" if math.isnan(found.alpha_low) else f" [{found.alpha_low:.2f}, {found.alpha_high:.2f}]"
    body = [
        [
            f"Krippendorff's alpha ({found.level})",
            f"{found.alpha:.2f}{span}".replace("-", "−"),
            "Agreement of the raters: 1 all agree, 0 as by chance. In a survey of opinions a low value is the "
            "finding, not a fault.",
        ]
    ]
    if (again := found.retest) is None:
        body.append(["test and retest", DASH, "Nobody was asked the same twice."])
    else:
        kappa = DASH if math.isnan(again.kappa) else f"{again.kappa:.2f}"
        body.append(
            [
                "test and retest",
                _interval(again.agreement, again.low, again.high),
                f"Same answer when asked again, {again.n_pairs} repetitions of {again.n_raters} raters; beyond chance "
                f"(kappa) {kappa}. No model of a person can predict better than the person.",
            ]
        )
    if found.n_styles:
        body += [
            [
                "straight-lining",
                format_percent(found.straight_liners),
                f"Of {found.n_styles:,} raters with five or more answers on one scale, so many gave the same "
                f"throughout; {format_percent(found.expected_straight_liners)} would if everybody answered as "
                "all raters do.",
            ],
            [
                "acquiescence",
                DASH if math.isnan(found.habit) else f"{found.habit:.2f}".replace("-", "−"),
                "How far a rater's tendency to one end of the options lasts over the questions: 0 not at all, 1 "
                "nothing else. An opinion where all questions point the same way, a habit where they do not.",
            ],
        ]
    return TextTable(header, body, "Reliability of the answers.")


def missing_table(results: RunResults) -> TextTable:
    """Tabulate who did not answer what: one row per question and reason, one column per cluster.

    Example:
        >>> missing_table(RunResults()).rows
        []
    """
    survey = results.survey
    if survey is None or not survey.missing:
        return TextTable([], [])
    body = [
        [row.question, row.kind, f"{row.n:,}", *map(format_percent, (row.overall, *row.shares))]
        for row in survey.missing
    ]
    shown = sum(row.n for row in survey.missing)
    hidden = "" if shown == survey.n_missing else f" Not shown: {survey.n_missing - shown:,} rarer ones."
    return TextTable(
        ["question", "no answer", "raters", "of all raters", *_names(results)],
        body,
        "Missing answers, as the table or its column map names them, of the raters the clusters were fitted to; they "
        "are no judgements. Of a cluster a rater counts by the probability of belonging to it. Where a cluster often "
        f"gives no answer, what is said of it is said of those who did.{hidden}",
    )


@matplotlib.rc_context(FONT)
def plot_traits(results: RunResults) -> Figure | None:
    """Plot who the clusters are: one line per value of a trait, one mark per cluster with its interval.

    Of many values those are drawn in which the clusters differ most, by trait.

    Example:
        >>> plot_traits(RunResults()) is None
        True
    """
    survey = results.survey
    names = _names(results)
    if survey is None or not survey.traits or len(names) < 2:
        return None
    rows = _most_different(survey.traits)
    colours = option_colours(len(names))
    figure, (axes,) = panel_grid(1, 1, (4.6, 0.3 * len(rows) + 0.2), left=2.3, top=0.5 + 0.2 * len(names), bottom=0.55)
    step = 0.5 / max(len(names) - 1, 1)
    for height, row in enumerate(rows):
        axes.plot([row.overall] * 2, [height - 0.4, height + 0.4], color=GREY, lw=1.4)
        for k in range(len(names)):
            y = height - 0.25 + k * step
            if math.isfinite(row.low[k]):
                axes.plot([row.low[k], row.high[k]], [y, y], color=INK, lw=0.9)
            axes.plot(row.shares[k], y, "o", color=colours[k], markersize=5)
        if height and row.trait != rows[height - 1].trait:
            axes.axhline(height - 0.5, color=GREY, lw=0.4)
    axes.set_yticks(range(len(rows)), [_short(f"{row.trait}: {row.value}") for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_xlabel("of 100 raters of the cluster (grey: of all raters)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    key_line(figure, [("o", colours[k], _short(name, 70)) for k, name in enumerate(names)], columns=1)
    title(figure, _traits_finding(rows, names))
    return figure


def _names(results: RunResults) -> list[str]:
    return [cluster.name for cluster in results.clusters]


def _shares_table(rows: Sequence[TraitShares], columns: list[str], caption: str) -> TextTable:
    body = [
        [f"{row.trait}: {row.value}", str(row.n), _whole(row.overall)]
        + [_interval(*ends) for ends in zip(row.shares, row.low, row.high, strict=True)]
        for row in rows
    ]
    return TextTable(["trait", "raters", *columns], body, caption)


def _whole(share: float) -> str:
    return DASH if math.isnan(share) else f"{100 * share:.0f}{NO_BREAK}%"


def _interval(share: float, low: float, high: float) -> str:
    if math.isnan(share) or math.isnan(low):
        return _whole(share)
    return f"{_whole(share)} [{100 * low:.0f},{NO_BREAK}{100 * high:.0f}]"


def _spread(row: TraitShares) -> float:
    """How far the clusters differ in a value, 0 where a share is not known."""
    spread = float(np.ptp(row.shares))
    return spread if math.isfinite(spread) else 0.0


def _most_different(rows: Sequence[TraitShares]) -> list[TraitShares]:
    """The values in which the clusters differ most, in the order of the table."""
    most = {id(row) for row in sorted(rows, key=_spread, reverse=True)[:MOST_DRAWN]}
    return [row for row in rows if id(row) in most]


def _short(text: str, width: int = 34) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _traits_finding(rows: Sequence[TraitShares], names: Sequence[str]) -> str:
    row = max(rows, key=_spread)
    nothing = "No trait tells the clusters apart beyond chance"
    if _spread(row) == 0 or not row.low:  # also where the shares of a cluster of nobody are not known
        return nothing
    low, high = int(np.nanargmin(row.shares)), int(np.nanargmax(row.shares))
    if row.low[high] <= row.high[low]:
        return nothing
    return f"Largest difference: {row.trait} {row.value}, {_whole(row.shares[low])} to {_whole(row.shares[high])}"
