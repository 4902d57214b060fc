"""What a report says of clusters, with and without a language model: their number, their names, groups beside them.

Knows nothing of models and policies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from plural_rlhf.report.results_jury import Cluster, ClusterCount, ClusterSelection, DistinctiveAnswer, Groupings
from plural_rlhf.report.results_survey import SurveyResults
from reward_models.analysis.groupings import predictive_information
from reward_models.borders import cell, heading
from reward_models.fitting.em import FitConfig
from reward_models.fitting.selection import KSelection
from reward_models.judgements.records import Judgements
from reward_models.stats.verdicts import shortage


__all__ = ["cluster_results", "compare_groups", "print_clusters", "print_groups", "print_missing", "selection_results"]

PRINTED_MISSING = 8
SPLITS = 5  # of the raters
SPLITS_OF_TEXTS = 2  # each fits texts and raters four times


def selection_results(selection: KSelection) -> ClusterSelection:
    """Turn the choice of the number of clusters into what a report stores."""
    return ClusterSelection(
        table=[ClusterCount.model_validate({c: row[c] for c in ClusterCount.model_fields}) for row in selection.table],
        chosen=selection.num_clusters,
        reason=selection.reason,
    )


def print_clusters(selection: KSelection, described: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print why there are so many clusters, and the share and name of each."""
    console.print(heading("Clusters", selection.reason))
    for cluster in described:
        console.print(cell(f"  {cluster['prevalence']:4.0%}  {cluster['name']}"))


def cluster_results(described: Mapping[str, Any]) -> Cluster:
    """Turn a cluster of `describe_clusters` into what a report stores, its answers by short names of their questions.

    Example:
        >>> cluster_results({"name": "parks: yes", "prevalence": 0.4, "answers": []}).name
        'parks: yes'
    """
    top = [DistinctiveAnswer(**{**a, "item": a["label"], "option": a["answer"]}) for a in described["answers"]]
    return Cluster(name=described["name"], prevalence=described["prevalence"], top=top)


def compare_groups(
    judgements: Judgements, num_clusters: int, config: FitConfig, features: np.ndarray | None = None
) -> Groupings | None:
    """Compare clusters with demographic groups; None if the raters are too few for it.

    A jury of one cluster has no groups: two clusters are fitted for the comparison.

    Args:
        judgements: All judgements.
        num_clusters: Of the jury.
        config: Restarts, priors and seed.
        features: Rows for `judgements.encode().texts`; None: from labels alone.

    Raises:
        JuryError: Features of a table in which hardly any rater judged two things.
    """
    if shortage(judgements.n_raters):
        return None
    seeds = SPLITS if features is None else SPLITS_OF_TEXTS
    report = predictive_information(judgements, max(2, num_clusters), features, seeds=seeds, config=config)
    return Groupings.model_validate(report, from_attributes=True)


def print_groups(groupings: Groupings | None, num_raters: int, num_clusters: int, console: Console) -> None:
    """Print what the comparison with demographic groups found, or why there is none."""
    sentence = f"not compared: {shortage(num_raters)}." if groupings is None else _comparison(groupings, num_clusters)
    console.print(heading("Groups", sentence))


def print_missing(survey: SurveyResults, console: Console) -> None:
    """Print the most frequent missing answers, if there are any, and how often each cluster gives none."""
    if not survey.missing:
        return
    most = survey.missing[:PRINTED_MISSING]
    more = " The report has more." if len(survey.missing) > len(most) else ""
    console.print(heading("No answer", f"{survey.n_missing:,} times; by cluster, in its order above.{more}"))
    for row in most:
        by_cluster = ", ".join(f"{share:.0%}" for share in row.shares)
        console.print(cell(f"  {row.overall:4.0%}  {row.question}: {row.kind} ({by_cluster})"))


def _comparison(groupings: Groupings, num_clusters: int) -> str:
    clusters, traits, difference = groupings.clusters, groupings.best_demographic, groupings.paired_difference
    who = "clusters" if num_clusters > 1 else "two clusters, fitted for this comparison because the jury has one,"
    gain = (
        f"{who} tell {clusters.info:.3f} nats per answer about people not fitted, once half of a person's answers "
        "are known"
    )
    if traits is None or difference is None:
        return f"{gain}; the data has no demographic traits to compare with."
    interval = "" if math.isnan(difference.low) else f", 95 % {difference.low:+.3f} to {difference.high:+.3f}"
    return (
        f"{gain}; the best demographic grouping ({traits.grouping}, {traits.n_groups} groups) tells "
        f"{traits.info:.3f} with none of them (difference {difference.value:+.3f}{interval})."
    )
