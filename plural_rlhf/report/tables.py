"""The numbers of a run as tables and sentences.

Reads `RunResults`; knows nothing of plots, HTML or how the numbers were made. A run that stopped early holds less:
what is missing becomes a dash, never an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from plural_rlhf.report.names import EVERYBODY, METHOD_NAMES, Method, Metric, Split
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_jury import HeadroomSummary
from plural_rlhf.report.results_policies import QuestionResult, Row
from reward_models.analysis.naming import telling_parts
from reward_models.borders import cell


__all__ = [
    "Rows",
    "TextTable",
    "clusters_table",
    "clusters_text",
    "distance_metric",
    "format_interval",
    "format_nats",
    "format_percent",
    "format_points",
    "headroom_table",
    "headroom_text",
    "rich_table",
    "settings_text",
    "short_labels",
    "summary_table",
    "summary_text",
]

DASH = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"
OF_POINTS = "Points off: of 100 people, so many would have to answer otherwise for people and model to agree. "
OF_DISTANCES = (
    "JS: Jensen-Shannon divergence in nats between the answers of the policy and those of people not used for "
    "training; lower is better, 0 is identical, 0.693 has nothing in common; in brackets the interval over people and "
    "questions. Pairs are trained / held-out questions. Per cluster: mean over clusters, each under its own steering. "
    "Coverage: probability on the offered answers. Entropy gap: nats of spread gained (+) or lost (−) against people."
)


@dataclass(frozen=True)
class TextTable:
    """A table as text, for rich, Markdown and HTML alike.

    Args:
        header: One title per column.
        rows: One text per column and row.
        caption: What the table shows and how to read it.
        filterable: Whether a page offers a field that hides the rows without the words typed into it.

    Example:
        >>> TextTable(["rule", "pick"], [["mean", "yes"]], "The answer that each rule picks.").rows[0]
        ['mean', 'yes']
    """

    header: list[str]
    rows: list[list[str]]
    caption: str = ""
    filterable: bool = False


class Rows:
    """Look up the tidy rows of a run.

    Args:
        rows: The rows; without any, every look-up returns None.

    Example:
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> rows = Rows([row])
        >>> rows.value(Method.PLURAL, Split.HELDOUT, Metric.JSD), rows.value(Method.GRPO, Split.HELDOUT, Metric.JSD)
        (0.02, None)
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {(row.method, row.split, row.cluster, row.metric): row for row in rows}
        self._clusters = list(dict.fromkeys(row.cluster for row in rows if row.cluster != EVERYBODY))

    def get(self, method: str, split: str, metric: str, cluster: str = EVERYBODY) -> Row | None:
        """Return the row, or None if the run has none or its value is not a finite number."""
        row = self._rows.get((method, split, cluster, metric))
        return row if row is not None and math.isfinite(row.value) else None

    def value(self, method: str, split: str, metric: str, cluster: str = EVERYBODY) -> float | None:
        """Return the value of the row, or None."""
        row = self.get(method, split, metric, cluster)
        return None if row is None else row.value

    def interval(self, method: str, split: str, metric: str, cluster: str = EVERYBODY) -> tuple[float, float] | None:
        """Return the interval of the row, or None."""
        row = self.get(method, split, metric, cluster)
        known = row is not None and math.isfinite(row.ci_low) and math.isfinite(row.ci_high)
        return (row.ci_low, row.ci_high) if row is not None and known else None

    def text(self, method: str, split: str, metric: str) -> str:
        """Return the row about everybody as `format_interval` prints it, a dash where there is none."""
        row = self.get(method, split, metric)
        return DASH if row is None else format_interval(row.value, row.ci_low, row.ci_high)

    def cluster_mean(self, method: str, split: str, metric: str) -> float | None:
        """Return the mean over the clusters, each under its own steering; None if no cluster has a number."""
        values = [self.value(method, split, metric, cluster) for cluster in self._clusters]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def methods(self) -> list[str]:
        """Return the methods that have any row, in the order of `METHOD_NAMES`."""
        present = {method for method, *_ in self._rows}
        return [method for method in METHOD_NAMES if method in present]


