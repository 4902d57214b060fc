"""Runs of a collapse case that are kept as they end, and the choice of a method's setting by them.

Knows nothing of tables. A run that was stopped is trained anew, one that ended is never trained twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import shutil
import tempfile
from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _collapse.cases import Case, Problem
from _collapse.methods import Setting, knobs, make_start, scales_of, train
from _collapse.scales import Scales

from reward_models.whole_file import write_json


__all__ = ["TUNING_SEED", "Runs", "add_parts", "parts", "tune"]

TUNING_SEED = 1000


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where runs are kept."""
    parser.add_argument("--parts", type=Path, metavar="FOLDER", help="where runs are kept (default: FILE.parts)")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that were kept")


@contextmanager
def parts(args: argparse.Namespace) -> Iterator[Path]:
    """The folder where runs are kept: `--parts`, or beside `--json`; without either one that goes with the program."""
    with tempfile.TemporaryDirectory() as temporary:
        beside = Path(temporary) if args.json is None else args.json.with_name(args.json.name + ".parts")
        folder = args.parts or beside
        if args.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


class Runs:
    """Trains policies of one case, or finds them where they were kept.

    Args:
        case: What is trained on.
        folder: Where runs and starts are kept.
        seed: Of the start.
        device: `"cpu"`, or an accelerator as torch calls it.
    """

    def __init__(self, case: Case, folder: Path, seed: int, device: str) -> None:
        self.case, self.folder, self.device = case, folder, device
        self.start = make_start(case, folder, seed, device)
        # What else decides a run's numbers. A change of the code is not seen: --fresh is for that.
        packages = {name: importlib.metadata.version(name) for name in ("plural-rlhf", "trl", "transformers", "torch")}
        self._about = {"start": self.start.name, "device": device, **packages}
        self._scales: dict[tuple[Problem, ...], Scales] = {}

    def scales(self, problems: tuple[Problem, ...]) -> Scales:
        """What policies are measured against on these prompts."""
        if problems not in self._scales:
            self._scales[problems] = scales_of(self.case, problems, self.start, self.device)
        return self._scales[problems]

    def run(self, setting: Setting, seed: int, *, tuning: bool, quiet: bool = False) -> dict[str, Any]:
        """One run, as `_collapse.methods.train` returns it; says so in a line, unless it is to be quiet."""
        problems = self.case.tuning if tuning else self.case.problems
        # Aims and the other prompts do not change a run.
        case = dataclasses.replace(self.case, aims=(), problems=problems, tuning=())
        about = {"case": dataclasses.asdict(case), "setting": dataclasses.asdict(setting), "seed": seed, **self._about}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / f"{case.name}_{setting.trainer}_{digest}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))["run"]
        with tempfile.TemporaryDirectory() as scratch:
            scales = self.scales(problems)
            found = train(self.case, setting, scales, self.start, seed, self.device, Path(scratch), along=not tuning)
        write_json(file, {"about": about, "run": found}, exact=True, indent=None)
        if not quiet:
            js, valid = found["final"]["jsd_nats"], found["final"]["valid_mass"]
            print(
                f"  {case.name} {'tuning ' if tuning else ''}{setting}, seed {seed}: JS {js:.4f}  valid {valid:.2f}  "
                f"{found['seconds']:.0f} s",
                flush=True,
            )
        return found


def tune(runs: Runs, method: str, rates: Sequence[float], how: str) -> tuple[Setting, dict[Setting, float]]:
    """Chooses a method's setting by its distance from the exact target on the prompts for tuning.

    Args:
        runs: The case.
        method: One of `METHODS`.
        rates: Learning rates to choose from.
        how: `"full"`, `"coordinate"` or `"none"`.

    Returns:
        The setting, and the nats of all that were tried.
    """
    best, axes = knobs(method, runs.case)
    best = dataclasses.replace(best, learning_rate=rates[min(1, len(rates) - 1)])
    if how == "none" or (not axes and len(rates) == 1):
        return best, {}
    axes = [*axes, [{"learning_rate": rate} for rate in rates]]
    if how == "full":
        axes = [[dict(ChainMap(*values)) for values in itertools.product(*axes)]]
    tried: dict[Setting, float] = {}
    for axis in axes:
        for values in axis:
            setting = dataclasses.replace(best, **values)
            if setting not in tried:
                tried[setting] = runs.run(setting, TUNING_SEED, tuning=True)["final"]["jsd_nats"]
        best = min(tried, key=tried.__getitem__)
    return best, tried
