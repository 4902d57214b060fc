"""Likelihoods against hand-made numbers, against each other, and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from reward_models.raters.likelihoods import choice_log_lik, davidson_log_lik, ordinal_log_lik, soft_log_lik


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
    assert torch.autograd.gradcheck(
        lambda a, b, s, p: davidson_log_lik(a, b, labels % 2, s, None, p), [*draw[:3], draw[4]]
    )
    assert torch.autograd.gradcheck(lambda a, b, s, t, p: davidson_log_lik(a, b, labels, s, t, p), draw)
    thresholds = tensor(-1.0, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r, z, i, s: ordinal_log_lik(r, labels, z, i, s), (draw[0], thresholds, draw[1], draw[2])
    )


def plain_davidson(gap, nu, label):
    """The same formula, recorded operation by operation."""
    logits = torch.stack(torch.broadcast_tensors(gap / 2, -gap / 2, nu), -1).log_softmax(-1)
    return logits.gather(-1, label.expand(gap.shape)[..., None])[..., 0]


def plain_ordinal(eta, level, thresholds):
    """Log of a difference of sigmoids; exact as long as the rewards are moderate."""
    edge = tensor(math.inf)
    below = torch.sigmoid(torch.cat([-edge, thresholds, edge]) - eta[..., None])
    return below.diff(dim=-1).log().gather(-1, level.expand(eta.shape)[..., None])[..., 0]


def gradients(value, inputs):
    """Of a weighted sum, so that rows cannot stand in for each other."""
    weight = torch.linspace(1, 2, value.numel(), dtype=torch.float64).reshape(value.shape)
    return torch.autograd.grad((weight * value).sum(), inputs)


def test_gradients_in_every_state_are_those_of_the_plain_formulas():
    # The shapes of a fit: judgements by codes by terms, one label each, terms that vary along the last axis only.
    torch.manual_seed(1)
    gap, other = (torch.randn(6, 2, 1, dtype=torch.float64).mul(3).requires_grad_() for _ in range(2))
    term = torch.randn(1, 1, 4, dtype=torch.float64).requires_grad_()
    label = torch.tensor([0, 1, 2, 2, 1, 0]).reshape(6, 1, 1)

    ours = davidson_log_lik(gap, other, label, 0.3 * term, term)
    plain = plain_davidson((0.3 * term).exp() * (gap - other), term.expand(6, 2, 4), label)
    assert ours.shape == (6, 2, 4)
    assert torch.allclose(ours, plain)
    for a, b in zip(gradients(ours, (gap, other, term)), gradients(plain, (gap, other, term)), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b)

    for thresholds, level in ((tensor(-1.0, 0.5), label), (tensor(0.4), label % 2)):  # three levels, and votes
        thresholds.requires_grad_()
        ours = ordinal_log_lik(gap, level, thresholds, term, 0.3 * term)
        plain = plain_ordinal(term + (0.3 * term).exp() * gap, level, thresholds)
        assert torch.allclose(ours, plain)
        inputs = (gap, term, thresholds)
        for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b)


def test_davidson_broadcasts_whatever_varies():
    one, zero = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    by_label = davidson_log_lik(one, zero, torch.tensor([0, 1, 2]), log_tie=0.3)
    assert by_label.exp().sum().item() == pytest.approx(1.0)
    nu = tensor(-1.0, 0.3).requires_grad_()
    by_tie = davidson_log_lik(one, zero, torch.tensor(2), log_tie=nu)
    assert by_tie[1].item() == pytest.approx(by_label[2].item())
    (grad,) = torch.autograd.grad(by_tie.sum(), nu)
    assert grad.tolist() == pytest.approx((1 - by_tie.exp()).tolist())  # d log P(tie) / d log nu


def test_davidson_survives_extreme_rewards():
    gap = tensor(-800.0, -800.0, -800.0, 800.0, 800.0, 800.0, 0.0).requires_grad_()
    nu = torch.full((7,), -0.7, dtype=torch.float64).requires_grad_()
    label = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    value = davidson_log_lik(gap, torch.zeros_like(gap), label, log_tie=nu)
    # A gap g makes b e^-g times as likely as a, and a tie nu e^(-g/2) times.
    middle = -0.7 - math.log(2 + math.exp(-0.7))
    assert value.tolist() == pytest.approx([-800, 0, -400.7, 0, -800, -400.7, middle])
    by_gap, by_nu = torch.autograd.grad(value.sum(), (gap, nu))
    assert by_gap.tolist() == pytest.approx([1, 0, 0.5, 0, -1, -0.5, 0])
    assert by_nu.tolist() == pytest.approx([0, 0, 1, 0, 0, 1, 1 - math.exp(middle)])


def test_without_ties_a_tie_is_impossible_and_its_gradient_is_a_number():
    gap = tensor(0.4, -2.0, 0.0).requires_grad_()
    label = torch.tensor([2, 0, 2])
    value = davidson_log_lik(gap, torch.zeros_like(gap), label)
    assert value.exp().tolist() == pytest.approx([0, 1 / (1 + math.exp(2)), 0])
    (grad,) = torch.autograd.grad(value[1], gap)
    assert grad.tolist() == pytest.approx([0, 1 / (1 + math.exp(-2)), 0])


def test_thresholds_have_gradients_at_extreme_rewards():
    # Far beyond a threshold log p is linear in it: the log-likelihood of the level on the other side falls by one.
    reward = tensor(-50.0, -800.0, 50.0, 800.0)
    level = torch.tensor([2, 2, 0, 0])
    thresholds = tensor(-1.0, 1.0).requires_grad_()
    (grad,) = torch.autograd.grad(ordinal_log_lik(reward, level, thresholds).sum(), thresholds)
    assert grad.tolist() == pytest.approx([2.0, -2.0])
    vote = tensor(0.3).requires_grad_()
    value = ordinal_log_lik(reward, level.clamp(max=1), vote)
    assert value.tolist() == pytest.approx([-50.3, -800.3, -49.7, -799.7])
    (grad,) = torch.autograd.grad(value[:3].sum(), vote)
    assert grad.tolist() == pytest.approx([-1.0])


def test_thresholds_around_a_middle_level_have_gradients_at_extreme_rewards():
    # log p = log sigmoid(u) + log sigmoid(-l) + log(1 - e^(l - u)), whose last part has slope 1 / (e^(u - l) - 1).
    thresholds = tensor(-1.0, 1.0).requires_grad_()
    value = ordinal_log_lik(tensor(50.0, 800.0), torch.tensor([1, 1]), thresholds)
    (grad,) = torch.autograd.grad(value.sum(), thresholds)
    rest = 1 / math.expm1(2)
    assert grad.tolist() == pytest.approx([-2 * rest, 2 * (1 + rest)])
