"""Shared by all benchmarks: the command line, the tidy file, and the interval over repeats.

Knows nothing of what is measured. Rows are flat: `case`, `method`, `metric`, `value`, `ci_low`, `ci_high`, `n`,
`unit`, and the cost (`generated`, `scored`, `seconds`) where it applies.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward_models.whole_file import write_json


__all__ = ["add_device", "device_of", "environment", "interval", "make_parser", "print_table", "row", "write"]

PACKAGES = ("plural-rlhf", "torch", "transformers", "trl", "datasets", "numpy", "scipy")
COLUMNS = ("case", "method", "metric", "value", "ci_low", "ci_high", "n", "unit")


def make_parser(doc: str) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring and has the options of every benchmark."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write meta and tidy rows here")
    parser.add_argument("--smoke", action="store_true", help="short run, under a minute; its numbers mean little")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds the option of every benchmark that trains or scores with a model."""
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu (float32) or an accelerator such as cuda (bfloat16); default: an accelerator if there is one",
    )


def device_of(parser: argparse.ArgumentParser, asked: str, known: Sequence[str] = ()) -> str:
    """The device to run on; ends the program, with the reason, where this machine does not have the one asked for.

    Args:
        parser: Says so.
        asked: `--device`; `auto` is an accelerator if there is one.
        known: Accelerators that the benchmark can measure; empty for any.
    """
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    there = [] if found is None or (known and found.type not in known) else [found.type]
    if asked == "auto":
        return there[0] if there else "cpu"
    if asked not in ("cpu", *there):
        parser.error(f"--device is {asked!r}, and what can be measured on here is {', '.join(['cpu', *there])}")
    return asked


def environment() -> None:
    """Quiet and offline, before anything imports transformers."""
    # TRL itself sets the option whose new name transformers announces.
    warnings.filterwarnings("ignore", message=".*activation_checkpointing.*", category=FutureWarning)
    for name, value in (
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TRL_EXPERIMENTAL_SILENCE", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval of repeats; the interval of one repeat is NaN, since nothing is known of its spread."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    from scipy.stats import t

    half = t.ppf((1 + level) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def row(
    case: str,
    method: str,
    metric: str,
    value: float,
    unit: str,
    *,
    low: float = math.nan,
    high: float = math.nan,
    n: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """One tidy row."""
    return {
        "case": case,
        "method": method,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "unit": unit,
        **more,
    }


def write(
    args: argparse.Namespace, rows: list[dict[str, Any]], started: float, *, finished: bool = True, **meta: Any
) -> None:
    """Writes `{"meta": …, "rows": …}` to `--json`; NaN becomes null. `started` is a `time.perf_counter()`.

    A benchmark that takes long calls it on the way too, with `finished=False`: what was measured is kept if it stops.
    """
    if args.json is None:
        return
    about = {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "seed": args.seed,
        "smoke": args.smoke,
        "command": shlex.join(["python", *sys.argv]),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        },
        "seconds": time.perf_counter() - started,
        "finished": finished,
        **meta,
    }
    write_json(args.json, {"meta": about, "rows": rows})
    if finished:
        print(f"Written to {args.json}")


def print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Prints a table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right")
    for line in lines:
        table.add_row(*line)
    # Piped into a file there is no terminal to fit into, and a cut number is no number.
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
