"""What the jury's stage of a run leaves: headroom, the choice of clusters, the clusters, and what they are worth.

Gains and losses are in nats, shares lie between 0 and 1. Knows nothing of policies.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from plural_rlhf.report.results_base import Number, ResultsModel, Shares
from plural_rlhf.report.results_survey import SurveyResults


__all__ = [
    "Cluster",
    "ClusterCount",
    "ClusterSelection",
    "Difference",
    "DistinctiveAnswer",
    "Grouping",
    "Groupings",
    "HeadroomSummary",
    "Heads",
    "JuryResults",
    "Rung",
]


class Rung(ResultsModel):
    """One model of the headroom ladder.

    Example:
        >>> bradley_terry = Rung(name="item mean", nll=0.66, info=0.0, low=0.0, high=0.0)
        >>> mixture = Rung(name="mixture K=2", nll=0.61, info=0.05, low=0.03, high=0.07)
        >>> round(bradley_terry.nll - mixture.nll, 2), mixture.info
        (0.05, 0.05)
    """

    name: str = Field(description="Name of the model.")
    nll: Number = Field(description="Loss, nats per held-out judgement.")
    info: Number = Field(description="Gain over the first rung, nats per held-out judgement.")
    low: Number = Field(description="Lower end of the 95 % interval of the gain.")
    high: Number = Field(description="Upper end of it.")


class HeadroomSummary(ResultsModel):
    """What a jury could gain, as `reward_models.headroom` reports it.

    Example:
        >>> from reward_models import headroom, planted_judgements
        >>> table = planted_judgements("choice", num_raters=30, num_items=8).judgements
        >>> ladder = HeadroomSummary.model_validate(headroom(table, max_clusters=2), from_attributes=True)
        >>> ladder.rungs[0].name, ladder.rungs[0].info
        ('item mean', 0.0)
    """

    rungs: list[Rung] = Field(description="The ladder, simplest model first.")
    verdict: str = Field(description="What to do, in words.")
    best: str = Field(description="Name of the rung with the lowest loss.")


class ClusterCount(ResultsModel):
    """How well one number of clusters predicts held-out raters.

    Example:
        >>> row = ClusterCount(num_clusters=2, nll=0.61, se=0.02, info=0.05)
        >>> row.behind
        nan
    """

    num_clusters: int = Field(description="Number of clusters.")
    nll: Number = Field(description="Loss, nats per held-out judgement.")
    se: Number = Field(description="Standard error of the loss over raters.")
    info: Number = Field(description="Gain over one cluster, nats.")
    behind: Number = Field(default=math.nan, description="Loss above the best candidate, nats.")
    behind_se: Number = Field(default=math.nan, description="Standard error of that paired difference.")


class ClusterSelection(ResultsModel):
    """How the number of clusters was chosen.

    Example:
        >>> ClusterSelection(table=[], chosen=1, reason="9 raters are too few to hold some out").chosen
        1
    """

    table: list[ClusterCount] = Field(description="One row per candidate.")
    chosen: int = Field(description="The number of clusters of the jury.")
    reason: str = Field(description="Why, in words.")


class DistinctiveAnswer(ResultsModel):
    """An answer that sets a cluster apart.

    Example:
        >>> answer = DistinctiveAnswer(item="parks", option="yes", p_cluster=0.9, p_population=0.6, lift=1.5)
        >>> round(answer.p_cluster / answer.p_population, 3), answer.lift
        (1.5, 1.5)
    """

    item: str = Field(description="Short name of the question.")
    option: str = Field(description="The answer.")
    p_cluster: Number = Field(description="Share of the cluster that gives it.")
    p_population: Number = Field(description="Share of all raters that gives it.")
    lift: Number = Field(description="The first share divided by the second.")


class Cluster(ResultsModel):
    """A rater cluster of the jury.

    Example:
        >>> Cluster(name="parks: yes", prevalence=0.4, top=[]).to_dict()
        {'name': 'parks: yes', 'prevalence': 0.4, 'top': []}
    """

    name: str = Field(description="Unique name, from the answers that set it apart.")
    prevalence: Number = Field(description="Share of the raters.")
    top: list[DistinctiveAnswer] = Field(description="The answers that set it apart, most telling first.")


class Grouping(ResultsModel):
    """What it is worth to know a rater's group in one grouping.

    Example:
        >>> party = Grouping(grouping="party", source="trait", n_groups=3, info=0.016, low=0.012, high=0.020)
        >>> "informative" if party.low > 0 else "undecided"
        'informative'
    """

    grouping: str = Field(description="Name: a trait, the clusters, or a control.")
    source: str = Field(default="", description="`clusters`, `trait`, `merged trait`, `all traits` or `control`.")
    n_groups: int = Field(description="Number of groups.")
    info: Number = Field(description="Gain over knowing the question only, nats per answer.")
    low: Number = Field(description="Lower end of the 95 % interval of the gain.")
    high: Number = Field(description="Upper end of it.")
    per_split: Shares = Field(default=[], description="The gain on each split of the raters.")


class Difference(ResultsModel):
    """A difference of two gains on the same answers.

    Example:
        >>> difference = Difference(value=0.008, low=-0.001, high=0.017)
        >>> "undecided" if difference.low < 0 < difference.high else "decided"
        'undecided'
    """

    value: Number = Field(description="The difference, nats per answer.")
    low: Number = Field(description="Lower end of its 95 % interval.")
    high: Number = Field(description="Upper end of it.")


class Groupings(ResultsModel):
    """Clusters of the jury beside demographic groups and controls.

    Example:
        >>> clusters = Grouping(grouping="clusters", n_groups=2, info=0.026, low=0.021, high=0.031)
        >>> groupings = Groupings(rows=[clusters], clusters=clusters, best_demographic=None, paired_difference=None)
        >>> {key: value for key, value in groupings.to_dict().items() if value is None}  # the data has no traits
        {'best_demographic': None, 'paired_difference': None}
    """

    rows: list[Grouping] = Field(description="All groupings.")
    clusters: Grouping = Field(description="The row of the clusters.")
    best_demographic: Grouping | None = Field(description="The best trait, or all together; null without traits.")
    paired_difference: Difference | None = Field(description="Clusters minus the best trait; null without traits.")


class Heads(ResultsModel):
    """How the heads of the jury were fitted to the features.

    Example:
        >>> Heads(prevalence=[0.7, 0.3]).prevalence
        [0.7, 0.3]
    """

    prevalence: Shares = Field(description="Share of the raters per cluster, as the saved jury has it.")
    reading: dict[str, Any] = Field(default={}, description="How texts were read, see ReadingSettings.")
    choice: str | None = Field(default=None, description="Why they were read so; null where there was one way.")
    l2: Number | None = Field(default=None, description="Ridge penalty, in runs of version 0.1.")
    cv: list[dict[str, Any]] = Field(default=[], description="Loss of held-out questions per penalty, in those runs.")


class JuryResults(ResultsModel):
    """What the jury's stage leaves.

    Example:
        >>> jury = JuryResults(clusters=[Cluster(name="everyone", prevalence=1.0, top=[])])
        >>> list(jury.to_dict()), jury.headroom
        (['clusters'], None)
    """

    headroom: HeadroomSummary | None = Field(default=None, description="What a jury could gain.")
    headroom_new_texts: HeadroomSummary | None = Field(
        default=None,
        description="The same on texts that nobody judged, from their features; null where it was not measured.",
    )
    selection: ClusterSelection | None = Field(default=None, description="How the number of clusters was chosen.")
    clusters: list[Cluster] = Field(default=[], description="The rater clusters.")
    groupings: Groupings | None = Field(default=None, description="Clusters beside demographic groups.")
    survey: SurveyResults | None = Field(
        default=None, description="Who the clusters are, how well they fit, how reliable the answers are."
    )
    features: Heads | None = Field(default=None, description="How the heads were fitted.")
