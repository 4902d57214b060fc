"""How errors and warnings of every command are printed.

An expected error becomes one panel, a warning of these packages one line, and a bug keeps its traceback.

Knows nothing of any command.
"""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

import typer

from plural_rlhf.recipe.run_folder.disk import disk_fault
from reward_models.borders import any_terminal, cell, say
from reward_models.errors import JudgementWarning


__all__ = ["command_line", "guarded", "saying_how_to_go_on"]

TITLES = {
    "ConfigError": "The run file cannot be used",
    "CandidatesError": "The candidates cannot be used",
    "JudgementError": "The judgements cannot be used",
    "JuryError": "The jury cannot be used",
    "RunFolderError": "The output folder cannot be used",
    "RunWriteError": "The run stopped",
    "TrainingDivergedError": "The training diverged",
    "MissingExtraError": "An optional package is missing",
    "FileNotFoundError": "A file is missing",
    "ResultsError": "The results cannot be read",
    "ValuesError": "The values cannot be used",
    "UsageError": "The command cannot be read",
}
OUR_PACKAGES = {"plural_rlhf", "reward_models"}


def guarded(body: Callable[[], None], traceback: bool) -> None:
    """Run a command, with progress bars; print an expected error as one panel and exit with status 2.

    Ctrl-C and SIGTERM end it with status 128 plus their number, which a shell expects, and with the command that goes
    on from there.

    Args:
        body: The command.
        traceback: Raise expected errors too.

    Raises:
        typer.Exit: The error was expected, or the command was stopped.

    Example:
        >>> guarded(lambda: print("done"), traceback=False)
        done
    """
    from reward_models.progress import progress_bars

    any_terminal()
    with warnings.catch_warnings(), progress_bars():
        warnings.showwarning = _show_warning
        try:
            body()
        except (ValueError, ImportError, OSError) as error:
            if traceback or not _is_expected(error):
                raise
            _print_error(error)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            say(f"Stopped. {stop}".strip(), err=True)
            raise typer.Exit(128 + getattr(stop, "signal", signal.SIGINT)) from stop


def command_line(command: str) -> str:
    """Return the command line as it was typed; for a call from Python, the name of the command.

    Example:
        >>> command_line("headroom")
        'plural-rlhf headroom'
    """
    typed = sys.argv[1:] if Path(sys.argv[0]).name == "plural-rlhf" else [command]
    return shlex.join(["plural-rlhf", *typed])


@contextmanager
def saying_how_to_go_on(line: str, kept: str = "") -> Iterator[None]:
    """Add to the message of a run that was stopped in the block the command that goes on with it.

    Args:
        line: The command line, as from `command_line`; `--overwrite` would delete what was kept, and is left out.
        kept: What is kept, as a sentence; empty if the message says it.

    Raises:
        RunInterrupted: The same as in the block, with the longer message.

    Example:
        >>> from plural_rlhf.recipe import RunInterrupted
        >>> try:
        ...     with saying_how_to_go_on("plural-rlhf run trial.yaml --overwrite"):
        ...         raise RunInterrupted(2, "Kept: jury.")
        ... except RunInterrupted as stop:
        ...     print(stop)
        Kept: jury. Go on with: plural-rlhf run trial.yaml
    """
    from plural_rlhf.recipe import RunInterrupted

    try:
        yield
    except RunInterrupted as stop:
        again = shlex.join(part for part in shlex.split(line) if part != "--overwrite")
        raise RunInterrupted(stop.signal, " ".join(filter(None, [str(stop), kept, f"Go on with: {again}"]))) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of these packages as its message only, any other with its file and line."""
    if issubclass(category, JudgementWarning) or OUR_PACKAGES & set(Path(filename).parts):
        say(f"note: {message}", err=True)
    else:
        say(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n"), err=True)


def _is_expected(error: Exception) -> bool:
    """Whether the error explains itself: it is of a type of these packages, or was raised inside them."""
    if isinstance(error, FileNotFoundError) or _is_ours(type(error).__module__) or disk_fault(error, Path()):
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

    title = TITLES.get(type(error).__name__, "The command failed")
    hint = "--traceback shows where it was raised"
    explained = disk_fault(error, Path())
    message = str(error) if explained is None else f"{error}: {explained[0]}. Fix: {explained[1]}, and try again."
    Console(stderr=True).print(
        Panel(cell(message), title=title, title_align="left", subtitle=hint, border_style="red")
    )
    for note in getattr(error, "__notes__", ()):  # below the panel, whose frame nobody wants to paste
        say(note, err=True)
