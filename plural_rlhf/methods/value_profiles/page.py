"""The page of value profiles: the dimensionality curve, what each representation says, the clusters in words.

Reads `ProfileResults`. Knows nothing of how anything was measured.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from plural_rlhf.methods.value_profiles.results import InformationRecord, ProfileResults
from plural_rlhf.report.canvas import FONT, GREY, key_line, panel_grid, title
from plural_rlhf.report.html import readable_results, write_page
from plural_rlhf.report.sections import Section
from plural_rlhf.report.tables import DASH, TextTable


__all__ = ["information_table", "plot_dimensionality", "profile_findings", "write_profile_report"]

CLUSTERS, JURY, CONTROL = "#0072b2", "#009e73", "#d55e00"


def write_profile_report(results: ProfileResults, folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and the figure.

    Args:
        results: The results.
        folder: Where to write; made if it does not exist.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_profile_report(ProfileResults(name="trial"), folder)
        ...     "How much does a profile say" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(results)
    nothing = "" if results.information else "nothing was measured"
    sections = [
        Section(
            "information",
            "How much does a profile say of a rater?",
            "Usable information: by how many nats per judgement the loss on heldout judgements of heldout raters "
            "falls when the representation is known. A curve that is steep and then flat says that raters differ in "
            "few ways. Bands are 95 % intervals over raters and items. Controls (random groups, and clusters of "
            "judgements shuffled among raters) must be at or below 0.",
            plot_dimensionality(results),
            [information_table(results)],
            missing=nothing,
        ),
        Section(
            "clusters",
            "Who are the clusters, in words?",
            "Each claim names an answer that members give more often than everybody, with their number.",
            tables=[_claims_table(results)],
            missing="" if results.clusters else "no cluster was described",
        ),
        Section(
            "observer",
            "Do the words tell the clusters apart?",
            "A reader sees the words of two clusters, and how heldout raters of one of them judged an item that the "
            "words were not made from. One half is chance; the ceiling is who knows the clusters' own answers to it.",
            tables=[_observer_table(results)],
            missing="" if results.observer else "the observer test needs two clusters",
        ),
    ]
    return write_page(folder, f"{results.name}: value profiles", profile_findings(results), sections, results.meta)


def profile_findings(results: ProfileResults) -> list[str]:
    """Say in sentences what was found.

    Example:
        >>> profile_findings(ProfileResults())
        ['Nothing was measured.']
    """
    if not results.information:
        return ["Nothing was measured."]
    everything = results.of_source("answers")[0]
    sentences = [
        f"All fit judgements of a rater say {everything.info:+.3f} nats per judgement of the others, of "
        f"{results.baseline_nll:.3f} that are unknown when the item alone is known."
    ]
    clusters = results.of_source("clusters")
    if clusters:
        best = max(clusters, key=lambda row: row.info)
        kept = "" if math.isnan(best.preserved) else f", {best.preserved:.0%} of that"
        sentences.append(f"{best.name} of {results.encoder} profiles preserve {best.info:+.3f}{kept}.")
        for over, against in ((best.over_trait, "the best single trait"), (best.over_demographics, "all of them")):
            if over is not None:
                sentences.append(f"Over {against}: {over[0]:+.4f} [{over[1]:+.4f}, {over[2]:+.4f}] nats.")
    for one in results.observer:
        sentences.append(
            f"The reader {one.reader} tells clusters apart from their words in {one.accuracy:.0%} of {one.trials} "
            f"trials (chance 50 %, ceiling {one.ceiling:.0%})."
        )
    if results.without_profile:
        sentences.append(f"{results.without_profile} raters have no usable profile: the model wrote none in the form.")
    return sentences


def information_table(results: ProfileResults) -> TextTable:
    """Tabulate every representation.

    Example:
        >>> information_table(ProfileResults()).rows
        []
    """
    return TextTable(
        ["representation", "kind", "groups", "nats per judgement", "preserved", "over the best trait"],
        [
            [
                row.name,
                row.source,
                str(row.groups or DASH),
                _interval([row.info, row.ci_low, row.ci_high]),
                DASH if math.isnan(row.preserved) else f"{row.preserved:.0%}",
                DASH if row.over_trait is None else _interval(row.over_trait),
            ]
            for row in results.information
        ],
        f"Heldout judgements of heldout raters, {results.splits} splits of {results.raters:,} raters. Over the best "
        "trait: paired on the same judgements. Controls must not be above 0.",
    )


@matplotlib.rc_context(FONT)
def plot_dimensionality(results: ProfileResults) -> Figure | None:
    """Plot usable information against the number of clusters.

    Example:
        >>> rows = [
        ...     {"name": f"{k} clusters", "source": "clusters", "groups": k, "info": i, "ci_low": i - 0.01,
        ...      "ci_high": i + 0.01, "preserved": i / 0.3}
        ...     for k, i in ((2, 0.2), (4, 0.25))
        ... ]
        >>> plot_dimensionality(ProfileResults.model_validate({"information": rows})).texts[0].get_text()
        '4 clusters preserve 83 % of what judgements say of a rater'
    """  # fmt: skip
    clusters = sorted(results.of_source("clusters"), key=lambda row: row.groups)
    if not clusters:
        return None
    figure, [axes] = panel_grid(1, 1, (5.2, 2.9), left=0.75, top=0.8, bottom=0.55)
    _draw_curve(axes, clusters, CLUSTERS)
    _draw_curve(axes, sorted(results.of_source("jury"), key=lambda row: row.groups), JURY)
    shuffled = [row for row in results.of_source("control") if "shuffled" in row.name]
    _draw_curve(axes, sorted(shuffled, key=lambda row: row.groups), CONTROL)
    marks = [("o", CLUSTERS, "clusters of profiles"), ("o", JURY, "jury"), ("o", CONTROL, "shuffled")]
    lines = results.of_source("answers")
    traits = results.of_source("trait", "all traits")
    lines += [max(traits, key=lambda row: row.info)] if traits else []
    last = clusters[-1].groups
    for row in lines:
        axes.plot([clusters[0].groups / 1.2, last * 1.03], [row.info] * 2, color=GREY, lw=1, ls="--")
        axes.text(last * 1.08, row.info, row.name, va="center", fontsize=7.5, color=GREY)
    axes.axhline(0, color=GREY, lw=0.9)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row.groups for row in clusters], [str(row.groups) for row in clusters])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(clusters[0].groups / 1.2, last * 2.4)
    axes.set_xlabel("clusters")
    axes.set_ylabel("usable information, nats")
    best = max(clusters, key=lambda row: row.info)
    kept = f"{100 * best.preserved:.0f} %" if math.isfinite(best.preserved) else "none"
    title(figure, f"{best.name} preserve {kept} of what judgements say of a rater")
    key_line(figure, marks)
    return figure


def _draw_curve(axes: matplotlib.axes.Axes, rows: list[InformationRecord], colour: str) -> None:
    x = [row.groups for row in rows]
    axes.plot(x, [row.info for row in rows], "o-", color=colour, ms=5, lw=1.4)
    if rows and all(math.isfinite(row.ci_low) for row in rows):
        axes.fill_between(x, [r.ci_low for r in rows], [r.ci_high for r in rows], color=colour, alpha=0.15, lw=0)


def _claims_table(results: ProfileResults) -> TextTable:
    return TextTable(
        ["cluster", "share of raters", "item", "answer", "in it", "of all", "judgements", "e.g. raters"],
        [
            [
                cluster.name,
                f"{cluster.prevalence:.0%}",
                claim.label,
                claim.answer,
                f"{claim.share:.0%}",
                f"{claim.share_all:.0%}",
                str(claim.judgements),
                ", ".join(claim.raters),
            ]
            for cluster in results.clusters
            for claim in cluster.claims
        ],
        "Shares are shrunk to everybody's. Judgements: those of members that say so.",
        filterable=True,
    )


def _observer_table(results: ProfileResults) -> TextTable:
    return TextTable(
        ["reader", "right", "ceiling", "trials"],
        [
            [
                one.reader,
                f"{one.accuracy:.0%} [{one.ci_low:.0%}, {one.ci_high:.0%}]",
                f"{one.ceiling:.0%}",
                str(one.trials),
            ]
            for one in results.observer
        ],
    )


def _interval(values: list[float]) -> str:
    value, low, high = values
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]".replace("-", "−")
