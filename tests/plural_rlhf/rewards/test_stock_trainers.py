"""A `JuryReward` in a stock trainer names the settings that lead to another target, and refuses a wrong KL."""

from __future__ import annotations

import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.rewards.stock_trainers import check_stock_trainer, trainer_of
from plural_rlhf.trainers.monitor.callback import CollapseMonitor
from tests.juries import CPU, TableJury
from tests.policies import TOKENIZER, rows


GOOD_GRPO = {"scale_rewards": "none", "beta": 1.0}


def jury() -> TableJury:
    return TableJury({"1": [1.0, 0.0], "2": [0.0, 1.0]}, ["many", "few"], [0.75, 0.25])


def stand_in(stock: type, args) -> object:
    """A trainer of this class that was never made."""
    trainer = object.__new__(stock)
    trainer.args, trainer.model = args, torch.nn.Linear(1, 1)
    return trainer


def faults(stock: type, args, beta: float = 1.0) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_stock_trainer(stand_in(stock, args), beta)
    return [str(one.message) for one in caught]


def config(kind: type, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind("out", **{**CPU, **settings})


def test_the_two_documented_lines_are_in_order():
    assert faults(RLOOTrainer, config(RLOOConfig, beta=1.0, normalize_advantages=False)) == []
    assert faults(RLOOTrainer, config(RLOOConfig, beta=0.2), beta=0.2) == []


@pytest.mark.parametrize(
    ("stock", "args", "message"),
    [
        (RLOOTrainer, config(RLOOConfig), "beta is 0.05 in RLOOConfig and 1 in the JuryReward"),
        (RLOOTrainer, config(RLOOConfig, beta=0.0), "beta is 0 in RLOOConfig"),
        (RLOOTrainer, config(RLOOConfig, beta=1.0, normalize_advantages=True), "Set normalize_advantages=False"),
        (RLOOTrainer, config(RLOOConfig, beta=1.0, reward_clip_range=(-1.0, 1.0)), "reward_clip_range=None"),
        (GRPOTrainer, config(GRPOConfig, scale_rewards="none"), r"set GRPOConfig\(beta=1\)"),
        (GRPOTrainer, config(GRPOConfig, scale_rewards="group", beta=1.0), "Set scale_rewards='none'"),
        (GRPOTrainer, config(GRPOConfig, scale_rewards="batch", beta=1.0), "scale_rewards is 'batch'"),
        (
            GRPOTrainer,
            config(GRPOConfig, multi_objective_aggregation="normalize_then_sum", **GOOD_GRPO),
            "multi_objective_aggregation='sum_then_normalize'",
        ),
        (GRPOTrainer, config(GRPOConfig, **GOOD_GRPO), "answers of one token only"),
    ],
)
def test_a_setting_that_leads_elsewhere_is_named_with_its_cure(stock, args, message):
    with pytest.warns(UserWarning, match=message):
        check_stock_trainer(stand_in(stock, args), beta=1.0)


def test_a_kl_that_is_not_k1_is_refused():
    args = config(RLOOConfig, beta=1.0)
    args.kl_estimator = "k3"  # as a TRL under discussion would have it
    with pytest.raises(ValueError, match=r"kl_estimator is 'k3'.*Set kl_estimator='k1'"):
        check_stock_trainer(stand_in(RLOOTrainer, args), beta=1.0)
    args = config(GRPOConfig, use_bias_correction_kl=False, **GOOD_GRPO)
    with pytest.raises(ValueError, match=r"use_bias_correction_kl is False.*Use RLOOTrainer or PluralGRPOTrainer"):
        check_stock_trainer(stand_in(GRPOTrainer, args), beta=1.0)
    args = config(GRPOConfig, use_bias_correction_kl=False, beta=0.0, scale_rewards="none")
    assert len(faults(GRPOTrainer, args)) == 1  # no KL at all


@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True], ids=["alone", "watched"])
def test_it_is_checked_once_at_the_first_call_and_before_any_step(lopsided, tmp_path, watched):
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4}
    args = RLOOConfig(str(tmp_path), beta=0.5, **settings, **CPU)
    reward = JuryReward(jury())
    function = CollapseMonitor.watch(reward) if watched else reward
    trainer = RLOOTrainer(lopsided, function, args, rows("ab", None), processing_class=TOKENIZER)
    with pytest.warns(UserWarning, match="beta is 0.5 in RLOOConfig and 1 in the JuryReward") as caught:
        trainer.train()
    assert sum("in the JuryReward" in str(one.message) for one in caught) == 1
    args.kl_estimator = "k3"
    before = [p.detach().clone() for p in trainer.model.parameters()]
    refused = RLOOTrainer(trainer.model, JuryReward(jury()), args, rows("ab", None), processing_class=TOKENIZER)
    with pytest.raises(ValueError, match="kl_estimator"):
        refused.train()
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))


