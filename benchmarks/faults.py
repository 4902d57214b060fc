"""Do runs, juries and parsers hold under faults? Kills, damaged files, full disks, races and inputs nobody meant.

Every fault is judged by what a user finds next: `survived` (the same result), `refused` (an error of ours that says
what to do), `lost` (what was complete is gone or refused for ever), `silent` (another result without a word),
`foreign` (an error of another library, a crash, no answer in time). The aim is 0 of the last three. All with the
tiny model and planted judgements.

  python benchmarks/faults.py --smoke
  python benchmarks/faults.py --kinds corruption fuzz --inputs 10000 --json faults.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _common import environment, make_parser, print_table, row, write


__all__ = ["main"]

KINDS = ("kills", "corruption", "disk", "races", "fuzz")
BAD = ("lost", "silent", "foreign")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    from importlib import import_module

    from _faults.outcomes import VERDICTS, Effort

    effort = Effort(args.injections, args.inputs, args.seed)
    rows, lines = [], []
    for kind in args.kinds:
        for part, faults in import_module(f"_faults.{kind}").PARTS.items():
            if args.parts is not None and part not in args.parts:
                continue
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="faults-") as work:
                outcomes = list(faults(Path(work), effort))
            count = Counter(outcome.verdict for outcome in outcomes)
            tried = "inputs" if kind == "fuzz" else "injected"
            seconds = time.perf_counter() - started
            for metric, value in ((tried, len(outcomes)), *((verdict, count[verdict]) for verdict in VERDICTS)):
                rows.append(row(kind, part, metric, value, "faults", n=len(outcomes), seconds=seconds))
            lines.append([kind, part, str(len(outcomes)), *(str(count[verdict]) for verdict in VERDICTS)])
            for outcome in [outcome for outcome in outcomes if outcome.verdict in BAD][: args.show]:
                print(f"{outcome.verdict}: {kind}, {part}: {outcome.fault}: {outcome.detail}")
    print_table("What faults led to", ["kind", "part", "tried", *VERDICTS], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of fault (default: all)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="parts of these kinds, by name (default: all)")
    parser.add_argument("--injections", type=int, default=60, help="faults per part that needs a run (default: 60)")
    parser.add_argument("--inputs", type=int, default=5000, help="inputs per parser (default: 5000)")
    parser.add_argument("--show", type=int, default=5, help="bad outcomes to print per part (default: 5)")
    args = parser.parse_args()
    if args.smoke:
        args.injections, args.inputs = 3, 100
    environment()
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, aim="lost 0, silent 0, foreign 0")


if __name__ == "__main__":
    main()
