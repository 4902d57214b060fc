"""The command `spectrum`: Spectrum Tuning from one YAML file. Knows nothing of how a model is trained or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.methods.sequence_runs import work_through
from plural_rlhf.cli.options import Output, Overwrite, Settings, Traceback


__all__ = ["spectrum"]


def spectrum(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Run file of Spectrum Tuning in YAML, e.g. configs/spectrum.yaml.")
    ],
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Tune a model to take up any distribution from examples, and measure it on tasks that it never saw.

    Example: `plural-rlhf spectrum configs/spectrum.yaml --set train.steps=20 --output runs/short`

    Builds the tasks of the file (`plural-rlhf suite list` names them) or reads own sequences (JSONL), measures the
    untouched model on the held-out tasks, trains (LoRA or all parameters), and measures again: loss by number of
    examples read, divergence of answer shares from the true ones, with intervals. Writes the adapter (`tuned/`),
    results.json, report.md and report.html. A run that was stopped goes on where it was.
    """

    def tune() -> None:
        from plural_rlhf.recipe.spectrum.config import SpectrumRun
        from plural_rlhf.recipe.spectrum.run import run_spectrum
        from plural_rlhf.report.spectrum.page import numbers_table

        work_through(
            "spectrum", SpectrumRun, run_spectrum, numbers_table, config, settings or [], output, overwrite=overwrite
        )

    guarded(tune, traceback)
