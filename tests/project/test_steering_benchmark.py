"""The steering benchmark measures what it says: the target is perfect, and its rivals fail where they should."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.benchmark_modules import benchmark_module


benchmark, cases = benchmark_module("steering"), benchmark_module("_collapse.cases")
CASE = cases.load_case("jury-gap8")
START = np.array(cases.PEOPLE)


@pytest.fixture(scope="module")
def scales() -> Any:
    return benchmark.Scales(CASE, CASE.problems[0], START)


def pools(linear: bool) -> np.ndarray:
    """The mixture or the log pool of the three clusters at all 28 weightings, by hand."""
    own = np.array([[n in numbers for n in range(11)] for numbers in cases.LIKED.values()])
    grid = benchmark.lattice(6)
    if linear:
        alone = START * np.exp(8.0 * own)
        return grid @ (alone / alone.sum(axis=1, keepdims=True))
    together = START * np.exp(8.0 * grid @ own)
    return together / together.sum(axis=1, keepdims=True)


def test_the_grid_is_the_simplex_in_sixths():
    grid = benchmark.lattice(6)
    assert len({tuple(row) for row in grid.tolist()}) == 28
    np.testing.assert_allclose(grid.sum(axis=1), 1)


def test_the_mixture_is_the_target(scales):
    found = scales.measure(pools(linear=True))
    assert found["jsd_nats_max"] < 1e-5  # the start leaves 1e-9 of the target for anything but a number
    assert found["hypervolume"] == pytest.approx(1, abs=1e-4)
    # Equal weights are ties, in the rewards too: 1, or what rounding errors leave of it.
    assert found["spearman_min"] > 0.95
    assert found["coverage_min"] == pytest.approx(1)


def test_the_weighted_mean_is_not(scales):
    found = scales.measure(pools(linear=False))
    assert found["jsd_nats"] > 0.03
    assert found["hypervolume"] < 0.9


def test_a_policy_that_does_not_listen_is_told_apart(scales):
    found = scales.measure(np.tile(START, (28, 1)))
    assert found["jsd_nats_max"] > 0.3
    assert found["spearman_min"] == 0
    mute = scales.measure(np.zeros((28, 11)))
    assert mute["jsd_nats"] == pytest.approx(math.log(2), abs=1e-3)  # no number at all is as far as can be
    assert mute["coverage_min"] == 0
