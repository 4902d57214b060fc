"""Ctrl-C and SIGTERM during a run: training ends with a checkpoint after its step, everything else at once.

Knows nothing of what is being done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


__all__ = ["Interruption", "RunInterrupted"]


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM; what was complete is kept.

    Attributes:
        signal: The number of the signal; a command exits with 128 more.

    Example:
        >>> stopped = RunInterrupted(signal.SIGINT, "Kept: jury.")
        >>> 128 + stopped.signal, str(stopped)
        (130, 'Kept: jury.')
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)
        self.signal = number

    def __str__(self) -> str:
        return str(self.args[1])


class Interruption:
    """Whether the run was asked to stop.

    Args:
        announce: Called with a sentence when a signal has to wait for the end of a step.
        kept: Returns a sentence that says what is complete.

    Example:
        >>> interruption = Interruption(print)
        >>> with interruption.handled(), interruption.deferred():
        ...     signal.raise_signal(signal.SIGTERM)
        stopping after this step, with a checkpoint (once more: at once)
        >>> interruption.requested == signal.SIGTERM
        True
    """

    def __init__(self, announce: Callable[[str], object], kept: Callable[[], str] = str) -> None:
        self.requested: int | None = None
        self._announce, self._kept = announce, kept
        self._waits = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals while the block runs; in another thread than the main one, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While the block runs, a first signal is only noted in `requested`; a second one stops at once."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def check(self) -> None:
        """Raise if a signal was noted.

        Raises:
            RunInterrupted: It was.
        """
        if self.requested is not None:
            raise RunInterrupted(self.requested, self._kept())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested is not None, number
        if self._waits and not again:
            self._announce("stopping after this step, with a checkpoint (once more: at once)")
            return
        self.check()
