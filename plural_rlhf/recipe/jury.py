"""The jury stage of a run: is there disagreement, which clusters are there, and a reward model with a head for each.

The jury itself comes from `reward_models.fit_jury`; this file adds what a report says beside it (headroom, clusters
against demographic groups), prints it, and saves the folder. Knows nothing of policies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.survey.clusters import cluster_results, compare_groups, print_clusters, selection_results
from plural_rlhf.recipe.survey.description import describe_survey
from plural_rlhf.report.results_jury import HeadroomSummary, Heads, JuryResults
from reward_models.analysis.headroom import headroom
from reward_models.borders import cell, heading
from reward_models.fitting.em import FitConfig
from reward_models.jury.fit import fit_jury


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
        names=config.jury.names,
        config=fit_config,
        on_step=lambda step: console.print(cell(step, "dim")),
    )
    fitted = scorer.fitted
    assert fitted is not None  # fit_jury says how the jury came about
    assert fitted.selection is not None  # candidates were given, and a run has raters
    print_clusters(fitted.selection, fitted.clusters, console)
    survey = describe_survey(
        fitted.label_fit,
        data.train,
        labels=data.labels,
        candidates=config.jury.clusters,
        by=config.jury.by or (),
        config=fit_config,
    )
    groupings = compare_groups(data.everything, fitted.selection.num_clusters, fit_config, console)
    data.heldout_record().write(folder.parent)
    scorer.save_pretrained(folder, include_backbone=config.jury.include_backbone)
    heads = "1 head" if len(fitted.clusters) == 1 else f"{len(fitted.clusters)} heads"
    texts = scorer.state.fitted_on["texts"]
    console.print(heading("Jury", f"{heads} on features of {texts} texts, saved in {folder}"))
    return JuryResults(
        headroom=HeadroomSummary.model_validate(room, from_attributes=True),
        selection=selection_results(fitted.selection),
        clusters=[cluster_results(described) for described in fitted.clusters],
        groupings=groupings,
        survey=survey,
        features=Heads(
            l2=fitted.heads.l2, cv=fitted.heads.cv, prevalence=np.asarray(fitted.heads.prevalence).tolist()
        ),
    )
