"""Divergences of what is chosen among candidates, against a finite problem where its law and the target are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.evaluation.open_ended.choosing import choice_divergences
from plural_rlhf.recipe.open_ended.measured_policies import Choice
from plural_rlhf.recipe.settings.sections import PluralSection


BETA, WEIGHTS, CANDIDATES = 0.8, np.array([0.7, 0.3]), 3


@pytest.fixture(scope="module")
def problem():
    """Five answers under two clusters, one on a scale that begins elsewhere, and what the reference policy answers."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 2)) + np.array([0.0, 3.0]), rng.dirichlet(np.full(5, 3.0))


def law(rho):
    return Choice(CANDIDATES, PluralSection(rho=rho, beta=BETA)).chances(WEIGHTS)


def exact(problem, rho, chances):
    """The law of what is chosen from all 125 hands, and its divergences from the reference and from the target."""
    rewards, reference = problem
    chosen = np.zeros(5)
    for hand in itertools.product(range(5), repeat=CANDIDATES):
        chance = np.prod(reference[list(hand)]) * chances(rewards[None, list(hand)])[0]
        np.add.at(chosen, list(hand), chance)
    target = PoolTarget(rho=rho, beta=BETA).log_probs(
        torch.from_numpy(rewards)[None], torch.from_numpy(WEIGHTS)[None], torch.from_numpy(reference).log()[None]
    )[0]
    log_chosen = np.log(chosen)
    return float(chosen @ (log_chosen - np.log(reference))), float(chosen @ (log_chosen - target.numpy()))


@pytest.mark.parametrize("rho", [1.0, 0.0])
def test_the_law_of_choosing_is_known_without_any_chosen_text(problem, rho):
    rewards, reference = problem
    rng, chances = np.random.default_rng(1), law(rho)
    of_reference, of_target = exact(problem, rho, chances)
    found = [
        choice_divergences(
            rewards[rng.choice(5, size=60, p=reference)], CANDIDATES, chances, rng, weights=WEIGHTS, beta=BETA, rho=rho
        )
        for _ in range(20)
    ]
    kls, values = np.array([kl for kl, _ in found]), np.array([one.value for _, one in found])
    assert of_target > 0.02
    assert kls.mean() == pytest.approx(of_reference, abs=3.5 * kls.std() / np.sqrt(20))
    assert values.mean() == pytest.approx(of_target, abs=3.5 * values.std() / np.sqrt(20))
    assert np.mean([one.standard_error for _, one in found]) == pytest.approx(values.std(), rel=0.4)


def test_the_best_of_n_is_as_far_from_the_reference_as_the_formula_says():
    """Beirami et al. 2024, https://arxiv.org/abs/2401.01879: log n - (n - 1) / n where all rewards differ."""
    rng = np.random.default_rng(0)
    best = Choice(8).chances(np.ones(1))
    kl, target = choice_divergences(rng.normal(size=(300, 1)), 8, best, rng, weights=np.ones(1), beta=1.0)
    assert kl == pytest.approx(np.log(8) - 7 / 8, abs=0.03)
    assert target.value > 0.2  # not the target of any beta


def test_more_candidates_end_nearer_to_the_target(problem):
    rewards, reference = problem
    rng = np.random.default_rng(0)
    texts = rewards[rng.choice(5, size=256, p=reference)]
    nats = {
        n: choice_divergences(
            texts, n, Choice(n, PluralSection(beta=BETA)).chances(WEIGHTS), rng, weights=WEIGHTS, beta=BETA
        )[1].value
        for n in (2, 8)
    }
    assert nats[2] > nats[8] + 0.02 > 0.02


def test_too_few_texts_are_refused_with_the_reason():
    rng, chances = np.random.default_rng(0), Choice(4).chances(np.ones(1))
    kl, few = choice_divergences(np.zeros((7, 1)), 4, chances, rng, weights=np.ones(1), beta=1.0)
    assert (kl, few.value) == (None, None)
    assert "7 texts of the reference policy are too few to say what is chosen among 4" in few.reason
    rare = np.zeros((50, 1))
    rare[0] = 20.0
    kl, rare_cluster = choice_divergences(rare, 4, chances, rng, weights=np.ones(1), beta=1.0)
    assert (kl, rare_cluster.value) == (None, None)
    assert "50 texts of the reference policy count as 1.0" in rare_cluster.reason
