"""A training step on a machine that is shared: threads that spin while they wait, and threads that sleep.

OpenMP threads spin by default. Beside another busy process they burn the time that the thread they wait for needs.
`OMP_WAIT_POLICY=PASSIVE`, which the commands of plural-rlhf set, makes them sleep. Each setting is a process of its
own, because the setting is read when torch is loaded; a busy process runs beside half of them. Measure on a machine
that does nothing else.

  python benchmarks/shared_machine.py --smoke
  python benchmarks/shared_machine.py --model smollm2-135m --json shared_machine.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, print_table, row, write


if TYPE_CHECKING:
    import torch

__all__ = ["main"]

POLICIES = {"spinning": "ACTIVE", "passive": "PASSIVE"}
CASES = {"alone": 0, "beside one busy process": 1}
LAYERS = "layers"
BUSY = "while True: sum(range(10_000))"


def step_seconds(args: argparse.Namespace) -> list[float]:
    """Seconds of each optimiser step of a language model, after two that warm up; they begin when a line is read."""
    import torch

    torch.manual_seed(args.seed)
    if args.model == LAYERS:
        layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
        model = torch.nn.TransformerEncoder(layer, 4)
        inputs = torch.randn(args.rows, args.tokens, 256)

        def loss() -> torch.Tensor:
            return model(inputs).square().mean()

    else:
        from transformers import AutoModelForCausalLM

        from plural_rlhf.policies.base_models import prepare_base_model

        model = AutoModelForCausalLM.from_pretrained(prepare_base_model(args.model), dtype="float32").train()
        tokens = torch.randint(3, model.config.vocab_size, (args.rows, args.tokens))

        def loss() -> torch.Tensor:
            return model(input_ids=tokens, labels=tokens).loss

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    print("loaded", flush=True)
    sys.stdin.readline()
    seconds = []
    for _ in range(args.steps + 2):
        start = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def measured(args: argparse.Namespace, policy: str, busy: int) -> list[float]:
    """Steps of a fresh process under a wait policy, beside so many busy ones, which start when it has loaded."""
    options = {"--model": args.model, "--rows": args.rows, "--tokens": args.tokens, "--steps": args.steps}
    command = [sys.executable, __file__, "--measure", *(str(part) for pair in options.items() for part in pair)]
    threads = {"OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(args.threads)}
    others: list[subprocess.Popen[bytes]] = []
    with subprocess.Popen(
        command, env={**os.environ, **threads}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            others += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
            printed, _ = process.communicate("\n")
        finally:
            for other in others:
                other.kill()
                other.wait()
    if process.returncode:
        raise SystemExit(f"the process that measures {args.model} ended with {process.returncode}: see above")
    return json.loads(printed.splitlines()[-1])


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    seconds: dict[tuple[str, str], list[float]] = {(case, name): [] for case in CASES for name in POLICIES}
    for _ in range(args.turns):
        for case, name in seconds:
            seconds[case, name] += measured(args, POLICIES[name], CASES[case])
    rows, lines = [], []
    for (case, name), steps in seconds.items():
        low, middle, high = statistics.quantiles(steps, n=4, method="inclusive")
        rows.append(row(case, name, "seconds_per_step", middle, "s", low=low, high=high, n=len(steps)))
        ratio = middle / statistics.median(seconds["alone", name])
        rows.append(row(case, name, "ratio_to_alone", ratio, "x alone", n=len(steps)))
        lines.append([case, name, f"{middle:.3f} [{low:.3f}, {high:.3f}]", f"{ratio:.1f}"])
    title = f"A step of {args.model} with {args.threads} threads: medians [quartiles]"
    print_table(title, ["", "threads", "seconds", "x alone"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--model",
        default=LAYERS,
        help="layers (default: four layers, quick to load), smollm2-135m, a path or a hub id",
    )
    parser.add_argument("--rows", type=int, default=12, help="sequences per step (default: 12)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per sequence (default: 64)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per process (default: 5, at least 2)")
    parser.add_argument("--turns", type=int, default=3, help="processes per setting (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: one per core)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smoke:
        # One thread has nobody to wait for, so that this is quick on a busy machine too.
        args.model, args.rows, args.tokens, args.steps, args.turns, args.threads = LAYERS, 2, 16, 2, 1, 1
    if args.steps < 2:
        parser.error(f"--steps is {args.steps}, and a spread needs at least 2")
    environment()
    if args.measure:
        print(json.dumps(step_seconds(args)))
        return
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, model=args.model, threads=args.threads, interval="quartiles over steps")


if __name__ == "__main__":
    main()
