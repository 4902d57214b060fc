"""How many small faults in the code do its tests notice? One row a room, one row a fault that nothing noticed.

A fault (mutant) is one changed token: `<` for `<=`, `+` for `-`, `and` for `or`, 1 for 2, True for False, a loop that
is not entered. They are enumerated by the operators of cosmic-ray, drawn at random per room, and each is put into a
copy of the repository, where the tests of its room run until one fails. Faults in annotations and in the positions of
a figure are left out; those that cannot change what anybody sees are listed in `_mutants_equivalent.json`, with the
reason, and not counted.

Rows: `mutants`, `killed`, `survived`, `equivalent` and `score` (killed of those that are not equivalent) by room;
`survivor` for each fault that no test noticed, with `where`, `was` and `became`.

    python benchmarks/mutants.py --rooms plural_rlhf/core --per-room 20 --json mutants.json
    python benchmarks/mutants.py --minutes 60 --json mutants.json          as many as an hour allows
    python benchmarks/mutants.py --covering --fast --json mutants.json     several times as many in an hour
    python benchmarks/mutants.py --record .cache/lines.json --slow 300     the same against the tests of every room,
                                                                           then the slow ones of the room
    python benchmarks/mutants.py --smoke

Needs the extra `mutants`. An hour on two cores tries some 150 faults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _common import environment, make_parser, print_table, row, write
from _mutants.covering import Covered, FirstFailure, Recorder, changed_tests, merge, runs_on_import
from _mutants.faults import Mutant, mutants


__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "benchmarks" / "_mutants_equivalent.json"
REAL_RUN = "tests/plural_rlhf/cli/test_cli_real_run.py"
PUBLISHED = "tests/plural_rlhf/recipe/test_published_numbers.py", "tests/plural_rlhf/recipe/test_published_policies.py"
PROOFS = "tests/plural_rlhf/test_distribution_proofs.py", "tests/plural_rlhf/test_distribution_properties.py"
SAMPLING = "tests/reward_models/test_sampling_weights.py"
ROOMS: dict[str, tuple[str, ...]] = {
    "plural_rlhf/core": ("tests/plural_rlhf/core", *PROOFS),
    "plural_rlhf/trainers": ("tests/plural_rlhf/trainers",),
    "plural_rlhf/recipe": ("tests/plural_rlhf/recipe", REAL_RUN),
    "plural_rlhf/report": ("tests/plural_rlhf/report", REAL_RUN),
    "plural_rlhf/evaluation": ("tests/plural_rlhf/evaluation", *PUBLISHED),
    "plural_rlhf/methods": ("tests/plural_rlhf/methods", "tests/plural_rlhf/recipe/spectrum"),
    "plural_rlhf/suites": ("tests/plural_rlhf/suites",),
    "reward_models/judgements": ("tests/reward_models/judgements", "tests/reward_models/sources", SAMPLING),
    "reward_models/evaluation": ("tests/reward_models/evaluation",),
    "reward_models/stats": ("tests/reward_models/stats", "tests/reward_models/evaluation"),
    "reward_models/raters": ("tests/reward_models/raters", "tests/reward_models/fitting"),
}
"""The tests of each room; those in a file named after the mutated one run first."""
WHOLE = {"plural_rlhf/report": ("tests/plural_rlhf/report/test_golden.py",)}
"""Tests of everything that a room makes: they run for each of its files, also with `--named`."""
FROZEN = "tests/project/test_values.py"
"""The test of what may be changed, for faults in the head of a dataclass."""
DEFAULTS = "tests/project/test_defaults.py"
"""The test of every default, for faults in lines that run when a module is imported."""
ALL_OF_A_ROOM = 3600
"""Processor seconds that the tests of a room may take together."""


def files_of_tests(copy: Path, room: str, file: str = "", named_only: bool = False) -> list[str]:
    """The doctests of the mutated file, then its room's tests: named after it, importing it, the others, slow last."""
    stem = Path(file).stem.strip("_")
    found: list[str] = []
    for place in ROOMS[room]:
        path = copy / place
        found += [place] if path.is_file() else [p.relative_to(copy).as_posix() for p in path.rglob("test_*.py")]
    named = [f for f in found if stem and (stem in Path(f).stem or Path(f).stem.removeprefix("test_") in stem)]
    module = file.removesuffix(".py").replace("/", ".")
    room_of_file, _, name = module.rpartition(".")
    naming = re.compile(rf"{re.escape(module)}\b|from {re.escape(room_of_file)} import [^\n]*\b{re.escape(name)}\b")
    imports = [f for f in found if file and naming.search((copy / f).read_text(encoding="utf-8"))]
    first = list(dict.fromkeys([*sorted(named), *sorted(imports)]))
    others = [] if named_only and first else sorted(set(found) - set(first), key=lambda f: (f == REAL_RUN, f))
    return [*([file] if file else []), *WHOLE.get(room, ()), *first, *others]


