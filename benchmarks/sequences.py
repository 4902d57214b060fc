"""Sequences that must be scored until a policy is within .001 nats of its target: sampled and exact mode.

The cost of both modes is the number of sequences scored by a model. Under the policy (forward and backward): every use
of every completion, or every answer at every step. Under the reference (forward): every completion that was drawn, or
every answer once. Generating the completions of the sampled mode is not counted.

For every budget, each mode tunes its learning rate, the warm-up, the memory of its optimizer (`adam_beta1`), the
prompts per step and, sampled, the uses of each batch. Each budget is a separate run whose learning rate decays to its
end. Settings are tuned on a separate seed and separate prompts. The result is the smallest budget at which the mean of
the seeds that count is within .001, too. Cases as in collapse.py.

  python benchmarks/sequences.py --smoke                       under a minute, numbers mean little
  python benchmarks/sequences.py --json sequences.json         an hour on one core
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _collapse.cases import TINY_CASES, Aim, Case, load_case
from _collapse.methods import LABELS, Setting
from _collapse.report import aim_rows, print_aims
from _collapse.runs import TUNING_SEED, Runs, add_parts, parts
from _common import add_device, device_of, environment, interval, make_parser, print_table, row, write
from tqdm.auto import tqdm


__all__ = ["main"]

MODES = ("plural", "plural-exact")
AIM = Aim("plural-exact", "sequences_needed", "at most", 0.1, "plural")
PROMPTS = (1, 4)
USES = (1, 4)
WARMUPS = (0.0, 0.25)  # share of the steps in which the learning rate rises
MEMORIES = (0.5, 0.9)  # adam_beta1: the default of the exact mode, and of all else
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
BUDGETS = tuple(round(100 * 2 ** (i / 4)) for i in range(31))  # 100 to 18,102 sequences


@dataclass(frozen=True)
class Choice:
    """One way to spend a budget.

    Attributes:
        setting: How the policy is trained.
        prompts: Prompts a step.
        steps: Generation batches; of the exact mode, optimizer steps.
        warmup: Share of the steps in which the learning rate rises.
    """

    setting: Setting
    prompts: int
    steps: int
    warmup: float

    def case(self, case: Case) -> Case:
        """The case with this choice's steps."""
        steps = {"steps": self.steps, "exact_steps": self.steps, "rate_warmup": self.warmup}
        return dataclasses.replace(case, groups=self.prompts, **steps)

    @property
    def described(self) -> dict[str, Any]:
        """Columns of a tidy row."""
        setting = self.setting
        return {
            "prompts": self.prompts,
            "uses": setting.iterations,
            "learning_rate": setting.learning_rate,
            "warmup": self.warmup,
            "adam_beta1": setting.adam_beta1,
        }


def choices(case: Case, mode: str, budget: int, rates: Sequence[float]) -> list[Choice]:
    """What a mode may choose from within a budget."""
    answers = [len(problem.answers) for problem in case.problems]
    found = []
    for prompts, uses, warmup, memory, rate in itertools.product(PROMPTS, USES, WARMUPS, MEMORIES, rates):
        setting = Setting(mode, case.beta, iterations=uses, learning_rate=rate, adam_beta1=memory)
        if mode == "plural":
            steps = budget // (prompts * case.generations * (uses + 1))
        else:
            steps = int((budget - sum(answers)) / (prompts * statistics.fmean(answers)))
        if steps >= 1 and (uses == 1 or mode == "plural"):
            found.append(Choice(setting, prompts, steps, warmup))
    return found


