"""Resampling of people from strata and sampling units, by the law of Rao and Wu (1988)."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.stats.design import SamplingDesign


STRATUM = np.array([0, 0, 0, 0, 1, 1, 2])


def drawn(design: SamplingDesign, present: np.ndarray, draws: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([design.draw(present, rng) for _ in range(draws)])


def test_within_a_stratum_times_have_mean_one_and_variance_one_and_their_sum_is_fixed():
    times = drawn(SamplingDesign(np.ones(7), STRATUM), np.ones(7, dtype=bool))
    assert times.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert times.var(axis=0) == pytest.approx([1, 1, 1, 1, 1, 1, 0], abs=0.08)  # one unit alone does not vary
    for number in (0, 1, 2):
        members = number == STRATUM
        assert times[:, members].sum(axis=1) == pytest.approx(np.full(len(times), members.sum()))
    assert set(np.unique(times[:, :4].round(6))) == {round(k * 4 / 3, 6) for k in range(4)}  # three of four units
    assert set(np.unique(times[:, 4:6])) == {0.0, 2.0}  # one of two


def test_people_of_one_sampling_unit_are_drawn_together():
    psu = np.array([0, 0, 1, 1, 2, 2, 3])
    times = drawn(SamplingDesign(np.ones(7), None, psu), np.ones(7, dtype=bool), 500)
    assert (times[:, 0] == times[:, 1]).all()
    assert (times[:, 4] == times[:, 5]).all()
    assert (times[:, 0] != times[:, 2]).any()
    within = drawn(SamplingDesign(np.ones(7), STRATUM, np.array([0, 0, 1, 1, 0, 1, 0])), np.ones(7, dtype=bool), 500)
    assert (within[:, 0] != within[:, 4]).any()  # units of the same number in two strata are two


def test_who_is_not_present_is_not_drawn_and_does_not_count_as_a_unit():
    present = np.array([True, True, False, False, True, True, True])
    for design in (SamplingDesign(np.ones(7)), SamplingDesign(np.ones(7), STRATUM)):
        times = drawn(design, present, 300)
        assert (times[:, ~present] == 0).all()
        assert times.sum(axis=1) == pytest.approx(np.full(300, 5.0))
    assert set(np.unique(drawn(SamplingDesign(np.ones(7), STRATUM), present, 300)[:, :2])) == {0.0, 2.0}


def test_without_a_design_as_many_are_drawn_as_there_are():
    times = drawn(SamplingDesign(np.arange(1.0, 6.0)), np.ones(5, dtype=bool))
    assert times.sum(axis=1) == pytest.approx(np.full(len(times), 5.0))
    assert times.mean(axis=0) == pytest.approx(np.ones(5), abs=0.06)  # equally often, whatever they weigh
    assert times.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.06)  # 1 - 1 / n


def test_a_part_of_the_people_keeps_weights_strata_and_units():
    part = SamplingDesign(np.arange(7.0), STRATUM, np.arange(7)).select(STRATUM == 1)
    assert (part.weight.tolist(), part.stratum.tolist(), part.psu.tolist()) == ([4, 5], [1, 1], [4, 5])
    assert SamplingDesign(np.arange(3.0)).select(np.array([2])).stratum is None
