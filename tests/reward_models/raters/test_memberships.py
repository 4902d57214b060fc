"""Bayes' rule for raters, and the answers of clusters whose members are uncertain."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.raters.memberships import (
    cluster_answers,
    leave_one_out_posterior,
    mixture_posterior,
    predictive_log_lik,
)


LOG_LIK = np.log([[0.8, 0.4], [0.5, 0.25], [0.1, 0.9]])
RATER = np.array([0, 0, 1])
PREVALENCE = np.array([0.25, 0.75])


def test_posterior_by_hand():
    q = mixture_posterior(LOG_LIK, RATER, 3, PREVALENCE)
    assert q[0] == pytest.approx([0.25 * 0.4 / (0.25 * 0.4 + 0.75 * 0.1), 0.75 * 0.1 / (0.25 * 0.4 + 0.75 * 0.1)])
    assert q[1] == pytest.approx([0.025 / 0.7, 0.675 / 0.7])
    assert q[2] == pytest.approx(PREVALENCE)  # nobody asked this rater anything


def test_temperature_two_takes_the_root_of_the_likelihood():
    q = mixture_posterior(LOG_LIK, RATER, 2, PREVALENCE, temperature=2.0)
    odds = 0.25 * np.sqrt(0.4) / (0.75 * np.sqrt(0.1))
    assert q[0, 0] == pytest.approx(odds / (1 + odds))


def test_leave_one_out_equals_the_posterior_without_that_judgement():
    loo = leave_one_out_posterior(LOG_LIK, RATER, 2, PREVALENCE)
    for n in range(3):
        others = np.delete(np.arange(3), n)
        expected = mixture_posterior(LOG_LIK[others], RATER[others], 2, PREVALENCE)[RATER[n]]
        assert loo[n] == pytest.approx(expected)


def test_predictive_mixes_probabilities_not_logs():
    p = predictive_log_lik(np.array([[0.5, 0.5]]), np.log([[0.9, 0.1]]))
    assert np.exp(p) == pytest.approx([0.5])


def test_cluster_answers_unmix_what_weighted_frequencies_blur():
    rng = np.random.default_rng(0)
    truth = np.array([[0.9, 0.1], [0.2, 0.8]])
    n = 40_000
    cluster = rng.integers(2, size=n)
    label = (rng.random(n) > truth[cluster, 0]).astype(int)
    certainty = np.where(rng.random(n) < 0.5, 0.9, 0.6)  # memberships are uncertain but calibrated
    right = rng.random(n) < certainty
    membership = np.empty((n, 2))
    guess = np.where(right, cluster, 1 - cluster)
    membership[np.arange(n), guess] = certainty
    membership[np.arange(n), 1 - guess] = 1 - certainty
    item = np.zeros(n, dtype=int)
    blurred = cluster_answers(membership, label, item, 1, 2, max_iter=0)[:, 0]
    unmixed = cluster_answers(membership, label, item, 1, 2)[:, 0]
    assert np.abs(blurred - truth).max() > 0.12
    assert np.abs(unmixed - truth).max() < 0.03


def test_cluster_answers_with_certain_memberships_are_frequencies():
    membership = np.eye(2)[[0, 0, 0, 1]]
    answers = cluster_answers(membership, np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]), 2, 3)
    assert answers.shape == (2, 2, 3)
    assert answers[0, 0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert answers[1, 1] == pytest.approx([0, 0, 1])
    assert np.isnan(answers[0, 1]).all()  # cluster 0 never answered item 1


def test_missing_labels_are_skipped():
    membership = np.ones((3, 1))
    answers = cluster_answers(membership, np.array([0, -1, 1]), np.zeros(3, dtype=int), 1, 2)
    assert answers[0, 0] == pytest.approx([0.5, 0.5])
