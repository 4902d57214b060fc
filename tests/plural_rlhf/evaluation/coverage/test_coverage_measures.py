"""Generations of checkable tasks: what counts as valid, and what a constant and a uniform policy reach."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.coverage.measures import coverage_of, mean_coverage, uniform_yield, yield_interval
from plural_rlhf.evaluation.coverage.tasks import GENERATION_TASKS, SETTINGS, generation_task
from plural_rlhf.evaluation.coverage.validators import international_phone, prime, us_phone
from plural_rlhf.evaluation.coverage.word_lists import ELEMENTS, STATES, VERBS
from reward_models.stats.answers import js_divergence


CLOSED = [task for task in GENERATION_TASKS.values() if task.values]


def test_there_are_22_tasks_whose_examples_and_values_are_valid_and_named_once():
    assert len(GENERATION_TASKS) == 22
    for task in GENERATION_TASKS.values():
        named = [task.value(example) for example in task.examples]
        assert None not in named
        assert len(set(named)) == 3
        assert task.value("") is None
        assert task.value("I cannot help with that.") is None
    for task in CLOSED:
        assert [task.value(value) for value in task.values] == list(task.values), task.name
        assert len(set(task.values)) == task.num_values


def test_lists_of_facts_are_complete():
    assert (len(ELEMENTS), len(set(ELEMENTS.values())), len(STATES), len(set(VERBS))) == (118, 118, 50, len(VERBS))
    assert (list(ELEMENTS)[78], ELEMENTS["Og"], generation_task("small_prime_numbers").num_values) == (
        "Au",
        "Oganesson",
        25,
    )


def test_a_constant_policy_yields_one_value():
    for task in GENERATION_TASKS.values():
        result = coverage_of(task, [task.examples[0]] * 100)
        assert (result.validity.value, result.yielded.value, result.yielded.high) == (1.0, 1.0, 1.0), task.name
        assert (result.uniqueness, result.collisions, result.entropy) == (0.01, 1.0, 0.0)


@pytest.mark.parametrize("task", CLOSED, ids=lambda task: task.name)
def test_a_uniform_policy_reaches_the_uniform_yield_and_the_floor(task):
    rng = np.random.default_rng(0)
    results = [coverage_of(task, [task.values[i] for i in rng.integers(task.num_values, size=100)]) for _ in range(20)]
    yields = np.array([result.yielded.value for result in results])
    v = task.num_values
    # Variance of the number of occupied cells: V q + V (V - 1) q2 - V² q², q and q2 the chance to miss one and two.
    q, q2 = (1 - 1 / v) ** 100, (1 - 2 / v) ** 100
    deviation = np.sqrt(max(v * q + v * (v - 1) * q2 - (v * q) ** 2, 1e-4) / len(results))
    assert abs(yields.mean() - results[0].uniform_yield) < 3 * deviation
    assert np.mean([result.js_to_uniform for result in results]) == pytest.approx(results[0].js_floor, rel=0.15)
    assert all(result.validity.value == 1 for result in results)


def test_the_interval_of_the_yield_covers():
    rng = np.random.default_rng(1)
    for v in (50, 100, 1000):
        drawn = [rng.integers(v, size=100).astype(str).tolist() for _ in range(200)]
        intervals = [yield_interval(values, draws=300) for values in drawn]
        assert np.mean([i.low <= uniform_yield(v, 100) <= i.high for i in intervals]) > 0.91
        # A bootstrap of the draws misses it always: its draws lie around 63 % of the value.
        plain = [np.quantile([len(set(rng.choice(d, 100))) for _ in range(60)], [0.025, 0.975]) for d in drawn[:20]]
        assert np.mean([low <= uniform_yield(v, 100) <= high for low, high in plain]) < 0.2


def test_invalid_generations_are_no_value():
    result = coverage_of("weekdays_full", ["Monday", "monday", "Mon", "", "Someday", "Friday\nSaturday"])
    assert (result.validity.value, result.yielded.value) == (2 / 6, 2.0)
    assert result.js_to_uniform == pytest.approx(js_divergence([1 / 2, 0, 0, 0, 1 / 2, 0, 0], np.full(7, 1 / 7)))
    nothing = coverage_of("weekdays_full", ["?"] * 10)
    assert (nothing.yielded.value, nothing.validity.value) == (0.0, 0.0)
    assert np.isnan([nothing.uniqueness, nothing.entropy, nothing.js_to_uniform]).all()


@pytest.mark.parametrize("text", ["2", "3", "97", "7919", "1000003", "999999999989", "2305843009213693951"])
def test_primes(text):
    assert prime(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "1",
        "91",
        "7917",
        "1000001",
        "3215031751",
        "341550071728321",
        "2305843009213693953",
        "0x7",
        "７",
        "-7",
        "7.0",
    ],
)
def test_no_primes(text):
    assert prime(text) is None  # among them strong pseudoprimes to the bases 2 to 7 and 2 to 17


def test_telephone_numbers():
    assert us_phone("415.555.0134") == "4155550134"
    assert [us_phone(text) for text in ("055-555-0134", "415-155-0134", "415-555-013", "(415 555-0134")] == [None] * 4
    assert international_phone("0049 30 901820") == international_phone("+49 30 901820")
    assert [international_phone(text) for text in ("+49", "+0 30 901820", "+49 30 90182090182099", "49 30")] == [
        None
    ] * 4


def test_prompts_show_what_the_setting_says():
    task = generation_task("gerunds")
    shows = {s: (task.description in task.prompt(s), task.examples[0] in task.prompt(s)) for s in SETTINGS}
    assert shows == {"description": (True, False), "examples": (False, True), "both": (True, True)}
    assert all(task.prompt(setting).endswith("\nAnswer:") for setting in SETTINGS)
    assert task.value("Answer: Baking\nAnswer: Pondering") == "baking"
    with pytest.raises(ValueError, match=r"setting='none' is unknown.*description"):
        task.prompt("none")
    with pytest.raises(ValueError, match=r"gerund.*Did you mean"):
        generation_task("gerund")


def test_means_over_tasks():
    constant = [coverage_of(task, [task.examples[0]] * 20) for task in GENERATION_TASKS.values()]
    means = mean_coverage(constant)
    assert (means["validity"].value, means["yield"].value) == (1.0, 1.0)
    assert means["validity"].low == means["validity"].high == 1.0
    assert means["yield_share"].low < means["yield_share"].value < means["yield_share"].high
    with pytest.raises(ValueError, match="no generations of 'gerunds'"):
        coverage_of("gerunds", [])
