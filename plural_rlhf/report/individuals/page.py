"""The page of a run that steers to individuals: what reading a person's judgements gains. Knows no model."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich.table import Table

from plural_rlhf.report.canvas import FONT, GREY, INK, new_figure, title
from plural_rlhf.report.html import readable_results, write_page
from plural_rlhf.report.individuals.results import IndividualsResults, ReadingGain, ReadingLoss
from plural_rlhf.report.sections import Section
from plural_rlhf.report.tables import DASH, TextTable, format_nats, rich_table, settings_text


__all__ = ["gains_text", "losses_table", "losses_text", "write_individuals_report"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a929c")


def write_individuals_report(results: IndividualsResults, folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and `figures/*.png`.

    Args:
        results: The results of a run.
        folder: Where to write.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_individuals_report(IndividualsResults(name="trial"), folder)
        ...     "Nothing was measured" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(results)
    figure = _plot(results)
    nothing = "" if results.losses else "Nothing was measured."
    counts = ", ".join(f"{n:,} {part}" for part, n in results.people.items())
    exponents = [[str(n), f"{a:.2f}", f"{b:.2f}"] for n, (a, b) in results.exponents.items()]
    sections = [
        Section(
            "losses",
            "How well is a person predicted after so many judgements?",
            "Loss of the next judgement in nats, normalised over the options: less is better. Every predictor reads "
            "the same judgements of the same people, who took no part in any training. Intervals: 95 %, people "
            "resampled.",
            figure,
            tables=[losses_text(results)],
            missing=nothing,
        ),
        Section(
            "gains",
            "What does reading gain, and over what?",
            "Differences judgement by judgement; below 0 the first is better. The control reads the judgements of "
            "exchanged people: what it gains over reading nothing is not about the person, and should not be below 0.",
            tables=[gains_text(results)],
            missing="" if results.gains else "There is nothing to compare.",
        ),
        Section(
            "jury",
            "What do model and jury say together?",
            f"A jury of {results.clusters} clusters, chosen on tuning people. The product of both has these "
            "exponents, chosen on tuning people as well: 0 says that a source adds nothing.",
            tables=[TextTable(["judgements read", "of the model", "of the jury"], exponents)],
            missing="" if exponents else "No model was combined with a jury.",
        ),
        Section(
            "record",
            "How is it made again?",
            f"People: {counts or 'none'}. The settings below as a YAML file, and the versions of the libraries, give "
            "the same numbers.",
            folded=[settings_text(results.config)],
        ),
    ]
    return write_page(folder, results.name, _findings(results), sections, results.meta)


def losses_text(results: IndividualsResults) -> TextTable:
    """Tabulate the loss of every predictor by number of judgements read.

    Example:
        >>> loss = ReadingLoss(predictor="jury", read=6, nats=0.218, ci_low=0.175, ci_high=0.269, n=416)
        >>> losses_text(IndividualsResults(losses=[loss])).rows
        [['jury', '0.218 [0.175, 0.269]']]
    """
    read = sorted({loss.read for loss in results.losses})
    by_place = {(loss.predictor, loss.read): loss for loss in results.losses}
    body = [
        [predictor, *(_cell(by_place.get((predictor, n))) for n in read)]
        for predictor in dict.fromkeys(loss.predictor for loss in results.losses)
    ]
    return TextTable(["predicted by", *(f"{n} read" for n in read)], body)


def losses_table(results: IndividualsResults) -> Table:
    """Return the same for a terminal.

    Example:
        >>> losses_table(IndividualsResults()).row_count
        0
    """
    return rich_table(losses_text(results), title=f"{results.name}: loss of a person's next judgement (nats)")


def gains_text(results: IndividualsResults) -> TextTable:
    """Tabulate the differences.

    Example:
        >>> gain = ReadingGain(predictor="model", read=6, other="model", other_read=0, nats=-0.3, n=9)
        >>> gains_text(IndividualsResults(gains=[gain])).rows
        [['model, 6 read', 'model, 0 read', '−0.300', 'undecided', '9']]
    """
    body = [
        [_label(g.predictor, g.read), _label(g.other, g.other_read), _cell(g), g.verdict, str(g.n)]
        for g in results.gains
    ]
    return TextTable(["loss of", "minus loss of", "difference", "", "judgements"], body)


def _label(predictor: str, read: int) -> str:
    return f"{predictor}, {read} read"


def _cell(number: ReadingLoss | ReadingGain | None) -> str:
    if number is None:
        return DASH
    if number.ci_low is None or number.ci_high is None:
        return format_nats(number.nats)
    return f"{format_nats(number.nats)} [{format_nats(number.ci_low)}, {format_nats(number.ci_high)}]"


def _findings(results: IndividualsResults) -> list[str]:
    """Say what was found, the losses before the gains."""
    order = {"worse": 0, "undecided": 1, "better": 2}
    words = {"worse": "is worse than", "undecided": "is not told apart from", "better": "is better than"}
    return [
        f"{_label(g.predictor, g.read)} {words[g.verdict]} {_label(g.other, g.other_read)}: {_cell(g)} nats.".replace(
            "exchanged people", "The control (exchanged people)"
        ).capitalize()
        for g in sorted(results.gains, key=lambda gain: order[gain.verdict])
    ] or ["Nothing was measured."]


@matplotlib.rc_context(FONT)
def _plot(results: IndividualsResults) -> Figure | None:
    predictors = list(dict.fromkeys(loss.predictor for loss in results.losses))
    if not predictors:
        return None
    figure = new_figure(6.4, 3.4)
    axes = figure.add_axes((0.1, 0.15, 0.58, 0.68))
    for place, predictor in enumerate(predictors):
        of = sorted((loss for loss in results.losses if loss.predictor == predictor), key=lambda loss: loss.read)
        colour = COLOURS[place % len(COLOURS)]
        x, y = [loss.read for loss in of], [loss.nats for loss in of]
        axes.plot(x, y, "o-", ms=3, lw=1.4, color=colour, label=predictor)
        ends = [(loss.read, loss.ci_low, loss.ci_high) for loss in of if loss.ci_low is not None]
        if ends:
            axes.fill_between(*zip(*ends, strict=True), color=colour, alpha=0.12, lw=0)  # type: ignore[arg-type]
    axes.set_xlabel("judgements of the person that were read")
    axes.set_ylabel("loss of the next one (nats)")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({loss.read for loss in results.losses}))
    axes.grid(axis="y", color=GREY, lw=0.3)
    axes.tick_params(colors=INK)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=8)
    title(figure, "What reading a person's judgements gains")
    return figure
