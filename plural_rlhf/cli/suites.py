"""The commands `evaluate`, of a suite file or of the policies of a run file, and `compare`, of two evaluations.

Knows nothing of how anything is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import JsonFile, Output, Overwrite, Reuse, Settings, Traceback
from plural_rlhf.cli.runs import output_setting, run_until
from reward_models.borders import lines_to, say


if TYPE_CHECKING:
    from plural_rlhf.report.suite.results import SuiteResults

__all__ = ["compare", "evaluate"]


def evaluate(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Suite file or run file in YAML. Not needed with --model."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="Evaluate this instead of the models of the file: a folder (of a model, an adapter, a saved jury, or "
            "a run, whose policies stand side by side), a hub id, smollm2-135m. Repeatable.",
        ),
    ] = None,
    settings: Settings = None,
    output: Output = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Of a suite: end with an error if a task cannot be measured.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Of a suite: ask no model, write the prompts to a JSONL file; filled in, it is a model `recorded:`.",
        ),
    ] = None,
    lm_eval: Annotated[
        Path | None,
        typer.Option(
            "--lm-eval",
            metavar="FOLDER",
            help="Of a suite: ask no model, write its tasks with offered answers as task files of "
            "lm-evaluation-harness (`lm_eval --include_path FOLDER --tasks plural_rlhf`).",
        ),
    ] = None,
    list_tasks: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Of a suite: ask no model, list the tasks of the file, or all there are, with sources.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    reuse: Reuse = None,
    traceback: Traceback = False,
) -> None:
    """Measure models on a suite of tasks, or the policies of a run on held-out people.

    A **suite file** has `models:` and `tasks:`. Every model answers every task; what a model was asked once is kept
    and not asked again. Writes results.json, samples/, report.md and report.html.

    Example: `plural-rlhf evaluate configs/eval/suite.yaml --set max_items=50`

    Example, all policies of a run beside the model before: `plural-rlhf evaluate --model runs/quickstart`

    Example, what there is to measure: `plural-rlhf evaluate --list`

    A **run file** has sections such as `data:`, `jury:` and `plural:`. Fits and trains first what is missing, and
    measures how far each policy is from held-out people. Writes results.json; the command run adds the report.

    Example: `plural-rlhf evaluate configs/quickstart.yaml --set evaluate.draws=200`
    """
    if list_tasks:
        guarded(lambda: _list(config, settings or []), traceback)
        return
    guarded(
        lambda: _evaluate(config, model or [], settings or [], output, strict, prompts, lm_eval, overwrite, reuse),
        traceback,
    )


def compare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluation.")],
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Folder of the evaluation to compare with.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Model of RUN; by default its first.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="NAME", help="Model of BASE; by default its first.")
    ] = None,
    json_file: JsonFile = None,
    traceback: Traceback = False,
) -> None:
    """Compare two evaluations item by item: difference, interval, p-value (Holm), smallest detectable difference.

    Example: `plural-rlhf compare runs/after runs/before`

    Only tasks with the same items in both are compared; the others are named.
    """
    guarded(lambda: _compare(run, base, model, base_model, json_file), traceback)


def _evaluate(
    config: Path | None,
    models: list[str],
    settings: list[str],
    output: Path | None,
    strict: bool,
    prompts: Path | None,
    lm_eval: Path | None,
    overwrite: bool,
    reuse: Path | None,
) -> None:
    from plural_rlhf.settings.faults import read_yaml
    from plural_rlhf.suites.config import is_suite_file, make_suite
    from plural_rlhf.suites.evaluate import evaluate_suite
    from plural_rlhf.suites.exports.lm_eval_tasks import write_lm_eval_tasks
    from plural_rlhf.suites.prompts import write_prompts

    writes_files = prompts is not None or lm_eval is not None
    names_models = any(setting.startswith(("models=", "pseudo_models=")) for setting in settings)
    if config is None and not (models or names_models or writes_files):
        raise typer.BadParameter("name a suite file, a run file, or a model with --model")
    values: dict[str, Any] = {} if config is None else read_yaml(config)
    if config is not None and not models and not is_suite_file(values):
        if strict or writes_files:
            option = "--strict" if strict else "--prompts" if prompts is not None else "--lm-eval"
            raise typer.BadParameter(f"{option} is for suite files, and {config} has no `models:` and no `tasks:`")
        run_until("evaluate", "evaluate", config, settings, output, overwrite, reuse)
        return
    if overwrite or reuse is not None:
        option = "--overwrite" if overwrite else "--reuse"
        raise typer.BadParameter(
            f"{option} is for run files: a suite asks nothing twice (`answers_dir`) and writes its results anew"
        )
    if models:
        values["models"] = [{"path": path} for path in models]
    overrides = [*settings, *output_setting(output), *(["strict=true"] if strict else [])]
    suite = make_suite(values, overrides, origin="--model" if config is None else str(config))
    if prompts is not None:
        say(f"{write_prompts(suite, prompts)} prompts written to {prompts}: put n texts into each list `texts`")
        return
    if lm_eval is not None:
        written = write_lm_eval_tasks(suite, lm_eval)
        say(f"{len(written)} tasks with {sum(written.values())} questions written to {lm_eval}")
        say(f"Run them: lm_eval --model hf --model_args pretrained=MODEL --include_path {lm_eval} --tasks plural_rlhf")
        return
    _print(evaluate_suite(suite, command=command_line("evaluate")), suite.output_dir)


def _list(config: Path | None, settings: list[str]) -> None:
    """Print the tasks in blocks of lines, so that no name, source or licence is cut at any width of a terminal."""
    from plural_rlhf.settings.faults import read_yaml
    from plural_rlhf.suites.config import make_suite
    from plural_rlhf.suites.tasks.catalogue import SUITES, make_tasks

    names = ["full"]
    if config is not None or any(setting.startswith("tasks=") for setting in settings):
        values = {} if config is None else read_yaml(config)
        names = make_suite(values, settings, origin="--list" if config is None else str(config)).tasks
    tasks = make_tasks(names)
    for task in tasks:
        suites = ", ".join(name for name, members in SUITES.items() if task.name in members)
        say(f"{task.name}  ({task.shape}; suites: {suites})")
        say(f"    {task.title}")
        say(f"    Source: {task.source}. Licence: {task.licence}.")
    say(f"{len(tasks)} tasks. Suites: {', '.join(f'{name} ({len(members)})' for name, members in SUITES.items())}.")


def _print(results: SuiteResults, folder: Path) -> None:
    from rich.console import Console

    from plural_rlhf.report.suite.tables import endpoint_sentences, overview_table

    console = Console()
    console.print(overview_table(results))
    tell = lines_to(console)
    for one in results.skipped:
        tell(f"skipped: {one.task} ({one.model or 'all models'}): {one.reason}")
    for sentence in endpoint_sentences(results):
        tell(sentence)
    tell(f"Report: {folder.resolve() / 'report.html'}")


def _compare(run: Path, base: Path, model: str | None, base_model: str | None, json_file: Path | None) -> None:
    from rich.console import Console

    from plural_rlhf.report.suite.tables import comparison_table
    from plural_rlhf.report.tables import rich_table
    from plural_rlhf.suites.comparisons import compare_runs
    from reward_models.whole_file import write_json

    found, notes = compare_runs(run, base, model=model, base_model=base_model)
    console = Console()
    console.print(rich_table(comparison_table(found), title=f"{run} against {base}"))
    for note in notes:
        lines_to(console)(f"note: {note}")
    if json_file is not None:
        write_json(json_file, {"differences": [one.to_dict() for one in found], "notes": notes})
