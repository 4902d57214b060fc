"""The command `headroom`: what a jury would gain, before anything is trained.

Reads judgements, calls `reward_models.analysis`, and prints the result. Knows nothing of policies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plural_rlhf.cli.data import MODELS_BY_NAME, data_config
from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import Columns, JsonFile, Release, Settings, Source, Traceback
from reward_models.borders import heading, say


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from plural_rlhf.recipe.config import RunConfig
    from reward_models.judgements.texts import Text

__all__ = ["headroom"]


def headroom(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Table of judgements (.csv, .jsonl, .parquet, .xlsx, .sav, .dta), or a run file (.yaml).",
        ),
    ] = None,
    columns: Columns = None,
    release: Release = None,
    source: Source = None,
    settings: Settings = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="MODEL",
            help="Also measure on texts that nobody has judged, from the features of this model: the path of a "
            "sentence embedder or language model, a Hub id, or smollm2-135m.",
        ),
    ] = None,
    max_clusters: Annotated[int, typer.Option("--max-clusters", min=1, help="Largest number of clusters to try.")] = 4,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Random seed; default: that of the run file, or 0."),
    ] = None,
    json_file: JsonFile = None,
    traceback: Traceback = False,
) -> None:
    """Measure, before any training, whether raters differ in taste and how much a jury would gain.

    Example: `plural-rlhf headroom votes.csv --columns votes.columns.yaml --json headroom.json`

    Example: `plural-rlhf headroom configs/quickstart.yaml`

    Example: `plural-rlhf headroom --release polis --source polis-data/ --set data.max_raters=2000`

    Example: `plural-rlhf headroom votes.csv --columns votes.columns.yaml --features models/all-MiniLM-L6-v2`

    Compares models of the judgements on held-out judgements: one reward for everybody (Bradley-Terry), the same with
    rater terms, and mixtures of clusters. Takes seconds: it reads labels only, no text and no language model. Ends
    with a verdict in words, which may be that plain Bradley-Terry is enough.

    That is about texts that others have judged. With --features a second table is about texts that nobody has judged,
    such as those that a policy will write: texts and raters are fitted together on the features of the model, which
    takes minutes, and a fifth of the texts is held out. The two verdicts may differ.
    """

    def measure() -> None:
        from dataclasses import asdict

        from rich.console import Console

        from plural_rlhf.recipe.inputs import read_judgements
        from plural_rlhf.report.results_jury import HeadroomSummary
        from plural_rlhf.report.tables import headroom_table
        from reward_models.analysis.headroom import headroom as measure_headroom
        from reward_models.whole_file import write_json

        config = data_config(file, columns, release, source, settings or [])
        used_seed = config.seed if seed is None else seed
        judgements = read_judgements(config.data, used_seed, say)
        features_of = None if features is None else _reader(features, config, used_seed)  # before minutes are spent
        ladders = {"": measure_headroom(judgements, max_clusters=max_clusters, seed=used_seed)}
        console = Console()
        if features_of is not None:
            rows = features_of(judgements.encode().texts)
            ladders["new_texts"] = measure_headroom(
                judgements, max_clusters=max_clusters, seed=used_seed, features=rows
            )
        for name, ladder in ladders.items():
            summary = HeadroomSummary.model_validate(ladder, from_attributes=True)
            console.print(headroom_table(summary, new_texts=bool(name)))
            console.print(heading("Verdict on new texts: " if name else "Verdict: ", ladder.verdict, width=0))
        if json_file is not None:
            meta = {"command": command_line("headroom"), "seed": used_seed, "max_clusters": max_clusters}
            of_new_texts = {name: asdict(ladder) for name, ladder in ladders.items() if name}
            meta |= {} if features is None else {"features": features}
            write_json(json_file, {"meta": meta, **asdict(ladders[""]), **of_new_texts})
            say(f"Written to {json_file}")

    guarded(measure, traceback)


def _reader(model: str, config: RunConfig, seed: int) -> Callable[[Sequence[Text]], np.ndarray]:
    """Load a model, and return what computes (U, D) the features of texts by it."""
    from functools import partial

    from plural_rlhf.policies.base_models import prepare_base_model
    from reward_models.jury.backbones.loading import load_backbone
    from reward_models.jury.features import pooled_features

    path = prepare_base_model(model, config.policy.cache_dir, seed=seed) if model in MODELS_BY_NAME else model
    backbone, tokenizer, reading = load_backbone(path)
    return partial(pooled_features, backbone, tokenizer, reading=reading)
