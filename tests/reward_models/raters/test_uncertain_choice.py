"""Choices among options with uncertain rewards: against a second method, and in the predictions of a jury."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from reward_models.fitting.joint.fit import fit_joint
from reward_models.judgements.texts import Text
from reward_models.raters.uncertain_choice import uncertain_choice
from reward_models.sources.planted import planted_judgements


def as_tensors(means, sds):
    return (torch.tensor(values, dtype=torch.float64)[None, :, None] for values in (means, sds))


@pytest.mark.parametrize("sds", [(0.0, 0.0), (0.2, 0.0), (0.5, 1.0), (1.2, 1.4), (3.0, 2.0), (0.0, 7.0)])
def test_two_options_are_the_logistic_of_an_uncertain_gap(sds):
    """The gap of two normal rewards is normal: one integral, on a grid fine enough for any width."""
    means = (0.7, -0.4)
    z = np.linspace(-9, 9, 4001)
    weight = np.exp(-(z**2) / 2)
    gap = means[0] - means[1] + np.hypot(*sds) * z
    expected = (weight / (1 + np.exp(-gap))).sum() / weight.sum()
    probs = uncertain_choice(*as_tensors(means, sds))[0, :, 0].tolist()
    assert probs == pytest.approx([expected, 1 - expected], abs=6e-4)  # grids end at three standard deviations


@pytest.mark.parametrize("spread", [0.4, 1.3, 4.0])
def test_several_options_agree_with_draws(spread):
    rng = np.random.default_rng(0)
    means, sds = rng.normal(size=5), spread * rng.uniform(0.2, 1.0, size=5)
    drawn = means + sds * rng.normal(size=(400_000, 5))
    expected = np.exp(drawn - drawn.max(1, keepdims=True))
    expected = (expected / expected.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(uncertain_choice(*as_tensors(means, sds))[0, :, 0], expected, atol=2e-3)


def test_an_option_that_is_not_offered_has_no_probability_and_changes_none():
    means, sds = as_tensors((0.3, -0.2, 1.0), (1.0, 0.5, 2.0))
    offered = means.clone()
    offered[:, 1] = -torch.inf
    probs = uncertain_choice(offered, sds)[0, :, 0]
    assert probs[1] == 0
    np.testing.assert_allclose(probs[[0, 2]], uncertain_choice(means[:, [0, 2]], sds[:, [0, 2]])[0, :, 0], atol=1e-12)


def test_questions_that_nobody_answered_are_predicted_with_the_variance_of_their_options():
    """Before, choices were predicted as if the rewards of new texts were certain."""
    planted = planted_judgements("choice", num_raters=30, num_items=12)
    enc = planted.judgements.encode()
    fit = fit_joint(enc, planted.rewards, "mixture", 2)
    new = dataclasses.replace(enc, texts=[Text(f"New: {text.prompt}", text.response) for text in enc.texts])
    sure, wide = (dataclasses.replace(fit, new_variance=np.full_like(fit.new_variance, v)) for v in (0.0, 9.0))
    certain, open_to_doubt = (np.exp(f.log_probs(new, planted.rewards)) for f in (sure, wide))
    assert certain.max(1).mean() > open_to_doubt.max(1).mean() + 0.1
    np.testing.assert_allclose(open_to_doubt.sum(1), 1.0)
    exact = np.exp(fit.placement.log_probs(new, fit.linear_rewards(planted.rewards)))
    np.testing.assert_allclose(certain, exact, atol=1e-6)
