"""The numbers of a run as tables and sentences.

Knows the keys of `results.json`; knows nothing of plots, HTML or how the numbers were made. A run that stopped early
has fewer keys: what is missing becomes a dash, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table


__all__ = [
    "BASELINES",
    "STAGE_NAMES",
    "Rows",
    "TextTable",
    "clusters_table",
    "clusters_text",
    "format_interval",
    "format_nats",
    "format_percent",
    "headroom_table",
    "headroom_text",
    "short_labels",
    "summary_table",
    "summary_text",
]

Results = Mapping[str, Any]

STAGE_NAMES = {
    "uniform": "uniform answers",
    "marginal": "marginal (trained questions)",
    "floor": "noise floor",
    "jury": "jury's own prediction",
    "untouched": "untouched model",
    "warm": "after warm-up (pi_ref)",
    "grpo": "stock GRPO",
    "plural": "plural (ours)",
}
"""Stages in the order of the summary, in words."""

BASELINES = ("uniform", "marginal", "floor")
SPLITS = ("train", "heldout")
DASH = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class TextTable:
    """A table as text, for rich, Markdown and HTML alike.

    Args:
        header: One title per column.
        rows: One text per column and row.
        caption: What the table shows and how to read it.
    """

    header: list[str]
    rows: list[list[str]]
    caption: str = ""


class Rows:
    """Look-up in the tidy rows of a run.

    Args:
        results: The results; without `rows`, every look-up finds nothing.
    """

    def __init__(self, results: Results) -> None:
        self._rows: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
        self._clusters: list[str] = []
        for row in results.get("rows", []):
            self._rows[row["stage"], row["split"], row["cluster"], row["metric"]] = row
            if row["cluster"] != "all" and row["cluster"] not in self._clusters:
                self._clusters.append(row["cluster"])

    def get(self, stage: str, split: str, metric: str, cluster: str = "all") -> Mapping[str, Any] | None:
        """The row, or None if the run has none or its value is no finite number."""
        row = self._rows.get((stage, split, cluster, metric))
        return None if row is None or _finite(row["value"]) is None else row

    def value(self, stage: str, split: str, metric: str, cluster: str = "all") -> float | None:
        """The value of the row, or None."""
        row = self.get(stage, split, metric, cluster)
        return None if row is None else float(row["value"])

    def interval(self, stage: str, split: str, metric: str, cluster: str = "all") -> tuple[float, float] | None:
        """The interval of the row, or None."""
        row = self.get(stage, split, metric, cluster)
        low, high = (None, None) if row is None else (_finite(row["ci_low"]), _finite(row["ci_high"]))
        return None if low is None or high is None else (low, high)

    def cluster_mean(self, stage: str, split: str, metric: str) -> float | None:
        """Mean over the clusters, each under its own steering; None if no cluster has a number."""
        values = [self.value(stage, split, metric, cluster) for cluster in self._clusters]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def stages(self) -> list[str]:
        """The stages that have any row, in the order of `STAGE_NAMES`."""
        present = {stage for stage, *_ in self._rows}
        return [stage for stage in STAGE_NAMES if stage in present]


def format_nats(value: float | None) -> str:
    """Three decimals, four below 0.01, with a real minus sign; a dash for None."""
    if value is None:
        return DASH
    return f"{value:.{3 if abs(value) >= 0.00995 else 4}f}".replace("-", "−")


def format_percent(share: float | None) -> str:
    """A share as a percentage: two significant figures below 1 %, one decimal above; never rounded up to 100 %."""
    if share is None:
        return DASH
    percent = 100 * share
    if abs(percent) < 1:
        return f"{percent:.2g}{NO_BREAK}%"
    return f"{math.floor(10 * percent) / 10 if 99.95 <= percent < 100 else percent:.1f}{NO_BREAK}%"


def format_interval(row: Mapping[str, Any] | None) -> str:
    """`value [low, high]` of a tidy row; the interval is left out where the row has none."""
    if row is None or _finite(row["value"]) is None:
        return DASH
    low, high = _finite(row["ci_low"]), _finite(row["ci_high"])
    if low is None or high is None:
        return format_nats(row["value"])
    return f"{format_nats(row['value'])} [{format_nats(low)},{NO_BREAK}{format_nats(high)}]"


def summary_text(results: Results) -> TextTable:
    """One row per stage: distance to people, to each cluster under its own steering, coverage, entropy gap."""
    rows = Rows(results)
    body = []
    for stage in rows.stages():
        cells = [STAGE_NAMES[stage]]
        cells += [format_interval(rows.get(stage, split, "jsd_nats")) for split in SPLITS]
        cells.append(" / ".join(format_nats(rows.cluster_mean(stage, split, "jsd_nats")) for split in SPLITS))
        cells.append(" / ".join(format_percent(rows.value(stage, split, "coverage")) for split in SPLITS))
        cells.append(" / ".join(format_nats(rows.value(stage, split, "entropy_gap")) for split in SPLITS))
        body.append([_nothing_but_dashes(cell) for cell in cells])
    return TextTable(
        header=["", "JS trained", "JS held-out", "JS per cluster", "coverage", "entropy gap"],
        rows=body,
        caption=(
            "JS: Jensen-Shannon divergence in nats between the answers of the policy and those of people not used for "
            "training; lower is better, 0 is identical, 0.693 has nothing in common; in brackets the interval "
            "over people and questions. Pairs are trained / held-out questions. Per cluster: mean over clusters, each "
            "under its own steering. Coverage: probability on the offered answers. Entropy gap: nats of spread gained "
            "(+) or lost (−) against the people."
        ),
    )


def clusters_text(results: Results) -> TextTable:
    """One row per rater cluster: its share of the raters and the answers that set it apart."""
    body = []
    for cluster in results.get("clusters", []):
        apart = []
        for top in cluster["top"][:3]:
            shares = f"{format_percent(top['p_cluster'])}, all {format_percent(top['p_population'])}"
            apart.append(f"{top['item']}: {top['option']} ({shares})")
        body.append([cluster["name"], format_percent(cluster["prevalence"]), "; ".join(apart) or DASH])
    return TextTable(
        header=["cluster", "raters", "answers that set it apart"],
        rows=body,
        caption="In brackets: the share of the cluster that gives this answer, and the share of all raters that does.",
    )


def headroom_text(headroom: Mapping[str, Any]) -> TextTable:
    """The ladder of models of the judgements, from a constant upwards."""
    return TextTable(
        header=["model of the judgements", "nll (nats)", "gain (nats per judgement)"],
        rows=[
            [
                rung["name"],
                format_nats(_finite(rung["nll"])),
                format_interval({"value": rung["info"], "ci_low": rung["low"], "ci_high": rung["high"]}),
            ]
            for rung in headroom["rungs"]
        ],
        caption="Each rung is scored on judgements it has not seen; higher gain is better.",
    )


def summary_table(results: Results) -> Table:
    """The summary as a rich table, printed at the end of a run."""
    return _rich(summary_text(results), title="How far from the people?", bold_first="plural (ours)")


def clusters_table(results: Results) -> Table:
    """The rater clusters as a rich table."""
    return _rich(clusters_text(results), title="Rater clusters")


def headroom_table(headroom: Mapping[str, Any]) -> Table:
    """The headroom ladder as a rich table."""
    return _rich(headroom_text(headroom), title="Headroom: what could a jury gain?")


def short_labels(questions: Sequence[Mapping[str, Any]], width: int = 34) -> dict[str, str]:
    """Names of questions short enough for a plot.

    The words that all prompts begin and end with are dropped, so that "Is the country spending too much on parks?"
    among its like becomes "parks". Where that leaves nothing, something too long, or two questions alike, the
    question's own `label` is used, or its id.

    Args:
        questions: Questions with `id`, `prompt` (a string, or anything else, which is not read) and perhaps `label`.
        width: Longest label.

    Returns:
        Question id to label.
    """
    ids = [question["id"] for question in questions]
    prompts = [question["prompt"] if isinstance(question["prompt"], str) else "" for question in questions]
    names = [question.get("label", question["id"]) for question in questions]
    if len(prompts) < 2:
        return {
            i: prompt if 0 < len(prompt) <= width else name
            for i, prompt, name in zip(ids, prompts, names, strict=True)
        }
    words = [prompt.split() for prompt in prompts]
    start = _common_start(words)
    end = _common_start([w[start:][::-1] for w in words])
    labels = [" ".join(w[start : len(w) - end]).strip(" .,;:?!") for w in words]
    return {
        i: label if 0 < len(label) <= width and labels.count(label) == 1 else name
        for i, label, name in zip(ids, labels, names, strict=True)
    }


def _common_start(lists: Sequence[Sequence[str]]) -> int:
    """Number of leading entries that all lists share."""
    return next(
        (at for at, entries in enumerate(zip(*lists, strict=False)) if len(set(entries)) > 1), min(map(len, lists))
    )


def _rich(table: TextTable, title: str, bold_first: str = "") -> Table:
    rich_table = Table(title=title, caption=table.caption, title_justify="left", caption_justify="left")
    for number, column in enumerate(table.header):
        rich_table.add_column(column, justify="left" if number == 0 or column.startswith("answers") else "right")
    for row in table.rows:
        rich_table.add_row(*(_plain(cell) for cell in row), style="bold" if row[0] == bold_first else None)
    return rich_table


def _plain(cell: str) -> str:
    """Rich reads [brackets] as markup."""
    return cell.replace("[", "\\[")


def _nothing_but_dashes(cell: str) -> str:
    return DASH if cell == f"{DASH} / {DASH}" else cell


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
