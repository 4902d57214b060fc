"""The open-ended benchmark: equal budgets, tuning that rivals have and we have not, rows that others can read."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

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


def test_a_method_may_have_rates_of_its_own():
    given = "--learning-rates 1e-5 1e-4 1e-3 --rate distil=5e-5,2e-4 --rate dpo=3e-6"
    args = benchmark.arguments(given.split())
    assert benchmark.rates_of("plural", args) == [1e-5, 1e-4, 1e-3]
    assert benchmark.rates_of("distil", args) == [5e-5, 2e-4]
    assert benchmark.rates_of("dpo", args) == [3e-6]
    # Untuned: the middle one of all, or the one of the method; and it is what a run file is written with.
    args = benchmark.arguments(["--tuning", "none", "--rate", "distil=7e-5", "--rate", "trl-rloo-tuned=3e-6"])
    trained = ["plural", "distil", "trl-rloo-tuned"]
    settings = {name: setting for name, (_, setting) in benchmark.tuned(None, trained, args).items()}
    assert settings["plural"]["plural.sampled.learning_rate"] == sorted(benchmark.RATES)[1]
    assert settings["distil"]["plural.sampled.learning_rate"] == 7e-5
    assert settings["trl-rloo-tuned"]["rloo.learning_rate"] == 3e-6


def test_settings_are_chosen_on_the_topic_that_is_not_measured():
    first, second = benchmark.POLARIZED
    usual = benchmark.arguments([])
    assert (usual.topic, usual.tuning_topic) == (first, second)
    turned = benchmark.arguments(["--topic", second])
    assert (turned.topic, turned.tuning_topic) == (second, first)
    assert benchmark.arguments(f"--topic {second} --tuning-topic {second} --tuning none".split()).topic == second


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--topic right-to-assemble --tuning-topic right-to-assemble", "settings that are chosen on what they are"),
        ("--tuning-topic campus-protests", "settings that are chosen on what they are"),
        ("--topic gun-control", "invalid choice: 'gun-control'"),
        ("--rate rerank=1e-4", "'rerank=1e-4' is no METHOD=RATE"),  # which is not trained
        ("--rate distil", "'' is no learning rate"),
        ("--rate distil=1e-4,zero", "'zero' is no learning rate"),
        ("--learning-rates 1e-4 0", "'0' is no learning rate"),
        ("--learning-rates nan", "'nan' is no learning rate"),
        ("--methods plural --rate distil=1e-4", "of a method that is not run"),
        ("--rate distil=1e-4 --rate distil=1e-5", "names distil 2 times"),
        ("--tuning none --rate distil=1e-4,1e-5", "gives distil 2 rates"),
        ("--smoke --rate distil=1e-4,1e-5", "gives distil 2 rates"),
    ],
)
def test_what_cannot_be_run_is_said_before_any_work(given, said, capsys):
    with pytest.raises(SystemExit):
        benchmark.arguments(given.split())
    assert said in capsys.readouterr().err


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


def test_intervals_over_prompts_outlive_the_mean_over_seeds():
    rows = [
        benchmark.row(
            "c", "plural", "bridging", 0.2 * seed, "share", low=0.2 * seed - 0.1, high=0.2 * seed + 0.3, seed=seed
        )
        for seed in (1, 2)
    ]
    [joined] = benchmark.of_seeds(rows)
    assert (joined["prompts_low"], joined["prompts_high"]) == (pytest.approx(0.2), pytest.approx(0.6))
    [without] = benchmark.of_seeds([row | {"ci_low": math.nan} for row in rows])
    assert "prompts_low" not in without


def test_what_a_policy_chose_among_is_counted_as_drawn():
    settings = {"candidates": {"plural": 16, "best_of_n": 4}, "texts_per_prompt": 32, "prompts": ["Why?", "How?"]}
    of = TextResults(
        split="train",
        weighting="all",
        rows=[TextRow(policy=name, measure="words", value=9.0, n=2) for name in ("plural", "best_of_n", "warm")],
        settings=settings,
    )
    rows = benchmark.tidy(SimpleNamespace(texts=[of]), {}, benchmark.METHODS, 0)
    assert {r["method"]: r["generated"] for r in rows} == {
        "rerank": 2 * 8 * 32,
        "best-of-n": 2 * 4 * 32,
        "reference": 0,
    }


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
@pytest.mark.skipif(not DATA.exists(), reason="the folder ../shared/data is not there")
def test_the_short_form_trains_and_measures_by_runs_that_share_jury_and_pi_0(tmp_path):
    file = tmp_path / "open.json"
    methods = ("plural", "trl-grpo", "drop-in-rloo", "best-of-n")
    arguments = ("--smoke", "--topic", "right-to-assemble", "--rate", "trl-grpo=3e-6", "--json", str(file))
    run_script(ROOT / "benchmarks" / "open_ended.py", *arguments, "--methods", *methods, timeout=600)
    written = json.loads(file.read_text())
    rows = written["rows"]
    assert (written["meta"]["topic"], written["meta"]["tuning_topic"]) == ("right-to-assemble", None)
    assert {r["topic"] for r in rows} == {"right-to-assemble"}
    chosen = written["meta"]["settings"]
    assert (chosen["trl-grpo"]["grpo.learning_rate"], chosen["plural"]["plural.sampled.learning_rate"]) == (3e-6, 5e-5)
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
    runs = tmp_path / "open.json.parts" / "right-to-assemble-tiny"
    starts = {(path / "adapter_model.safetensors").read_bytes() for path in runs.glob("*/warm")}
    assert len(starts) == 1
    assert len(list(runs.glob("*/warm"))) == 5  # the start, three methods, and the run that measures
    assert len(list(runs.glob("measured-0-*/report.html"))) == 1
