"""The command `headroom`: what a jury would gain, before anything is trained.

Reads judgements, calls `reward_models.analysis`, and prints the result. Knows nothing of policies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plural_rlhf.cli.data import MODELS_BY_NAME, data_config
from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import Columns, JsonFile, Release, RunSeed, Settings, Source, TableFile, Traceback
from reward_models.borders import heading, say


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from plural_rlhf.recipe.config import RunConfig
    from reward_models.analysis.headroom import Headroom
    from reward_models.judgements.texts import Text

__all__ = ["headroom"]


def headroom(
    file: TableFile = None,
    columns: Columns = None,
    release: Release = None,
    source: Source = None,
    settings: Settings = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="MODEL",
            help="Also measure with the texts read by this model, on known texts and on texts that nobody has judged: "
            "the path of a sentence embedder or language model, a Hub id, or smollm2-135m.",
        ),
    ] = None,
    max_clusters: Annotated[int, typer.Option("--max-clusters", min=1, help="Largest number of clusters to try.")] = 4,
    seed: RunSeed = None,
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

    That is about texts that others have judged. With --features texts and raters are fitted together on the features
    of the model, which takes minutes, and two more tables follow: one on the same held-out judgements of known texts,
    where few judgements a text leave much to its words; one on texts that nobody has judged, such as those that a
    policy will write: a fifth of the prompts with all their texts is held out (of fewer than ten prompts, a fifth of
    the responses), and every judgement that mentions one is scored. The three verdicts may differ.

    Measures one table: further ones of a run file (data.tables) are not read, which is said.
    """

    def measure() -> None:
        from dataclasses import asdict

        from rich.console import Console

        from plural_rlhf.recipe.inputs import read_judgements
        from plural_rlhf.report.results_jury import HeadroomSummary
        from plural_rlhf.report.tables import headroom_table
        from reward_models.analysis.headroom import headroom as measure_headroom
        from reward_models.errors import JuryError
        from reward_models.whole_file import write_json

        config = data_config(file, columns, release, source, settings or [])
        used_seed = config.seed if seed is None else seed
        judgements = read_judgements(config.data, used_seed, say)
        features_of = None if features is None else _reader(features, config, used_seed)  # before minutes are spent
        console = Console()
        ladders: dict[str, Headroom] = {}

        def climb(name: str, **options: Any) -> None:
            """Measure and print one ladder. With features there are others: what cannot be measured is said."""
            try:
                ladder = measure_headroom(judgements, max_clusters=max_clusters, seed=used_seed, **options)
            except JuryError as error:
                if features_of is None or (name == "new_texts" and not ladders):
                    raise
                console.print(heading(_verdict_of(name), f"not measured: {error}", width=0))
                return
            ladders[name] = ladder
            summary = HeadroomSummary.model_validate(ladder, from_attributes=True)
            console.print(headroom_table(summary, texts=name))
            console.print(heading(_verdict_of(name), ladder.verdict, width=0))

        climb("")
        if features_of is not None:
            rows = features_of(judgements.encode().texts)
            climb("known_texts", features=rows, texts="known")
            climb("new_texts", features=rows, texts="new")
        if json_file is not None:
            meta = {"command": command_line("headroom"), "seed": used_seed, "max_clusters": max_clusters}
            meta |= {} if features is None else {"features": features}
            if config.data.tables:
                meta["tables_not_read"] = [str(table.path) for table in config.data.tables]
            of_labels = asdict(ladders[""]) if "" in ladders else {}
            with_features = {name: asdict(ladder) for name, ladder in ladders.items() if name}
            write_json(json_file, {"meta": meta, **of_labels, **with_features})
            say(f"Written to {json_file}")

    guarded(measure, traceback)


def _verdict_of(name: str) -> str:
    """Say which ladder a verdict is of."""
    return f"Verdict on {name.replace('_', ' ')}, with features: " if name else "Verdict: "


def _reader(model: str, config: RunConfig, seed: int) -> Callable[[Sequence[Text]], np.ndarray]:
    """Load a model, and return what computes (U, D) the features of texts by it."""
    from functools import partial

    from plural_rlhf.policies.base_models import prepare_base_model
    from reward_models.jury.backbones.loading import load_backbone
    from reward_models.jury.features import pooled_features

    path = prepare_base_model(model, config.policy.cache_dir, seed=seed) if model in MODELS_BY_NAME else model
    backbone, tokenizer, reading = load_backbone(path)
    return partial(pooled_features, backbone, tokenizer, reading=reading)
