"""A disk that is full, read-only or gone: what is said, and what is kept.

Each part is a function of `PARTS`. `refused` means one message of ours, and the results of an untouched run when there
is room again.
"""

from __future__ import annotations

import errno
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _faults.injection import Child, count_operations, in_child, refuse_from
from _faults.outcomes import Effort, Outcome, is_own
from _faults.small_run import config_of, finish, prepare


__all__ = ["PARTS"]

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


def refused_operations(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A run whose disk refuses everything from some file operation on."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    expected = finish(config_of(run_file, work / "whole"))
    counted = count_operations(work / "counted", lambda: finish(config_of(run_file, work / "counted")))
    for number in range(effort.injections):
        output, first, code = work / f"refused-{number}", draw.randint(1, counted), draw.choice(CODES)

        def refused(output: Path = output, first: int = first, code: int = code) -> object:
            refuse_from(output, first, code)
            return finish(config_of(run_file, output))

        fault = f"{errno.errorcode[code]} from file operation {first} of {counted}"
        yield _judge("refused operations", fault, in_child(refused), run_file, output, expected)
        shutil.rmtree(output, ignore_errors=True)


def limited_files(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A run whose files may not grow beyond a limit (`ulimit -f`), which every library meets by itself."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    expected = finish(config_of(run_file, work / "whole"))
    sizes = sorted({path.stat().st_size for path in (work / "whole").rglob("*") if path.is_file()} - {0})
    for number in range(effort.injections):
        output, limit = work / f"limited-{number}", draw.choice(sizes) - 1

        def limited(output: Path = output, limit: int = limit) -> object:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return finish(config_of(run_file, output))

        fault = f"files of at most {limit:,} bytes"
        yield _judge("limited files", fault, in_child(limited), run_file, output, expected)
        shutil.rmtree(output, ignore_errors=True)


def _judge(part: str, fault: str, child: Child, run_file: Path, output: Path, expected: Any) -> Outcome:
    if child.error is None:
        verdict = "survived" if child.result == expected else "silent" if child.status == 0 else "foreign"
    else:
        verdict = "refused" if is_own(child.error) else "foreign"
    detail = f"{type(child.error).__name__}: {child.error}"
    if verdict == "refused":
        try:
            again = finish(config_of(run_file, output))
            verdict = verdict if again == expected else "silent"
        except Exception as error:
            verdict, detail = "lost", f"{type(error).__name__}: {error}"
    return Outcome(part, fault, verdict, detail)


PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {
    "refused operations": refused_operations,
    "limited files": limited_files,
}
