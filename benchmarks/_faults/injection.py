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


__all__ = [
    "Child",
    "after",
    "at_operation",
    "count_operations",
    "die",
    "in_child",
    "refuse_from",
    "start_child",
    "wait_for",
    "watch",
]

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


def watch(folder: Path, see: Callable[[str, str], object]) -> None:
    """From now on call `see` with the event and the path before every writing operation below a folder."""
    prefix = str(folder.resolve())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WRITES or (event == "open" and _writes(arguments)):
            path = arguments[1 if event == "os.rename" else 0]
            if isinstance(path, str | bytes | os.PathLike):
                full = os.path.abspath(os.fsdecode(path))
                if full.startswith(prefix):
                    see(event, full)

    sys.addaudithook(hook)


def at_operation(folder: Path, number: int, hit: Callable[[], object]) -> Callable[[], int]:
    """From now on call `hit` before the n-th writing operation below a folder (from 1).

    Returns:
        What returns the number of operations so far.
    """
    seen = 0

    def see(event: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            hit()

    watch(folder, see)
    return lambda: seen


def after(folder: Path, name: str, hit: Callable[[], object]) -> None:
    """Call `hit` once, at the first writing operation after a file whose path ends with `name` got this name."""
    state = ["wait"]

    def see(event: str, path: str) -> None:
        if state[0] == "due":
            state[0] = "done"
            hit()
        elif state[0] == "wait" and event == "os.rename" and path.endswith(name):
            state[0] = "due"

    watch(folder, see)


def refuse_from(folder: Path, number: int, code: int) -> None:
    """From the n-th writing operation on refuse to open, make or rename anything below a folder; deleting works."""
    seen = 0

    def see(event: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen >= number and event in ("open", "os.mkdir", "os.rename"):
            raise OSError(code, os.strerror(code), path)

    watch(folder, see)


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
