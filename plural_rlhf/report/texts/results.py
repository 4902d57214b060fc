"""What was measured of policies that write text, as `results.json` holds it.

Units are those of the rows; see `plural_rlhf.evaluation.open_ended.results.MEASURES`. Knows nothing of how they were
measured.
"""

from __future__ import annotations

from pydantic import Field

from plural_rlhf.report.results_base import ResultsModel


__all__ = ["TextResults", "TextRow", "WrittenText"]


class TextRow(ResultsModel):
    """One measure of one policy.

    Example:
        >>> row = TextRow(policy="plural", measure="bridging", value=0.7)
        >>> row.value, row.ci_low
        (0.7, None)
    """

    policy: str = Field(description="One of `names.Method`, or `people`.")
    measure: str = Field(description="Name of the measure.")
    jury: str = Field(default="", description="`training` or `heldout`, where a jury judges.")
    cluster: str = Field(default="", description="The cluster whose number it is.")
    rival: str = Field(default="", description="The policy it is compared with.")
    value: float | None = Field(default=None, description="The estimate; null where there is none, see `reason`.")
    ci_low: float | None = Field(default=None, description="Lower end of its interval over prompts.")
    ci_high: float | None = Field(default=None, description="Upper end of it.")
    gain: float | None = Field(default=None, description="Difference to pi_0 on the same prompts.")
    gain_low: float | None = Field(default=None, description="Lower end of its interval.")
    gain_high: float | None = Field(default=None, description="Upper end of it.")
    floor: float | None = Field(default=None, description="The same measure of people against people.")
    baseline: float | None = Field(default=None, description="The same measure with the texts of other prompts.")
    k: int | None = Field(default=None, description="Texts per prompt, for measures that depend on it.")
    n: int = Field(default=0, description="Prompts behind the value.")
    reason: str | None = Field(default=None, description="Why there is no value.")
    unit: str = Field(default="", description="Unit of the value.")
    better: str = Field(default="neither", description="`higher`, `lower` or `neither`.")


class WrittenText(ResultsModel):
    """One text by a policy or by people.

    Example:
        >>> WrittenText(policy="people", prompt="What now?", text="Parks.").approvals
        {}
    """

    policy: str = Field(description="Who wrote it; `people` for people.")
    prompt: str = Field(description="Wording of the prompt.")
    text: str = Field(description="The text.")
    approvals: dict[str, float] = Field(default={}, description="Share of each cluster that approves, as predicted.")
    heldout_approvals: dict[str, float] = Field(default={}, description="The same by the held-out jury.")
    position: tuple[float, float] | None = Field(default=None, description="Place on the map of people's texts.")
    said_by: int | None = Field(default=None, description="Class of people's texts that says the same.")
    degenerate: str | None = Field(default=None, description="Why it is no answer; null if it is one.")


class TextResults(ResultsModel):
    """What policies wrote when they were asked for one weighting, on the prompts of one split.

    Example:
        >>> results = TextResults(split="heldout", weighting="all", rows=[TextRow(policy="plural", measure="words")])
        >>> results.row("plural", "words").jury, results.row("plural", "ties")
        ('', None)
    """

    split: str = Field(description="One of `names.Split`.")
    weighting: str = Field(description="Who was asked for: `all`, a cluster, or a jury of the run file.")
    weights: dict[str, float] = Field(default={}, description="Weight per cluster; they sum to 1.")
    rows: list[TextRow] = Field(default=[], description="The measures.")
    texts: list[WrittenText] = Field(default=[], description="Every text.")
    curves: dict[str, dict[str, float | None]] = Field(
        default={}, description="Share of people's classes covered, by policy and number of texts."
    )
    settings: dict[str, object] = Field(default={}, description="How it was measured.")

    def row(self, policy: str, measure: str, *, jury: str = "", cluster: str = "", rival: str = "") -> TextRow | None:
        """Return one row, None if there is none."""
        key = (policy, measure, jury, cluster, rival)
        return next((r for r in self.rows if (r.policy, r.measure, r.jury, r.cluster, r.rival) == key), None)
