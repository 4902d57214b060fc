"""Robust verdicts: the lottery and the worst weights are best replies to each other, at the value that is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.core.robust import robust_weights
from reward_models.errors import JuryError


def test_two_clusters_by_hand():
    # Against (w, 1 - w) the responses are worth w and 3 (1 - w): equal at w = 3/4, where both are worth 3/4.
    found = robust_weights(np.array([[1.0, 0.0], [0.0, 3.0]]))
    assert found.value == pytest.approx(0.75)
    assert found.weights == pytest.approx([0.75, 0.25])
    assert found.lottery == pytest.approx([0.75, 0.25])


def test_a_mixture_beats_every_single_response():
    rewards = np.array([[2.0, -2.0], [-2.0, 2.0], [-0.5, -0.5]])
    found = robust_weights(rewards)
    assert found.value == pytest.approx(0.0)
    assert found.value > rewards.min(axis=1).max()  # the best response alone gives its worst-off cluster -0.5


@pytest.mark.parametrize("seed", range(8))
def test_saddle_point_on_the_simplex_and_on_a_hull(seed):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(7, 4))
    for vertices in (np.eye(4), rng.dirichlet(np.ones(4), size=3)):
        found = robust_weights(torch.as_tensor(rewards), vertices)
        assert found.lottery @ rewards @ found.weights == pytest.approx(found.value)
        assert (rewards @ found.weights).max() == pytest.approx(found.value)  # no response does better
        assert (vertices @ (found.lottery @ rewards)).min() == pytest.approx(found.value)  # no weights do worse
        assert found.lottery.sum() == pytest.approx(1)


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.7])
def test_saddle_point_in_a_ball(radius):
    rng = np.random.default_rng(5)
    rewards, centre = rng.normal(size=(6, 4)), np.array([0.5, 0.3, 0.2, 0.0])
    found = robust_weights(rewards, centre=centre, radius=radius)
    assert np.abs(found.weights - centre).sum() / 2 <= radius + 1e-9
    assert (rewards @ found.weights).max() == pytest.approx(found.value)
    # The second method for the worst weights: take from the best served first, give it all to the worst served.
    served, weights, left = found.lottery @ rewards, centre.copy(), radius
    for k in np.argsort(-served):
        taken = min(weights[k], left)
        weights[k], left = weights[k] - taken, left - taken
    weights[served.argmin()] += radius - left
    assert served @ weights == pytest.approx(found.value)


def test_the_radius_leads_from_the_weighted_mean_to_the_worst_off():
    rewards, centre = np.random.default_rng(1).normal(size=(9, 3)), np.array([0.6, 0.3, 0.1])
    values = [robust_weights(rewards, centre=centre, radius=r).value for r in (0.0, 0.2, 0.5, 1.0)]
    assert values[0] == pytest.approx((rewards @ centre).max())
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(robust_weights(rewards).value)


def test_one_candidate_is_plain_weighting():
    rewards = np.array([[1.0, 0.0], [0.4, 0.5]])
    found = robust_weights(rewards, [[3, 1]])  # 0.75 and 0.425
    assert (found.value, found.weights.tolist()) == (pytest.approx(0.75), [0.75, 0.25])
    assert found.lottery == pytest.approx([1, 0])


def test_what_cannot_be_solved_is_refused():
    rewards = np.eye(2)
    with pytest.raises(JuryError, match=r"shape \(2,\)"):
        robust_weights(rewards[0])
    with pytest.raises(JuryError, match=r"shape \(2, 2\).*finite"):
        robust_weights(rewards * np.nan)
    with pytest.raises(JuryError, match=r"\(V, K\)"):
        robust_weights(rewards, [1, 1])
    with pytest.raises(ValueError, match="either candidates, or centre together with radius"):
        robust_weights(rewards, centre=[1, 1])
    with pytest.raises(ValueError, match=r"radius: got 1\.5"):
        robust_weights(rewards, centre=[1, 1], radius=1.5)
