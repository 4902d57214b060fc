"""What a run that steers to individuals found, as typed models: the run makes them, `results.json` stores them.

Knows nothing of how anything was measured or drawn.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from plural_rlhf.report.results import Meta
from plural_rlhf.report.results_base import Number, ResultsFile, ResultsModel, loss_outcome


__all__ = ["IndividualsResults", "ReadingGain", "ReadingLoss"]


class ReadingLoss(ResultsModel):
    """Mean loss of a predictor after some judgements of a person.

    Example:
        >>> ReadingLoss(predictor="jury", read=6, nats=0.22, n=2496).ci_low is None
        True
    """

    predictor: str = Field(description="model, untouched, jury, item marginal, own answers, exchanged people, ...")
    read: int = Field(description="Judgements of the person that were read.")
    nats: Number = Field(description="Mean loss per predicted judgement, normalised over the options.")
    ci_low: float | None = Field(default=None, description="Lower end of its 95 % interval, people resampled.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    n: int = Field(description="Predicted judgements.")


class ReadingGain(ResultsModel):
    """Loss of a predictor minus that of another, judgement by judgement: below 0 the first is better.

    Example:
        >>> gain = {"predictor": "model", "read": 6, "other": "model", "other_read": 0, "nats": -0.3, "n": 9}
        >>> ReadingGain(**gain, ci_low=-0.4, ci_high=-0.2).verdict
        'better'
    """

    predictor: str = Field(description="As in ReadingLoss.")
    read: int = Field(description="Judgements that it reads.")
    other: str = Field(description="What it is compared with.")
    other_read: int = Field(description="Judgements that the other reads.")
    nats: Number = Field(description="Mean difference.")
    ci_low: float | None = Field(default=None, description="Lower end of its 95 % interval, people resampled.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    n: int = Field(description="Predicted judgements.")

    @property
    def verdict(self) -> str:
        """better, worse, or undecided where the interval holds 0."""
        return loss_outcome(self.ci_low, self.ci_high)


class IndividualsResults(ResultsFile):
    """All results of a run.

    Example:
        >>> IndividualsResults().people
        {}
    """

    KIND: ClassVar[str] = "a run that steers to individuals"

    name: str = Field(default="individuals", description="Name of the run.")
    people: dict[str, int] = Field(default={}, description="Number of people by part: meta, train, tune, test.")
    losses: list[ReadingLoss] = Field(default=[], description="Every predictor after every number of judgements.")
    gains: list[ReadingGain] = Field(default=[], description="What reading gains, and over what.")
    clusters: int = Field(default=0, description="Clusters of the jury, chosen on tuning people.")
    exponents: dict[int, tuple[float, float]] = Field(
        default={}, description="Exponents of model and jury in their product, by judgements read."
    )
    training_loss: dict[str, list[float]] = Field(default={}, description="Loss of each step, by stage.")
    kept_step: int | None = Field(default=None, description="The step whose adapter was kept; null: the last.")
    config: dict[str, Any] = Field(default={}, description="The resolved run file.")
    meta: Meta | None = Field(default=None, description="Versions, machine, seconds.")