def format_nats(value: float | None) -> str:
    """Print three decimals, four below 0.01, with a real minus sign; a dash for None and NaN.

    Example:
        >>> format_nats(0.0213), format_nats(-0.0041), format_nats(None)
        ('0.021', '−0.0041', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.{3 if abs(value) >= 0.00995 else 4}f}".replace("-", "−")


def format_percent(share: float | None) -> str:
    """Print a share as a percentage: two significant figures below 1 %, one decimal above; never round up to 100 %.

    Example:
        >>> [format_percent(share).replace(NO_BREAK, " ") for share in (0.0006, 0.5, 0.99996, sum([0.1] * 10), 4e-9)]
        ['0.06 %', '50.0 %', '99.9 %', '100.0 %', '< 0.001 %']
    """
    if share is None or not math.isfinite(share):
        return DASH
    percent = round(100 * share, 9)  # shares that sum to 1 up to the last digit are all of it
    if 0 < abs(percent) < 0.001:
        return f"<{NO_BREAK}0.001{NO_BREAK}%"
    if abs(percent) < 1:
        return f"{percent:.2g}{NO_BREAK}%"
    return f"{math.floor(10 * percent) / 10 if 99.95 <= percent < 100 else percent:.1f}{NO_BREAK}%"


def distance_metric(rows: Rows) -> Metric:
    """Return the distance that a run is judged by: points, or the divergence where an older run has no points.

    Example:
        >>> distance_metric(Rows([])).value
        'jsd_nats'
    """
    measured = (rows.get(method, split, Metric.POINTS) for method in METHOD_NAMES for split in Split)
    return Metric.POINTS if any(row is not None for row in measured) else Metric.JSD


def format_points(share: float | None) -> str:
    """Print a share as percentage points without unit: whole above ten, one decimal below; a dash for None and NaN.

    Example:
        >>> format_points(0.344), format_points(0.0312), format_points(None)
        ('34', '3.1', '–')
    """
    if share is None or not math.isfinite(share):
        return DASH
    points = 100 * share
    return f"{points:.0f}" if points >= 9.95 else f"{points:.1f}"


def format_interval(value: float, low: float, high: float) -> str:
    """Print `value [low, high]`; without the brackets where an end is not known, a dash where the value is not.

    Example:
        >>> format_interval(0.02, 0.01, 0.035).replace(NO_BREAK, " ")
        '0.020 [0.010, 0.035]'
    """
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return format_nats(value)
    return f"{format_nats(value)} [{format_nats(low)},{NO_BREAK}{format_nats(high)}]"


def summary_text(results: RunResults) -> TextTable:
    """Tabulate one row per method: distance to people, to each cluster under its own steering, coverage, entropy gap.

    Example:
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> summary_text(RunResults(rows=[row])).rows
        [['plural (ours)', '–', '0.020', '–', '–', '–']]
    """
    rows = Rows(results.rows)
    in_points = distance_metric(rows) == Metric.POINTS
    body = []
    for method in rows.methods():
        cells = [METHOD_NAMES[method]]
        if in_points:
            cells.append(" / ".join(format_points(rows.value(method, split, Metric.POINTS)) for split in Split))
        cells += [rows.text(method, split, Metric.JSD) for split in Split]
        cells.append(" / ".join(format_nats(rows.cluster_mean(method, split, Metric.JSD)) for split in Split))
        cells.append(" / ".join(format_percent(rows.value(method, split, Metric.COVERAGE)) for split in Split))
        cells.append(" / ".join(format_nats(rows.value(method, split, Metric.ENTROPY_GAP)) for split in Split))
        body.append([_nothing_but_dashes(cell) for cell in cells])
    return TextTable(
        header=[
            "",
            *(["points off"] if in_points else []),
            *("JS trained", "JS held-out", "JS per cluster", "coverage", "entropy gap"),
        ],
        rows=body,
        caption=(OF_POINTS if in_points else "") + OF_DISTANCES,
    )


def clusters_text(results: RunResults) -> TextTable:
    """Tabulate one row per rater cluster: its share of the raters and the answers that set it apart.

    Example:
        >>> from plural_rlhf.report.results_jury import Cluster, DistinctiveAnswer
        >>> answer = DistinctiveAnswer(item="parks", option="yes", p_cluster=0.9, p_population=0.6, lift=1.5)
        >>> table = clusters_text(RunResults(clusters=[Cluster(name="parks: yes", prevalence=0.4, top=[answer])]))
        >>> [cell.replace(NO_BREAK, " ") for cell in table.rows[0]]
        ['parks: yes', '40.0 %', 'parks: yes (90.0 %, all 60.0 %)']
    """
    body = []
    for cluster in results.clusters:
        apart = [
            f"{top.item}: {top.option} ({format_percent(top.p_cluster)}, all {format_percent(top.p_population)})"
            for top in cluster.top[:3]
        ]
        body.append([cluster.name, format_percent(cluster.prevalence), "; ".join(apart) or DASH])
    return TextTable(
        header=["cluster", "raters", "answers that set it apart"],
        rows=body,
        caption="In brackets: the share of the cluster that gives this answer, and the share of all raters that does.",
    )


def headroom_text(headroom: HeadroomSummary, *, new_texts: bool = False) -> TextTable:
    """Tabulate the ladder of models of the judgements, from a constant upwards.

    Args:
        headroom: The ladder.
        new_texts: Whether it was measured on texts that nobody had judged.

    Example:
        >>> from plural_rlhf.report.results_jury import Rung
        >>> rung = Rung(name="mixture K=2", nll=0.64, info=0.05, low=0.04, high=0.06)
        >>> table = headroom_text(HeadroomSummary(rungs=[rung], verdict="taste signal", best="mixture K=2"))
        >>> table.rows[0][:2]
        ['mixture K=2', '0.640']
    """
    return TextTable(
        header=["model of the judgements", "nll (nats)", "gain (nats per judgement)"],
        rows=[
            [rung.name, format_nats(rung.nll), format_interval(rung.info, rung.low, rung.high)]
            for rung in headroom.rungs
        ],
        caption=f"Each rung is scored on judgements {'of texts ' * new_texts}it has not seen; higher gain is better.",
    )


def summary_table(results: RunResults | Mapping[str, Any]) -> Table:
    """Make the summary that is printed at the end of a run.

    Args:
        results: The results, or what `json.load` reads from their `results.json`.

    Example:
        >>> from rich.console import Console
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> table = summary_table(RunResults(rows=[row]))
        >>> [str(column.header) for column in table.columns][:3]
        ['', 'JS trained', 'JS held-out']
    """
    text = summary_text(RunResults.model_validate(results))
    return rich_table(text, title="How far from the people?", bold_first=METHOD_NAMES[Method.PLURAL])


def clusters_table(results: RunResults) -> Table:
    """Make the table of rater clusters that `fit-jury` prints.

    Example:
        >>> [str(column.header) for column in clusters_table(RunResults()).columns]
        ['cluster', 'raters', 'answers that set it apart']
    """
    return rich_table(clusters_text(results), title="Rater clusters")


def headroom_table(headroom: HeadroomSummary, *, texts: str = "") -> Table:
    """Make the table of the headroom ladder that `headroom` prints.

    Args:
        headroom: The ladder.
        texts: What it was measured on, with features: `"known_texts"` or `"new_texts"`; empty: labels only.

    Example:
        >>> table = headroom_table(HeadroomSummary(rungs=[], verdict="no taste signal", best="item mean"))
        >>> str(table.title)
        'Headroom: what could a jury gain?'
    """
    where = {"known_texts": " on known texts, from features", "new_texts": " on texts that nobody has judged"}
    return rich_table(headroom_text(headroom), title=f"Headroom: what could a jury gain{where.get(texts, '')}?")


def short_labels(questions: Sequence[QuestionResult], width: int = 34) -> dict[str, str]:
    """Make names of questions that are short enough for a plot.

    The words that all prompts begin and end with are dropped, so that "Is the country spending too much on parks?"
    becomes "parks" among similar questions. Where that leaves nothing, something too long, or two questions alike,
    the question's `label` is used, or its id.

    Args:
        questions: The questions.
        width: Longest label, in characters.

    Returns:
        Question id to label.

    Example:
        >>> rest = {"options": [], "split": "train", "n": 0, "human": [], "jury": [], "clusters": {}, "policy": {}}
        >>> parks, roads = (
        ...     QuestionResult(id=topic, prompt=f"Is the country spending too much on {topic}?", **rest)
        ...     for topic in ("public parks", "roads")
        ... )
        >>> short_labels([parks, roads])
        {'public parks': 'public parks', 'roads': 'roads'}
    """
    ids = [question.id for question in questions]
    prompts = [question.prompt for question in questions]
    names = [question.label or question.id for question in questions]
    if len(prompts) < 2:
        return {
            i: prompt if 0 < len(prompt) <= width else name
            for i, prompt, name in zip(ids, prompts, names, strict=True)
        }
    labels = telling_parts(prompts)
    return {
        i: label if 0 < len(label) <= width and labels.count(label) == 1 else name
        for i, label, name in zip(ids, labels, names, strict=True)
    }


def settings_text(config: Mapping[str, Any]) -> TextTable:
    """Tabulate the sections of a run file as JSON, which is YAML.

    Example:
        >>> settings_text({"train": {"steps": 3}}).rows
        [['train', '{"steps": 3}']]
    """
    rows = [[key, json.dumps(value, ensure_ascii=False)] for key, value in config.items()]
    return TextTable(["setting", "value"], rows, "Settings")


def rich_table(table: TextTable, title: str, bold_first: str = "") -> Table:
    """Make a table for the terminal.

    Args:
        table: The table.
        title: Its title.
        bold_first: First cell of the row that is printed in bold.

    Example:
        >>> rich_table(TextTable(header=["", "words"], rows=[["plural", "21"]], caption=""), "Length").row_count
        1
    """
    caption = cell(table.caption) if table.caption else None
    rich_table = Table(title=cell(title), caption=caption, title_justify="left", caption_justify="left")
    for number, column in enumerate(table.header):
        justify: Literal["left", "right"] = "left" if number == 0 or column.startswith("answers") else "right"
        rich_table.add_column(cell(column), justify=justify, overflow="fold")  # names are never cut
    for row in table.rows:
        rich_table.add_row(*map(cell, row), style="bold" if row[0] == bold_first else None)
    return rich_table


def _nothing_but_dashes(text: str) -> str:
    return DASH if text == f"{DASH} / {DASH}" else text
