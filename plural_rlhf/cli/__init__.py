"""The command line `plural-rlhf`.

`init` writes a run file, `runs` holds the commands that work through one, `suites` those that evaluate models,
`juries` and `headroom` those about juries and judgements, `ranking` the one that ranks responses, `methods` those of
methods of the literature; `data` and `options` what they share, `guard` how errors are printed. May import every other
room and is imported by none; holds no logic of its own. Libraries that take long to import are imported inside the
commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from plural_rlhf.cli import juries, ranking, runs, suites
from plural_rlhf.cli.headroom import headroom
from plural_rlhf.cli.init import init
from plural_rlhf.cli.methods import values
from plural_rlhf.cli.methods.communities import communities
from plural_rlhf.cli.methods.individuals import individuals
from plural_rlhf.cli.methods.profiles import profiles
from plural_rlhf.cli.methods.questions import predict_questions
from plural_rlhf.cli.methods.spectrum import spectrum
from plural_rlhf.cli.methods.spectrum_suite import suite


__all__ = ["app", "main"]

RUNS, EVALUATION, JURIES = "A run, from one YAML file", "Evaluation of models", "Juries and judgements"
METHODS = "Methods of the literature"

app = typer.Typer(
    name="plural-rlhf",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Reward modeling and RLHF for people who disagree.\n\n"
        "From judgements of raters to a jury (a reward model with one score per rater cluster), a policy that keeps "
        "the spread of people's answers, and a report. One YAML file describes a run. Start with:\n\n"
        "`plural-rlhf run configs/quickstart.yaml`"
    ),
)
app.command(rich_help_panel=RUNS)(init)
app.command(rich_help_panel=RUNS)(runs.run)
app.command("fit-jury", rich_help_panel=RUNS)(juries.fit_jury)
app.command(rich_help_panel=RUNS)(runs.train)
app.command(rich_help_panel=EVALUATION)(suites.evaluate)
app.command(rich_help_panel=EVALUATION)(suites.compare)
app.command(rich_help_panel=JURIES)(headroom)
app.command(rich_help_panel=JURIES)(juries.releases)
app.command(rich_help_panel=JURIES)(juries.adapt)
app.command(
    "evaluate-jury",
    rich_help_panel=JURIES,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(juries.evaluate_jury)
app.command(rich_help_panel=JURIES)(ranking.rank)
app.command(rich_help_panel=JURIES)(juries.rename)
app.command("export-scalar", rich_help_panel=JURIES)(juries.export_scalar)
app.command(rich_help_panel=METHODS)(profiles)
app.command("predict-questions", rich_help_panel=METHODS)(predict_questions)
app.command(rich_help_panel=METHODS)(communities)
app.command(rich_help_panel=METHODS)(spectrum)
app.command(rich_help_panel=METHODS)(individuals)
app.add_typer(suite, name="suite", rich_help_panel=METHODS)
app.command("fit-values", rich_help_panel=METHODS)(values.fit_values)
app.command(rich_help_panel=METHODS)(values.values)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"plural-rlhf {version_of('plural-rlhf')}")
        raise typer.Exit


def main() -> None:
    """Run the command line: the entry point of the `plural-rlhf` script."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # Read when torch is loaded. By default threads spin while they wait, and beside another busy process a training
    # step then takes 1.4 to ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
