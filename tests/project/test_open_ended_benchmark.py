"""The open-ended benchmark: equal budgets, tuning that rivals have and we have not, rows that others can read."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark_modules import benchmark_module
from tests.paths import ROOT


DATA = ROOT.parent / "shared" / "data" / "polarized"
methods = benchmark_module("_open_ended.methods")
benchmark = benchmark_module("open_ended")


def test_rivals_tune_what_ours_does_not():
    numbers = {method: len(methods.candidates(method, 0.5, (1e-4, 1e-3))) for method in methods.TRAINED}
    ours = {"plural": 2, "plural-prefixes": 2}
    assert numbers == {**ours, "trl-grpo": 2, "trl-grpo-tuned": 12, "trl-rloo-tuned": 6, "dpo": 2}
    # The default of GRPO is among what the tuned one may choose.
    of_grpo = {(s.beta, s.scale) for s in methods.candidates("trl-grpo-tuned", 0.5, (1e-4,))}
    assert {(s.beta, s.scale) for s in methods.candidates("trl-grpo", 0.5, (1e-4,))} <= of_grpo


def test_seeds_are_averaged_by_what_they_measure():
    def a_row(seed, value, method="plural", **labels):
        return benchmark.row("c", method, "bridging", value, "share", n=3, seed=seed, seconds=2.0 * seed, **labels)

    rows = [a_row(1, 0.2), a_row(2, 0.4), a_row(1, 0.9, cluster="urban"), a_row(1, 0.5, method="reference")]
    joined = benchmark.of_seeds(rows)
    assert [(r["value"], r["n"], r["seed"]) for r in joined] == [
        (pytest.approx(0.3), 2, "all"),
        (0.9, 3, 1),
        (0.5, 3, 1),
    ]
    # Student's t with one degree of freedom: 12.706 times the standard error, .1
    assert joined[0]["ci_high"] == pytest.approx(0.3 + 1.2706, abs=1e-3)
    assert joined[0]["seconds"] == 3.0


def test_curves_are_means_of_tenths_of_the_steps():
    trained = methods.Trained(Path(), 1.0, 0, [{"plural/kl": float(step)} for step in range(20)] + [{"loss": 1.0}])
    rows = benchmark.curve_rows("plural", trained, seed=0)
    assert {r["metric"] for r in rows} == {"curve/plural/kl"}
    assert [(r["step"], r["value"]) for r in rows] == [(2 * n + 2, 2 * n + 0.5) for n in range(10)]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/polarized")
def test_the_short_form_trains_and_measures(tmp_path):
    file = tmp_path / "open.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "open_ended.py"), "--smoke", "--json", str(file)]
    command += ["--methods", "plural", "plural-prefixes", "trl-grpo", "best-of-n"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300)
    rows = json.loads(file.read_text())["rows"]
    assert {r["method"] for r in rows} >= {"people", "reference", "plural", "trl-grpo", "best-of-n"}
    assert all(math.isfinite(r["value"]) for r in rows)
    # Half of ours are given and not drawn; best-of-n draws eight for each of 8 texts of three questions.
    assert {r["method"]: r["generated"] for r in rows if r["metric"] == "bridging"} == {
        "people": 0, "reference": 0, "plural": 4, "plural-prefixes": 8, "trl-grpo": 8, "best-of-n": 192,
    }  # fmt: skip
