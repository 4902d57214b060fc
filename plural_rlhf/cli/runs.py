"""The commands that walk a run file: `run`, `fit-jury`, `train` and `evaluate`.

Each reads the file, hands it to `plural_rlhf.recipe.run`, and prints what comes back. Knows nothing of how a stage
works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from plural_rlhf.cli.guard import Traceback, command_line, guarded


__all__ = ["evaluate", "fit_jury", "run", "train"]

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
Stage = Literal["jury", "train", "evaluate", "report"]


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
        from plural_rlhf.recipe.config import load_config

        overrides = list(settings or [])
        if output is not None:
            overrides.append(f"output_dir={json.dumps(str(output))}")
        run_config = load_config(config, overrides)

        from rich.console import Console

        from plural_rlhf import recipe
        from plural_rlhf.report.tables import clusters_table, summary_table

        results = recipe.run(run_config, until=until, overwrite=overwrite, command=command_line(command))
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

    guarded(walk, traceback)