def fewest(case: Case, mode: str, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of a mode: the distance at every budget that looked large enough, and the smallest that is."""

    def final(choice: Choice, seed: int, tuning: bool) -> dict[str, Any]:
        runs = Runs(choice.case(case), folder, args.seed, args.device)
        return runs.run(choice.setting, seed, tuning=tuning, quiet=True)["final"]

    rows = []
    for budget in args.budgets:
        given = choices(case, mode, budget, args.rates)
        if not given:
            continue
        tried = {
            choice: final(choice, TUNING_SEED, True)["jsd_nats"]
            for choice in tqdm(given, desc=f"{case.name} {mode} {budget:,}", leave=False, disable=None)
        }
        best = min(tried, key=tried.__getitem__)
        print(f"  {case.name} {mode} {budget:,}: {tried[best]:.4f} with {best.described}", flush=True)
        if tried[best] > args.near:
            continue
        runs = [final(best, args.seed + s, False) for s in range(args.seeds)]
        value, low, high = interval([run["jsd_nats"] for run in runs])
        labels = {**best.described, **spent(case, runs[0])}
        rows.append(row(case.name, mode, "jsd_nats", value, "nats", low=low, high=high, n=args.seeds, **labels))
        if value <= args.near:
            rows.append(
                row(case.name, mode, "sequences_needed", labels["scored"], "sequences", n=args.seeds, **labels)
            )
            break
    return rows


def spent(case: Case, final: Mapping[str, Any]) -> dict[str, int]:
    """Sequences of a run: drawn, scored under the policy, under the reference, and under both."""
    answers = sum(len(problem.answers) for problem in case.problems)
    by_reference = final["generated"] or answers
    by_policy = final["scored"] - (0 if final["generated"] else answers)
    return {
        "generated": final["generated"],
        "scored_by_policy": by_policy,
        "scored_by_reference": by_reference,
        "scored": by_policy + by_reference,
    }


def compared(case: Case, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the exact mode needs as a part of what sampling needs, where both got there; whether that is little enough.

    Args:
        case: The case.
        rows: Its rows.
    """
    needed = {r["method"]: r["value"] for r in rows if r["metric"] == "sequences_needed"}
    if len(needed) < len(MODES):
        return []
    sampled, exact = (needed[mode] for mode in MODES)
    ratio = row(case.name, "plural-exact / plural", "sequences_needed_ratio", exact / sampled, "1")
    return [ratio, *aim_rows(dataclasses.replace(case, aims=(AIM,)), rows)]


def show(case: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints the budgets that were tried with the seeds that count."""
    own = [r for r in rows if r["metric"] == "jsd_nats"]
    lines = [
        [
            LABELS[r["method"]],
            f"{r['scored']:,}",
            f"{r['scored_by_policy']:,}",
            f"{r['generated']:,}",
            f"{r['value']:.5f}" + (f" [{r['ci_low']:.5f}, {r['ci_high']:.5f}]" if math.isfinite(r["ci_low"]) else ""),
            f"{r['prompts']}",
            f"{r['uses']}",
            f"{r['learning_rate']:g}",
            f"{r['warmup']:g}",
            f"{r['adam_beta1']:g}",
        ]
        for r in own
    ]
    if not lines:
        print(f"{case}: no budget was enough")
        return
    print_table(
        case,
        [
            "mode",
            "scored",
            "by policy",
            "generated",
            "JS to target, nats",
            "prompts a step",
            "uses",
            "rate",
            "warm-up",
            "memory",
        ],
        lines,
    )
    for r in (r for r in rows if r["metric"] == "sequences_needed_ratio"):
        print(f"  the exact mode needs {r['value']:.1%} of what sampling needs")
    print_aims(rows)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--case", nargs="+", choices=TINY_CASES, default=["jury-gap4"], metavar="CASE", help=", ".join(TINY_CASES)
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs that count, per budget (default: 3)")
    parser.add_argument(
        "--near", type=float, default=0.001, help="largest JS divergence that counts as reached, nats (default: 0.001)"
    )
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=BUDGETS, help="budgets in sequences (default: 100 to 18,102)"
    )
    add_device(parser)
    add_parts(parser)
    args = parser.parse_args()
    args.rates = RATES
    if args.smoke:
        args.seeds, args.rates, args.budgets = 1, RATES[2:3], (152,)
    args.budgets = sorted(args.budgets)
    environment()
    args.device = device_of(parser, args.device)
    started = time.perf_counter()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    rows: list[dict[str, Any]] = []
    with parts(args) as folder:
        for name in args.case:
            case = load_case(name)
            if args.smoke:
                case = dataclasses.replace(case, warmup_steps=20)
            own = [r for mode in reversed(MODES) for r in fewest(case, mode, args, folder)]
            own += compared(case, own)
            show(name, own)
            rows += own
    write(args, rows, started, device=args.device, labels=LABELS, near=args.near, tuning_seed=TUNING_SEED)


if __name__ == "__main__":
    main()
