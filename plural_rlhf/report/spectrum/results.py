"""What a run of Spectrum Tuning found, as typed models: the run makes them, `results.json` stores them.

Knows nothing of how anything was measured or drawn.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from plural_rlhf.report.results import Meta
from plural_rlhf.report.results_base import Number, ResultsFile, ResultsModel, loss_outcome


__all__ = ["SpectrumCurve", "SpectrumNumber", "SpectrumResults", "SpectrumTaskRecord"]


class SpectrumNumber(ResultsModel):
    """A metric of the tuned and of the untouched model on one held-out task.

    Example:
        >>> SpectrumNumber(task="urn", metric="js_0", tuned=0.03, untouched=0.08, difference=-0.05, n=40).verdict
        'undecided'
    """

    task: str = Field(description="Held-out task.")
    metric: str = Field(description="js_0, js_geq_1, choice_0, choice_geq_1 or loss_geq_1, in nats: less is better.")
    tuned: Number = Field(description="Mean over sequences of the tuned model.")
    untouched: Number = Field(description="Mean over sequences of the untouched model, in its best format.")
    format: str = Field(default="", description="That format: auto, chat or plain.")
    difference: Number = Field(description="Mean of tuned minus untouched, sequence by sequence.")
    ci_low: float | None = Field(default=None, description="Lower end of its 95 % interval; null if there is none.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    n: int = Field(description="Sequences behind it.")
    baselines: dict[str, Number] = Field(default={}, description="Of predictions without a model: uniform, counts.")

    @property
    def verdict(self) -> str:
        """better, worse, or undecided where the interval holds 0."""
        return loss_outcome(self.ci_low, self.ci_high)


class SpectrumCurve(ResultsModel):
    """A metric by number of examples read.

    Example:
        >>> SpectrumCurve(task="urn", model="tuned", metric="js", k=[0, 4], nats=[0.1, 0.05]).k
        [0, 4]
    """

    task: str = Field(description="Held-out task.")
    model: str = Field(description="tuned, or untouched with a format.")
    metric: str = Field(description="js, choice or loss.")
    k: list[int] = Field(description="Numbers of examples read.")
    nats: list[float] = Field(description="Mean over sequences.")


class SpectrumTaskRecord(ResultsModel):
    """A task of the run.

    Example:
        >>> SpectrumTaskRecord(task="coin", heldout=False, sequences=200, examples=6400).heldout
        False
    """

    task: str = Field(description="Name of the task, or of the file.")
    heldout: bool = Field(description="Whether it was measured; else it was trained on.")
    sequences: int = Field(description="Its sequences.")
    examples: int = Field(description="Examples of all of them.")
    too_long: int = Field(default=0, description="Examples dropped because they did not fit into max_length.")


class SpectrumResults(ResultsFile):
    """All results of a run of Spectrum Tuning.

    Example:
        >>> SpectrumResults().name
        'spectrum'
    """

    KIND: ClassVar[str] = "a run of Spectrum Tuning"

    name: str = Field(default="spectrum", description="Name of the run.")
    tasks: list[SpectrumTaskRecord] = Field(default=[], description="What was trained on and what was measured.")
    same_source: list[str] = Field(
        default=[], description="Training tasks left out: a held-out task has their source."
    )
    numbers: list[SpectrumNumber] = Field(default=[], description="Tuned against untouched.")
    curves: list[SpectrumCurve] = Field(default=[], description="By number of examples read.")
    training_loss: list[float] = Field(default=[], description="Loss of each training step, nats per token.")
    config: dict[str, Any] = Field(default={}, description="The settings.")
    meta: Meta | None = Field(default=None, description="Versions, machine, seconds.")
