"""What the judgements of a text say of its reward, and clusters of labels as the start of dense tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reward_models import FitConfig, fit_joint, fit_raters, planted_judgements
from reward_models.fitting.joint.problem import JointProblem, Strengths
from reward_models.fitting.joint.strengths import Curvature
from reward_models.fitting.joint.text_likelihood import TextLikelihood
from reward_models.fitting.joint.text_observations import text_observations
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import adjusted_rand_index
from tests.benchmark_modules import benchmark_module
from tests.paths import EXCERPTS
from tests.planted import ratings


@pytest.mark.parametrize(("kind", "clusters"), [("preference", 1), ("preference", 2), ("choice", 2)])
def test_the_likelihood_of_a_text_is_that_of_its_raters_as_its_reward_moves(kind, clusters):
    enc = planted_judgements(kind, num_raters=12, num_items=5).judgements.encode()  # a rater judges a text once
    problem = JointProblem.of([enc], [np.zeros((enc.n_texts, 0))], "mixture", clusters, FitConfig())
    rng = np.random.default_rng(0)
    params = problem.start() | {"residual": rng.normal(size=(enc.n_texts, problem.n_parts))}
    likelihood = TextLikelihood.at(problem, params)

    def of_all_raters(text, step):
        moved = params["residual"].copy()
        moved[text, -1] += step / problem.strengths.residual[-1]
        tensors = {name: torch.from_numpy(value) for name, value in (params | {"residual": moved}).items()}
        return float(problem.log_likelihoods(tensors).sum())

    of_code = (problem.mixing @ problem.model.codes.T)[-1]
    changes = likelihood.log_lik(of_code, np.full(enc.n_texts, 0.8)) - likelihood.log_lik(
        of_code, np.zeros(enc.n_texts)
    )
    expected = [of_all_raters(text, 0.8) - of_all_raters(text, 0.0) for text in range(enc.n_texts)]
    np.testing.assert_allclose(changes, expected, atol=1e-8)
    assert np.abs(changes).min() > 1e-3


def test_an_observation_gives_the_posterior_that_integration_gives():
    # Without features the reward of each text is known from its own judgements and the prior alone.
    enc = planted_judgements("preference", num_raters=4, num_items=5).judgements.encode()
    problem = JointProblem.of([enc], [np.zeros((enc.n_texts, 0))], "mixture", 1, FitConfig())
    t = 2.0
    problem = problem.with_strengths(Strengths(np.ones(1), np.array([t])))
    params, _ = problem.maximise(problem.start(), 100, 1e-9)
    observed, noise = text_observations(problem, params, Curvature.at(problem, params).texts, np.arange(10))
    likelihood, mode = TextLikelihood.at(problem, params), params["residual"][:, 0] * t
    points = np.linspace(-8.0, 8.0, 401)
    log_lik = np.stack([likelihood.log_lik(np.ones(1), point - mode) for point in points], 1)
    density = np.exp(log_lik - 0.5 * (points / t) ** 2)
    density /= density.sum(1, keepdims=True)
    mean = density @ points
    variance = density @ points**2 - mean**2
    precision = 1.0 / noise + 1.0 / t**2
    np.testing.assert_allclose(observed / noise / precision, mean, atol=0.01)
    np.testing.assert_allclose(1.0 / precision, variance, atol=0.01)
    assert np.abs(mean - mode).max() > 0.03  # the mode would not do


@pytest.mark.parametrize("seed", range(3))
def test_three_votes_a_text_tell_how_far_apart_rewards_are(seed):
    rng = np.random.default_rng(seed)
    rewards, raters = 1.5 * rng.normal(size=300), 300
    enc = ratings(np.tile(rewards, (raters, 1)), intercept=0.7 * rng.normal(size=raters), seed=seed)
    some = rng.permutation(len(enc))
    rank = np.empty(len(enc), dtype=int)
    for text in range(300):
        rows = some[enc.alternatives[some, 0] == text]
        rank[rows] = np.arange(len(rows))
    train = enc.select(rank < 3, drop_raters=True)
    strengths = fit_joint(train, rng.normal(size=(300, 60)), "mixture", 1).strengths
    assert np.hypot(strengths.features[0], strengths.residual[0]) == pytest.approx(1.5, rel=0.35)


@pytest.mark.slow
def test_where_many_vote_two_clusters_predict_known_statements_as_well_as_those_of_labels_alone():
    cases, thinning = benchmark_module("_jury.cases"), benchmark_module("thinning")
    enc = cases.load_case("polis/canadian-electoral-reform", EXCERPTS).judgements.encode()
    behind = []
    for seed in (1, 2):
        train, test = thinning.thinned(enc, 30, seeded_rng(seed, "thinning canadian-electoral-reform 30"))
        config = FitConfig(seed=seed)
        fits = fit_joint(train, None, "mixture", 2, config=config), fit_raters(train, "mixture", 2, config=config)
        joint, labels = (-answer_log_lik(fit.log_probs(test), test).mean() for fit in fits)
        behind.append(joint - labels)
    assert np.mean(behind) < 0.004


@pytest.mark.slow
def test_two_camps_that_agree_on_little_are_found_where_a_text_has_ten_votes():
    table, features, cluster = benchmark_module("rater_fit").plant(20_000, 2_000, 2, 0, "texts")
    jury = fit_joint(table, features, "mixture", 2)
    camps = cluster[[int(rater) for rater in jury.rater_ids]]
    assert adjusted_rand_index(jury.responsibilities.argmax(1), camps) > 0.95
