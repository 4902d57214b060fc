"""What `plural-rlhf predict-questions` found, as typed models that `results.json` stores. Knows nothing of how."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from plural_rlhf.report.results import Meta
from plural_rlhf.report.results_base import Number, ResultsFile, ResultsModel, Shares, loss_outcome


__all__ = ["KnownRecord", "PredictedRecord", "QuestionResults", "SkillRecord"]


class SkillRecord(ResultsModel):
    """How well known questions are predicted from each other, for one group and one list of offered answers.

    Example:
        >>> record = {"group": "everybody", "options": ["yes", "no"], "questions": 18, "wording": 0.02}
        >>> record |= {"marginal": 0.03, "nearest": 0.04, "difference": -0.01, "ci_low": -0.02, "ci_high": -0.005}
        >>> SkillRecord.model_validate(record).verdict
        'better'
    """

    group: str = Field(description="everybody, or a group.")
    options: list[str] = Field(description="The offered answers.")
    questions: int = Field(description="Known questions of different wording.")
    wording: Number = Field(description="Mean JS divergence from people, in nats, of the prediction by wording.")
    marginal: Number = Field(description="The same of the mean of the other questions.")
    nearest: Number = Field(description="The same of the question with the most similar wording.")
    difference: Number = Field(description="wording minus marginal.")
    ci_low: float | None = Field(default=None, description="Lower end of its 95 % interval, questions resampled.")
    ci_high: float | None = Field(default=None, description="Upper end.")
    points: Number = Field(
        default=float("nan"), description="Median share of people who answered otherwise than predicted by wording."
    )
    points_marginal: Number = Field(default=float("nan"), description="The same of the marginal.")
    reliance: Number = Field(default=float("nan"), description="How much wording is believed to tell, 0 to 1.")

    @property
    def verdict(self) -> str:
        """Whether wording is better or worse than the marginal, or undecided."""
        return loss_outcome(self.ci_low, self.ci_high)


class _QuestionRecord(ResultsModel):
    """A question that a group was asked or would be."""

    id: str = Field(description="Id of the question.")
    text: str = Field(description="Its wording.")
    group: str = Field(description="everybody, or a group.")
    options: list[str] = Field(description="The offered answers.")


class PredictedRecord(_QuestionRecord):
    """A new question, as a group would answer it."""

    shares: Shares = Field(description="Predicted share of each.")
    low: Shares = Field(description="Lower ends of their 90 % intervals; null with fewer than nine known questions.")
    high: Shares = Field(description="Upper ends.")
    marginal: Shares = Field(description="Mean shares of the known questions.")
    nearest: dict[str, float] = Field(default={}, description="Known questions with the largest weights.")


class KnownRecord(_QuestionRecord):
    """A known question, as a group answered it, and what the others say of it."""

    people: Number = Field(description="Answers behind the shares.")
    shares: Shares = Field(description="Share of each answer.")
    predicted: Shares = Field(description="Shares predicted from the other questions, by wording.")


class QuestionResults(ResultsFile):
    """The results of predicting new questions: what their `results.json` holds.

    Example:
        >>> QuestionResults(name="trial").predicted
        []
    """

    KIND: ClassVar[str] = "predicted questions"

    name: str = Field(default="questions", description="Name of the table.")
    config: dict[str, Any] = Field(default={}, description="All settings.")
    meta: Meta | None = Field(default=None, description="Versions, machine, seed, command and seconds.")
    skill: list[SkillRecord] = Field(default=[], description="How well known questions are predicted.")
    predicted: list[PredictedRecord] = Field(default=[], description="The new questions.")
    known: list[KnownRecord] = Field(default=[], description="The known questions.")
    notes: list[str] = Field(default=[], description="What a reader must know of the table.")
