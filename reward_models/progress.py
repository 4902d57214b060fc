"""Progress bars for whatever takes long, off unless somebody asks for them.

A fit is called from notebooks, from tests and from the command line; only the last wants bars, and no function between
the command and the loop should have to hand on a flag. The command says `with progress_bars():`, the loop says
`for part in track(parts, "fitting")`, and a bar is shown where both are true. Knows nothing of what is tracked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar


if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["counting", "progress_bars", "track", "with_progress_bars"]

P = ParamSpec("P")
T = TypeVar("T")
DELAY = 1.0  # seconds that a loop may take without a bar
PAUSE_IN_A_FILE = 15.0  # seconds between two lines of a bar that is written into a log
_shown: ContextVar[bool] = ContextVar("progress_bars", default=False)


@contextmanager
def progress_bars(shown: bool = True) -> Iterator[None]:
    """Show a bar for every loop that is tracked inside this block.

    Args:
        shown: False hides the bars of a block inside a block.

    Example:
        >>> with progress_bars(False):
        ...     list(track([1, 2, 3], "counting"))
        [1, 2, 3]
    """
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def with_progress_bars(function: Callable[P, T]) -> Callable[P, T]:
    """Show bars inside a function with an argument `progress`, unless it is called with `progress=False`.

    Example:
        >>> @with_progress_bars
        ... def count(steps, *, progress=True):
        ...     return sum(1 for _ in track(range(steps), "counting"))
        >>> count(3, progress=False)
        3
    """

    @wraps(function)
    def shown(*args: P.args, **kwargs: P.kwargs) -> T:
        with progress_bars(bool(kwargs.get("progress", True))):
            return function(*args, **kwargs)

    return shown


def track(steps: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through steps, and show a bar on the standard error while a block of `progress_bars` asks for one.

    A loop of less than a second has no bar. Bars disappear when their loop ends: what it found is printed by others.

    Args:
        steps: What to go through.
        label: What is being done, in a few words.
        total: Number of steps; None for the length of `steps`, or unknown.

    Example:
        >>> sum(track(range(4), "adding"))
        6
    """
    if _shown.get():
        yield from _bar(label, iterable=steps, total=total)
    else:
        yield from steps


@contextmanager
def counting(label: str, total: int | None = None) -> Iterator[Callable[[], object]]:
    """Count steps that are no loop of ours, e.g. the iterations of an optimiser; as `track` otherwise.

    Args:
        label: What is being done, in a few words.
        total: Most steps.

    Yields:
        A function to call after each step.

    Example:
        >>> with counting("waiting", total=2) as step_done:
        ...     step_done()
    """
    if not _shown.get():
        yield _nothing
        return
    with _bar(label, total=total) as bar:
        yield bar.update


def _nothing() -> None:
    """Count nothing."""


def _bar(label: str, **settings: Any) -> tqdm[Any]:
    from tqdm.auto import tqdm

    pause = 0.1 if sys.stderr.isatty() else PAUSE_IN_A_FILE
    return tqdm(desc=label, leave=False, dynamic_ncols=True, delay=max(DELAY, pause), mininterval=pause, **settings)
