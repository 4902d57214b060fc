"""Two processes at once in one folder: one goes on, the other is told.

Each part is a function of `PARTS`.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.injection import start_child, wait_for
from _faults.juries import two_savers
from _faults.outcomes import Effort, Outcome, is_own
from _faults.small_run import config_of, finish, prepare


__all__ = ["PARTS"]


def two_runs(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Two runs of the same settings, the second up to a second later."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    expected = finish(config_of(run_file, work / "whole"))
    for number in range(effort.injections):
        output, delay = work / f"raced-{number}", draw.choice((0.0, draw.random() / 20, draw.random()))
        first = start_child(lambda output=output: finish(config_of(run_file, output)))
        time.sleep(delay)
        second = start_child(lambda output=output: finish(config_of(run_file, output)))
        ended = [wait_for(child) for child in (first, second)]
        errors = [child.error for child in ended if child.error is not None]
        done = [child.result for child in ended if child.error is None and child.status == 0]
        detail = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
        if any(not is_own(error) for error in errors) or len(errors) + len(done) < 2:
            verdict = "foreign"
        elif not done:
            verdict = "lost"
        elif any(result != expected for result in done):
            verdict = "silent"
        else:
            verdict = "refused" if errors else "survived"
        yield Outcome("two runs in a folder", f"{delay:.2f} s apart", verdict, detail)
        shutil.rmtree(output, ignore_errors=True)


PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {
    "two runs in a folder": two_runs,
    "two savers of a jury": two_savers,
}
