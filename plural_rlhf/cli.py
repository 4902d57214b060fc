"""The command line: `plural-rlhf run`, `fit-jury`, `train`, `evaluate` and `headroom`.

Knows everybody and is known by nobody. Holds no logic of its own: it reads the run file, hands it to
`plural_rlhf.recipe.run`, and prints what comes back, or what was refused and why. Libraries that take long to import
are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

import typer


if TYPE_CHECKING:
    from reward_models.records import Judgements

__all__ = ["app", "main"]

app = typer.Typer(
    name="plural-rlhf",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Reward modeling and RLHF for people who disagree.\n\n"
        "Judgements of raters go in; a jury (one score per rater cluster), a policy that keeps the spread of the "
        "answers, and a report come out. One YAML file describes a run; a good first one:\n\n"
        "`plural-rlhf run configs/quickstart.yaml`"
    ),
)

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Run file in YAML, for example configs/quickstart.yaml.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one setting of the file, e.g. --set plural.steps=10. Repeatable."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete what an earlier run left in the output folder and start over.")
]
Output = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Folder for the results, instead of output_dir.")
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error was raised.")]
Stage = Literal["jury", "train", "evaluate", "report"]

TITLES = {
    "ConfigError": "The run file cannot be used",
    "JudgementError": "The judgements cannot be used",
    "JuryError": "The jury cannot be used",
    "RunFolderError": "The output folder cannot be used",
    "MissingExtraError": "An optional package is missing",
    "FileNotFoundError": "A file is missing",
}
OUR_PACKAGES = {"plural_rlhf", "reward_models"}


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"plural-rlhf {version_of('plural-rlhf')}")
        raise typer.Exit


@app.command()
def run(
    config: ConfigFile,
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Walk the whole road: jury, warm-up, training, evaluation, report.

    Example: `plural-rlhf run configs/quickstart.yaml --set plural.steps=20 --output runs/short`

    Ends with a table and the path of report.html. A run that was interrupted goes on where it stopped; --overwrite
    starts over.
    """
    _stage("run", "report", config, settings, output, overwrite, traceback)


