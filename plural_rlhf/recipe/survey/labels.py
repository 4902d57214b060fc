"""Clusters of raters from a table of judgements alone: no language model, no jury that could score a new text.

Everything is fitted to all raters and all items; only the number of clusters is chosen on held-out raters. The folder
holds the memberships of the raters (`memberships.csv`), `results.json`, and the report. Knows nothing of models and
policies.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.inputs import read_source, say_unread_tables
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.recipe.survey.clusters import (
    cluster_results,
    compare_groups,
    print_clusters,
    print_groups,
    print_missing,
    selection_results,
)
from plural_rlhf.recipe.survey.description import describe_survey, survey_questions
from plural_rlhf.report.html import write_report
from plural_rlhf.report.results import SCHEMA_VERSION, DataSummary, Meta, ResultsError, RunResults
from plural_rlhf.report.results_jury import HeadroomSummary
from reward_models.analysis.cluster_traits import check_traits
from reward_models.analysis.headroom import headroom
from reward_models.analysis.naming import describe_clusters, item_labels
from reward_models.analysis.reliability import rater_styles
from reward_models.borders import heading
from reward_models.errors import JudgementError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit
from reward_models.fitting.selection import select_num_clusters
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.sources import survey_labels
from reward_models.whole_file import whole_path


__all__ = ["MEMBERSHIPS_FILE", "fit_labels", "membership_table"]

MEMBERSHIPS_FILE = "memberships.csv"
RESULTS_FILE = "results.json"
STYLES = ("same_answer", "straight_line", "acquiescence")
FIGURES = "figures"
WRITTEN_BEFORE_RESULTS = {MEMBERSHIPS_FILE, "report.html", "report.md", FIGURES}


def fit_labels(
    config: RunConfig, *, overwrite: bool = False, command: str = "", console: Console | None = None
) -> RunResults:
    """Find the clusters of raters in a table of judgements, and write memberships and report.

    Args:
        config: A run, of which `data` (without what is held out), `jury.clusters`, `jury.restarts`, `jury.by` and
            `seed` are used.
        overwrite: Replace what an earlier call left in the output folder.
        command: The command line, for the record.
        console: Where to report progress.

    Returns:
        What `results.json` holds.

    Raises:
        RunFolderError: The output folder holds something; nothing was touched.
        JudgementError, JuryError: Data or settings that cannot be used.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.recipe import make_config
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("choice", num_raters=30, num_items=6).judgements.frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table.to_json(f"{folder}/answers.jsonl", orient="records", lines=True)
        ...     data = {"source": "table", "path": f"{folder}/answers.jsonl", "columns": {"index": 0}}
        ...     settings = {"output_dir": f"{folder}/out", "data": data, "jury": {"clusters": 2}}
        ...     results = fit_labels(make_config(settings, origin="example"), console=Console(quiet=True))
        ...     sorted(path.name for path in Path(folder, "out").iterdir())
        ['figures', 'memberships.csv', 'report.html', 'report.md', 'results.json']
        >>> results.scope, len(results.clusters)
        ('labels', 2)
    """
    console = console or Console()
    started, start, folder = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter(), config.output_dir
    _check_folder(folder, overwrite)
    show = partial(console.print, markup=False, highlight=False)
    source = read_source(config.data, config.seed, show)
    say_unread_tables(config.data, show)
    judgements = source.judgements
    if judgements.kind == "soft":
        raise JudgementError(
            "the judgements are of kind 'soft', published shares without raters, of whom there are no clusters. Fix: "
            "bring judgements with rater_id."
        )
    by = config.jury.by or ()
    check_traits(judgements, by)
    enc = judgements.encode()
    known = survey_labels(config.data.name) if config.data.source == "survey" else {}
    labels = {**item_labels(enc), **known}
    data = _summary(config, judgements)
    counts = f"{data.n_judgements:,} judgements of {data.n_raters:,} raters to {data.n_items} items"
    console.print(heading("Data", counts))
    settings = FitConfig(restarts=config.jury.restarts, seed=config.seed)
    room = headroom(judgements, seed=config.seed)
    console.print(heading("Headroom", room.verdict))
    selection = select_num_clusters(judgements, config.jury.clusters, settings, seed=config.seed)
    fit = fit_mixture(enc, selection.num_clusters, settings)
    described = describe_clusters(fit, enc, labels=labels, names=config.jury.names)
    print_clusters(selection, described, console)
    survey = describe_survey(
        fit,
        judgements,
        labels=labels,
        candidates=config.jury.clusters,
        by=by,
        config=settings,
        reading=source.reading,
    )
    print_missing(survey, console)
    groupings = compare_groups(judgements, selection.num_clusters, settings)
    print_groups(groupings, judgements.n_raters, selection.num_clusters, console)
    names = [cluster["name"] for cluster in described]
    results = RunResults(
        schema_version=SCHEMA_VERSION,
        scope="labels",
        config=config.model_dump(mode="json", include={"name", "seed", "output_dir", "data", "jury"}),
        data=data,
        headroom=HeadroomSummary.model_validate(room, from_attributes=True),
        selection=selection_results(selection),
        clusters=[cluster_results(cluster) for cluster in described],
        groupings=groupings,
        survey=survey,
        questions=survey_questions(fit, judgements, labels, names),
        meta=Meta.of_this_process(config.seed, command, started, {"labels": time.perf_counter() - start}),
    )
    _write(folder, membership_table(fit, enc, names), results)
    return results


def membership_table(fit: RaterFit, enc: Encoded, names: Sequence[str]) -> pd.DataFrame:
    """Tabulate each rater's memberships, and how the rater uses the options.

    Args:
        fit: A mixture.
        enc: The judgements it was fitted to.
        names: Names of the clusters.

    Returns:
        One row per rater: `rater_id`, `judgements`, the probability of each cluster under its name, `most_probable`
        (a name), `same_answer`, `straight_line` and `acquiescence` (see `RaterStyle`; empty for raters with fewer than
        five answers on one scale).

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=20, num_items=6).judgements.encode()
        >>> table = membership_table(fit_mixture(enc, 2), enc, ["one", "two"])
        >>> table.columns.tolist()
        ['rater_id', 'judgements', 'one', 'two', 'most_probable', 'same_answer', 'straight_line', 'acquiescence']
        >>> bool(((table["one"] > 0.5) == (table["most_probable"] == "one")).all())
        True
    """
    memberships = fit.responsibilities
    judged = pd.Series(enc.rater).value_counts().reindex(range(enc.n_raters), fill_value=0).to_numpy()
    count = dict(zip(enc.rater_ids, judged, strict=True))
    table = pd.DataFrame({"rater_id": fit.rater_ids, "judgements": [count[rater] for rater in fit.rater_ids]})
    for k, name in enumerate(names):
        table[name] = memberships[:, k].round(4)
    table["most_probable"] = [names[k] for k in memberships.argmax(axis=1)]
    styles = pd.DataFrame([vars(style) for style in rater_styles(enc)], columns=["rater_id", *STYLES])
    return table.merge(styles.round(4), on="rater_id", how="left")


def _summary(config: RunConfig, judgements: Judgements) -> DataSummary:
    """Counts of the judgements; nothing is held out."""
    return DataSummary(
        source=str(config.data.path) if config.data.source == "table" else config.data.name,
        kind=judgements.kind,
        n_judgements=len(judgements),
        n_raters=judgements.n_raters,
        n_items=judgements.n_items,
        train_raters=judgements.n_raters,
        heldout_raters=0,
        train_questions=judgements.encode().item_ids,
        heldout_questions=[],
    )


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Raise unless the folder is new, empty, or holds nothing but an earlier result that may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"output_dir is {str(folder)!r}, which is a file. Fix: give the name of a folder.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".unfinished")}
    if not names or (MEMBERSHIPS_FILE in names and names <= WRITTEN_BEFORE_RESULTS):
        return  # results come last: this one was killed before them
    try:
        earlier = RunResults.read(folder / RESULTS_FILE).scope == "labels"
    except (OSError, ResultsError):
        earlier = False
    if not earlier:
        raise RunFolderError(
            f"the output folder {str(folder)!r} holds something else than clusters of labels, so nothing was written. "
            "Fix: choose another folder with --output."
        )
    if not overwrite:
        raise RunFolderError(
            f"the output folder {str(folder)!r} holds clusters already, so nothing was written. Fix: --output for "
            "another folder, or --overwrite to replace them."
        )


def _write(folder: Path, memberships: pd.DataFrame, results: RunResults) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS_FILE).unlink(missing_ok=True)
    with whole_path(folder / MEMBERSHIPS_FILE) as path:
        memberships.to_csv(path, index=False)
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    write_report(results, folder)
    results.write(folder / RESULTS_FILE)
