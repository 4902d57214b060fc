"""Describe the clusters for social scientists: who they are, how well they fit, how reliable the answers are.

The statistics are those of `reward_models.analysis`; this file chooses what a report needs of them. Knows nothing of
models and policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plural_rlhf.report.names import Split
from plural_rlhf.report.results_policies import ClusterAnswers, QuestionResult
from plural_rlhf.report.results_survey import (
    AnswerReliability,
    MissingAnswers,
    PairDependence,
    RetestResult,
    SizeIndices,
    SurveyResults,
    TraitShares,
)
from reward_models.analysis.cluster_traits import TraitRow, cluster_traits, shares_by
from reward_models.analysis.fit_indices import FitIndices, fit_indices, fits_by_size, prevalence_intervals
from reward_models.analysis.local_dependence import local_dependence
from reward_models.analysis.naming import answer_shares
from reward_models.analysis.reliability import reliability
from reward_models.errors import settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import prompt_wording
from reward_models.sources.codes import TableReading


__all__ = ["describe_survey", "missing_answers", "survey_questions"]

MOST_VALUES = 30  # of a trait in the table
MOST_PAIRS = 10
MOST_QUESTIONS = 60
MOST_MISSING = 30  # questions and kinds of missing answers
ENDS = ("first", "second")


def describe_survey(
    fit: RaterFit,
    judgements: Judgements,
    *,
    labels: Mapping[str, str],
    candidates: Sequence[int] = (),
    by: Sequence[str] = (),
    config: FitConfig | None = None,
    reading: TableReading | None = None,
) -> SurveyResults:
    """Describe the clusters of a fit.

    Args:
        fit: A mixture.
        judgements: The judgements it was fitted to.
        labels: Short names of items by id.
        candidates: Numbers of clusters to compare by information criteria; only used for choices, whose parameters can
            be counted.
        by: Traits by which the shares of the clusters are tabulated, e.g. `["year"]`.
        config: Settings of the fit.
        reading: The table as it was read, which knows the missing answers; None if it was not read from a file.

    Raises:
        JudgementError: `by` names a trait that the table does not have.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=60, num_items=8)
        >>> frame = planted.judgements.frame
        >>> frame["rater:region"] = ["north" if rater < "r3" else "south" for rater in frame["rater_id"]]
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> survey = describe_survey(fit, planted.judgements, labels={}, candidates=(1, 2), by=["region"])
        >>> [(row.trait, row.value, row.n) for row in survey.traits]
        [('region', 'north', 23), ('region', 'south', 37)]
        >>> [size.num_clusters for size in survey.sizes], len(survey.by), survey.n_pairs
        ([1, 2], 2, 28)
    """
    config = settings_or_default(config, FitConfig)
    enc = judgements.encode()
    grouped = shares_by(fit, judgements, by) if by else []  # first: it may refuse a trait
    intervals = prevalence_intervals(fit, enc, config=config, seed=config.seed)
    rows = cluster_traits(fit, judgements)
    counts = {trait: sum(row.trait == trait for row in rows) for trait in dict.fromkeys(row.trait for row in rows)}
    pairs = local_dependence(fit, enc)
    missing = [] if reading is None or reading.missing.empty else missing_answers(fit, reading, labels)
    return SurveyResults(
        n_raters=len(fit.rater_ids),
        shares_low=intervals.low.tolist(),
        shares_high=intervals.high.tolist(),
        refitted=intervals.refitted,
        traits=[_trait_shares(row) for row in rows if 1 < counts[row.trait] <= MOST_VALUES],
        omitted_traits={trait: count for trait, count in counts.items() if count > MOST_VALUES},
        by=[_trait_shares(row) for row in grouped],
        sizes=[_size_indices(size) for size in _sizes(fit, enc, candidates, config)],
        dependence=[
            PairDependence(**{**vars(pair), **{end: labels.get(vars(pair)[end], vars(pair)[end]) for end in ENDS}})
            for pair in pairs[:MOST_PAIRS]
        ],
        n_pairs=len(pairs),
        reliability=_reliability(enc, config.seed),
        missing=missing[:MOST_MISSING],
        n_missing=sum(row.n for row in missing),
    )


def missing_answers(fit: RaterFit, reading: TableReading, labels: Mapping[str, str]) -> list[MissingAnswers]:
    """Say who did not answer what, by question, reason and cluster; the most frequent first.

    Args:
        fit: A mixture. Raters who are not in it, e.g. because they answered nothing, are left out.
        reading: The table that it was fitted to, or a larger one.
        labels: Short names of items by id.

    Example:
        >>> import pandas as pd
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=20, num_items=8)
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> silent = [(rater, "income", "9", "refused") for rater, k in zip(fit.rater_ids, planted.cluster) if k]
        >>> missing = pd.DataFrame(silent, columns=["rater_id", "question", "code", "kind"])
        >>> [row] = missing_answers(fit, TableReading(planted.judgements, "a.csv", missing=missing), {})
        >>> row.question, row.kind, row.n, row.overall  # nobody answered, and all of them refused
        ('income', 'refused', 10, 1.0)
    """
    table = reading.missing_counts(fit.rater_ids, fit.responsibilities)
    questions = table.index.get_level_values("question").unique()
    counts = table.to_numpy().reshape(len(questions), -1, len(table.columns))  # (I, K, answered and kinds)
    number, asked = counts.sum(axis=1), counts.sum(axis=2)
    rows = [
        MissingAnswers(
            question=labels.get(str(questions[item]), str(questions[item])),
            kind=str(table.columns[kind]),
            n=round(number[item, kind]),
            overall=number[item, kind] / number[item].sum(),
            shares=(counts[item, :, kind] / np.maximum(asked[item], 1e-12)).tolist(),
        )
        for item, kind in np.argwhere(number >= 0.5).tolist()
        if kind > 0
    ]
    return sorted(rows, key=lambda row: -row.n)


def survey_questions(
    fit: RaterFit, judgements: Judgements, labels: Mapping[str, str], names: Sequence[str]
) -> list[QuestionResult]:
    """Describe how everybody and each cluster answered each question, for a report without policies.

    Args:
        fit: A mixture.
        judgements: The judgements it was fitted to.
        labels: Short names of items by id.
        names: Names of the clusters.

    Returns:
        The questions in their order, of more than 60 those with most answers; none for pairs, whose answers are not
        comparable from item to item.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("rating", num_raters=40, num_items=6)
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> questions = survey_questions(fit, planted.judgements, {}, ["first", "second"])
        >>> len(questions), questions[0].options, questions[0].n
        (6, ['-1', '0', '1'], 40)
    """
    enc = judgements.encode()
    if enc.kind not in ("choice", "rating"):
        return []
    counts = np.bincount(enc.item, minlength=enc.n_items)
    by_cluster, everybody = answer_shares(fit, enc)
    squared = np.bincount(enc.item, enc.weight**2, minlength=enc.n_items)
    effective = np.bincount(enc.item, enc.weight, minlength=enc.n_items) ** 2 / np.maximum(squared, 1e-300)  # Kish
    return [
        _question(enc, item, (int(counts[item]), effective[item]), everybody[item], by_cluster[:, item], labels, names)
        for item in np.sort(np.argsort(-counts, kind="stable")[:MOST_QUESTIONS])
    ]


def _question(
    enc: Encoded,
    item: int,
    n: tuple[int, float],
    everybody: np.ndarray,
    by_cluster: np.ndarray,
    labels: Mapping[str, str],
    names: Sequence[str],
) -> QuestionResult:
    texts = [enc.texts[text] for text in enc.item_alternatives[item] if text >= 0]
    wording = prompt_wording(texts[0].prompt)
    options = [text.response for text in texts]
    if enc.kind == "rating":
        wording, options = f"{wording}\n{texts[0].response}".strip(), [f"{level:g}" for level in enc.levels or ()]

    def shares(of: np.ndarray) -> list[float]:
        return np.pad(of, (0, max(len(options) - len(of), 0)))[: len(options)].tolist()

    return QuestionResult(
        id=enc.item_ids[item],
        label=labels.get(enc.item_ids[item], enc.item_ids[item]),
        prompt=wording,
        options=options,
        split=Split.TRAIN,
        n=n[0],
        n_effective=float(n[1]),
        human=shares(everybody),
        jury=[],
        clusters={name: ClusterAnswers(human=shares(of), jury=[]) for name, of in zip(names, by_cluster, strict=True)},
        policy={},
    )


def _sizes(fit: RaterFit, enc: Encoded, candidates: Sequence[int], config: FitConfig) -> list[FitIndices]:
    own = fit_indices(fit, enc)
    if own.bic is None:
        return [own]
    supported = [size for size in candidates if size <= enc.n_raters]
    return fits_by_size(enc, [*supported, fit.num_clusters], config)  # all without features, to be comparable


def _trait_shares(row: TraitRow) -> TraitShares:
    ends = {name: getattr(row, name).tolist() for name in ("shares", "low", "high")}
    return TraitShares(trait=row.trait, value=row.value, n=row.n, overall=row.overall, **ends)


def _size_indices(indices: FitIndices) -> SizeIndices:
    return SizeIndices(**{**vars(indices), "certainty": indices.certainty.tolist()})


def _reliability(enc: Encoded, seed: int) -> AnswerReliability:
    measured = reliability(enc, seed=seed)
    values = {name: value for name, value in vars(measured).items() if name not in ("styles", "retest")}
    retest = None if measured.retest is None else RetestResult(**vars(measured.retest))
    return AnswerReliability(**values, retest=retest, n_styles=len(measured.styles))
