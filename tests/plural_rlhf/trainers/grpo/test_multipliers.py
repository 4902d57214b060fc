"""Which multipliers the settings ask for, and how far a step moves them."""

from __future__ import annotations

import math

import pytest
import torch

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from tests.juries import CPU, TableJury


def made(**settings) -> Multipliers:
    reward = JuryReward(TableJury({}, ["urban", "rural"], [0.7, 0.3]))
    return Multipliers.from_config(PluralGRPOConfig("out", rho=0.0, **CPU, **settings), reward)


@pytest.mark.parametrize(
    ("settings", "which"),
    [
        ({}, (False, False)),
        ({"kl_budget": 2.0}, (True, False)),
        ({"max_min": True}, (False, True)),
        ({"kl_budget": 2.0, "max_min": True}, (True, True)),
    ],
)
def test_there_are_those_that_the_settings_ask_for(settings, which):
    multipliers = made(**settings)
    assert (multipliers.kl_budget is not None, multipliers.max_min is not None) == which
    assert multipliers.active is any(which)
    assert (multipliers.weights is not None) is which[1]


def test_rates_and_the_first_beta_are_those_of_the_settings():
    """log beta moves by rate times how far the KL exceeds the budget, relative to it; log w against the gain."""
    multipliers = made(beta=0.5, kl_budget=2.0, kl_budget_learning_rate=0.1, max_min=True, max_min_learning_rate=0.25)
    assert multipliers.kl_budget.beta == 0.5
    multipliers.move(kl=3.0, gains=torch.tensor([1.0, -1.0]))
    assert multipliers.kl_budget.beta == pytest.approx(0.5 * math.exp(0.1 * (3.0 - 2.0) / 2.0))
    first, second = multipliers.weights.tolist()
    assert math.log(second / first) == pytest.approx(0.25 * 2.0)
