"""The page of predicted questions: whether wording tells anything, then what people would answer.

Reads `QuestionResults`. Knows nothing of how anything was predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from plural_rlhf.methods.new_questions.results import PredictedRecord, QuestionResults, SkillRecord
from plural_rlhf.report.canvas import FONT, GREY, INK, key_line, new_figure, option_colours, panel_grid, title
from plural_rlhf.report.html import readable_results, write_page
from plural_rlhf.report.sections import Section
from plural_rlhf.report.tables import (
    DASH,
    NO_BREAK,
    TextTable,
    format_interval,
    format_nats,
    format_points,
    settings_text,
)
from reward_models.analysis.naming import telling_parts


__all__ = ["predicted_tables", "question_findings", "skill_table", "write_questions_report"]

MOST_ROWS = 40
"""Rows of the plot; the table has all."""
MEAN = "mean of the known questions"
LITTLE = 0.02
"""Part of the marginal's divergence below which a difference is next to nothing."""
WIDTH = 46
"""Letters of a wording in the plot."""


def write_questions_report(results: QuestionResults, folder: str | Path) -> Path:
    """Write `report.html`, `report.md` and the figures.

    Args:
        results: The results.
        folder: Where to write; made if it does not exist.

    Returns:
        The path of `report.html`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_questions_report(QuestionResults(name="trial"), folder)
        ...     "Does wording tell anything here?" in page.read_text(encoding="utf-8")
        True
    """
    results = readable_results(results)
    nothing = "" if results.skill else "Nothing was predicted."
    sections = [
        Section(
            "skill",
            "Does wording tell anything here?",
            "Each known question is predicted from those of other wording, and compared with what people answered. "
            "JS: Jensen-Shannon divergence in nats, less is better. The marginal is the mean of the other questions. "
            "Below 0 the difference says that wording helps; an interval that holds 0 says that it may not. Questions "
            "about other matters than the known ones are predicted worse than these.",
            _plot_known(results),
            [skill_table(results)],
            missing=nothing,
        ),
        Section(
            "predicted",
            "What would people answer?",
            "Dots are predicted shares, lines their 90 % intervals (so far off were predictions of known questions), "
            "grey marks the mean of the known questions.",
            _plot_predicted(results),
            predicted_tables(results),
            missing=nothing,
        ),
        Section(
            "known",
            "What was answered to the known questions?",
            "Shares of people, and in brackets what the other questions say of it.",
            folded=[_known_table(results)],
            missing=nothing,
        ),
        Section(
            "record",
            "How is it made again?",
            "The settings.",
            folded=[settings_text(results.config)],
        ),
    ]
    return write_page(folder, f"{results.name}: new questions", question_findings(results), sections, results.meta)


def question_findings(results: QuestionResults) -> list[str]:
    """Say in sentences whether wording is to be believed, and how far off predictions are.

    Example:
        >>> question_findings(QuestionResults())
        ['Nothing was predicted.']
    """
    if not results.skill:
        return ["Nothing was predicted."]
    sentences = []
    for options in dict.fromkeys(tuple(skill.options) for skill in results.skill):
        everybody, *groups = [skill for skill in results.skill if tuple(skill.options) == options]
        several = len({tuple(skill.options) for skill in results.skill}) > 1
        sentences.append(_verdict(everybody, f" with the answers {' / '.join(options)}" if several else ""))
        if groups:
            sentences.append(_verdicts_of_groups(groups))
    return [*sentences, *results.notes]


def _verdict(skill: SkillRecord, which: str) -> str:
    words = {
        "better": "wording is nearer to people than their mean, the marginal",
        "undecided": "wording is no better than their mean, the marginal, as far as these questions can tell",
        "worse": "wording is worse than their mean, the marginal",
    }
    advice = {
        "better": "",
        "undecided": " Read the predictions with that in mind, or take the marginal.",
        "worse": " Take the marginal.",
    }
    interval = format_interval(skill.difference, _end(skill.ci_low), _end(skill.ci_high))
    verdict = words[skill.verdict]
    if skill.verdict != "undecided" and abs(skill.difference) < LITTLE * skill.marginal:
        verdict += ", by next to nothing"
    return (
        f"On the {skill.questions} known questions{which}, each predicted from the others, {verdict}: "
        f"JS {format_nats(skill.wording)} against {format_nats(skill.marginal)} nats, {interval}. Of 100 people "
        f"{format_points(skill.points)} answer otherwise than predicted (median; marginal "
        f"{format_points(skill.points_marginal)}).{advice[skill.verdict]}"
    )


