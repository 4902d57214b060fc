"""The command `individuals`: steer a model to single people, from one YAML file. Knows nothing of how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.methods.sequence_runs import work_through
from plural_rlhf.cli.options import Output, Overwrite, Settings, Traceback


__all__ = ["individuals"]


def individuals(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Run file in YAML, e.g. configs/individuals.yaml.")],
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Tune a model to read a person's judgements, and measure how well it predicts the next one of other people.

    Example: `plural-rlhf individuals configs/individuals.yaml --set train.steps=20 --output runs/short`

    Reads a table person by person, tunes a LoRA adapter on people of other tables (`meta`), then on training people
    of this one, and predicts judgements of test people after none, two and six of their own. Beside it: the untouched
    model, the item marginal, the person's own answers, a jury, model and jury together, and the control that reads
    exchanged people. Writes the adapter (`tuned/`), results.json, report.md and report.html. A run that was stopped
    goes on where it was.
    """

    def tune() -> None:
        from plural_rlhf.recipe.individuals.config import IndividualsRun
        from plural_rlhf.recipe.individuals.run import run_individuals
        from plural_rlhf.report.individuals.page import losses_table

        work_through(
            "individuals",
            IndividualsRun,
            run_individuals,
            losses_table,
            config,
            settings or [],
            output,
            overwrite=overwrite,
        )

    guarded(tune, traceback)
