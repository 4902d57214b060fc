"""The comparison of methods measures what it says: nothing held out is seen, and differences are paired."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.benchmark_modules import benchmark_module


surveys, report, run_file = (benchmark_module(f"_methods.{name}") for name in ("surveys", "report", "run_file"))
EVERYBODY = surveys.EVERYBODY


@pytest.fixture(scope="module")
def division():
    return surveys.divide("gss_abortion", 3, most_people=400)


def test_held_out_people_and_questions_are_not_learned_from(division):
    held = {item for item, out in zip(division.items, division.heldout, strict=True) if out}
    assert len(held) == 2
    assert not held & set(division.train.items)
    assert division.table.n_raters == 200
    other = surveys.divide("gss_abortion", 4, most_people=400)
    assert (other.heldout != division.heldout).any()
    frame = division.table.frame
    for position, item in enumerate(division.items):
        of = frame[frame["item_id"] == item]
        assert division.known[EVERYBODY][position, 0] == pytest.approx((of["choice"] == 0).mean())
        party = of[of["rater:group"] == "Democrats"]
        assert division.known["Democrats"][position, 0] == pytest.approx((party["choice"] == 0).mean())
    assert (division.known[EVERYBODY] != division.people[EVERYBODY]).any()


def test_of_a_country_all_waves_are_held_out_together():
    division = surveys.divide("wvs_immigration", 0)
    out = {block for block, held in zip(division.blocks, division.heldout, strict=True) if held}
    known = {block for block, held in zip(division.blocks, division.heldout, strict=True) if not held}
    assert len(out) == 27
    assert not out & known
    with pytest.raises(AssertionError, match="no single people"):
        _ = division.train


def scored(division, answers):
    scores = report.Scores()
    report.score(scores, division, answers)
    return scores


def rows(division, methods):
    scores = {name: scored(division, answers) for name, answers in methods.items()}
    return {
        (row["method"], row["case"], row["part"], row["metric"]): row
        for row in report.rows_of(scores, [division.survey], {})
    }


def test_people_themselves_have_no_distance_and_a_better_method_a_difference_below_zero(division):
    uniform = {who: np.full(shares.shape, 0.5) for who, shares in division.people.items()}
    half = {who: shares / 2 for who, shares in uniform.items()}
    found = rows(division, {"marginal": uniform, "people": division.people, "half": half})
    at = ("gss_abortion", "trained")
    assert found["people", *at, "jsd_nats"]["value"] == pytest.approx(0, abs=1e-12)
    difference = found["people", *at, "jsd_nats_difference"]
    assert difference["value"] == pytest.approx(-found["marginal", *at, "jsd_nats"]["value"])
    assert difference["ci_low"] < difference["value"] < 0
    assert difference["rival"] == "marginal"
    # Half of the mass outside the answers is no distance, but is seen in the coverage.
    same = found["half", *at, "jsd_nats_difference"]
    assert same["ci_low"] == same["value"] == same["ci_high"] == 0
    assert found["half", *at, "coverage"]["value"] == pytest.approx(0.5)


def test_every_survey_counts_alike_however_many_questions_it_has():
    scores = report.Scores()
    for survey, values in {"small": [1.0, 1.0], "large": [0.0] * 20}.items():
        for position, value in enumerate(values):
            scores.values["jsd_nats", "heldout", survey, f"q{position}"] = [value]
            scores.block[survey, f"q{position}"] = f"q{position}"
    found = report.rows_of({"method": scores}, ["small", "large"], {})
    together = next(row for row in found if row["case"] == report.ALL)
    assert (together["value"], together["n"], together["surveys"]) == (0.5, 22, 2)


def test_best_of_n_is_that_of_all_draws():
    start, liked = np.array([[0.5, 0.3, 0.2]]), np.array([[0.2, 0.7, 0.1]])
    expected = np.zeros(3)
    for drawn in itertools.product(range(3), repeat=run_file.BEST_OF):
        expected[max(drawn, key=lambda option: liked[0, option])] += np.prod(start[0, list(drawn)])
    assert run_file.best_of(start, liked)[0] == pytest.approx(expected)


@pytest.mark.slow
def test_smoke_writes_every_method_and_goes_on_from_its_parts(tmp_path):
    from tests.project.test_benchmarks import tidy

    meta, first = tidy("methods.py", tmp_path, "--smoke")
    assert {row["method"] for row in first} == {"uniform", "marginal", "wording", "wording-exchanged"}
    assert meta["splits"] == 1
    assert len(list((tmp_path / "out" / "result.json.parts").glob("*.json"))) == 4
    assert tidy("methods.py", tmp_path, "--smoke")[1] == first
