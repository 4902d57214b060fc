"""Divergences from reference and target by samples, against an enumerable problem where they are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from plural_rlhf.core.targets import PoolTarget, pool_reward
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


def sampled(problem, policy, rho, rng, n=60, m=50):
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
    found = [sampled(problem, policy, rho, rng) for _ in range(100)]
    values = np.array([one.value for one in found])
    truth = exact(problem, policy, rho)
    assert truth > 0.1
    assert values.mean() == pytest.approx(truth, abs=3.5 * values.std() / np.sqrt(100))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(values.std(), rel=0.2)


@pytest.mark.parametrize("rho", [1.0, 0.0, -2.0])
def test_over_all_reference_samples_there_are_the_jackknife_takes_the_bias_out(rho):
    """Three answers, seven samples: 36 counts with their multinomial probabilities, so that nothing is random."""
    rewards = np.array([[0.0, 1.2], [0.9, 0.0], [-0.6, 0.4]])
    reference, policy, m = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.4, 0.4]), 7
    truth, answers = exact((rewards, reference, policy), policy, rho), np.repeat(np.arange(3), [1, 2, 2])
    mean = plain_mean = 0.0
    for counts in (c for c in itertools.product(range(m + 1), repeat=3) if sum(c) == m):
        theirs = rewards[np.repeat(np.arange(3), counts)]
        logs = np.log(policy)[answers], np.log(reference)[answers]
        found = kl_to_target(*logs, rewards[answers], theirs, weights=WEIGHTS, beta=BETA, rho=rho, min_effective=0)
        log_z = torch.from_numpy(reference_log_z(theirs, BETA))
        both = torch.from_numpy(np.concatenate([rewards[answers], theirs]))
        pooled = pool_reward(both, list(WEIGHTS), log_z, BETA, rho).numpy() / BETA
        plain = (logs[0] - logs[1] - pooled[:5]).mean() + np.log(np.exp(pooled[5:]).mean())
        chance = math.factorial(m) / math.prod(map(math.factorial, counts)) * np.prod(reference**counts)
        mean, plain_mean = mean + chance * found.value, plain_mean + chance * plain
    assert abs(plain_mean - truth) > 0.005
    assert abs(mean - truth) < abs(plain_mean - truth) / 5


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
