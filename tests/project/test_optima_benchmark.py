"""The optima of stock losses are written down rightly: no loss has a gradient there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.benchmark_modules import benchmark_module


optima = benchmark_module("optima")


@pytest.mark.parametrize("beta", [0.05, 1.0, 4.0])
def test_optima_are_where_the_losses_have_no_gradient(beta):
    rng = np.random.default_rng(3)
    reference, rewards = rng.dirichlet(np.ones(6)), rng.normal(size=6) * 3
    for name, optimum in optima.LOSSES.items():
        policy = optimum(reference, rewards, beta)
        logits = torch.tensor(np.log(policy), requires_grad=True)
        log_pi, log_ref = logits.log_softmax(0), torch.tensor(np.log(reference))
        p, q = (log_pi, log_ref) if name == "log pool" else (log_ref, log_pi)
        loss = beta * (p.exp() * (p - q)).sum() - (log_pi.exp() * torch.tensor(rewards)).sum()
        loss.backward()
        assert policy.sum() == pytest.approx(1)
        assert float(logits.grad.abs().max()) < 1e-9


def test_grpo_without_the_correction_ends_at_its_optimum():
    """The loss of TRL, term by term, in expectation: the gradient of the published KL term is that of KL(π₀‖π)."""
    reference, rewards = np.array([0.2, 0.5, 0.3]), np.array([2.0, 0.0, 1.0])
    logits = torch.tensor(np.log(optima.grpo_optimum(reference, rewards, 0.7)), requires_grad=True)
    log_pi = logits.log_softmax(0)
    gap = torch.tensor(np.log(reference)) - log_pi
    ratio = (log_pi - log_pi.detach()).exp()
    advantages = torch.tensor(rewards - (log_pi.exp().detach().numpy() * rewards).sum())
    loss = (log_pi.exp().detach() * (-advantages * ratio + 0.7 * (gap.exp() - gap - 1))).sum()
    loss.backward()
    assert float(logits.grad.abs().max()) < 1e-9


def test_equal_rewards_leave_the_reference():
    for optimum in optima.LOSSES.values():
        np.testing.assert_allclose(optimum(np.array([0.3, 0.7]), np.zeros(2), 0.1), [0.3, 0.7])
