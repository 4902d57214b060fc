"""How every command ends: an expected refusal as one panel, a warning of ours as one line, a bug with its traceback.

Knows nothing of any command.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

import typer

from reward_models.errors import JudgementWarning


__all__ = ["command_line", "guarded"]

TITLES = {
    "ConfigError": "The run file cannot be used",
    "CandidatesError": "The candidates cannot be used",
    "JudgementError": "The judgements cannot be used",
    "JuryError": "The jury cannot be used",
    "RunFolderError": "The output folder cannot be used",
    "MissingExtraError": "An optional package is missing",
    "FileNotFoundError": "A file is missing",
    "UsageError": "The command cannot be read",
}
OUR_PACKAGES = {"plural_rlhf", "reward_models"}


def guarded(body: Callable[[], None], traceback: bool) -> None:
    """Run `body`; an expected error becomes one panel and exit status 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            body()
        except (ValueError, ImportError, OSError) as error:
            if traceback or not _is_expected(error):
                raise
            _print_error(error)
            raise typer.Exit(2) from error


def command_line(command: str) -> str:
    """The command as it was typed, for the record; a call from Python has no command line to quote."""
    typed = sys.argv[1:] if Path(sys.argv[0]).name == "plural-rlhf" else [command]
    return shlex.join(["plural-rlhf", *typed])


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours say all in their message; of others, the file and the line help to find who spoke."""
    if issubclass(category, JudgementWarning) or OUR_PACKAGES & set(Path(filename).parts):
        typer.echo(f"note: {message}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


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
