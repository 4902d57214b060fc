"""What the commands `spectrum` and `individuals` share: a run file that is worked through, and how it ends.

Knows neither what is tuned nor on what.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.cli.guard import command_line, saying_how_to_go_on
from plural_rlhf.cli.runs import output_setting
from reward_models.borders import lines_to, say


if TYPE_CHECKING:
    from rich.table import Table

    from plural_rlhf.settings.base import NamedRun

__all__ = ["work_through"]


def work_through(
    command: str,
    root: type[NamedRun],
    run: Callable[..., Any],
    table: Callable[[Any], Table],
    config: Path,
    settings: list[str],
    output: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Read a run file, run it, print its table and where its report is.

    Args:
        command: Name of the command.
        root: The model of the run file.
        run: Runs it.
        table: Makes the table that is printed, of its results.
        config: The run file.
        settings: `KEY=VALUE` of the command line.
        output: Folder of the results, if it is given.
        overwrite: Delete what an earlier run left there.
    """
    from rich.console import Console

    from plural_rlhf.settings.faults import load_settings

    loaded: Any = load_settings(root, config, [*settings, *output_setting(output)])
    line = command_line(command)
    with saying_how_to_go_on(line, "What was measured or trained is kept."):
        results = run(loaded, overwrite=overwrite, command=line, show=say)
    console = Console()
    console.print(table(results))
    lines_to(console)(f"Report: {loaded.output_dir.resolve() / 'report.html'}")
