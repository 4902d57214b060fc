"""What was measured of freely written texts, as typed models: the JSON that `OpenEndedResults.to_dict` writes.

Knows nothing of how anything was measured, drawn or printed.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from plural_rlhf.report.results_base import Number, ResultsModel


__all__ = ["PEOPLE", "MeasuredRow", "TextRecord", "WrittenText"]

PEOPLE = "people"


class MeasuredRow(ResultsModel):
    """One measure of one policy; see `plural_rlhf.evaluation.MeasureRow`."""

    policy: str
    measure: str
    jury: str = ""
    cluster: str = ""
    rival: str = ""
    value: Number = math.nan
    ci_low: Number = math.nan
    ci_high: Number = math.nan
    gain: Number = math.nan
    gain_low: Number = math.nan
    gain_high: Number = math.nan
    floor: Number = math.nan
    baseline: Number = math.nan
    k: int | None = None
    n: int = 0
    unit: str = ""
    better: str = "neither"
    reason: str | None = None


class WrittenText(ResultsModel):
    """One text; see `plural_rlhf.evaluation.ScoredText`."""

    policy: str
    prompt: str
    text: str
    approvals: dict[str, Number] = Field(default={}, description="By cluster.")
    heldout_approvals: dict[str, Number] = Field(default={}, description="By cluster.")
    position: tuple[float, float] | None = None
    said_by: int | None = None
    degenerate: str | None = None


class TextRecord(ResultsModel):
    """All that was measured of the texts of some policies.

    Example:
        >>> record = TextRecord.model_validate({
        ...     "rows": [{"policy": "plural", "measure": "bridging", "jury": "training", "value": 0.7}],
        ...     "settings": {"policies": ["reference", "plural"], "reference": "reference"},
        ... })
        >>> record.row("plural", "bridging", jury="training").value, record.row("plural", "words")
        (0.7, None)
        >>> record.policies, record.clusters("training")
        (['reference', 'plural'], {})
    """

    rows: list[MeasuredRow] = Field(default=[], description="Every measure.")
    texts: list[WrittenText] = Field(default=[], description="Every text.")
    curves: dict[str, dict[int, Number]] = Field(default={}, description="Answers covered, by number of texts.")
    settings: dict[str, Any] = Field(default={}, description="Policies, prompts, clusters with weights, rule, seed.")

    @property
    def policies(self) -> list[str]:
        """Names of the policies, without people."""
        return list(self.settings.get("policies", []))

    @property
    def reference(self) -> str:
        """Name of the policy before training."""
        return str(self.settings.get("reference", ""))

    @property
    def prompts(self) -> list[str]:
        """Names of the prompts."""
        return list(self.settings.get("prompts", []))

    def clusters(self, jury: str) -> dict[str, float]:
        """Return the weights of a jury's clusters by name; empty without the jury."""
        return dict(self.settings.get("clusters", {}).get(jury, {}))

    @property
    def judge(self) -> str:
        """The jury that counts: `heldout` if there is one."""
        return "heldout" if self.clusters("heldout") else "training"

    def row(
        self, policy: str, measure: str, *, jury: str = "", cluster: str = "", rival: str = ""
    ) -> MeasuredRow | None:
        """Return a row, or None."""
        key = (policy, measure, jury, cluster, rival)
        return next((r for r in self.rows if (r.policy, r.measure, r.jury, r.cluster, r.rival) == key), None)
