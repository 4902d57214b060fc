"""The command `profiles`: what value profiles say of raters, and how many clusters are needed.

Reads judgements, calls `plural_rlhf.methods.value_profiles`, and prints the result. Knows nothing of how it is
measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plural_rlhf.cli.data import MODELS_BY_NAME, data_config, sentence_embedder
from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import Columns, Release, RunSeed, Settings, Source, TableFile, Traceback, output_option
from reward_models.borders import lines_to, say


if TYPE_CHECKING:
    from plural_rlhf.suites.models.protocol import EvaluatedModel

__all__ = ["profiles"]

WITHOUT_MODEL = ("table", "embedding")


def profiles(
    file: TableFile = None,
    columns: Columns = None,
    release: Release = None,
    source: Source = None,
    settings: Settings = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="table|embedding|MODEL|URL",
            help="What makes a profile of a rater's judgements: the answers as numbers (table), the judgements in "
            "words through a sentence embedder (embedding), or statements that a model writes: a folder, a hub id, "
            "smollm2-135m, or the address of an OpenAI-compatible endpoint (with --model).",
        ),
    ] = "table",
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Name of the model at the endpoint of --encoder URL.")
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            metavar="PATH",
            help="Sentence embedder for --encoder embedding and for profiles in words; default: MiniLM, if installed.",
        ),
    ] = None,
    out: Annotated[
        Path,
        output_option("Folder for the results; a model's answers are kept there."),
    ] = Path("runs/profiles"),
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="K,K,...", help="Numbers of clusters of the dimensionality curve.")
    ] = "2,4,8,16",
    splits: Annotated[
        int | None,
        typer.Option(
            "--splits", min=1, help="Random halvings of the raters; default: 5, and 1 where a model writes profiles."
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(
            "--clusters",
            min=2,
            help="Clusters to put into words; default: the smallest number that says nearly as much as the best.",
        ),
    ] = None,
    seed: RunSeed = None,
    traceback: Traceback = False,
) -> None:
    """Measure how much profiles and clusters of raters say of judgements not yet seen, and put clusters into words.

    Example: `plural-rlhf profiles votes.csv --columns votes.columns.yaml --output runs/votes-profiles`

    Example: `plural-rlhf profiles configs/quickstart.yaml --encoder embedding --sizes 2,4,8`

    Example: `plural-rlhf profiles votes.csv --encoder http://localhost:8000/v1 --model llama --set data.max_raters=99`

    A profile is made from some judgements of a rater and is worth what it says of the others, in nats (usable
    information; Value Profiles, Sorensen and others 2025). Compared are the traits of the table, clusters of profiles,
    each rater's own profile and all judgements that were read, with random groups and shuffled judgements as controls.
    Then clusters are put into words with the judgements behind each claim, and a reader is tested on whether the words
    tell them apart. Writes results.json, profiles.jsonl, report.md and report.html.

    A model writes one profile per rater. Malformed ones are asked for again; what it answered is kept, and the same
    command goes on where it stopped.
    """

    def measure() -> None:
        from rich.console import Console

        from plural_rlhf.methods.value_profiles.page import information_table, profile_findings
        from plural_rlhf.methods.value_profiles.run import ProfileSettings, run_profiles
        from plural_rlhf.recipe.inputs import read_judgements
        from plural_rlhf.report.tables import rich_table

        numbers = _numbers(sizes)
        config = data_config(file, columns, release, source, settings or [])
        used_seed = config.seed if seed is None else seed
        asked = None if encoder in WITHOUT_MODEL else _model(encoder, model, str(config.policy.cache_dir))
        embed = None if encoder == "table" else sentence_embedder(embedder, "profiles")
        judgements = read_judgements(config.data, used_seed, say)
        used = ProfileSettings(
            name=config.name,
            encoder=encoder,
            sizes=numbers,
            splits=splits or (5 if asked is None else 1),
            clusters=clusters,
            seed=used_seed,
        )
        results = run_profiles(judgements, out, used, model=asked, embed=embed, command=command_line("profiles"))
        console = Console()
        console.print(rich_table(information_table(results), title=f"Usable information ({results.encoder})"))
        tell = lines_to(console)
        for sentence in profile_findings(results):
            tell(sentence)
        for cluster in results.clusters:
            tell(f"{cluster.prevalence:.0%} {cluster.name}")
        tell(f"Report: {out.resolve() / 'report.html'}")

    guarded(measure, traceback)


def _numbers(sizes: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in sizes.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise typer.BadParameter(f"--sizes {sizes} is no list of numbers of clusters. Fix: e.g. --sizes 2,4,8")
    return numbers


def _model(encoder: str, name: str | None, cache_dir: str) -> EvaluatedModel:
    """Open the model that writes profiles: behind an endpoint, or from a folder."""
    from plural_rlhf.suites.models.endpoint import EndpointModel
    from plural_rlhf.suites.models.loading import load_causal_lm

    if encoder.startswith(("http://", "https://")):
        if name is None:
            raise typer.BadParameter(
                f"--encoder {encoder} is an endpoint, which serves models by name. Fix: add --model NAME"
            )
        return EndpointModel(name, encoder, name)
    if name is not None:
        raise typer.BadParameter("--model names the model at an endpoint. Fix: leave it out, or give --encoder URL")
    is_path = encoder in MODELS_BY_NAME or "/" in encoder or Path(encoder).exists()
    if not is_path:
        raise typer.BadParameter(
            f"--encoder {encoder} is neither table, embedding, a folder, a hub id (owner/name), "
            f"{' nor '.join(MODELS_BY_NAME)}, nor an address. Fix: give one of these"
        )
    return load_causal_lm(encoder, cache_dir=cache_dir)
