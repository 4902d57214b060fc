"""Time of `import plural_rlhf` and `plural-rlhf --help`, compared with a Python process that does nothing.

Whole processes are timed, in turns, so that other load on the machine affects all of them. Reported: the median time
of each, and the median and quartiles of its ratio to the empty process of the same turn.

  python benchmarks/startup.py --smoke
  python benchmarks/startup.py --json startup.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

from _common import make_parser, print_table, row, write


__all__ = ["main"]

EMPTY = "python -c pass"
COMMANDS = {
    EMPTY: ["-c", "pass"],
    "import plural_rlhf": ["-c", "import plural_rlhf"],
    "import reward_models": ["-c", "import reward_models"],
    "plural-rlhf --help": [
        "-c",
        "import sys; sys.argv = ['plural-rlhf', '--help']; import plural_rlhf.cli as c; c.main()",
    ],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    for arguments in COMMANDS.values():
        seconds(arguments)  # the first start also reads the disk and may write byte code
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.repeats):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    rows, lines = [], []
    for name, own in times.items():
        rows.append(row("startup", name, "seconds", statistics.median(own), "s", n=args.repeats))
        line = [name, f"{statistics.median(own):.3f}"]
        if name != EMPTY:
            low, middle, high = statistics.quantiles([a / b for a, b in zip(own, times[EMPTY], strict=True)], n=4)
            rows.append(row("startup", name, "ratio", middle, f"x {EMPTY}", low=low, high=high, n=args.repeats))
            line.append(f"{middle:.1f} [{low:.1f}, {high:.1f}]")
        lines.append([*line, ""][:3])
    print_table(f"Medians of {args.repeats} turns", ["process", "seconds", f"x {EMPTY} [quartiles]"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=15, help="timed turns (default: 15, at least 2)")
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error(f"--repeats is {args.repeats}, and a spread needs at least 2")
    if args.smoke:
        args.repeats = 3
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, interval="quartiles of the paired ratios")


if __name__ == "__main__":
    main()
