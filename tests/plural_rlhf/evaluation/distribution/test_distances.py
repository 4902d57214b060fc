"""Distances under their names: published numbers, scipy as a second method, and limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from plural_rlhf.evaluation.distribution.distances import (
    DISTANCES,
    SPECTRUM_EPS,
    cross_entropy,
    kl_divergence,
    mode_match,
)
from reward_models.stats.answers import entropy


P, Q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])


def value(name: str, p=P, q=Q) -> float:
    return float(DISTANCES[name].compute(p, q))


def test_the_three_numbers_that_are_called_js():
    assert value("jsd_nats") == pytest.approx(0.106440, abs=5e-7)
    assert value("jsdist_e") == pytest.approx(0.326252, abs=5e-7)
    assert value("jsdist_2") == pytest.approx(0.391868, abs=5e-7)
    assert value("jsdist_2") == pytest.approx(jensenshannon(P, Q, 2.0), abs=1e-12)


def test_spectrum_smoothing_has_a_name_of_its_own():
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert value("jsd_nats", p, q) == pytest.approx(np.log(2))
    smoothed = (p + SPECTRUM_EPS) / (1 + 2 * SPECTRUM_EPS), (q + SPECTRUM_EPS) / (1 + 2 * SPECTRUM_EPS)
    assert value("jsd_spectrum_nats", p, q) == pytest.approx(jensenshannon(*smoothed) ** 2, abs=1e-12)
    assert value("jsd_spectrum_nats", p, q) < value("jsd_nats", p, q)


def test_wasserstein_is_scipys():
    rng = np.random.default_rng(3)
    for p, q in rng.dirichlet(np.ones(5), size=(10, 2)):
        assert value("wasserstein_1", p, q) == pytest.approx(wasserstein_distance(range(5), range(5), p, q))


def test_cross_entropy_is_entropy_plus_kl_and_kl_has_two_directions():
    assert cross_entropy(P, Q) == pytest.approx(entropy(P) + kl_divergence(P, Q))
    p, q = np.array([0.5, 0.5, 0.0]), np.array([1 / 3, 1 / 3, 1 / 3])
    assert np.isfinite(kl_divergence(p, q))
    assert np.isinf(kl_divergence(q, p))
    assert value("kl_spectrum_nats", p, q) == pytest.approx(kl_divergence(p, q), abs=1e-4)
    assert value("reverse_kl_spectrum_nats", p, q) > 2  # large, and finite


@pytest.mark.parametrize("name", DISTANCES)
def test_people_themselves_have_the_best_value(name):
    rng = np.random.default_rng(5)
    p, q = rng.dirichlet(np.ones(4), size=(2, 50))
    measure = DISTANCES[name]
    own, other = measure.compute(p, p), measure.compute(p, q)
    if measure.direction == "zero":
        own, other = np.abs(own), np.abs(other)
    sign = -1 if measure.direction == "higher" else 1
    assert (sign * own <= sign * other + 1e-9).all()
    low, high = measure.bounds
    assert (own >= low - 1e-9).all()
    assert (other <= high + 1e-9).all()


def test_ties_among_modes_share():
    assert mode_match([0.4, 0.4, 0.2], [1.0, 0.0, 0.0]) == 1
    assert mode_match([0.4, 0.4, 0.2], [0.5, 0.0, 0.5]) == 0.5
