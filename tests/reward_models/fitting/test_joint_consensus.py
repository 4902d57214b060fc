"""What one reward for everybody says of texts that nobody judged: strengths of features and of residuals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reward_models.fitting.joint.fit import fit_joint
from reward_models.judgements.texts import Text
from reward_models.seeds import seeded_rng
from tests.planted import encoded, ratings


@pytest.mark.parametrize("latent", [8, 40])
def test_a_few_texts_that_many_judge_say_how_far_features_tell_new_ones(latent):
    # The texts of a personality inventory: 20 that 300 people judged, far fewer than features, which explain them all.
    # Where new texts lie in other directions, that is no reason to be sure of them.
    ratios = []
    for seed in range(3):
        rng = seeded_rng(seed, "test of joint consensus")
        x = rng.normal(size=(40, latent)) @ np.linalg.qr(rng.normal(size=(40, latent)))[0].T
        rewards = x @ rng.normal(size=40)
        rewards /= rewards.std()
        enc = ratings(np.tile(rewards, (300, 1)), seed=seed)
        fit = fit_joint(enc.select(enc.alternatives[:, 0] < 20), x, "mixture", 1)
        if latent < 20:
            assert fit.strengths.residual[0] < 0.3 * fit.strengths.features[0]
        error = fit.linear_rewards(x[20:])[:, 0] - (rewards[20:] - rewards[:20].mean())
        ratios.append((error**2).mean() / fit.new_variance[0])
    assert 0.4 < np.mean(ratios) < 2.5


def test_what_all_answers_to_a_question_share_changes_nothing_where_only_they_are_compared():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    question = np.repeat(np.arange(20), 3)
    options = np.tile(np.arange(60).reshape(20, 3), (30, 1))
    rewards = (x @ [1.0, -1.0, 0.5, 0.0])[options] + rng.gumbel(size=options.shape)
    rater = np.repeat(np.arange(30), 20)
    enc = encoded("choice", (30, 60), rater, options, rewards.argmax(1))
    enc = dataclasses.replace(enc, texts=[Text(f"question {q}", f"option {i}") for i, q in enumerate(question)])
    shared = x + 5.0 * rng.normal(size=(20, 4))[question]
    new = rng.normal(size=(5, 4))
    one, other = (fit_joint(enc, features, "mixture", 1) for features in (x, shared))
    gaps = [fit.linear_rewards(new) - fit.linear_rewards(new)[0] for fit in (one, other)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=0.2)  # strengths stop within a few hundredths
    assert np.abs(gaps[0]).max() > 0.5
    assert one.new_variance[0] == pytest.approx(other.new_variance[0], rel=0.2)
