"""What an evaluation of open-ended policies found, as rows that become plain JSON.

Knows nothing of how anything was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


__all__ = ["MEASURES", "MeasureRow", "OpenEndedResults", "ScoredText"]

Better = Literal["higher", "lower", "neither"]

MEASURES: Mapping[str, tuple[str, Better, str]] = {
    "approval": ("probability", "higher", "members of the cluster who approve of a text"),
    "approval_worst_cluster": ("probability", "higher", "approval in the cluster where it is lowest"),
    "bridging": ("share", "higher", "texts of which more than half of every cluster approves"),
    "answer_share": ("share", "neither", "texts written for the cluster; its weight is the goal"),
    "share_for_no_cluster": ("share", "neither", "texts for no cluster in particular, as the reference policy writes"),
    "share_error": ("share", "lower", "largest relative error of a cluster's share of the texts written for one"),
    "heldout_share_of_gain": (
        "share",
        "higher",
        "gain in approval that the heldout jury sees, of the training jury's",
    ),
    "win_rate": ("share", "higher", "comparisons with the rival's texts that the cluster decides for the policy"),
    "ties": ("share", "neither", "comparisons with the rival's texts that are ties"),
    "mmd_to_people": ("squared distance", "lower", "kernel two-sample distance from people's texts"),
    "auc_to_people": ("probability", "lower", "how well a classifier tells the texts from people's; .5 is not at all"),
    "human_classes_covered": ("share", "higher", "people's answers whose class is among k texts"),
    "kl_to_reference": ("nats", "neither", "divergence of whole texts from the reference policy"),
    "kl_to_target": ("nats", "lower", "divergence of whole texts from the target"),
    "effective_samples": ("texts", "higher", "effective reference samples behind kl_to_target"),
    "completions_per_text": ("texts", "lower", "texts that are drawn for each one: several where one is chosen"),
    "effective_classes": ("classes", "higher", "effective number of classes of texts that say the same"),
    "classes_ratio_to_reference": ("ratio", "higher", "effective classes, of those of the reference policy"),
    "largest_classes": ("share", "lower", "texts in the three largest classes"),
    "vendi_score": ("texts", "higher", "effective number of different vectors"),
    "effective_wordings": ("texts", "higher", "effective number of different wordings"),
    "distinct_2": ("share", "higher", "different pairs of words, of all"),
    "self_bleu": ("BLEU", "lower", "likeness of each text to the others of its prompt"),
    "words": ("words", "neither", "length of a text"),
    "several_lines": ("share", "neither", "texts of several lines"),
    "markdown": ("share", "neither", "texts with marks of Markdown"),
    "degenerate": ("share", "lower", "texts that are no answers: the three below together"),
    "empty": ("share", "lower", "texts without a word"),
    "repetitive": ("share", "lower", "texts of which more than half repeats"),
    "truncated": ("share", "lower", "texts that were cut at the longest length"),
    "perplexity": ("per token", "neither", "perplexity under the reference policy"),
}
"""Unit of each measure, which direction is better, and what it is."""


@dataclass(frozen=True)
class MeasureRow:
    """One measure of one policy, a mean over prompts unless `MEASURES` says otherwise.

    Attributes:
        policy: Name of the policy; `people` for what people wrote.
        measure: A key of `MEASURES`.
        jury: `training` or `heldout`, where a jury judges; else empty.
        cluster: The cluster whose number it is; else empty.
        rival: The policy that it is compared with; else empty.
        value: The estimate; None where there is none, see `reason`.
        ci_low: Lower end of its interval over prompts; None with fewer than two prompts.
        ci_high: Upper end.
        gain: Difference to the reference policy on the same prompts.
        gain_low: Lower end of its interval.
        gain_high: Upper end.
        floor: The same measure of people against people; the goal of a distance, the ceiling of a coverage. For
            `share_error` what chance does to texts in the right shares.
        baseline: The same measure with the texts given to the questions in another order, or (for
            `heldout_share_of_gain`) what differences between people's texts keep, or (for `share_error`) what texts
            for the largest cluster alone show.
        k: Number of texts per prompt, for measures that depend on it.
        n: Prompts behind the value.
        reason: Why there is no value.

    Example:
        >>> MeasureRow("plural", "bridging", value=0.7, n=10).unit
        'share'
    """

    policy: str
    measure: str
    jury: str = ""
    cluster: str = ""
    rival: str = ""
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    floor: float | None = None
    baseline: float | None = None
    k: int | None = None
    n: int = 0
    reason: str | None = None

    @property
    def unit(self) -> str:
        """Unit of the value."""
        return MEASURES[self.measure][0]

    @property
    def better(self) -> Better:
        """Which direction is better."""
        return MEASURES[self.measure][1]


@dataclass(frozen=True)
class ScoredText:
    """One text with what was found about it, for tables and maps.

    Attributes:
        policy: Who wrote it; `people` for people.
        prompt: Name of the prompt.
        text: The text.
        approvals: Probability that a member approves, by cluster of the training jury.
        heldout_approvals: The same by the heldout jury; empty without one.
        position: Two coordinates in the plane that spreads people's texts the most; None without vectors.
        said_by: Class of people's answers that it covers, the largest if several; None if it covers none.
        degenerate: Why it is no answer, one of `DEGENERATE`; None if it is one.

    Example:
        >>> ScoredText("plural", "What now?", "Parks.", {"urban": 0.8, "rural": 0.6}).degenerate is None
        True
    """

    policy: str
    prompt: str
    text: str
    approvals: Mapping[str, float] = field(default_factory=dict)
    heldout_approvals: Mapping[str, float] = field(default_factory=dict)
    position: tuple[float, float] | None = None
    said_by: int | None = None
    degenerate: str | None = None


@dataclass(frozen=True)
class OpenEndedResults:
    """What `evaluate_open_ended` found.

    Attributes:
        rows: The measures.
        texts: Every text.
        curves: Share of human answer classes covered, by policy and number of texts; `people` is the floor.
        settings: What was measured and how: policies, prompts, clusters with weights, rule, seed and so on.

    Example:
        >>> results = OpenEndedResults([MeasureRow("plural", "bridging", value=0.7)])
        >>> results.value("plural", "bridging"), results.to_dict()["rows"][0]["unit"]
        (0.7, 'share')
        >>> OpenEndedResults.from_dict(results.to_dict()) == results
        True
    """

    rows: list[MeasureRow]
    texts: list[ScoredText] = field(default_factory=list)
    curves: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def row(self, policy: str, measure: str, *, jury: str = "", cluster: str = "", rival: str = "") -> MeasureRow:
        """Return one row.

        Raises:
            KeyError: There is no such row; the message lists the rows of the measure.
        """
        of_measure = [row for row in self.rows if row.measure == measure]
        key = (policy, jury, cluster, rival)
        for row in of_measure:
            if (row.policy, row.jury, row.cluster, row.rival) == key:
                return row
        known = [(row.policy, row.jury, row.cluster, row.rival) for row in of_measure]
        raise KeyError(f"no row of {measure} is for (policy, jury, cluster, rival) {key}; there are {known}")

    def value(self, policy: str, measure: str, **labels: str) -> float | None:
        """Return the value of one row; arguments as for `row`."""
        return self.row(policy, measure, **labels).value

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: each row with its unit and which direction is better, null for what is unknown."""
        rows = [{**asdict(row), "unit": row.unit, "better": row.better} for row in self.rows]
        curves = {policy: {str(k): value for k, value in curve.items()} for policy, curve in self.curves.items()}
        return _plain(
            {"rows": rows, "texts": [asdict(t) for t in self.texts], "curves": curves, "settings": self.settings}
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpenEndedResults:
        """Read what `to_dict` returns."""
        rows = [MeasureRow(**{k: v for k, v in row.items() if k not in ("unit", "better")}) for row in values["rows"]]
        texts = [
            ScoredText(**{**text, "position": None if text["position"] is None else tuple(text["position"])})
            for text in values["texts"]
        ]
        curves = {policy: {int(k): value for k, value in curve.items()} for policy, curve in values["curves"].items()}
        return cls(rows, texts, curves, values["settings"])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
