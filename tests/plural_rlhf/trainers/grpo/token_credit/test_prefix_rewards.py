"""Credit by the rewards of prefixes: it sums to the whole residual, is exact without decay, and ends at the target."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plural_rlhf.core.estimators import leave_one_out, score_function_loss
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.token_credit.prefix_rewards import (
    PrefixSlopes,
    credit_loss,
    prefix_gains,
    prefix_rewards,
)
from plural_rlhf.trainers.grpo.token_credit.token_kl import reward_to_go_loss
from tests.policies import TOKENIZER


GROUP = 6
PAIRS = torch.tensor(list(itertools.product(range(3), repeat=2)))


class Tokens(torch.nn.Module):
    """A policy of two tokens out of three each."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.nn.Parameter(torch.randn(3, generator=draw, dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.randn(3, 3, generator=draw, dtype=torch.float64))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Log-probability of each token, `(n, 2)`."""
        second = self.second[ids[:, 0]].log_softmax(-1).gather(-1, ids[:, 1:])
        return torch.cat([self.first.log_softmax(-1)[ids[:, :1]], second], 1)


REFERENCE = Tokens(1)
# The first token says most of it.
REWARD = torch.tensor([1.5, 0.0, -1.5], dtype=torch.float64).repeat_interleave(3)
REWARD += 0.5 * torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
AFTER_FIRST = REWARD.view(3, 3).mean(1)  # what a jury might say of the first token alone


def loss_of(policy, chosen, *, values, slope=1.0, decay, whole_share):
    """The loss of groups of pairs, and that of their whole residuals."""
    ids = PAIRS[chosen]
    log_pi, log_ref = policy(ids), REFERENCE(ids).detach()
    d = (REWARD[chosen] + (log_ref - log_pi).sum(1)).detach()
    whole = leave_one_out(d.view(-1, GROUP)).view(-1)
    lengths = torch.full((len(ids),), 2)
    slopes = torch.tensor([slope], dtype=torch.float64)
    gains = prefix_gains(values[ids[:, :1]], REWARD[chosen], d, lengths, slopes, GROUP, every=1)
    loss = credit_loss(gains, whole, log_pi, log_ref, decay=decay, whole_share=whole_share)
    return loss, score_function_loss(whole, log_pi.sum(1))


def test_gains_sum_to_the_reward_above_what_the_others_have():
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (12,), generator=draw)
    reward, residual = torch.randn(2, 12, generator=draw, dtype=torch.float64)
    values = torch.randn(12, 3, generator=draw, dtype=torch.float64)
    values[torch.arange(2, 8, 2) >= lengths[:, None]] = torch.nan
    gains = prefix_gains(values, reward, residual, lengths, torch.tensor([0.5, 1.0, 2.0]), GROUP, every=2)
    d = residual.view(-1, GROUP)
    others = ((d.sum(1, keepdim=True) - d) / (GROUP - 1)).flatten()
    torch.testing.assert_close(gains.sum(1), reward - others)
    assert not gains[torch.arange(gains.shape[1]) >= lengths[:, None]].any()


def test_without_slopes_and_decay_it_is_the_reward_to_go():
    policy, chosen = Tokens(0), torch.arange(GROUP)
    loss, _ = loss_of(policy, chosen, values=AFTER_FIRST, slope=0.0, decay=1.0, whole_share=0.0)
    ids = PAIRS[chosen]
    log_pi, log_ref = policy(ids), REFERENCE(ids).detach()
    whole = leave_one_out((REWARD[chosen] + (log_ref - log_pi).sum(1)).detach()[None])[0]
    torch.testing.assert_close(loss, reward_to_go_loss(whole, log_pi, log_ref))


def gradients(policy, number, **settings):
    """Gradients of groups drawn from the policy, `(number, parameters)`, by credit and by whole residuals."""
    draw = torch.Generator().manual_seed(3)
    probability = policy(PAIRS).sum(1).exp().detach()
    found = []
    for _ in range(number):
        chosen = torch.multinomial(probability, GROUP, replacement=True, generator=draw)
        losses = loss_of(policy, chosen, values=AFTER_FIRST, whole_share=0.0, **settings)
        each = [torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True) for loss in losses]
        found.append([torch.cat([part.flatten() for part in parts]) for parts in each])
    credit, whole = zip(*found, strict=True)
    return torch.stack(credit), torch.stack(whole)


