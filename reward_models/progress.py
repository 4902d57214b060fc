"""Progress bars for whatever takes long, off unless somebody asks for them.

A fit is called from notebooks, from tests and from the command line; only the last wants bars, and no function between
the command and the loop should have to hand on a flag. The command says `with progress_bars():`, the loop says
`for part in track(parts, "fitting")`, and a bar is shown where both are true. Knows nothing of what is tracked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar


__all__ = ["progress_bars", "track"]

T = TypeVar("T")
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


def track(steps: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through steps, and show a bar on the standard error while a block of `progress_bars` asks for one.

    Bars of loops inside loops disappear when their loop ends, and so does the last: what a step found is printed by
    others.

    Args:
        steps: What to go through.
        label: What is being done, in a few words.
        total: Number of steps; None for the length of `steps`, or unknown.

    Example:
        >>> sum(track(range(4), "adding"))
        6
    """
    if not _shown.get():
        yield from steps
        return
    from tqdm.auto import tqdm

    yield from tqdm(steps, desc=label, total=total, leave=False, dynamic_ncols=True)
