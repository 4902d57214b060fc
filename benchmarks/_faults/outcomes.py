"""What a fault led to: five verdicts, and how an attempt is judged. Knows nothing of which faults there are.

- `survived`: the result is the one without the fault.
- `refused`: an error of these packages, which says what is wrong and what to do.
- `lost`: what was complete before the fault is gone, or is refused for ever.
- `silent`: another result, and no error.
- `foreign`: an error of another library or of Python, a crash, or no answer in time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


__all__ = ["VERDICTS", "Effort", "Outcome", "attempt", "is_own", "time_limit"]

VERDICTS = ("survived", "refused", "lost", "silent", "foreign")
OURS = ("reward_models", "plural_rlhf")


@dataclass(frozen=True)
class Outcome:
    """What one fault led to.

    Attributes:
        part: What was hit, e.g. `stage files`.
        fault: What was done to it, one line.
        verdict: One of `VERDICTS`.
        detail: What was seen; shown where the verdict is a fault of ours.
    """

    part: str
    fault: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        injections: Faults per part that needs a run or a process each.
        inputs: Inputs per parser.
        seed: Random seed.
    """

    injections: int
    inputs: int
    seed: int


def is_own(error: BaseException) -> bool:
    """Whether an error is of a type of these packages."""
    return type(error).__module__.split(".")[0] in OURS


def attempt(part: str, fault: str, action: Callable[[], Any], same: Callable[[Any], bool], limit: int = 60) -> Outcome:
    """Do something after a fault, and judge what comes of it.

    Args:
        part: For the outcome.
        fault: For the outcome.
        action: What a user would do next.
        same: Whether its result is the one without the fault.
        limit: Seconds after which no answer counts as `foreign`.
    """
    try:
        with time_limit(limit):
            result = action()
    except Exception as error:
        return Outcome(part, fault, "refused" if is_own(error) else "foreign", f"{type(error).__name__}: {error}")
    return Outcome(part, fault, "survived" if same(result) else "silent", repr(result)[:200])


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` where a block takes longer; of the main thread only."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
