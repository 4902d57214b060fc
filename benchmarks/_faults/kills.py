"""Processes that are killed: at a file operation or at any time, and what is found afterwards.

Each part is a function of `PARTS`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.injection import at_operation, count_operations, die, in_child, start_child, wait_for
from _faults.juries import killed_savers
from _faults.outcomes import Effort, Outcome, attempt
from _faults.small_run import config_of, finish, prepare, quietly


__all__ = ["PARTS", "spread"]


def run_at_operations(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A run that dies at a file operation and is started again: the results of a run that nobody stopped."""
    run_file = prepare(work)
    expected = finish(config_of(run_file, work / "whole"))
    counted = count_operations(work / "counted", lambda: finish(config_of(run_file, work / "counted")))
    for number in spread(counted, effort):
        output = work / f"killed-{number}"
        config = config_of(run_file, output)

        def killed(number: int = number, output: Path = output) -> None:
            at_operation(output, number, die)
            finish(config_of(run_file, output))

        in_child(killed)
        fault = f"killed at file operation {number} of {counted}"
        yield attempt("runs, at file operations", fault, lambda c=config: finish(c), lambda r: r == expected)
        shutil.rmtree(output, ignore_errors=True)


def run_at_times(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A run that is killed at random moments, up to three times."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    start = time.perf_counter()
    expected = finish(config_of(run_file, work / "whole"))
    seconds = time.perf_counter() - start
    for number in range(effort.injections):
        output = work / f"killed-{number}"
        moments = [draw.uniform(0, seconds) for _ in range(draw.randint(1, 3))]
        for moment in moments:
            child = start_child(lambda output=output: finish(config_of(run_file, output)))
            time.sleep(moment)
            os.kill(child[0], signal.SIGKILL)
            wait_for(child)
        fault = "killed after " + ", ".join(f"{moment:.1f}" for moment in moments) + " s"
        config = config_of(run_file, output)
        yield attempt("runs, at any time", fault, lambda c=config: finish(c), lambda r: r == expected)
        shutil.rmtree(output, ignore_errors=True)


def overwrite_at_operations(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A run that replaces another one and dies at a file operation: the folder can still be used."""
    from plural_rlhf.recipe import run

    run_file = prepare(work)
    config = config_of(run_file, work / "first")
    finish(config)
    expected = finish(config_of(run_file, work / "second", "seed=1"))

    def replace(output: Path) -> object:
        return run(config_of(run_file, output, "seed=1"), until="jury", overwrite=True, console=quietly())

    shutil.copytree(work / "first", work / "counted")
    counted = count_operations(work / "counted", lambda: replace(work / "counted"))
    for number in spread(counted, effort):
        output = work / f"killed-{number}"
        shutil.copytree(work / "first", output)

        def killed(number: int = number, output: Path = output) -> None:
            at_operation(output, number, die)
            replace(output)

        in_child(killed)

        def again(output: Path = output) -> object:
            replace(output)
            return finish(config_of(run_file, output, "seed=1"))

        fault = f"--overwrite killed at file operation {number} of {counted}"
        yield attempt("runs, while overwriting", fault, again, lambda r: r == expected)
        shutil.rmtree(output, ignore_errors=True)


def spread(counted: int, effort: Effort) -> list[int]:
    """Numbers of operations: all, or as many as the effort allows, always with the first and the last."""
    if effort.injections >= counted:
        return list(range(1, counted + 1))
    inner = random.Random(effort.seed).sample(range(2, counted), max(0, effort.injections - 2))
    return sorted([1, counted, *inner])[: max(effort.injections, 1)]


PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {
    "runs, at file operations": run_at_operations,
    "runs, at any time": run_at_times,
    "runs, while overwriting": overwrite_at_operations,
    "saved juries, at file operations": killed_savers,
}