@pytest.mark.slow
def test_without_decay_the_gradient_is_that_of_the_divergence_with_less_noise():
    """At the reference, where training starts."""
    policy = Tokens(1)
    log_pi = policy(PAIRS).sum(1)
    log_p = (REWARD + log_pi.detach()).log_softmax(0)
    exact = torch.autograd.grad((log_pi.exp() * (log_pi - log_p)).sum(), list(policy.parameters()))
    exact = torch.cat([part.flatten() for part in exact])
    credit, whole = gradients(policy, 1500, decay=1.0)
    for of in (credit, whole):
        torch.testing.assert_close(of.mean(0), exact, atol=4 * float(of.std(0).max()) / 1500**0.5, rtol=0)
    noise, usual = ((of - exact).square().sum(1).mean() for of in (credit, whole))
    assert float(noise) < 0.8 * float(usual)
    short, _ = gradients(policy, 1500, decay=0.5)
    assert float(short.var(0).sum()) < 0.7 * float(usual)


def divergence_after(whole_share, steps=400):
    """KL(policy || target) after training on prefixes that a jury misreads, with no look ahead."""
    policy, draw = Tokens(1), torch.Generator().manual_seed(4)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
    log_p = (REWARD + REFERENCE(PAIRS).sum(1).detach()).log_softmax(0)
    for step in range(steps):
        probability = policy(PAIRS).sum(1).exp().detach()
        chosen = torch.multinomial(probability, 4 * GROUP, replacement=True, generator=draw)
        share = whole_share(step / steps)
        loss, _ = loss_of(policy, chosen, values=-AFTER_FIRST, decay=0.0, whole_share=share)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    log_pi = policy(PAIRS).sum(1).detach()
    return float((log_pi.exp() * (log_pi - log_p)).sum())


def test_training_ends_at_the_target_whatever_the_jury_makes_of_prefixes():
    assert divergence_after(lambda done: done) < 0.01
    assert divergence_after(lambda done: 0.0) > 0.1  # a guess that never gives way moves the fixed point


def test_a_slope_is_the_regression_of_the_whole_on_the_prefix_within_groups():
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(400, 1, generator=draw, dtype=torch.float64)
    levels = torch.randn(100, generator=draw, dtype=torch.float64).repeat_interleave(4) * 10  # of prompts: no matter
    y = 0.7 * x[:, 0] + levels
    slopes = PrefixSlopes()
    for first in range(0, 400, 40):
        slopes.observe(x[first : first + 40], y[first : first + 40], group=4)
    assert float(slopes.of(1)) == pytest.approx(0.7, abs=0.02)
    x[::3] = torch.nan
    slopes.observe(x[:40], y[:40], group=4)
    assert slopes.of(3).isfinite().all()
    again = PrefixSlopes()
    again.load_state_dict(slopes.state_dict())
    torch.testing.assert_close(again.of(3), slopes.of(3))


def test_a_prefix_without_a_word_is_not_scored_and_prompts_are_kept_apart():
    asked = []

    def cluster_rewards(prompts, completions):
        asked.extend(zip(prompts, completions, strict=True))
        return torch.tensor([[float(len(text))] for text in completions])

    scorer = SimpleNamespace(cluster_names=["all"], prevalence=np.ones(1), cluster_rewards=cluster_rewards)
    reward = JuryReward(scorer, rule="mean")
    texts = ["  ab", "cde"]
    ids = [[*TOKENIZER.encode(text), TOKENIZER.eos_token_id] for text in texts]
    width = max(map(len, ids))
    columns = {
        "completion_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        "completion_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }
    rows = [{"prompt": "p"}, {"prompt": "q"}]
    values = prefix_rewards(
        reward, rows, columns, torch.ones(2, 1), [reward.rule] * 2, TOKENIZER, every=1, longest=width + 1
    )
    first = [text for prompt, text in asked if prompt == "p"]
    assert first == ["  a", "  ab"]
    assert [text for prompt, text in asked if prompt == "q"] == ["c", "cd", "cde"]
    assert values[0].isnan().tolist() == [True, False, False, True]
    assert values[1].isnan().tolist() == [False, False, False, True]
