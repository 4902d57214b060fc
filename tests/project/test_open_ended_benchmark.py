"""The open-ended benchmark: equal budgets, tuning that rivals have and we have not, rows that others can read."""

from __future__ import annotations

import json
import math

import pytest

from plural_rlhf.recipe.settings.stock import GrpoSection
from plural_rlhf.report.results_policies import LoggedStep, TextResults, TextRow
from tests.benchmark_modules import benchmark_module
from tests.paths import ROOT
from tests.processes import run_script


DATA = ROOT.parent / "shared" / "data" / "polarized"
methods = benchmark_module("_open_ended.methods")
benchmark = benchmark_module("open_ended")


def test_rivals_tune_what_ours_does_not():
    tried = {name: methods.candidates(name, 0.5, (1e-4, 1e-3), 60, 16)[1] for name in methods.TRAINED}
    numbers = {name: len(settings) for name, settings in tried.items()}
    untuned = {"plural", "plural-given", "plural-prefixes", "trl-grpo", "drop-in-rloo", "drop-in-grpo", "dpo"}
    assert numbers == dict.fromkeys([*untuned, "distil"], 2) | {"trl-grpo-tuned": 12, "trl-rloo-tuned": 6}
    # The default of GRPO is among what the tuned one may choose.
    usual = GrpoSection()
    assert any(
        (s["grpo.beta"], s["grpo.scale_rewards"]) == (usual.beta, usual.scale_rewards) for s in tried["trl-grpo-tuned"]
    )
    # Equal budgets: a prompt and 16 completions per step, 60 steps.
    for name, settings in tried.items():
        section = methods.candidates(name, 0.5, (1e-4,), 60, 16)[0].section
        budgets = {(s[f"{section}.steps"], s[f"{section}.num_generations"]) for s in settings}
        assert budgets == {(60, 16)}


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
    history = [LoggedStep.model_validate({"step": step + 1, "kl": float(step)}) for step in range(20)]
    rows = benchmark.curve_rows("plural", history, seed=0)
    assert {r["metric"] for r in rows} == {"curve/kl"}
    assert [(r["step"], r["value"]) for r in rows] == [(2 * n + 2, 2 * n + 0.5) for n in range(10)]


def test_the_steered_gain_is_that_of_the_cluster_that_gains_least():
    def texts(weighting, gains):
        rows = [
            TextRow(policy=policy, measure="approval", jury="heldout", cluster=cluster, value=value, gain=gain)
            for policy, cluster, value, gain in gains
        ]
        return TextResults(split="train", weighting=weighting, rows=rows)

    everybody = texts("all", [("warm", "urban", 0.5, None), ("warm", "rural", 0.6, None)])
    urban = texts("urban", [("plural", "urban", 0.7, 0.2), ("warm", "urban", 0.45, None)])
    rural = texts("rural", [("plural", "rural", 0.7, 0.1), ("warm", "rural", 0.65, None)])
    gain = benchmark.steered_gain("plural", [urban, rural], everybody)
    assert (gain.value, gain.measure, gain.cluster) == (0.1, "steered_approval_gain_worst", "")
    assert benchmark.steered_gain("warm", [urban, rural], everybody).value == pytest.approx(-0.05)  # words alone
    assert benchmark.steered_gain("grpo", [urban, rural], everybody) is None


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/polarized")
def test_the_short_form_trains_and_measures_by_runs_that_share_jury_and_pi_0(tmp_path):
    file = tmp_path / "open.json"
    methods = ("plural", "trl-grpo", "drop-in-rloo", "best-of-n")
    arguments = ("--smoke", "--json", str(file), "--methods", *methods)
    run_script(ROOT / "benchmarks" / "open_ended.py", *arguments, timeout=600)
    rows = json.loads(file.read_text())["rows"]
    methods = {"people", "untouched", "reference", "plural", "trl-grpo", "drop-in-rloo", "best-of-n"}
    assert {r["method"] for r in rows} == methods
    assert all(math.isfinite(r["value"]) for r in rows)
    assert {r["split"] for r in rows if r["metric"] == "bridging"} == {"train", "heldout"}
    assert {r["generated"] for r in rows if r["method"] == "trl-grpo" and "generated" in r} == {8}
    along = [r for r in rows if r["metric"] == "along/heldout_gain"]
    assert {(r["method"], r["step"]) for r in along} >= {("plural", 1), ("plural", 2), ("trl-grpo", 1)}
    shifts = [r for r in rows if r["metric"] == "approval_shift" and r["method"] == "plural"]
    assert {(r["request"] == r["cluster"], r["jury"]) for r in shifts if r["split"] == "heldout"} == {
        (same, jury) for same in (True, False) for jury in ("training", "heldout")
    }
    runs = tmp_path / "open.json.parts" / "campus-protests-tiny"
    starts = {(path / "adapter_model.safetensors").read_bytes() for path in runs.glob("*/warm")}
    assert len(starts) == 1
    assert len(list(runs.glob("*/warm"))) == 5  # the start, three methods, and the run that measures
    assert len(list(runs.glob("measured-0-*/report.html"))) == 1
