"""The commands `suite list`, `suite show` and `suite build`: tasks of the Spectrum Suite, which are training data.

Knows nothing of how a task is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.options import JsonFile, Traceback
from reward_models.borders import cell, lines_to, say


if TYPE_CHECKING:
    from plural_rlhf.methods.spectrum_suite import SuiteTask

__all__ = ["suite"]

WIDE = 120
"""Width of a terminal from which all columns are shown."""
LONG = ("source", "licence")

suite = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "Tasks of the **Spectrum Suite**: sequences of examples to train and test models on.\n\n"
        "Not the suites of `plural-rlhf evaluate SUITE.yaml`, which ask finished models questions. Start with "
        "`plural-rlhf suite list`; `plural-rlhf spectrum` trains on these tasks."
    ),
)

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the data sets that come in no package.")]
SplitOption = Annotated[
    Literal["train", "test"] | None, typer.Option("--split", help="Only tasks of this split; by default both.")
]
CatalogueFile = Annotated[
    Path | None, typer.Option("--catalogue", metavar="MINE.yaml", help="A catalogue of own tasks, which are added.")
]


@suite.command("list")
def list_tasks(
    split: SplitOption = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only this kind: synthetic, individual, group or free text.")
    ] = None,
    present: Annotated[bool, typer.Option("--present", help="Only tasks whose data is here.")] = False,
    data: Data = Path("data"),
    catalogue: CatalogueFile = None,
    json_file: JsonFile = None,
    traceback: Traceback = False,
) -> None:
    """List the tasks: kind, split, size, licence, source, and whether their data is here.

    Example: `plural-rlhf suite list --kind individual --present --data ../shared/data`
    """
    guarded(lambda: _list(split, kind, present, data, catalogue, json_file), traceback)


@suite.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a task.")],
    data: Data = Path("data"),
    catalogue: CatalogueFile = None,
    traceback: Traceback = False,
) -> None:
    """Show a task: source, licence, what to download, how it is read, and its first sequence if its data is here.

    Example: `plural-rlhf suite show movielens`
    """
    guarded(lambda: _show(name, data, catalogue), traceback)


@suite.command()
def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files, one JSONL file per task.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="NAME", help="Build this task only. Repeatable.")
    ] = None,
    split: SplitOption = None,
    sequences: Annotated[int, typer.Option("--sequences", min=1, help="Most sequences per task.")] = 200,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Most examples per sequence.")] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed.")] = 0,
    data: Data = Path("data"),
    catalogue: CatalogueFile = None,
    traceback: Traceback = False,
) -> None:
    """Build tasks as JSONL files, and a list of what was built, with licences, and of what was not.

    Example: `plural-rlhf suite build runs/suite --split train --data ../shared/data`

    Without --tasks, all tasks whose data is here. Each line of a file is a sequence: description, examples, and
    options with their true shares where they are known. `plural-rlhf spectrum` reads the files (`data.files`).
    """
    guarded(lambda: _build(out, tasks or [], split, (sequences, examples, seed), data, catalogue), traceback)


def _list(
    split: str | None, kind: str | None, present: bool, data: Path, catalogue: Path | None, json_file: Path | None
) -> None:
    from rich.console import Console
    from rich.table import Table

    from plural_rlhf.methods.spectrum_suite import read_catalogue
    from plural_rlhf.methods.spectrum_suite.catalogue import KINDS
    from reward_models.errors import did_you_mean
    from reward_models.whole_file import write_json

    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(
            f"--kind {kind!r} is unknown.{did_you_mean(kind, KINDS)} Use one of {', '.join(KINDS)}"
        )
    known = read_catalogue(catalogue)
    tasks = known.choose(split=split, present_in=data if present else None)
    tasks = [task for task in tasks if kind in (None, task.kind)]
    rows = [_row(task, known.sources[task.source].licence, known.sources[task.source].title, data) for task in tasks]
    if json_file is not None:
        write_json(json_file, rows)
    console = Console()
    is_wide = console.width >= WIDE
    table = Table(box=None)
    for name in rows[0] if rows else ["task"]:
        if is_wide or name not in LONG:
            table.add_column(name, no_wrap=name not in (*LONG, "size"))  # a name is typed, so it is never cut
    for row in rows:
        table.add_row(*(cell(value) for name, value in row.items() if is_wide or name not in LONG))
    console.print(table)
    here = sum(task.is_present(data) for task in tasks)
    lines_to(console)(
        f"{len(tasks)} tasks of {len({task.source for task in tasks})} sources; the data of {here} is here ({data})"
    )
    if not is_wide:
        lines_to(console)(
            f"Sources and licences: suite show NAME, --json FILE, or a terminal of {WIDE} characters; this one has "
            f"{console.width}."
        )


def _row(task: SuiteTask, licence: str, source: str, data: Path) -> dict[str, str]:
    return {
        "task": task.name,
        "kind": task.kind,
        "split": task.split,
        "here": "yes" if task.is_present(data) else "no",
        "size": task.size,
        "source": source,
        "licence": licence,
    }


def _show(name: str, data: Path, catalogue: Path | None) -> None:
    import json

    from plural_rlhf.methods.spectrum_suite import SuiteData, read_catalogue

    known = read_catalogue(catalogue)
    [task] = known.choose([name])
    source = known.sources[task.source]
    lines = {
        "task": f"{task.name}: {task.title}",
        "kind": task.kind,
        "split": f"{task.split}{' (as published: ' + ', '.join(task.published) + ')' if task.published else ''}",
        "size": task.size,
        "source": f"{source.title}, {source.url}",
        "licence": source.licence,
        "download": source.get,
        "files": ", ".join(task.files),
        "tested": "with the real data" if task.tested else "not with the real data: check the columns below",
        "read by": f"{task.reader} {json.dumps(task.settings, ensure_ascii=False)}",
    }
    for key, value in lines.items():
        if value:
            say(f"{key + ':':10s}{value}")
    if not task.is_present(data):
        say(f"here:     no ({data})")
        return
    first = task.sequences(SuiteData(data, sequences=1, examples=4))[0]
    say(f"first:    {json.dumps(first.to_dict(), ensure_ascii=False)}")


def _build(
    out: Path,
    names: list[str],
    split: str | None,
    numbers: tuple[int, int, int],
    data: Path,
    catalogue: Path | None,
) -> None:
    from plural_rlhf.methods.spectrum_suite import SuiteData, build_tasks, read_catalogue

    known = read_catalogue(catalogue)
    tasks = known.choose(names, split=split, present_in=None if names else data)
    if not tasks:
        raise ValueError(
            f"no task is left of the split {split!r}. Fix: name tasks of that split, or leave --split out."
        )
    sequences, examples, seed = numbers
    built = build_tasks(tasks, known, out, SuiteData(data, sequences, examples, seed))
    for row in built:
        if row.reason:
            say(f"not built: {row.reason}")
    done = [row for row in built if row.file]
    say(f"{len(done)} tasks, {sum(row.sequences for row in done):,} sequences written to {out}; suite.json lists them")
