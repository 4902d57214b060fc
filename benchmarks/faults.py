"""Do runs, juries and parsers hold under faults? Kills, damaged files, full disks, races and inputs nobody meant.

Every fault is judged by what a user finds next: `survived` (the same result), `refused` (an error of ours that says
what to do), `lost` (what was complete is gone or refused for ever), `silent` (another result without a word),
`foreign` (an error of another library, a crash, no answer in time). The aim is 0 of the last three. All with the
tiny model and planted judgements.

What is finished is in the file of --json at any time, and `--resume` goes on from it.

  python benchmarks/faults.py --smoke
  python benchmarks/faults.py --injections 20 --inputs 1000 --json faults.json
  python benchmarks/faults.py --kinds corruption fuzz --inputs 10000 --json faults.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _common import environment, make_parser, print_table, row, write


__all__ = ["main"]

KINDS = ("kills", "corruption", "disk", "races", "fuzz")
BAD = ("lost", "silent", "foreign")
SECONDS_BETWEEN_WRITES = 20


def run(args: argparse.Namespace, started: float) -> list[dict[str, Any]]:
    from importlib import import_module

    from _faults.outcomes import Effort, Outcome

    effort = Effort(args.injections, args.inputs, args.seed)
    before = finished_parts(args) if args.resume else {}
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        for part, faults in import_module(f"_faults.{kind}").PARTS.items():
            if args.parts is not None and part not in args.parts:
                continue
            if (kind, part) in before:
                print(f"{kind}, {part}: kept from {args.json}", flush=True)
                rows += before[kind, part]
                continue
            begun, outcomes = time.perf_counter(), list[Outcome]()
            written = begun
            with tempfile.TemporaryDirectory(prefix="faults-") as work:
                for outcome in faults(Path(work), effort):
                    outcomes.append(outcome)
                    if time.perf_counter() - written > SECONDS_BETWEEN_WRITES:
                        so_far = rows_of(kind, part, outcomes, time.perf_counter() - begun, finished=False)
                        write(args, rows + so_far, started, finished=False, **effort_of(args))
                        written = time.perf_counter()
            for outcome in [outcome for outcome in outcomes if outcome.verdict in BAD][: args.show]:
                print(f"{outcome.verdict}: {kind}, {part}: {outcome.fault}: {outcome.detail}")
            seconds = time.perf_counter() - begun
            rows += rows_of(kind, part, outcomes, seconds, finished=True)
            print(f"{kind}, {part}: {len(outcomes)} tried in {seconds:.0f} s", flush=True)
            write(args, rows, started, finished=False, **effort_of(args))
    return rows


def rows_of(kind: str, part: str, outcomes: list[Any], seconds: float, *, finished: bool) -> list[dict[str, Any]]:
    """How many faults were tried and what they led to; `finished` is False while the part is under way."""
    from _faults.outcomes import VERDICTS

    count = Counter(outcome.verdict for outcome in outcomes)
    tried = "inputs" if kind == "fuzz" else "injected"
    return [
        row(kind, part, metric, value, "faults", n=len(outcomes), seconds=seconds, finished=finished)
        for metric, value in ((tried, len(outcomes)), *((verdict, count[verdict]) for verdict in VERDICTS))
    ]


def finished_parts(args: argparse.Namespace) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The rows of the parts that an earlier call with the same effort finished, from its file."""
    if not args.json.exists():
        return {}
    earlier = json.loads(args.json.read_text(encoding="utf-8"))
    effort = {"seed": args.seed, **effort_of(args)}
    if {key: earlier["meta"].get(key) for key in effort} != effort:
        raise SystemExit(f"--resume: {args.json} was written with another effort or seed than {effort}; give its own")
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in earlier["rows"]:
        if one["finished"]:
            parts.setdefault((one["case"], one["method"]), []).append(one)
    return parts


def effort_of(args: argparse.Namespace) -> dict[str, Any]:
    return {"injections": args.injections, "inputs": args.inputs}


def show(rows: list[dict[str, Any]]) -> None:
    from _faults.outcomes import VERDICTS

    lines: dict[tuple[str, str], list[str]] = {}
    for one in rows:
        lines.setdefault((one["case"], one["method"]), []).append(str(one["value"]))
    table = [[*part, *values] for part, values in lines.items()]
    print_table("What faults led to", ["kind", "part", "tried", *VERDICTS], table)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of fault (default: all)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="parts of these kinds, by name (default: all)")
    parser.add_argument("--injections", type=int, default=60, help="faults per part that needs a run (default: 60)")
    parser.add_argument("--inputs", type=int, default=5000, help="inputs per parser (default: 5000)")
    parser.add_argument("--resume", action="store_true", help="keep the parts that the file of --json has finished")
    parser.add_argument("--show", type=int, default=5, help="bad outcomes to print per part (default: 5)")
    args = parser.parse_args()
    if args.smoke:
        args.injections, args.inputs = 3, 100
    if args.resume and args.json is None:
        parser.error("--resume needs --json FILE, whose finished parts are kept")
    environment()
    started = time.perf_counter()
    rows = run(args, started)
    show(rows)
    write(args, rows, started, aim="lost 0, silent 0, foreign 0", **effort_of(args))


if __name__ == "__main__":
    main()