def test_a_baseline_may_go_elsewhere_and_no_other_caller_is_a_trainer():
    stock = stand_in(GRPOTrainer, config(GRPOConfig))
    stock.log = lambda: None
    log_metric = GRPOTrainer._log_metric.__get__(stock)
    assert trainer_of(log_metric) is stock
    for function in (print, None, lambda name, value: None, SimpleNamespace().__init__):
        assert trainer_of(function) is None
    stock._pending_metrics = {name: [] for name in ("jury/many/mean", "jury/few/mean")} | {
        f"plural/{kind}/{name}": [] for kind in ("weight", "share") for name in ("many", "few")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JuryReward(jury(), check_trainer=False)(prompts=["a"] * 2, completions=["1", "2"], log_metric=log_metric)
    reward = JuryReward(jury())
    with pytest.warns(UserWarning, match="scale_rewards"):
        reward(prompts=["a"] * 2, completions=["1", "2"], log_metric=log_metric)
    assert pickle.loads(pickle.dumps(reward)).check_trainer


# ── why k1 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


REFERENCE = np.array([0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05])


def fixed_point(penalty) -> np.ndarray:
    """Probabilities at the end of exact policy gradient on a softmax over eleven answers; 7 gets .02 more, β is 1."""
    reward, logits = 0.02 * (np.arange(11) == 7), np.log(REFERENCE)
    for _ in range(20_000):
        pi = np.exp(logits - logits.max())
        pi /= pi.sum()
        value = reward - penalty(np.log(pi) - np.log(REFERENCE))
        logits = logits + 2.0 * pi * (value - pi @ value)
    return pi


def test_with_k3_in_the_reward_a_bonus_of_two_hundredths_takes_everything():
    k1 = fixed_point(lambda log_ratio: log_ratio)
    assert k1[7] == pytest.approx(0.193, abs=5e-4)
    target = REFERENCE * np.exp(0.02 * (np.arange(11) == 7))
    assert k1 == pytest.approx(target / target.sum(), abs=1e-4)
    k3 = fixed_point(lambda log_ratio: np.exp(np.minimum(-log_ratio, 40)) + log_ratio - 1)
    assert k3[7] == pytest.approx(1.0, abs=5e-4)


def test_the_loss_of_grpo_has_the_gradient_of_k1_for_one_token_if_its_bias_is_corrected():
    """Ratio times k3, on-policy, as in TRL; without the ratio the fixed point is that of KL(π₀ ‖ π)."""
    log_ref = torch.tensor(np.log(REFERENCE))
    logits = torch.randn(11, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)

    def gradient(corrected: bool) -> torch.Tensor:
        log_pi = logits.log_softmax(0)
        old = log_pi.detach()
        k3 = (log_ref - log_pi).exp() - (log_ref - log_pi) - 1
        loss = (old.exp() * (log_pi - old).exp() * k3 if corrected else old.exp() * k3).sum()
        return torch.autograd.grad(loss, logits)[0]

    log_pi = logits.log_softmax(0)
    reverse = torch.autograd.grad((log_pi.exp() * (log_pi - log_ref)).sum(), logits)[0]
    log_pi = logits.log_softmax(0)
    forward = torch.autograd.grad((log_ref.exp() * (log_ref - log_pi)).sum(), logits)[0]
    torch.testing.assert_close(gradient(corrected=True), reverse)
    torch.testing.assert_close(gradient(corrected=False), forward)
