"""What `plural-rlhf profiles` found, as typed models that `results.json` stores. Knows nothing of how it was found."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from plural_rlhf.report.results import Meta
from plural_rlhf.report.results_base import Number, ResultsFile, ResultsModel


__all__ = ["ClaimRecord", "ClusterRecord", "InformationRecord", "ObserverRecord", "ProfileResults"]


class InformationRecord(ResultsModel):
    """Usable information of one representation of raters."""

    name: str = Field(description="The representation.")
    source: str = Field(description="trait, all traits, clusters, jury, profile, answers or control.")
    groups: int = Field(default=0, description="Number of groups; 0 where raters are not grouped.")
    info: Number = Field(description="Nats per judgement over knowing the item only.")
    ci_low: Number = Field(description="Lower end of the 95 % interval, for other raters and items.")
    ci_high: Number = Field(description="Upper end.")
    preserved: Number = Field(description="Share of the information of all fit judgements.")
    per_split: list[float] = Field(default=[], description="The information of each split.")
    over_trait: list[float] | None = Field(default=None, description="Over the best single trait: value, low, high.")
    over_demographics: list[float] | None = Field(
        default=None, description="Over the best of all demographic groupings: value, low, high."
    )


class ClaimRecord(ResultsModel):
    """A claim on a cluster with the judgements behind it."""

    item: str = Field(description="Id of the item.")
    label: str = Field(description="Short name of the item.")
    answer: str = Field(description="The answer.")
    share: Number = Field(description="Its share in the cluster.")
    share_all: Number = Field(description="Its share among everybody.")
    judgements: int = Field(description="Judgements of members that say so.")
    raters: list[str] = Field(default=[], description="Some of their raters.")


class ClusterRecord(ResultsModel):
    """A cluster in words."""

    name: str = Field(description="Its name.")
    prevalence: Number = Field(description="Share of the raters.")
    text: str = Field(description="Its profile.")
    claims: list[ClaimRecord] = Field(description="What the profile claims.")
    written: str = Field(default="", description="Profile of its medoid as the model wrote it.")


class ObserverRecord(ResultsModel):
    """How well a reader tells the clusters apart from their words."""

    reader: str = Field(description="table, or the model that read.")
    accuracy: Number = Field(description="Share of right answers; one half is chance.")
    ci_low: Number = Field(description="Lower end of the 95 % interval, items resampled.")
    ci_high: Number = Field(description="Upper end.")
    ceiling: Number = Field(description="Of who knows the clusters' answers to the very items.")
    trials: int = Field(description="Number of trials.")


class ProfileResults(ResultsFile):
    """The results of value profiles: what their `results.json` holds.

    Example:
        >>> ProfileResults(name="trial").information
        []
    """

    KIND = "value profiles"

    schema_version: int = Field(default=1, description="Version of the layout.")
    name: str = Field(default="profiles", description="Name of the table.")
    config: dict[str, Any] = Field(default={}, description="All settings.")
    meta: Meta | None = Field(default=None, description="Versions, machine, seed, command and seconds.")
    encoder: str = Field(default="table", description="What made the profiles.")
    baseline_nll: Number = Field(default=float("nan"), description="Loss of the item alone, nats per judgement.")
    raters: int = Field(default=0, description="Raters with at least four judgements.")
    left_out: int = Field(default=0, description="Raters with fewer.")
    items: int = Field(default=0, description="Items.")
    splits: int = Field(default=0, description="Splits of the raters.")
    information: list[InformationRecord] = Field(default=[], description="Every representation.")
    clusters: list[ClusterRecord] = Field(default=[], description="The clusters in words.")
    observer: list[ObserverRecord] = Field(default=[], description="The observer test.")
    malformed: int = Field(default=0, description="Profiles of a model that were malformed and asked for again.")
    without_profile: int = Field(default=0, description="Raters without a usable profile after all tries.")
    usage: dict[str, Any] = Field(default={}, description="What an endpoint counted.")

    def of_source(self, *sources: str) -> list[InformationRecord]:
        """Return the rows of some kinds of representations."""
        return [row for row in self.information if row.source in sources]