def run_tests(
    copy: Path,
    files: list[str],
    seconds: float,
    marks: str = "",
    record: Path | None = None,
    failed: Path | None = None,
) -> tuple[str, float]:
    """Run tests in a forked process until one fails; `killed`, `survived` or `timeout`, and the seconds it took.

    The parent has imported the heavy libraries, and none of the packages under test. `marks` is an expression for
    `pytest -m`. With `record`, which test ran which line is written there; with `failed`, which test failed.
    """
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(copy)
        quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        # Processor time: a busy machine must not turn a slow test into a fault that was noticed.
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        sys.path[:0] = [str(copy)]
        sys.dont_write_bytecode = True
        import pytest

        chosen = ["-m", marks] if marks else []
        plugins: list[Any] = [] if record is None else [Recorder(record, ["plural_rlhf", "reward_models"])]
        plugins += [] if failed is None else [FirstFailure(failed)]
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *chosen, *files], plugins)
        os._exit(int(code))
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test has left running
    took = time.perf_counter() - started
    if os.WIFSIGNALED(status):
        return "timeout", took
    # 2: the mutated module could not be imported; 5: no test has the mark
    outcomes = {0: "survived", 1: "killed", 2: "killed", 5: "survived"}
    if os.WEXITSTATUS(status) not in outcomes:
        raise SystemExit(f"pytest ended with {os.WEXITSTATUS(status)} on {' '.join(files)}: see MUTANTS_LOG=FILE")
    return outcomes[os.WEXITSTATUS(status)], took


def check_pass(copy: Path, files: list[str], args: argparse.Namespace, record: Path | None = None) -> None:
    """End the program where tests fail without a fault: then they would notice every one."""
    outcome, took = run_tests(copy, files, ALL_OF_A_ROOM if record else args.cpu_seconds, marks_of(args), record)
    print(f"without a fault {took:5.0f} s  {files[0]} and {len(files) - 1} more", flush=True)
    if outcome != "survived":
        raise SystemExit(f"these tests fail without a fault, so mend them first: {' '.join(files)} (MUTANTS_LOG=FILE)")


def marks_of(args: argparse.Namespace) -> str:
    """Which tests to try first: all, or those that are not marked slow."""
    return "not slow" if args.fast or args.slow else ""


def up_to_date(record: Path, copy: Path, args: argparse.Namespace) -> Covered:
    """Which tests run which line, from a file; what has changed since, and what runs it, is noted anew."""
    changed = changed_tests(record, copy, ("tests/plural_rlhf", "tests/reward_models", "plural_rlhf", "reward_models"))
    if changed:
        newer = copy / "which_test_ran_which_line.json"
        check_pass(copy, changed, args, newer)
        merge(record, newer, changed, copy)
    return Covered(record)


