"""What a social scientist asks of the clusters: who they are, how well they fit, and how reliable the answers are.

Computed by `reward_models.analysis`; shares lie between 0 and 1. Knows nothing of policies.
"""

from __future__ import annotations

import math

from pydantic import Field

from plural_rlhf.report.results_base import Number, ResultsModel, Shares


__all__ = [
    "AnswerReliability",
    "MissingAnswers",
    "PairDependence",
    "RetestResult",
    "SizeIndices",
    "SurveyResults",
    "TraitShares",
]


class TraitShares(ResultsModel):
    """One value of a trait: its share in each cluster, or the share of each cluster among its raters.

    Example:
        >>> row = TraitShares(trait="region", value="north", n=40, overall=0.4, shares=[0.8, 0.1], low=[], high=[])
        >>> row.shares[0] / row.overall  # twice as many as among all raters
        2.0
    """

    trait: str = Field(description="Name of the trait.")
    value: str = Field(description="The value, or a span of numbers.")
    n: int = Field(description="Raters with that value.")
    overall: Number = Field(description="Share of all raters whose value is known.")
    shares: Shares = Field(description="One share per cluster, corrected for uncertain memberships.")
    low: Shares = Field(description="Lower ends of the 95 % intervals over raters; null for too few raters.")
    high: Shares = Field(description="Upper ends of them.")


class SizeIndices(ResultsModel):
    """Indices of the fit with so many clusters.

    Example:
        >>> SizeIndices(
        ...     num_clusters=2, log_likelihood=-900.0, n_parameters=41, bic=2000.0, entropy=0.8, certainty=[0.9, 0.95],
        ...     misclassified=0.07, stability=1.0,
        ... ).bic
        2000.0
    """

    num_clusters: int = Field(description="Number of clusters.")
    log_likelihood: Number = Field(description="Marginal log-likelihood, nats.")
    n_parameters: int | None = Field(description="Free parameters; null where priors bind them.")
    bic: float | None = Field(description="Bayesian information criterion, lower is better; null without parameters.")
    entropy: Number = Field(description="1 if every rater's cluster is certain, 0 if none is known.")
    certainty: Shares = Field(description="Mean probability of the most probable cluster, by that cluster.")
    misclassified: Number = Field(description="Share of raters expected in another than their most probable cluster.")
    stability: Number = Field(description="Agreement of the starting points, adjusted Rand index.")


class MissingAnswers(ResultsModel):
    """One question that was not answered, in one way: by how many, and by which share of each cluster.

    Example:
        >>> row = MissingAnswers(question="income", kind="refused", n=30, overall=0.1, shares=[0.02, 0.3])
        >>> max(row.shares)  # of the second cluster, three in ten refused
        0.3
    """

    question: str = Field(description="Short name of the question.")
    kind: str = Field(description="Why there is no answer, as the column map or the file names it, else the code.")
    n: int = Field(description="Raters who gave none for this reason.")
    overall: Number = Field(description="Share of all raters of whom the table has an answer or a reason.")
    shares: Shares = Field(description="The same of each cluster; a rater counts by the probability of the cluster.")


class PairDependence(ResultsModel):
    """Two questions whose answers go together more than the clusters explain.

    Example:
        >>> PairDependence(first="parks", second="trees", n=90, residual=9.5, unexplained=0.12, alone=0.3).residual
        9.5
    """

    first: str = Field(description="Short name of a question.")
    second: str = Field(description="Short name of the other.")
    n: int = Field(description="Raters who answered both.")
    residual: Number = Field(description="Bivariate residual: X² per degree of freedom, about 1 if the fit is right.")
    unexplained: Number = Field(description="Share of raters whose pair of answers is not explained.")
    alone: Number = Field(description="The same if the two questions had nothing to do with each other.")


class RetestResult(ResultsModel):
    """What raters said who were asked the same twice.

    Example:
        >>> RetestResult(n_pairs=40, n_raters=40, agreement=0.9, low=0.77, high=0.96, kappa=0.8).agreement
        0.9
    """

    n_pairs: int = Field(description="Repeated judgements.")
    n_raters: int = Field(description="Raters who have some.")
    agreement: Number = Field(description="Share of repetitions with the same answer.")
    low: Number = Field(description="Lower end of its 95 % interval.")
    high: Number = Field(description="Upper end of it.")
    kappa: Number = Field(description="Agreement beyond chance.")


class AnswerReliability(ResultsModel):
    """How far the answers can be relied on.

    Example:
        >>> AnswerReliability(
        ...     alpha=0.2, alpha_low=0.1, alpha_high=0.3, level="nominal", retest=None, n_styles=100,
        ...     straight_liners=0.05, expected_straight_liners=0.001, habit=0.7,
        ... ).straight_liners
        0.05
    """

    alpha: Number = Field(description="Krippendorff's alpha over all raters: 1 full agreement, 0 as by chance.")
    alpha_low: Number = Field(description="Lower end of its 95 % interval over questions.")
    alpha_high: Number = Field(description="Upper end of it.")
    level: str = Field(description="Level of measurement of alpha: nominal or ordinal.")
    retest: RetestResult | None = Field(description="Repeated judgements; null if there are none.")
    n_styles: int = Field(description="Raters with five or more answers on one scale.")
    straight_liners: Number = Field(description="Share of them who gave the same answer throughout.")
    expected_straight_liners: Number = Field(description="That share if everybody answered as all raters do.")
    habit: Number = Field(
        default=math.nan,
        description="Split-half reliability of the tendency to one end of the options: 0 none, 1 nothing else.",
    )


class SurveyResults(ResultsModel):
    """The clusters as a social scientist wants them described.

    Example:
        >>> SurveyResults(n_raters=100, shares_low=[0.4, 0.4], shares_high=[0.6, 0.6], refitted=True).traits
        []
    """

    n_raters: int = Field(description="Raters that the clusters were fitted to.")
    shares_low: Shares = Field(description="Lower ends of the bootstrap intervals of the shares of the clusters.")
    shares_high: Shares = Field(description="Upper ends of them.")
    refitted: bool = Field(description="Whether the clusters were fitted again to each resample of the raters.")
    traits: list[TraitShares] = Field(default=[], description="The traits of the raters of each cluster.")
    omitted_traits: dict[str, int] = Field(
        default={}, description="Traits with too many values for a table, and their number."
    )
    by: list[TraitShares] = Field(default=[], description="Shares of the clusters by the traits of `jury.by`.")
    sizes: list[SizeIndices] = Field(default=[], description="Indices by number of clusters.")
    dependence: list[PairDependence] = Field(default=[], description="The pairs with the largest residuals.")
    n_pairs: int = Field(default=0, description="Number of all pairs that were compared.")
    reliability: AnswerReliability | None = Field(default=None, description="How far the answers can be relied on.")
    missing: list[MissingAnswers] = Field(default=[], description="Missing answers, the most frequent first.")
    n_missing: int = Field(
        default=0, description="Missing answers of all questions, also of those that are not listed."
    )