def _verdicts_of_groups(groups: Sequence[SkillRecord]) -> str:
    parts = []
    for verdict in ("better", "undecided", "worse"):
        named = [skill.group for skill in groups if skill.verdict == verdict]
        if named:
            parts.append(f"{verdict} for {len(named)}: {'; '.join(named)}")
    by_chance = " Each interval is about one group: of many groups some are decided by chance."
    return f"By group, against the group's own marginal: {' | '.join(parts)}.{by_chance if len(groups) > 2 else ''}"


def skill_table(results: QuestionResults) -> TextTable:
    """Tabulate how well known questions are predicted.

    Example:
        >>> skill_table(QuestionResults()).rows
        []
    """
    return TextTable(
        ["group", "questions", "by wording", "marginal", "most similar", "wording minus marginal", "", "points off"],
        [
            [
                skill.group,
                str(skill.questions),
                format_nats(skill.wording),
                format_nats(skill.marginal),
                format_nats(skill.nearest),
                format_interval(skill.difference, _end(skill.ci_low), _end(skill.ci_high)),
                skill.verdict,
                f"{format_points(skill.points)} ({format_points(skill.points_marginal)})",
            ]
            for skill in results.skill
        ],
        "JS divergence from people in nats, and its 95 % interval over questions. Most similar: the answers to the "
        "question with the nearest wording. Points off: of 100 people, so many would have to answer otherwise "
        "(median; in brackets of the marginal).",
    )


def predicted_tables(results: QuestionResults, *, most: int | None = None, reasons: bool = True) -> list[TextTable]:
    """Tabulate the new questions, a table per list of offered answers; the means of the known ones come first.

    Args:
        results: The results.
        most: Most rows of new questions per table; None: all.
        reasons: Whether to name the known questions on which a prediction rests most.

    Example:
        >>> record = {"id": "new 1", "text": "More parks?", "group": "everybody", "options": ["yes", "no"]}
        >>> record |= {"shares": [0.7, 0.3], "low": [0.6, 0.2], "high": [0.8, 0.4], "marginal": [0.5, 0.5]}
        >>> [table] = predicted_tables(QuestionResults.model_validate({"predicted": [record]}), reasons=False)
        >>> [cell.replace(NO_BREAK, " ") for cell in table.rows[1]]  # the first row is the mean
        ['More parks?', 'everybody', '70 % [60, 80]', '30 % [20, 40]']
    """
    labels = _labels(results)
    caption = "In brackets 90 % intervals." + (
        " Rests most on: the known questions with the largest weights." if reasons else ""
    )
    tables = []
    for options in dict.fromkeys(tuple(record.options) for record in results.predicted):
        records = [record for record in results.predicted if tuple(record.options) == options]
        means = {record.group: _shares(record.marginal) for record in records}
        rows = [[MEAN, group, *shares, *([DASH] if reasons else [])] for group, shares in means.items()]
        for record in records[:most]:
            nearest = "; ".join(_short(labels.get(name, name), 60) for name in record.nearest) or DASH
            shares = _shares(record.shares, record.low, record.high)
            rows.append([record.text, record.group, *shares, *([nearest] if reasons else [])])
        left = len(records) - len(records[:most])
        header = ["question", "group", *options, *(["rests most on"] if reasons else [])]
        tables.append(
            TextTable(header, rows, caption + (f" {left:,} more rows in shares.csv." if left else ""), filterable=True)
        )
    return tables


def _shares(shares: Sequence[float], low: Sequence[float] = (), high: Sequence[float] = ()) -> list[str]:
    texts = [f"{100 * share:.0f} %" for share in shares]
    ends = [
        "" if math.isnan(a) else f" [{100 * a:.0f}, {100 * b:.0f}]".replace(", ", f",{NO_BREAK}")
        for a, b in zip(low, high, strict=True)
    ] or [""] * len(texts)
    return [text.replace(" ", NO_BREAK) + end for text, end in zip(texts, ends, strict=True)]