def copy_of_repository(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def sample(room: str, seed: int) -> Iterator[Mutant]:
    """Faults of a room without end of repetition: each turn draws a file by its length, then one of its faults."""
    rng = random.Random(f"{seed} {room}")
    files = sorted(path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py")
    left = {path: mutants(path, ROOT, random.Random(f"{seed} {path.relative_to(ROOT)}")) for path in files}
    while left:
        path = rng.choices(list(left), weights=[p.stat().st_size for p in left])[0]
        mutant = next(left[path], None)
        if mutant is None:
            del left[path]
        else:
            yield mutant


def measure(
    args: argparse.Namespace, copy: Path, until: float, keep: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """Try the faults; `keep` is called with the rows so far after each, so that a stopped measurement is not lost."""
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else []
    reasons = {(entry["file"], entry["was"], entry["became"]): entry["reason"] for entry in known}
    rows: list[dict[str, Any]] = []
    for number, room in enumerate(args.rooms):
        deadline = time.perf_counter() + (until - time.perf_counter()) / (len(args.rooms) - number)
        counts = dict.fromkeys(("killed", "survived", "timeout", "equivalent"), 0)
        record = copy / "which_test_ran_which_line.json"
        covered: Covered | None = None
        if args.record:
            covered = up_to_date(args.record, copy, args)
        elif not args.named:
            files = files_of_tests(copy, room) + [room] * args.covering  # its doctests
            check_pass(copy, files, args, record if args.covering else None)
            covered = Covered(record) if args.covering else None
        checked: set[tuple[str, ...]] = set()
        failed = copy / "the_test_that_failed.txt"
        survivors: list[dict[str, Any]] = []
        for mutant in sample(room, args.seed):
            tried = sum(counts.values()) - counts["equivalent"]
            if tried >= args.per_room or time.perf_counter() > deadline:
                break
            if args.only and not re.search(args.only, mutant.file):
                continue
            if (mutant.file, mutant.was, mutant.became) in reasons:
                counts["equivalent"] += 1
                continue
            original = (copy / mutant.file).read_text(encoding="utf-8")
            (copy / mutant.file).write_text(mutant.code, encoding="utf-8")
            outcome, took = "survived", 0.0
            failed.unlink(missing_ok=True)
            for files, seconds in tests_of(mutant, original, covered, copy, room, args):
                if outcome == "survived":
                    tried_last = files
                    outcome, longer = run_tests(copy, files, seconds, marks_of(args), failed=failed)
                    took += longer
            if outcome == "survived" and args.slow:
                slow, longer = run_tests(copy, files_of_tests(copy, room, mutant.file)[1:], args.slow, "slow")
                outcome, took = "killed" if slow == "killed" else "survived", took + longer
            (copy / mutant.file).write_text(original, encoding="utf-8")
            if args.named and outcome != "survived":  # else the tests were run without a fault at the start
                test = failed.read_text(encoding="utf-8") if failed.exists() else ""
                noticing = (test,) if test else tuple(tried_last)
                if noticing not in checked:
                    check_pass(copy, [*noticing], args)
                    checked.add(noticing)
            counts[outcome] += 1
            place = f"{mutant.file}:{mutant.line}"
            print(f"{outcome:9}{took:6.0f} s  {place}  {mutant.was}  ->  {mutant.became}", flush=True)
            if outcome == "survived":
                more = {"where": place, "was": mutant.was, "became": mutant.became}
                survivors.append(row(room, "tests", "survivor", 1, "mutants", **more))
            keep(rows + survivors + rows_of(room, counts))
        rows += survivors + rows_of(room, counts)
    show(rows)
    return rows


def tests_of(
    mutant: Mutant, original: str, covered: Covered | None, copy: Path, room: str, args: argparse.Namespace
) -> list[tuple[list[str], float]]:
    """Groups of tests that could notice a fault, the likeliest first, with the processor seconds each may take.

    Args:
        mutant: The fault.
        original: Its file without it.
        covered: Which test runs which line; None if that was not noted.
        copy: The copy of the repository.
        room: The room.
        args: The options.
    """
    named = files_of_tests(copy, room, mutant.file, named_only=True)
    others = [file for file in files_of_tests(copy, room, mutant.file) if file not in named]
    groups = [(named, args.cpu_seconds)]
    if covered is None and not args.named and others:
        groups.append((others, args.cpu_seconds))
    elif covered is not None:
        near = [*named, *others]
        running = covered.tests(mutant.file, original, mutant.line, near, args.cpu_seconds)
        groups = [(running, max(60, 3 * covered.takes(running)))] if running else groups
    if "dataclass" in mutant.was:
        groups.append(([FROZEN], args.cpu_seconds))
    if runs_on_import(original, mutant.line):
        groups.append(([DEFAULTS], args.cpu_seconds))
    return groups


def rows_of(room: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    """The numbers of a room; none where no fault was tried."""
    noticed, tried = counts["killed"] + counts["timeout"], sum(counts.values()) - counts["equivalent"]
    if tried == 0:
        return []
    numbers = {"mutants": tried, "killed": noticed, "survived": counts["survived"]}
    numbers["equivalent"] = counts["equivalent"]
    rows = [row(room, "tests", metric, value, "mutants", n=tried) for metric, value in numbers.items()]
    return [*rows, row(room, "tests", "score", noticed / tried, "share", n=tried)]


def show(rows: list[dict[str, Any]]) -> None:
    lines: dict[str, list[str]] = {}
    for one in rows:
        if one["metric"] != "survivor":
            text = f"{one['value']:.0%}" if one["metric"] == "score" else str(one["value"])
            lines.setdefault(one["case"], []).append(text)
    header = ["room", "mutants", "killed", "survived", "equivalent", "score"]
    print_table("faults that tests notice", header, [[room, *numbers] for room, numbers in lines.items()])


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--rooms", nargs="+", choices=ROOMS, default=list(ROOMS), metavar="ROOM", help=", ".join(ROOMS)
    )
    parser.add_argument("--per-room", type=int, default=20, help="faults per room (default: 20)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="stop after so many, shared by the rooms (default: 60)"
    )
    parser.add_argument("--only", metavar="PATTERN", help="only files whose path matches this regular expression")
    parser.add_argument(
        "--named",
        action="store_true",
        help="run its doctests and the tests that are named after a file or import it, only: a lower bound",
    )
    parser.add_argument(
        "--covering",
        action="store_true",
        help="note once which test runs which line, then try each fault against those that run it only",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="as --covering, with the tests of every room; the lines they run are kept in FILE, and only what has "
        "changed since is noted anew",
    )
    parser.add_argument(
        "--slow",
        type=int,
        default=0,
        metavar="SECONDS",
        help="first the tests that are not marked slow; what they do not notice is tried against the slow ones of the "
        "room, for so much processor time at most",
    )
    parser.add_argument("--fast", action="store_true", help="leave the tests marked slow out: a lower bound")
    parser.add_argument(
        "--cpu-seconds", type=int, default=300, help="processor time per fault; more counts as noticed (default: 300)"
    )
    args = parser.parse_args()
    args.record = args.record and args.record.resolve()
    if sum(map(bool, (args.covering, args.named, args.record))) > 1:
        parser.error("--covering, --record and --named are three ways to choose tests: give one of them")
    if args.fast and args.slow:
        parser.error("--fast leaves the slow tests out, and --slow runs them: give one of them")
    if args.smoke:
        args.rooms, args.per_room, args.minutes = ["plural_rlhf/core"], 1, 3
        args.named, args.only = True, "core/clones"
    environment()
    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", CI="1")  # CI: hypothesis draws the same examples
    started = time.perf_counter()
    heavy_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        about = {
            "per_room": args.per_room,
            "minutes": args.minutes,
            "fast": args.fast,
            "covering": bool(args.covering or args.record),
        }
        about["slow"] = args.slow
        copy = copy_of_repository(Path(scratch).resolve())
        keep = partial(write, args, started=started, finished=False, **about)
        rows = measure(args, copy, started + 60 * args.minutes, keep)
    write(args, rows, started, **about)


def heavy_libraries() -> None:
    """Import once what every test would import, so that a fault costs its tests and no imports."""
    import hypothesis  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import trl  # noqa: F401

    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.split(".")[0] in ("reward_models", "plural_rlhf")]:
        del sys.modules[name]


if __name__ == "__main__":
    main()
