"""File operations below a folder, counted and hit: a process dies at the n-th, or the n-th is refused.

Python reports every opening, renaming, making and deleting of a file to audit hooks, those of libraries too. A hook
cannot be taken away, so everything happens in a forked child. Knows nothing of what the child does.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


__all__ = ["Child", "at_operation", "count_operations", "die", "in_child", "start_child", "wait_for"]

WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")


class Child:
    """A forked process that has ended.

    Attributes:
        status: Its exit status; negative for a signal that killed it.
        result: What its action returned; None if it did not end well.
        error: The error that it raised, or None.
    """

    def __init__(self, status: int, result: Any, error: BaseException | None) -> None:
        self.status, self.result, self.error = status, result, error


def in_child(action: Callable[[], Any], limit: float = 120.0) -> Child:
    """Do something in a forked child and wait for its end, at most `limit` seconds, then kill it."""
    return wait_for(start_child(action), limit)


def start_child(action: Callable[[], Any]) -> tuple[int, int]:
    """Begin something in a forked child, quietly; return its process id and where its answer is read from."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid != 0:
        os.close(writer)
        return pid, reader
    status = 1
    try:
        os.close(reader)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        try:
            answer, status = (action(), None), 0
        except BaseException as error:
            answer = (None, error)
        try:
            packed = pickle.dumps(answer)
            pickle.loads(packed)
        except Exception:  # an error that cannot be sent as it is
            packed = pickle.dumps((None, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
        with os.fdopen(writer, "wb") as file:
            file.write(packed)
    finally:
        os._exit(status)


def wait_for(child: tuple[int, int], limit: float = 120.0) -> Child:
    """Wait for the end of a child."""
    pid, reader = child
    if not select.select([reader], [], [], limit)[0]:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as file:
        packed = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    result, error = pickle.loads(packed) if packed else (None, None)
    return Child(status, result, error)


def at_operation(folder: Path, number: int, hit: Callable[[], object]) -> Callable[[], int]:
    """From now on call `hit` before the n-th writing operation below a folder (from 1), of this process for ever.

    Returns:
        What returns the number of operations so far.
    """
    seen, prefix = 0, str(folder.resolve())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in WRITES or (event == "open" and _writes(arguments)):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(prefix):
                seen += 1
                if seen == number:
                    hit()

    sys.addaudithook(hook)
    return lambda: seen


def count_operations(folder: Path, action: Callable[[], Any]) -> int:
    """How many writing operations below a folder something needs."""

    def counted() -> int:
        seen = at_operation(folder, 0, die)
        action()
        return seen()

    child = in_child(counted)
    if child.error is not None:
        raise child.error
    return int(child.result)


def die() -> None:
    """End this process as a kill does: at once, and without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
