"""The jury stage of a run: is there disagreement, which clusters are there, and a reward model with a head for each.

The jury itself comes from `reward_models.fit_jury`; this file adds what a report says beside it (headroom, clusters
against demographic groups), prints it, and saves the folder. Knows nothing of policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.survey.clusters import (
    cluster_results,
    compare_groups,
    print_clusters,
    print_groups,
    selection_results,
)
from plural_rlhf.recipe.survey.description import describe_survey
from plural_rlhf.report.results_jury import Groupings, HeadroomSummary, Heads, JuryResults
from plural_rlhf.report.results_survey import SurveyResults
from reward_models.analysis.headroom import headroom
from reward_models.borders import cell, heading
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.selection import only_candidate
from reward_models.judgements.records import Judgements
from reward_models.jury.features import pooled_features_of_readings
from reward_models.jury.fit import fit_jury
from reward_models.jury.fitting.descriptions import describe_with_model
from reward_models.jury.scorer import JuryScorer


__all__ = ["jury_backbone", "jury_stage", "measure_headroom", "measure_headroom_on_new_texts", "text_model"]


MOST_CLUSTERS = 4
"""Largest mixture of the headroom on new texts, as of that from labels; fewer where the run offers fewer."""
_LABELS_ALONE = (
    "Groups are measured from labels alone, and the jury reads the texts too: where few people judge a text it may "
    "find tastes that labels do not show. With the texts they cannot be: {}"
)

_NOT_HELD_OUT = "what a jury gains on them was not measured: no text can be held out of this table"

Keep = Callable[[str, Callable[[], Any]], Any]
"""Does a piece of work, or returns its result where a run that was stopped has done it already."""


def jury_backbone(config: RunConfig) -> str:
    """Return the path or Hub id of the model that the jury reads texts with."""
    return text_model(config, config.jury.backbone or config.policy.model)


def text_model(config: RunConfig, name: str) -> str:
    """Return the path or Hub id of a model that the run file names, also by the names that `policy.model` knows."""
    return prepare_base_model(name, config.policy.cache_dir, seed=config.seed)


def jury_stage(
    config: RunConfig, data: RunData, folder: Path, console: Console, keep: Keep, features: Path
) -> JuryResults:
    """Fit and save the jury of a run.

    Args:
        config: The run.
        data: Its judgements; only `data.train` reaches the jury.
        folder: Where the jury is saved; `heldout.json` beside it says which raters and items were held out.
        console: Where progress is printed.
        keep: Given a name and the work, returns its result: what a stopped run has done already, or what is done now.
        features: Folder in which the features of the texts are kept until the stage is complete.

    Returns:
        What the report says of the jury.
    """
    fit_config = FitConfig(restarts=config.jury.restarts, seed=config.seed)
    room = measure_headroom(data.train, config.seed, keep)
    console.print(heading("Headroom", room.verdict))
    if data.other_tables:
        console.print(cell("that is of the first table; the jury is fitted to data.tables too", "dim"))
    section = config.jury
    if section.l2 != "auto":
        console.print(cell("jury.l2 has no effect: the strengths of the heads are learnt from the judgements", "dim"))
    scorer = fit_jury(
        [data.train, *data.other_tables],
        jury_backbone(config),
        clusters=section.clusters,
        **section.reading,
        labels=data.labels,
        names=config.jury.names,
        strangers=section.strangers,
        config=fit_config,
        cache_dir=features,
        on_step=lambda step: console.print(cell(step, "dim")),
    )
    fitted = scorer.fitted
    assert fitted is not None  # fit_jury says how the jury came about
    selection = fitted.selection or only_candidate(section.clusters[0])
    print_clusters(selection, fitted.clusters, console)
    if section.describe is not None:
        _describe(scorer, section.describe, config, console)
    on_new_texts = measure_headroom_on_new_texts(
        data.train, scorer, config.seed, keep, features, console, most=max(section.clusters)
    )

    def survey() -> dict[str, Any]:
        return describe_survey(
            fitted.label_fit,
            data.train,
            labels=data.labels,
            candidates=config.jury.clusters,
            by=config.jury.by or (),
            config=fit_config,
            reading=data.reading,
        ).to_dict()

    def groupings() -> dict[str, Any] | None:
        rows = None if data.train.kind == "choice" else _features(scorer, data.everything, features)
        try:
            compared = compare_groups(data.everything, selection.num_clusters, fit_config, rows)
        except JuryError as error:
            if rows is None:
                raise
            console.print(cell(_LABELS_ALONE.format(error), "dim"))
            compared = compare_groups(data.everything, selection.num_clusters, fit_config)
        return None if compared is None else compared.to_dict()

    described = SurveyResults.model_validate(keep("survey", survey))
    groups = None if (kept := keep("groupings", groupings)) is None else Groupings.model_validate(kept)
    print_groups(groups, data.everything.n_raters, selection.num_clusters, console)
    data.heldout_record().write(folder.parent)
    scorer.save_pretrained(folder, include_backbone=config.jury.include_backbone)
    heads = "1 head" if len(fitted.clusters) == 1 else f"{len(fitted.clusters)} heads"
    texts = scorer.state.fitted_on["texts"]
    console.print(heading("Jury", f"{heads} on features of {texts} texts, saved in {folder}"))
    return JuryResults(
        headroom=room,
        headroom_new_texts=on_new_texts,
        selection=selection_results(selection),
        clusters=[cluster_results(cluster) for cluster in fitted.clusters],
        groupings=groups,
        survey=described,
        features=Heads(
            reading=scorer.reading.to_dict(),
            choice=None if fitted.features is None else fitted.features.reason,
            prevalence=scorer.prevalence.tolist(),
        ),
    )


def _describe(scorer: JuryScorer, model: str, config: RunConfig, console: Console) -> None:
    """Let a language model write a sentence on each cluster, and print it; a jury of one cluster has none."""
    if not scorer.state.descriptions:
        console.print(cell("jury.describe: no cluster has judgements that set it apart, so none is described", "dim"))
        return
    path = prepare_base_model(model, config.policy.cache_dir, seed=config.seed)
    scorer.state = replace(scorer.state, descriptions=describe_with_model(scorer.state.descriptions, path))
    for name, description in scorer.state.descriptions.items():
        console.print(cell(f"  {name}: {description}"))


def measure_headroom(judgements: Judgements, seed: int, keep: Keep) -> HeadroomSummary:
    """Measure what a jury could gain over one reward for everybody; `keep` as for `jury_stage`.

    Raises:
        JuryError: Nothing can be held out; says that this is what a run measures first, and how to do without.
    """

    def measure() -> dict[str, Any]:
        return HeadroomSummary.model_validate(headroom(judgements, seed=seed), from_attributes=True).to_dict()

    try:
        return HeadroomSummary.model_validate(keep("headroom", measure))
    except JuryError as error:
        raise JuryError(
            f"a run measures first what it gains to tell raters apart (headroom): {error}. Without a run, "
            "reward_models.fit_jury(judgements, backbone) fits one reward for everybody to such a table"
        ) from error


def measure_headroom_on_new_texts(
    judgements: Judgements,
    scorer: JuryScorer,
    seed: int,
    keep: Keep,
    features: Path,
    console: Console,
    *,
    most: int = MOST_CLUSTERS,
) -> HeadroomSummary | None:
    """Measure, and print, what a jury gains on texts that nobody judged, from the features that the jury reads.

    Args:
        judgements: The training judgements.
        scorer: The jury; of it only backbone and reading count.
        seed: Random seed.
        keep: As for `jury_stage`.
        features: Folder in which features of texts are kept; those of a jury that the run has fitted are there.
        console: Where the verdict is printed.
        most: Number of clusters of the largest mixture.

    Returns:
        The ladder. None where no text can be held out, and for choices, whose texts are the options of questions.
    """
    if judgements.kind == "choice":
        return None

    def measure() -> dict[str, Any] | None:
        rows = _features(scorer, judgements, features)
        try:
            ladder = headroom(judgements, max_clusters=min(most, MOST_CLUSTERS), seed=seed, features=rows)
        except JuryError:
            return None
        return HeadroomSummary.model_validate(ladder, from_attributes=True).to_dict()

    kept = keep("headroom_new_texts", measure)
    ladder = None if kept is None else HeadroomSummary.model_validate(kept)
    console.print(heading("New texts", _NOT_HELD_OUT if ladder is None else ladder.verdict))
    return ladder


def _features(scorer: JuryScorer, judgements: Judgements, folder: Path) -> np.ndarray:
    """(U, D) what the jury reads of the texts of a table; what is kept in the folder is not computed again."""
    model, tokenizer, texts = scorer.model.model, scorer.tokenizer, judgements.encode().texts
    return pooled_features_of_readings(model, tokenizer, texts, [scorer.reading], cache_dir=folder, exact=True)[0]
