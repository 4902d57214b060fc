"""What is published of a tuned and an untouched model: each number by hand on two or three sequences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plural_rlhf.evaluation.intervals import bca_interval
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.recipe.spectrum.measure import SequenceMeasures, compare_task
from reward_models.stats.answers import js_divergence


NAN = np.nan


def flips(outputs: str, shares: tuple[float, ...] = (0.75, 0.25)) -> SpectrumSequence:
    return SpectrumSequence(tuple(map(Example, outputs)), options=("h", "t"), shares=shares)


def test_a_measure_of_a_sequence_is_the_mean_of_what_is_known_before_and_after_an_example():
    measures = SequenceMeasures(
        (0, 2, 3),
        np.array([[9.0, 1.0, 3.0], [9.0, 5.0, NAN]]),
        np.array([[0.5, 0.1, 0.3], [0.7, 0.2, NAN]]),
        np.array([[1.0, 0.4, 0.8], [NAN, NAN, NAN]]),
    )
    values = {name: row.tolist() for name, row in measures.by_sequence().items()}
    assert values["js_0"] == [0.5, 0.7]
    assert values["js_geq_1"] == pytest.approx([0.2, 0.2])
    assert values["choice_0"] == pytest.approx([1.0, NAN], nan_ok=True)
    assert values["choice_geq_1"] == pytest.approx([0.6, NAN], nan_ok=True)
    assert values["loss_geq_1"] == [2.0, 5.0]  # the first output of a sequence cannot be known
    plain = json.loads(json.dumps(measures.to_dict(), allow_nan=False))
    again = SequenceMeasures.from_dict(plain)
    assert again.positions == (0, 2, 3)
    for name in ("nats", "js", "choice"):
        np.testing.assert_array_equal(getattr(again, name), getattr(measures, name))


def test_baselines_know_the_options_and_what_came_before():
    """Read h, h, t at positions 0, 1, 2: counts plus one are 1:1, 2:1 and 3:1."""
    none = np.full((1, 3), NAN)
    ours = SequenceMeasures((0, 1, 2), np.ones((1, 3)), np.zeros((1, 3)), np.zeros((1, 3)))
    numbers, _ = compare_task(
        "coin", [flips("hht")], ours, {"plain": SequenceMeasures((0, 1, 2), none + 1, none * 0 + 1, none)},
        draws=20, seed=0,
    )  # fmt: skip
    beside = {number.metric: number.baselines for number in numbers}
    people = np.array([0.75, 0.25])
    even = float(js_divergence(people, np.array([0.5, 0.5])))
    third = float(js_divergence(people, np.array([2 / 3, 1 / 3])))
    assert beside["js_0"] == pytest.approx({"uniform": even, "counts": even})
    assert beside["js_geq_1"] == pytest.approx({"uniform": even, "counts": (third + 0.0) / 2})
    assert beside["choice_0"] == pytest.approx({"uniform": np.log(2), "counts": np.log(2)})
    after = (-np.log(2 / 3) - np.log(1 / 4)) / 2  # h after one h, t after two
    assert beside["choice_geq_1"] == pytest.approx({"uniform": np.log(2), "counts": after})
    assert beside["loss_geq_1"] == {}


def test_each_metric_is_compared_with_the_best_format_for_it_on_the_same_sequences():
    rng = np.random.default_rng(0)
    js = {name: rng.uniform(0, 1, (30, 2)) for name in ("tuned", "chat", "plain")}
    js["chat"][:, 0] -= 1  # the best without examples
    js["plain"][:, 1] -= 1  # the best with some
    js["tuned"][3, 1] = NAN

    def measures(name):
        return SequenceMeasures((0, 1), np.ones((30, 2)), js[name], np.full((30, 2), NAN))

    rivals = {name: measures(name) for name in ("chat", "plain")}
    numbers, curves = compare_task("coin", [flips("ht")] * 30, measures("tuned"), rivals, draws=300, seed=3)
    found = {number.metric: number for number in numbers}
    assert set(found) == {"js_0", "js_geq_1", "loss_geq_1"}  # the model's choices are unknown
    assert [found[metric].format for metric in ("js_0", "js_geq_1")] == ["chat", "plain"]
    first, later = found["js_0"], found["js_geq_1"]
    assert first.tuned == pytest.approx(js["tuned"][:, 0].mean())
    assert first.untouched == pytest.approx(js["chat"][:, 0].mean())
    assert first.difference == pytest.approx(first.tuned - first.untouched)
    assert (first.n, later.n) == (30, 29)
    interval = bca_interval(js["tuned"][:, 0] - js["chat"][:, 0], draws=300, seed=3)
    assert (first.ci_low, first.ci_high) == (interval.low, interval.high)
    known = ~np.isnan(js["tuned"][:, 1])
    assert later.tuned == pytest.approx(js["tuned"][known, 1].mean())
    assert (first.verdict, found["loss_geq_1"].verdict) == ("worse", "undecided")
    shown = {(curve.model, curve.metric): (curve.k, curve.nats) for curve in curves}
    assert set(shown) == {
        (model, metric) for model in ("tuned", "untouched, chat", "untouched, plain") for metric in ("js", "loss")
    }
    assert shown["tuned", "js"][0] == [0, 1]
    assert shown["tuned", "js"][1] == pytest.approx(np.nanmean(js["tuned"], axis=0))


def test_a_place_that_no_sequence_has_is_not_on_the_curve():
    table = np.array([[0.5, NAN], [0.7, NAN]])
    ours = SequenceMeasures((0, 8), np.ones((2, 3)), table, table)
    _, curves = compare_task("coin", [flips("ht")] * 2, ours, {"plain": ours}, draws=20, seed=0)
    assert {curve.metric: curve.k for curve in curves} == {"js": [0], "choice": [0], "loss": [0, 1, 2]}
    assert next(curve.nats for curve in curves if curve.metric == "choice") == pytest.approx([0.6])


def test_one_sequence_has_no_interval():
    ours = SequenceMeasures((0,), np.ones((1, 2)), np.array([[0.2]]), np.array([[NAN]]))
    numbers, _ = compare_task("coin", [flips("ht")], ours, {"plain": ours}, draws=20, seed=0)
    assert [(number.ci_low, number.ci_high, number.n) for number in numbers] == [(None, None, 1)] * 2