def _labels(results: QuestionResults) -> dict[str, str]:
    """Return what tells the known questions apart, by id: the words that all begin or end with are cut off."""
    texts = {record.id: record.text for record in results.known}
    parts = telling_parts(list(texts.values()))
    return {name: part or text for (name, text), part in zip(texts.items(), parts, strict=True)}


def _known_table(results: QuestionResults) -> TextTable:
    return TextTable(
        ["question", "group", "answers", "people (predicted)"],
        [
            [
                record.text,
                record.group,
                f"{record.people:,.0f}",
                ", ".join(
                    f"{option} {100 * share:.0f} % ({100 * predicted:.0f})"
                    for option, share, predicted in zip(record.options, record.shares, record.predicted, strict=True)
                ),
            ]
            for record in results.known
        ],
        filterable=True,
    )


@matplotlib.rc_context(FONT)
def _plot_known(results: QuestionResults) -> Figure | None:
    """Plot people's shares of the known questions against what the others predict, a panel per list of answers."""
    scales = list(dict.fromkeys(tuple(skill.options) for skill in results.skill))
    if not scales:
        return None
    figure, panels = panel_grid(len(scales), min(len(scales), 2), (2.9, 2.7), gaps=(0.7, 0.9), left=0.75, top=0.8)
    for axes, options in zip(panels, scales, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9)
        for place, (option, colour) in enumerate(zip(options, option_colours(len(options)), strict=True)):
            of = [record for record in results.known if tuple(record.options) == options]
            x, y = [record.predicted[place] for record in of], [record.shares[place] for record in of]
            axes.plot(x, y, "o", ms=4, color=colour, mec=GREY, mew=0.4, label=_short(option, 18))
        axes.set_xlabel("predicted from the other questions")
        axes.set_ylabel("share of people")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, loc="upper left", handletextpad=0.1)
    title(figure, "Known questions, each predicted from the others")
    return figure


@matplotlib.rc_context(FONT)
def _plot_predicted(results: QuestionResults) -> Figure | None:
    """Plot the predicted shares, a row per question and group."""
    rows = results.predicted[:MOST_ROWS]
    if not rows:
        return None
    several = len({row.group for row in rows}) > 1
    height = (0.1 + 0.07 * max(len(row.options) for row in rows)) * len(rows)
    figure = new_figure(8.2, height + 1.5)
    total = height + 1.5
    axes = figure.add_axes((0.46, 0.55 / total, 0.52, height / total))
    axes.patch.set_alpha(0)
    for place, row in enumerate(rows):
        _draw_row(axes, -place, row)
    parts = telling_parts([row.text for row in rows if row.group == rows[0].group])
    names = dict(zip(dict.fromkeys(row.id for row in rows), parts, strict=True))
    labels = [f"{_short(names[row.id] or row.text, WIDTH)}{f' · {row.group}' if several else ''}" for row in rows]
    axes.set_yticks([-place for place in range(len(rows))], labels, fontsize=7.5)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of people")
    axes.tick_params(colors=INK)
    left = len(results.predicted) - len(rows)
    title(figure, "Predicted answers" + (f" (the first {len(rows)}; {left} more in the table)" if left else ""))
    scales = list(dict.fromkeys(tuple(row.options) for row in rows))
    if len(scales) == 1:
        marks = [
            ("o", colour, _short(o, 18)) for o, colour in zip(scales[0], option_colours(len(scales[0])), strict=True)
        ]
        key_line(figure, marks, columns=min(len(marks), 4))
    return figure


def _draw_row(axes: matplotlib.axes.Axes, y: float, row: PredictedRecord) -> None:
    count = len(row.options)
    for place, colour in enumerate(option_colours(count)):
        shift = 0.5 * (0.5 - (place + 0.5) / count)
        if not math.isnan(row.low[place]):
            axes.plot([row.low[place], row.high[place]], [y + shift] * 2, color=colour, lw=1.4, alpha=0.7)
        axes.plot(row.marginal[place], y + shift, "|", color=GREY, ms=5)
        axes.plot(row.shares[place], y + shift, "o", color=colour, ms=4, mec=GREY, mew=0.4)


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _end(value: float | None) -> float:
    return math.nan if value is None else value
