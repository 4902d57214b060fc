"""Divergences from reference and target by samples, against an enumerable problem where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.evaluation import kl_to_target, reference_log_z, sequence_kl


BETA, WEIGHTS = 0.8, np.array([0.7, 0.3])


@pytest.fixture(scope="module")
def problem():
    """Six answers, two clusters, a reference and a policy: all probabilities are known."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 2)), rng.dirichlet(np.full(6, 3.0)), rng.dirichlet(np.full(6, 3.0))


def exact(problem, policy, rho):
    rewards, reference, _ = problem
    target = PoolTarget(rho=rho, beta=BETA).log_probs(
        torch.from_numpy(rewards)[None], torch.from_numpy(WEIGHTS)[None], torch.from_numpy(reference).log()[None]
    )[0]
    return float((policy * (np.log(policy) - target.numpy())).sum())


def sampled(problem, policy, rho, rng, n=60, m=200):
    rewards, reference, _ = problem
    ours, theirs = rng.choice(6, size=n, p=policy), rng.choice(6, size=m, p=reference)
    return kl_to_target(
        np.log(policy)[ours],
        np.log(reference)[ours],
        rewards[ours],
        rewards[theirs],
        weights=WEIGHTS,
        beta=BETA,
        rho=rho,
    )


@pytest.mark.parametrize("rho", [1.0, 0.0, -2.0])
def test_kl_to_target_is_unbiased_and_its_error_is_right(problem, rho):
    _, _, policy = problem
    rng = np.random.default_rng(1)
    found = [sampled(problem, policy, rho, rng) for _ in range(150)]
    values = np.array([one.value for one in found])
    truth = exact(problem, policy, rho)
    assert truth > 0.1
    assert values.mean() == pytest.approx(truth, abs=3.5 * values.std() / np.sqrt(150))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(values.std(), rel=0.2)


def test_the_target_itself_has_no_divergence(problem):
    rewards, reference, _ = problem
    target = PoolTarget(rho=1.0, beta=BETA).log_probs(
        torch.from_numpy(rewards)[None], torch.from_numpy(WEIGHTS)[None], torch.from_numpy(reference).log()[None]
    )[0]
    found = sampled(problem, target.exp().numpy(), 1.0, np.random.default_rng(2), n=400, m=400)
    assert abs(found.value) < 3 * found.standard_error


def test_no_estimate_where_the_reference_hardly_says_what_a_cluster_wants():
    rewards = np.zeros((50, 2))
    rewards[0, 1] = 20.0
    found = kl_to_target([0.0], [0.0], rewards[:1], rewards, weights=[0.5, 0.5], beta=1.0)
    assert found.value is None
    assert found.effective_samples == pytest.approx(1.0)
    assert "50 reference samples count as 1.0" in found.reason
    # A cluster without weight has no say.
    assert kl_to_target([0.0], [0.0], rewards[:1], rewards, weights=[1.0, 0.0], beta=1.0).value == pytest.approx(0.0)


@pytest.mark.parametrize("m", [0, 1])
def test_one_reference_sample_is_refused(m):
    found = kl_to_target([0.0], [0.0], np.zeros((1, 1)), np.zeros((m, 1)), weights=[1.0], beta=1.0, min_effective=0)
    assert found.value is None


def test_sequence_kl_of_one_text_has_no_error():
    kl, error = sequence_kl([-1.0], [-3.0])
    assert kl == 2.0
    assert math.isnan(error)


def test_log_z_is_the_logarithm_of_the_mean():
    rewards = np.random.default_rng(0).normal(size=(4, 9, 3))
    assert np.allclose(reference_log_z(rewards, 0.5), np.log(np.exp(rewards / 0.5).mean(axis=1)))
