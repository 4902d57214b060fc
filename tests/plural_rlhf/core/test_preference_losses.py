"""The losses of preference optimisation for clusters, against numbers by hand and against second methods."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from plural_rlhf.core import preference_losses as losses
from reward_models.raters.likelihoods import davidson_log_lik


F64 = torch.float64


def test_without_ties_a_pair_is_dpos():
    margin = torch.tensor([-800.0, -2.0, 0.0, 3.0, 800.0], dtype=F64)
    assert torch.equal(losses.pair_log_lik(margin), logsigmoid(margin))
    assert losses.pair_log_lik(margin)[2].item() == pytest.approx(math.log(0.5))


def test_ties_are_davidsons_and_the_three_outcomes_are_certain_together():
    margin = torch.tensor([-700.0, -1.5, 0.0, 0.3, 700.0], dtype=F64)
    win, loss = losses.pair_log_lik(margin, tie_propensity=0.7), losses.pair_log_lik(-margin, tie_propensity=0.7)
    tie = losses.pair_log_lik(margin, torch.ones(5, dtype=torch.bool), 0.7)
    assert torch.allclose(torch.stack([win, loss, tie]).exp().sum(0), torch.ones(5, dtype=F64))
    for found, label in ((win, 0), (loss, 1), (tie, 2)):
        expected = davidson_log_lik(margin, torch.zeros(5, dtype=F64), torch.tensor(label), log_tie=math.log(0.7))
        assert torch.allclose(found, expected, atol=1e-12)
    # By hand: e^{m/2} = 2, so 2 : 1/2 : 0.7.
    by_hand = losses.pair_log_lik(torch.tensor(2 * math.log(2.0), dtype=F64), tie_propensity=0.7)
    assert by_hand.exp().item() == pytest.approx(2 / 3.2)


def test_a_tie_pulls_the_margin_to_zero_from_both_sides():
    margin = torch.tensor([2.0, 0.0, -2.0], requires_grad=True)
    losses.pair_log_lik(margin, torch.tensor([True] * 3), 1.0).sum().backward()
    assert margin.grad[0] < 0 < margin.grad[2]
    assert margin.grad[1] == 0
    assert losses.pair_log_lik(torch.tensor(1.0), torch.tensor(True), 0.0) == -math.inf


def test_ipo_aims_at_half_over_beta_and_at_nothing_for_a_tie():
    delta = torch.tensor([5.0, 7.0, 7.0])
    assert losses.ipo_loss(delta, 0.1).tolist() == [0.0, 4.0, 4.0]
    assert losses.ipo_loss(delta, 0.1, torch.tensor([False, False, True])).tolist() == [0.0, 4.0, 49.0]


def test_a_mixture_is_a_mixture_of_probabilities():
    p = torch.tensor([[0.9, 0.2], [0.9, 0.2], [0.9, 0.2]], dtype=F64)
    q = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.0, 1.0]], dtype=F64)
    assert losses.mixture_log_lik(p.log(), q).exp().tolist() == pytest.approx([0.3 * 0.9 + 0.7 * 0.2, 0.9, 0.2])
    gamma = losses.mixture_responsibilities(p.log(), q)
    assert gamma[0].tolist() == pytest.approx([0.27 / 0.41, 0.14 / 0.41])
    assert gamma[1:].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_gradient_of_a_mixture_is_that_of_em():
    margin = torch.randn(6, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    q = torch.rand(6, 3, dtype=F64, generator=torch.Generator().manual_seed(1)).clone()
    q[0, 1] = 0.0
    q /= q.sum(-1, keepdim=True)
    (direct,) = torch.autograd.grad(losses.mixture_log_lik(logsigmoid(margin), q).sum(), margin)
    gamma = losses.mixture_responsibilities(logsigmoid(margin), q)
    (em,) = torch.autograd.grad((gamma * logsigmoid(margin)).sum(), margin)
    assert torch.allclose(direct, em)
    assert direct[0, 1] == 0


def test_a_cluster_that_is_ruled_out_gives_no_nan_whatever_its_likelihood():
    log_lik = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
    value = losses.mixture_log_lik(log_lik, torch.tensor([[1.0, 0.0]]))
    value.sum().backward()
    assert value.item() == -1.0
    assert log_lik.grad.tolist() == [[1.0, 0.0]]


def test_the_public_policy_is_the_mixture_exactly_where_its_loss_is_zero():
    """Gradient descent on the loss of a softmax policy, over responses drawn from neither, ends at the mixture."""
    clusters = torch.tensor([[0.98, 0.01], [0.01, 0.01], [0.01, 0.98]], dtype=F64)  # (responses, K)
    weights = torch.tensor([0.7, 0.3], dtype=F64)
    mixture = clusters @ weights
    assert losses.public_loss(mixture.log(), clusters.log(), weights).abs().max() < 1e-20
    logits = torch.zeros(3, dtype=F64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        losses.public_loss(logits.log_softmax(0), clusters.log(), weights).sum().backward()
        optimizer.step()
    assert torch.allclose(logits.softmax(0), mixture, atol=1e-3)
    # The rival, averaging log-probabilities, is the consensus, which leaves the smaller cluster less than half of .3.
    log_pool = (clusters.log() @ weights).softmax(0)
    assert log_pool[2] < 0.15
    assert mixture[2] == pytest.approx(0.7 * 0.01 + 0.3 * 0.98)


def test_the_mixture_is_the_teacher():
    log_pi = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    public = torch.tensor([-30.0], requires_grad=True)
    losses.public_loss(public, log_pi, torch.tensor([0.5, 0.5])).sum().backward()
    assert log_pi.grad is None
    assert public.grad.item() == -1.0  # Huber: thirty nats pull like one


def test_shares_as_weights_are_the_plain_mean():
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(50, 3, generator=generator, dtype=F64)
    q = torch.rand(50, 3, generator=generator, dtype=F64)
    q /= q.sum(-1, keepdim=True)
    plain, own = losses.balanced_loss(loss, q, q.mean(0), q.mean(0))
    assert plain.item() == pytest.approx((q * loss).sum(-1).mean().item())
    assert own.tolist() == pytest.approx(((q * loss).sum(0) / q.sum(0)).tolist())


def test_small_batches_estimate_the_balanced_loss_without_bias():
    """The mean over all batches of two, most of which lack the small cluster, is the value on the whole."""
    loss, q = torch.tensor([[1.0], [2.0], [3.0], [9.0]], dtype=F64), torch.eye(2, dtype=F64)[[0, 0, 0, 1]]
    shares, weights = q.mean(0), torch.tensor([0.4, 0.6], dtype=F64)
    batches = [[i, j] for i in range(4) for j in range(4)]
    values = [losses.balanced_loss(loss[b], q[b], shares, weights) for b in batches]
    assert torch.stack([v[0] for v in values]).mean().item() == pytest.approx(0.4 * 2 + 0.6 * 9)
    assert torch.stack([v[1] for v in values]).mean(0).tolist() == pytest.approx([2.0, 9.0])


def test_a_cluster_without_anyone_is_left_out():
    loss = torch.tensor([[1.0, math.inf]], requires_grad=True)
    q, shares = torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, 0.0])
    value, own = losses.balanced_loss(loss, q, shares, torch.tensor([0.5, 0.5]))
    value.backward()
    assert (value.item(), own.tolist(), loss.grad.tolist()) == (0.5, [1.0, 0.0], [[0.5, 0.0]])
