"""What the judgements of a text say of its reward, and clusters of labels as the start of dense tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reward_models import FitConfig, fit_joint, fit_raters, planted_judgements
from reward_models.fitting.joint.problem import JointProblem
from reward_models.fitting.joint.text_likelihood import TextLikelihood
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng
from tests.benchmark_modules import benchmark_module
from tests.paths import EXCERPTS


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
