"""The jury stage of a run: is there disagreement, which clusters are there, and a reward model with a head for each.

The jury itself comes from `reward_models.fit_jury`; this file adds what a report says beside it (headroom, clusters
against demographic groups), prints it, and saves the folder. Knows nothing of policies.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.survey import describe_survey
from plural_rlhf.report.results_jury import (
    Cluster,
    ClusterCount,
    ClusterSelection,
    DistinctiveAnswer,
    Groupings,
    HeadroomSummary,
    Heads,
    JuryResults,
)
from reward_models.analysis.groupings import GroupingReport, predictive_information
from reward_models.analysis.headroom import headroom
from reward_models.borders import cell, heading
from reward_models.fitting.em import FitConfig
from reward_models.jury.fit import fit_jury
from reward_models.stats.verdicts import shortage


__all__ = ["jury_stage"]


def jury_stage(config: RunConfig, data: RunData, folder: Path, console: Console) -> JuryResults:
    """Fit and save the jury of a run.

    Args:
        config: The run.
        data: Its judgements; only `data.train` reaches the jury.
        folder: Where the jury is saved; `heldout.json` beside it says which raters and items were held out.
        console: Where progress is printed.

    Returns:
        What the report says of the jury.
    """
    fit_config = FitConfig(restarts=config.jury.restarts, seed=config.seed)
    room = headroom(data.train, seed=config.seed)
    console.print(heading("Headroom", room.verdict))
    base = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    scorer = fit_jury(
        data.train,
        base,
        clusters=config.jury.clusters,
        layers=config.jury.layers,
        l2=config.jury.l2,
        labels=data.labels,
        config=fit_config,
        on_step=lambda step: console.print(cell(step, "dim")),
    )
    fitted = scorer.fitted
    assert fitted is not None  # fit_jury says how the jury came about
    assert fitted.selection is not None  # candidates were given, and a run has raters
    console.print(heading("Clusters", fitted.selection.reason))
    for cluster in fitted.clusters:
        console.print(cell(f"  {cluster['prevalence']:4.0%}  {cluster['name']}"))
    survey = describe_survey(
        fitted.label_fit,
        data.train,
        labels=data.labels,
        candidates=config.jury.clusters,
        by=config.jury.by or (),
        config=fit_config,
    )
    groupings = _groupings(data, fitted.selection.num_clusters, fit_config, console)
    data.heldout_record().write(folder.parent)
    scorer.save_pretrained(folder)
    heads = "1 head" if len(fitted.clusters) == 1 else f"{len(fitted.clusters)} heads"
    texts = scorer.state.fitted_on["texts"]
    console.print(heading("Jury", f"{heads} on features of {texts} texts, saved in {folder}"))
    return JuryResults(
        headroom=HeadroomSummary.model_validate(room, from_attributes=True),
        selection=ClusterSelection(
            table=[ClusterCount.model_validate(row) for row in fitted.selection.table],
            chosen=fitted.selection.num_clusters,
            reason=fitted.selection.reason,
        ),
        clusters=[_cluster(described) for described in fitted.clusters],
        groupings=None if groupings is None else Groupings.model_validate(groupings, from_attributes=True),
        survey=survey,
        features=Heads(
            l2=fitted.heads.l2, cv=fitted.heads.cv, prevalence=np.asarray(fitted.heads.prevalence).tolist()
        ),
    )


def _cluster(described: dict[str, Any]) -> Cluster:
    """A cluster as the report shows it: its answers by the short names of their questions."""
    top = [DistinctiveAnswer(**{**a, "item": a["label"], "option": a["answer"]}) for a in described["answers"]]
    return Cluster(name=described["name"], prevalence=described["prevalence"], top=top)


def _groupings(data: RunData, num_clusters: int, config: FitConfig, console: Console) -> GroupingReport | None:
    """Compare clusters with demographic groups; None if the raters are too few for it.

    A jury of one cluster has no groups: two clusters are fitted for the comparison, and the line says so.
    """
    too_few = shortage(data.everything.n_raters)
    if too_few:
        console.print(heading("Groups", f"not compared: {too_few}."))
        return None
    report = predictive_information(data.everything, max(2, num_clusters), config=config)
    console.print(heading("Groups", _comparison(report, num_clusters)))
    return report


def _comparison(report: GroupingReport, num_clusters: int) -> str:
    clusters, traits, difference = report.clusters, report.best_demographic, report.paired_difference
    who = "clusters" if num_clusters > 1 else "two clusters, fitted for this comparison because the jury has one,"
    gain = (
        f"{who} tell {clusters['info']:.3f} nats per answer about people not fitted, once half of a person's answers "
        "are known"
    )
    if traits is None or difference is None:
        return f"{gain}; the data has no demographic traits to compare with."
    interval = "" if math.isnan(difference.low) else f", 95 % {difference.low:+.3f} to {difference.high:+.3f}"
    return (
        f"{gain}; the best demographic grouping ({traits['grouping']}, {traits['n_groups']} groups) tells "
        f"{traits['info']:.3f} with none of them (difference {difference.value:+.3f}{interval})."
    )
