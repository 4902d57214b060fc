"""Likelihoods against hand-made numbers, against each other, and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from reward_models.likelihoods import choice_log_lik, davidson_log_lik, ordinal_log_lik, soft_log_lik


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_choice_by_hand_and_with_a_mask():
    rewards = torch.log(tensor(1.0, 2.0, 5.0))
    assert choice_log_lik(rewards, torch.tensor(2)).exp().item() == pytest.approx(5 / 8)
    mask = torch.tensor([True, True, False])
    assert choice_log_lik(rewards, torch.tensor(1), mask).exp().item() == pytest.approx(2 / 3)


def test_choice_broadcasts_one_label_over_clusters():
    rewards = torch.randn(4, 3, 5, dtype=torch.float64)  # judgements, clusters, alternatives
    label = torch.tensor([0, 1, 2, 4])
    together = choice_log_lik(rewards, label[:, None])
    assert together.shape == (4, 3)
    assert torch.allclose(together[:, 1], choice_log_lik(rewards[:, 1], label))


def test_davidson_by_hand():
    # weights a : b : tie = e : 1 : 0.5 sqrt(e)
    a, b = tensor(1.0), tensor(0.0)
    weights = [math.e, 1.0, 0.5 * math.exp(0.5)]
    for label, weight in enumerate(weights):
        p = davidson_log_lik(a, b, torch.tensor([label]), log_tie=math.log(0.5)).exp().item()
        assert p == pytest.approx(weight / sum(weights))


def test_davidson_without_ties_is_bradley_terry():
    a, b = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    expected = torch.nn.functional.logsigmoid(a - b)
    label = torch.zeros(6, dtype=torch.int64)
    assert torch.allclose(davidson_log_lik(a, b, label), expected)
    assert torch.allclose(davidson_log_lik(a, b, label, log_tie=-math.inf), expected)
    assert davidson_log_lik(a, b, label + 2).isneginf().all()


def test_davidson_scale_and_position_move_the_difference():
    a, b, zero = tensor(0.4), tensor(-0.1), torch.tensor([0])
    scaled = davidson_log_lik(a, b, zero, log_scale=math.log(3.0), position=0.7)
    assert scaled.item() == pytest.approx(math.log(1 / (1 + math.exp(-(3 * 0.5 + 0.7)))))
    # A tie stays equally far from both when the position favours a: it carries half of it.
    tie_minus_b = davidson_log_lik(a, a, torch.tensor([2]), 0.0, 0.0, 0.8) - davidson_log_lik(
        a, a, torch.tensor([1]), 0.0, 0.0, 0.8
    )
    assert tie_minus_b.item() == pytest.approx(0.4)


def test_ordinal_by_hand_and_sums_to_one():
    thresholds = tensor(-1.0, 0.5)
    reward, level = tensor(0.3, 0.3, 0.3), torch.tensor([0, 1, 2])
    p = ordinal_log_lik(reward, level, thresholds, intercept=0.2, log_scale=math.log(2.0)).exp()
    below = torch.sigmoid(thresholds - 0.2 - 2 * 0.3)
    assert torch.allclose(p, torch.stack([below[0], below[1] - below[0], 1 - below[1]]))
    assert p.sum().item() == pytest.approx(1.0)


def test_ordinal_survives_extreme_rewards():
    thresholds = tensor(0.0, 1e-9)  # the middle level is almost impossible
    reward = tensor(-800.0, 0.0, 800.0).requires_grad_()
    value = ordinal_log_lik(reward, torch.tensor([2, 1, 0]), thresholds)
    value.sum().backward()
    assert value.isfinite().all()
    assert reward.grad.isfinite().all()
    assert value[0].item() == pytest.approx(-800.0, abs=1e-6)


def test_soft_is_maximal_at_the_mixture_and_then_minus_its_entropy():
    rewards = torch.randn(4, 3, dtype=torch.float64)  # alternatives, clusters
    log_prevalence = tensor(0.5, 0.3, 0.2).log()
    mixture = (rewards.softmax(0) * log_prevalence.exp()).sum(-1)
    best = soft_log_lik(rewards, mixture, log_prevalence)
    assert best.item() == pytest.approx((mixture * mixture.log()).sum().item())
    single = soft_log_lik(rewards[:, :1], mixture, tensor(1.0).log())
    assert single.item() < best.item()


def test_soft_ignores_options_nobody_chose():
    rewards = torch.tensor([[0.0], [-torch.inf]], dtype=torch.float64)
    assert soft_log_lik(rewards, tensor(1.0, 0.0), tensor(0.0)).item() == pytest.approx(0.0)


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    draw = [torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(5)]
    labels = torch.tensor([0, 1, 2, 2, 0])
    assert torch.autograd.gradcheck(lambda a, b, s, t, p: davidson_log_lik(a, b, labels, s, t, p), draw)
    thresholds = tensor(-1.0, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r, z, i, s: ordinal_log_lik(r, labels, z, i, s), (draw[0], thresholds, draw[1], draw[2])
    )
