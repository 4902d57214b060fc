"""The commands that work through a run file: `run` and `train`; `fit-jury` is in `juries`, `evaluate` in `suites`.

They differ in how far they go. Each reads the file, passes it to `plural_rlhf.recipe.run`, and prints the results.
Knows nothing of how a stage works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.cli.guard import command_line, guarded, saying_how_to_go_on
from plural_rlhf.cli.options import ConfigFile, Output, Overwrite, Reuse, Settings, Traceback
from reward_models.borders import lines_to


if TYPE_CHECKING:
    from plural_rlhf.recipe import Until
    from plural_rlhf.recipe.config import RunConfig

__all__ = ["output_setting", "run", "run_as_far_as", "run_until", "train"]


def _run_command(until: Until) -> Callable[[Callable[[], None]], Callable[..., None]]:
    """Make a command of the shared options that stops after `until`, with the name and help of the decorated one."""

    def decorate(described: Callable[[], None]) -> Callable[..., None]:
        name = described.__name__.replace("_", "-")

        def command(
            config: ConfigFile,
            settings: Settings = None,
            output: Output = None,
            overwrite: Overwrite = False,
            reuse: Reuse = None,
            traceback: Traceback = False,
        ) -> None:
            guarded(lambda: run_until(until, name, config, settings or [], output, overwrite, reuse), traceback)

        command.__name__, command.__doc__ = described.__name__, described.__doc__
        return command

    return decorate


@_run_command(until="report")
def run() -> None:
    """Do everything: fit the jury, train the policies, evaluate them, write the report.

    Example: `plural-rlhf run configs/quickstart.yaml --set plural.steps=20 --output runs/short`

    Prints a summary table and the path of report.html. A run that was interrupted continues after its last complete
    stage; --overwrite starts over. --reuse takes the jury and pi_0 of another run with the same
    settings of both, to compare ways of training.
    """


@_run_command(until="train")
def train() -> None:
    """Train the policies: warm-up, ours, and stock GRPO for comparison; fit the jury first if there is none.

    Example: `plural-rlhf train configs/quickstart.yaml --set grpo.steps=0` (without the comparison)

    Saves the LoRA adapters in the folders `warm`, `plural` and `grpo` of the output folder.
    """


def run_until(
    until: Until,
    command: str,
    config: Path,
    settings: list[str],
    output: Path | None,
    overwrite: bool,
    reuse: Path | None = None,
) -> None:
    """Read a run file, run it as far as `until`, and print what was found."""
    from plural_rlhf.recipe.config import load_config

    run_as_far_as(until, command, load_config(config, [*settings, *output_setting(output)]), overwrite, reuse)


def output_setting(output: Path | None) -> list[str]:
    """Return `--output` as a setting of a run file."""
    return [] if output is None else [f"output_dir={json.dumps(str(output))}"]


def run_as_far_as(
    until: Until, command: str, run_config: RunConfig, overwrite: bool, reuse: Path | None = None
) -> None:
    """Run as far as `until`, and print what was found."""
    from rich.console import Console

    from plural_rlhf import recipe
    from plural_rlhf.report.tables import clusters_table, summary_table
    from plural_rlhf.report.texts.tables import text_tables

    line = command_line(command)
    with saying_how_to_go_on(line):
        results = recipe.run(run_config, until=until, overwrite=overwrite, command=line, reuse=reuse)
    console = Console()
    if until == "jury":
        console.print(clusters_table(results))
    elif results.texts:
        console.print(*text_tables(results.texts))
    elif until in ("evaluate", "report"):
        console.print(summary_table(results))
    folder = run_config.output_dir.resolve()
    written = f"Report: {folder / 'report.html'}" if until == "report" else f"Output: {folder}"
    lines_to(console)(written)
