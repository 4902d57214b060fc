"""The page of a run of Spectrum Tuning: what was gained on held-out tasks, by number of examples. Knows no model."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich.table import Table

from plural_rlhf.report.canvas import FONT, GREY, INK, key_line, panel_grid, title
from plural_rlhf.report.html import readable_results, write_page
from plural_rlhf.report.sections import Section
from plural_rlhf.report.spectrum.results import SpectrumNumber, SpectrumResults
from plural_rlhf.report.tables import TextTable, format_nats, rich_table, settings_text


__all__ = ["numbers_table", "numbers_text", "write_spectrum_report"]

TITLES = {
    "js": "JS divergence to the true shares (nats)",
    "choice": "loss of the answer among the options (nats)",
    "loss": "loss of the whole output (nats)",
}
OURS, UNTOUCHED = "#0072b2", "#d55e00"


def write_spectrum_report(results: SpectrumResults, folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and `figures/*.png`.

    Args:
        results: The results of a run.
        folder: Where to write.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_spectrum_report(SpectrumResults(name="trial"), folder)
        ...     "Nothing was measured" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(results)
    nothing = "" if results.numbers else "Nothing was measured."
    tasks = [
        [
            record.task,
            "held out" if record.heldout else "trained on",
            record.sequences,
            record.examples,
            record.too_long,
        ]
        for record in results.tasks
    ]
    sections = [
        Section(
            "gains",
            "What did the tuning change on tasks that it never saw?",
            "Less is better everywhere. The untouched model is asked in several formats, and the best one counts; the "
            "difference is tuned minus untouched on the same sequences, with a 95 % interval over sequences. `uniform`"
            " calls all options alike; `counts` says how often each option came before, plus one.",
            tables=[numbers_text(results)],
            missing=nothing,
        ),
        *(_curves(results, metric) for metric in TITLES),
        Section(
            "tasks",
            "What was it trained on?",
            "Examples that do not fit into `max_length` are dropped, never cut; of training tasks they are counted as "
            "the first epoch draws them. "
            + (
                f"Left out, since a held-out task has their source: {', '.join(results.same_source)}."
                if results.same_source
                else ""
            ),
            tables=[
                TextTable(["task", "use", "sequences", "examples", "too long"], [list(map(str, row)) for row in tasks])
            ],
            missing="" if tasks else "There are no tasks.",
        ),
        Section(
            "record",
            "How is it made again?",
            "The settings below as a YAML file, and the versions of the libraries, give the same numbers.",
            folded=[settings_text(results.config)],
        ),
    ]
    return write_page(folder, results.name, _findings(results), sections, results.meta)


def numbers_text(results: SpectrumResults) -> TextTable:
    """Tabulate every metric of every held-out task.

    Example:
        >>> number = SpectrumNumber(task="urn", metric="js_0", tuned=0.03, untouched=0.08, difference=-0.05, n=40)
        >>> numbers_text(SpectrumResults(numbers=[number])).rows[0][:4]
        ['urn', 'js_0', '0.030', '0.080']
    """
    body = [
        [
            number.task,
            number.metric,
            format_nats(number.tuned),
            format_nats(number.untouched),
            number.format,
            _difference(number),
            number.verdict,
            format_nats(number.baselines.get("uniform")),
            format_nats(number.baselines.get("counts")),
            str(number.n),
        ]
        for number in results.numbers
    ]
    head = ["task", "metric", "tuned", "untouched", "its format", "difference", "", "uniform", "counts", "sequences"]
    return TextTable(head, body)


def numbers_table(results: SpectrumResults) -> Table:
    """Return the same for a terminal.

    Example:
        >>> numbers_table(SpectrumResults()).row_count
        0
    """
    return rich_table(numbers_text(results), title=results.name)


def _difference(number: SpectrumNumber) -> str:
    if number.ci_low is None or number.ci_high is None:
        return format_nats(number.difference)
    return f"{format_nats(number.difference)} [{format_nats(number.ci_low)}, {format_nats(number.ci_high)}]"


def _findings(results: SpectrumResults) -> list[str]:
    """Say what was found, the losses before the gains."""
    if not results.numbers:
        return ["Nothing was measured."]
    sentences = []
    for verdict in ("worse", "undecided", "better"):
        named = [f"{number.task} ({number.metric})" for number in results.numbers if number.verdict == verdict]
        if named:
            sentences.append(
                f"{verdict.capitalize()} than the untouched model: {', '.join(named)}.".replace(
                    "Undecided than", "Undecided against"
                )
            )
    return sentences


def _curves(results: SpectrumResults, metric: str) -> Section:
    figure = _plot(results, metric)
    return Section(
        f"curve-{metric}",
        f"By number of examples: {TITLES[metric]}",
        "Blue: the tuned model. Orange: the untouched one, a line per format.",
        figure,
        missing="" if figure is not None else "No held-out task has it.",
    )


@matplotlib.rc_context(FONT)
def _plot(results: SpectrumResults, metric: str) -> Figure | None:
    curves = [curve for curve in results.curves if curve.metric == metric]
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    if not tasks:
        return None
    figure, grid = panel_grid(len(tasks), min(3, len(tasks)), (2.0, 1.4), gaps=(0.55, 0.75), left=0.6, top=1.15)
    for axes, task in zip(grid, tasks, strict=True):
        for curve in (curve for curve in curves if curve.task == task):
            tuned = curve.model == "tuned"
            axes.plot(curve.k, curve.nats, "o-", ms=2.5, lw=1.6 if tuned else 0.9, color=OURS if tuned else UNTOUCHED)
        axes.set_title(task, fontsize=8, color=INK)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("examples read", fontsize=7)
        axes.grid(axis="y", color=GREY, lw=0.3)
    title(figure, TITLES[metric][0].upper() + TITLES[metric][1:])
    key_line(figure, [("o", OURS, "tuned"), ("o", UNTOUCHED, "untouched")])
    return figure
