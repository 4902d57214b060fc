"""Damaged files: what is read again after a byte, a line or a file is gone.

Each part is a function of `PARTS`.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from _faults.injection import after, die, in_child
from _faults.juries import damaged_juries
from _faults.outcomes import Effort, Outcome, attempt
from _faults.small_run import config_of, finish, prepare


__all__ = ["PARTS", "damage"]


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in one of five ways; return what was done."""
    content = path.read_bytes()
    digits = [n for n, byte in enumerate(content) if 48 <= byte <= 57]
    ways = ["empty", "removed"] + ["cut", "a bit flipped"] * bool(content) + ["a digit changed"] * bool(digits)
    way = draw.choice(ways)
    if way == "removed":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        place = draw.choice(digits) if way == "a digit changed" else draw.randrange(len(content))
        byte = content[place]
        new = 48 + (byte - 47) % 10 if way == "a digit changed" else byte ^ (1 << draw.randrange(8))
        path.write_bytes(content[:place] + bytes([new]) + content[place + 1 :])
    return f"{path.name}: {way}"


def finished_runs(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A finished run of which one file is damaged, evaluated again."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    expected = finish(config_of(run_file, work / "whole"))
    yield from _damaged(work, run_file, expected, "finished runs", draw, effort.injections)


def checkpoints(work: Path, effort: Effort) -> Iterator[Outcome]:
    """A training that was killed, of whose checkpoint one file is damaged, gone on with."""
    run_file, draw = prepare(work), random.Random(effort.seed)
    expected = finish(config_of(run_file, work / "reference"))

    def killed() -> None:
        after(work, "plural/checkpoint-2/whole.json", die)
        finish(config_of(run_file, work / "whole"))

    in_child(killed)
    yield from _damaged(work, run_file, expected, "checkpoints", draw, effort.injections, "checkpoints")


def _damaged(
    work: Path, run_file: Path, expected: object, part: str, draw: random.Random, times: int, below: str = "."
) -> Iterator[Outcome]:
    for number in range(times):
        output = work / f"damaged-{number}"
        shutil.copytree(work / "whole", output)
        path = draw.choice(sorted(path for path in (output / below).rglob("*") if path.is_file()))
        fault = f"{path.parent.name}/{damage(path, draw)}"
        config = config_of(run_file, output)
        yield attempt(part, fault, lambda c=config: finish(c), lambda r: r == expected)
        shutil.rmtree(output, ignore_errors=True)


PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {
    "finished runs": finished_runs,
    "checkpoints": checkpoints,
    "saved juries": damaged_juries,
}