@app.command("fit-jury")
def fit_jury(
    config: ConfigFile,
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Fit the jury: find the clusters of raters and a score for each; no policy is trained.

    Example: `plural-rlhf fit-jury configs/quickstart.yaml --set jury.clusters=3`

    Leaves the reward model in the output folder, where `JuryReward`, `JuryRewardModel.from_pretrained` and the other
    commands find it.
    """
    _stage("fit-jury", "jury", config, settings, output, overwrite, traceback)


@app.command()
def train(
    config: ConfigFile,
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Train the policies (warm-up, ours, and stock GRPO beside it), fitting the jury first if there is none.

    Example: `plural-rlhf train configs/quickstart.yaml --set grpo.steps=0` (without the comparison)

    Leaves the LoRA adapters in the output folder.
    """
    _stage("train", "train", config, settings, output, overwrite, traceback)


@app.command()
def evaluate(
    config: ConfigFile,
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Measure how far each policy is from the people it should speak for, training first if need be.

    Example: `plural-rlhf evaluate configs/quickstart.yaml --set evaluate.draws=200`

    Leaves results.json (tidy rows with intervals) in the output folder; run adds the report to it.
    """
    _stage("evaluate", "evaluate", config, settings, output, overwrite, traceback)


@app.command()
def headroom(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="Run file, of which the data section is read.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="CSV, Parquet or JSONL table, instead of a run file.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option("--columns", metavar="MAP.yaml", help="Column map of that table.")
    ] = None,
    settings: Settings = None,
    max_clusters: Annotated[int, typer.Option("--max-clusters", min=1, help="Climb up to this many clusters.")] = 4,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the splits; default: the file's, or 0.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the ladder to this file.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Ask before training: do these raters differ in taste, and how much would a jury gain?

    Example: `plural-rlhf headroom configs/quickstart.yaml`

    Example: `plural-rlhf headroom --data votes.csv --columns votes.columns.yaml --json headroom.json`

    Takes seconds: it reads labels only, no text and no model. Ends with a verdict in words, which may be that
    plain Bradley-Terry is enough.
    """

    def climb() -> None:
        from dataclasses import asdict

        from rich.console import Console
        from rich.text import Text

        from plural_rlhf.report.tables import headroom_table
        from reward_models.headroom import headroom as climb_ladder

        judgements, file_seed = _judgements(config, data, columns, settings or [])
        used_seed = file_seed if seed is None else seed
        result = asdict(climb_ladder(judgements, max_clusters=max_clusters, seed=used_seed))
        console = Console()
        console.print(headroom_table(result))
        console.print(Text.assemble(("Verdict: ", "bold"), result["verdict"]))
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            meta = {"command": _command_line("headroom"), "seed": used_seed, "max_clusters": max_clusters}
            text = json.dumps({"meta": meta, **result}, indent=2, default=float)
            json_file.write_text(text + "\n", encoding="utf-8")
            console.print(f"Written to {json_file}", markup=False, soft_wrap=True)

    _guarded(climb, traceback)


def main() -> None:
    """Entry point of the `plural-rlhf` script."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    app()


def _stage(
    command: str,
    until: Stage,
    config: Path,
    settings: list[str] | None,
    output: Path | None,
    overwrite: bool,
    traceback: bool,
) -> None:
    def walk() -> None:
        from plural_rlhf.config import load_config

        overrides = list(settings or [])
        if output is not None:
            overrides.append(f"output_dir={json.dumps(str(output))}")
        run_config = load_config(config, overrides)

        from rich.console import Console

        from plural_rlhf import recipe
        from plural_rlhf.report.tables import clusters_table, summary_table

        results = recipe.run(run_config, until=until, overwrite=overwrite, command=_command_line(command))
        console = Console()
        if until == "jury":
            console.print(clusters_table(results))
        elif until in {"evaluate", "report"}:
            console.print(summary_table(results))
        report = run_config.output_dir / "report.html"
        if until == "report":
            console.print(f"Report: {report.resolve()}", markup=False, soft_wrap=True)
        else:
            console.print(f"Output: {run_config.output_dir.resolve()}", markup=False, soft_wrap=True)

    _guarded(walk, traceback)


def _judgements(
    config: Path | None, data: Path | None, columns: Path | None, settings: list[str]
) -> tuple[Judgements, int]:
    from plural_rlhf.config import DataSection, load_config
    from plural_rlhf.inputs import read_judgements

    if (config is None) == (data is None):
        given = "both were" if config is not None else "neither was"
        raise typer.BadParameter(
            f"{given} given: name a run file (CONFIG), or a table (--data FILE --columns MAP.yaml)."
        )
    if config is not None:
        if columns is not None:
            raise typer.BadParameter("--columns belongs to --data; a run file has data.columns.")
        loaded = load_config(config, settings)
        return read_judgements(loaded.data, loaded.seed), loaded.seed
    if settings:
        raise typer.BadParameter("--set changes a run file, and with --data there is none.")
    return read_judgements(DataSection(source="table", path=data, columns=columns), seed=0), 0


def _command_line(command: str) -> str:
    """The command as it was typed, for the record; a call from Python has no command line to quote."""
    typed = sys.argv[1:] if Path(sys.argv[0]).name == "plural-rlhf" else [command]
    return shlex.join(["plural-rlhf", *typed])


def _guarded(body: Callable[[], None], traceback: bool) -> None:
    """Run `body`; an expected error becomes one panel and exit status 2."""
    try:
        body()
    except (ValueError, ImportError, OSError) as error:
        if traceback or not _is_expected(error):
            raise
        _print_error(error)
        raise typer.Exit(2) from error


def _is_expected(error: Exception) -> bool:
    """Our own refusals explain themselves; anything else is a bug and deserves its traceback."""
    if isinstance(error, FileNotFoundError) or _is_ours(type(error).__module__):
        return True
    if isinstance(error, ImportError):
        return False
    return _is_ours(_last_frame(error.__traceback__))


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in OUR_PACKAGES


def _last_frame(trace: TracebackType | None) -> str:
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name


def _print_error(error: Exception) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    title = TITLES.get(type(error).__name__, "This cannot work")
    hint = "--traceback shows where"
    Console(stderr=True).print(
        Panel(Text(str(error)), title=title, title_align="left", subtitle=hint, border_style="red")
    )
