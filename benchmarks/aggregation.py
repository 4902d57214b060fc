"""Cost of each welfare rule, compared with the weighted mean written as one line of torch.

Two cases: `pointwise`, 10^6 responses scored by 8 clusters under one jury, and `group`, 10^5 groups of 16 responses
with a jury each; rewards and juries are random, in float32. Each rule runs in its own process. After a warm-up on a
slice, the peak memory of one call is measured, and then calls are timed in turn with `torch_mean`, `(r * w).sum(-1)`.
The two lottery rules return the lottery, the others scores.

Reported: the median time, the median and quartiles of its ratio to `torch_mean` in the same turn, and the peak memory
above that of the rewards and weights (Linux only).

  python benchmarks/aggregation.py --smoke
  python benchmarks/aggregation.py --json aggregation.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import environment, make_parser, print_table, row, write


__all__ = ["main"]

MEAN = "torch_mean"
CLUSTERS = 8
GROUP_SIZE = 16
OPTIONS: dict[str, dict[str, Any]] = {
    "power_mean": {"p": -2},
    "pessimistic_median": {"standard_error": [0.3] * CLUSTERS},
}
SMOKE_RULES = ("cvar", "maximal_lottery")


def measure(case: str, name: str, size: int, repeats: int, seed: int) -> dict[str, Any]:
    """Seconds of each turn for the rule and for `torch_mean`, and the rule's peak of memory in MiB."""
    import torch

    from plural_rlhf.core.rules import Rule

    generator = torch.Generator().manual_seed(seed)
    groups = case == "group"
    rewards = torch.randn(*((size, GROUP_SIZE) if groups else (size,)), CLUSTERS, generator=generator)
    weights = torch.rand(*((size,) if groups else ()), CLUSTERS, generator=generator)
    shares = weights / weights.sum(-1, keepdim=True)

    def mean(n: int) -> torch.Tensor:
        return (rewards[:n] * (shares[:n].unsqueeze(1) if groups else shares)).sum(-1)

    def judge(n: int) -> torch.Tensor:
        jury = weights[:n] if groups else weights
        return rule.lottery(rewards[:n], jury) if lottery else rule.scores(rewards[:n], jury)

    turns: list[Callable[[int], torch.Tensor]] = [mean]
    if name != MEAN:
        rule = Rule.parse({"rule": name, **OPTIONS.get(name, {})})
        lottery = name in ("maximal_lottery", "random_dictator")
        turns.append(judge)
    for turn in turns:
        turn(size // 10)
    peak = peak_mib(lambda: turns[-1](size))
    seconds: list[list[float]] = []
    for _ in range(repeats):
        seconds.append([])
        for turn in turns:
            start = time.perf_counter()
            turn(size)
            seconds[-1].append(time.perf_counter() - start)
    return {"mean": [s[0] for s in seconds], "rule": [s[-1] for s in seconds], "peak_mib": peak}


def peak_mib(call: Callable[[], Any]) -> float:
    """By how much a call raises this process's resident memory at most; NaN where the kernel does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan

    def resident(field: str) -> float:
        return (
            next(
                float(line.split()[1])
                for line in status.read_text(encoding="utf-8").splitlines()
                if line.startswith(field)
            )
            / 1024
        )

    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    environment()
    from plural_rlhf.core.rules import GROUP, POINTWISE

    rows, lines = [], []
    for case, rules, size in (("pointwise", POINTWISE, args.responses), ("group", GROUP, args.groups)):
        for name in (MEAN, *(r for r in rules if not args.smoke or r in SMOKE_RULES)):
            command = [sys.executable, __file__, "--measure", case, name, str(size)]
            command += ["--repeats", str(args.repeats), "--seed", str(args.seed)]
            threads = {"OMP_NUM_THREADS": str(args.threads)}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, **threads})
            found = json.loads(done.stdout)
            middle = statistics.median(found["rule"])
            ratios = [a / b for a, b in zip(found["rule"], found["mean"], strict=True)]
            low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
            rows += [
                row(case, name, "seconds", middle, "s", n=args.repeats),
                row(case, name, "ratio_to_mean", ratio, f"x {MEAN}", low=low, high=high, n=args.repeats),
                row(case, name, "peak_mib", found["peak_mib"], "MiB above the input"),
            ]
            lines.append(
                [case, name, f"{middle:.3f}", f"{ratio:.1f} [{low:.1f}, {high:.1f}]", f"{rows[-1]['value']:.0f}"]
            )
    title = f"{args.responses} responses or {args.groups} groups of {GROUP_SIZE}, {CLUSTERS} clusters"
    print_table(title, ["case", "rule", "seconds", f"x {MEAN} [quartiles]", "peak MiB"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--responses", type=int, default=1_000_000, help="responses of the pointwise case (default: 10^6)"
    )
    parser.add_argument("--groups", type=int, default=100_000, help="groups of the group case (default: 10^5)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns (default: 5, at least 2)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--measure", nargs=3, metavar=("CASE", "RULE", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error(f"--repeats is {args.repeats}, and a spread needs at least 2")
    if args.measure:
        case, name, size = args.measure
        print(json.dumps(measure(case, name, int(size), args.repeats, args.seed)))
        return
    if args.smoke:
        args.responses, args.groups, args.repeats = 20_000, 2_000, 2
    started = time.perf_counter()
    write(args, run(args), started, interval="quartiles of the paired ratios", threads=args.threads)


if __name__ == "__main__":
    main()
