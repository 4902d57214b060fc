"""Heads on one scale: `reward_models.jury.calibration` and `JuryScorer.calibrate`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, ndtr
from scipy.stats import rankdata

from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.jury.calibration import Calibration, calibrate, fit_temperature
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from tests.tiny import tiny_causal_lm, tiny_tokenizer


def samples(n_prompts=40, n_samples=16, scales=(1.0, 5.0, 0.2), seed=0):
    """Normal rewards of each head around a level of its own on each prompt."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(n_prompts), n_samples)
    level = rng.normal(scale=10, size=(n_prompts, len(scales)))
    return level[prompt] + rng.normal(size=(len(prompt), len(scales))) * scales, prompt


def test_spread_by_hand():
    rewards = np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0], [100.0, 0.0], [102.0, 0.0]])
    calibration = calibrate(rewards, np.array([7, 7, 7, 2, 2]))
    # Head 1: squares within prompts 4 + 0 + 4 and 1 + 1, three free differences. Head 2: 100 + 100 + 400.
    np.testing.assert_allclose(calibration.scale, [np.sqrt(10 / 3), np.sqrt(600 / 3)])
    np.testing.assert_allclose(calibration.offset, [(3 + 101) / 2, (20 + 0) / 2])
    assert (calibration.num_prompts, calibration.num_samples, calibration.method) == (2, 5, "spread")
    np.testing.assert_allclose(
        calibration.apply(torch.tensor([[52.0, 10.0 + np.sqrt(200)]], dtype=torch.float64)), [[0.0, 1.0]], atol=1e-12
    )


@pytest.mark.parametrize("method", ["spread", "win_rate"])
def test_the_scale_a_head_was_given_does_not_matter(method):
    rewards, prompt = samples()
    factor, shift = np.array([1.0, 100.0, 1e-3]), np.array([0.0, -50.0, 3.0])
    before, after = calibrate(rewards, prompt, method), calibrate(rewards * factor + shift, prompt, method)
    there = torch.from_numpy(rewards)
    np.testing.assert_allclose(
        before.apply(there), after.apply(torch.from_numpy(rewards * factor + shift)), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(before.scale, [1.0, 5.0, 0.2], rtol=0.1)


@pytest.mark.parametrize("method", ["spread", "win_rate"])
def test_a_constant_per_prompt_identifies_nothing(method):
    rewards, prompt = samples()
    moved = rewards + np.random.default_rng(1).normal(size=(40, 3))[prompt]
    np.testing.assert_allclose(calibrate(moved, prompt, method).scale, calibrate(rewards, prompt, method).scale)


def test_win_rates_are_matched_and_a_few_extreme_rewards_do_not_move_them():
    rewards, prompt = samples(n_samples=32)
    broken = rewards.copy()
    broken[::64] += 1000.0
    robust, moved = calibrate(broken, prompt, "win_rate"), calibrate(broken, prompt, "spread")
    np.testing.assert_allclose(robust.scale, [1.0, 5.0, 0.2], rtol=0.1)
    assert (moved.scale > 50).all()
    # Over each prompt's own median, Phi of the reward is the share of samples that it beats.
    for x in range(40):
        own = rewards[prompt == x]
        predicted = ndtr((own - np.median(own, axis=0)) / robust.scale)
        assert np.abs(predicted - (rankdata(own, axis=0) - 0.5) / 32).mean() < 0.08


def test_both_methods_agree_on_normal_rewards():
    rewards, prompt = samples(n_prompts=200, n_samples=32)
    spread, wins = calibrate(rewards, prompt), calibrate(rewards, prompt, "win_rate")
    np.testing.assert_allclose(spread.scale, wins.scale, rtol=0.05)


@pytest.mark.parametrize(
    ("rewards", "prompt", "method", "message"),
    [
        ([[1.0], [2.0]], [0, 1], "spread", "2 samples of 2 prompts, but no prompt has two.*8 is a good number"),
        ([[1.0, 1.0], [1.0, 2.0]], [0, 0], "spread", "cluster 'a' gives all reference samples of a prompt the same"),
        ([[1.0, 1.0], [1.0, 2.0]], [0, 0], "win_rate", "cluster 'a' gives all reference samples of a prompt the same"),
        ([[1.0], [np.nan]], [0, 0], "spread", "NaN or infinite"),
        ([1.0, 2.0], [0, 0], "spread", r"rewards \(2,\) and prompt \(2,\) do not match"),
        ([[1.0], [2.0]], [0, 0], "winrate", "method='winrate' is no calibration method. Did you mean 'win_rate'?"),
    ],
)
def test_samples_that_say_nothing_are_refused(rewards, prompt, method, message):
    with pytest.raises(JuryError, match=message):
        calibrate(np.array(rewards), np.array(prompt), method, ["a", "b"])


def pairs(n=4000, seed=0):
    """Two clusters with opposite tastes in eight texts; the reward gap decides, with no rater terms."""
    rng = np.random.default_rng(seed)
    rewards = np.linspace(-2, 2, 8)[:, None] * [1.0, -1.0]
    rows = []
    for i in range(n):
        a, b = rng.choice(8, size=2, replace=False)
        k = i % 2
        p = expit(rewards[a, k] - rewards[b, k])
        rows.append((f"rater {k}-{i % 40}", "q", f"text {a}", f"text {b}", "a" if rng.random() < p else "b"))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    frame["item_id"] = np.arange(n).astype(str)
    enc = Judgements.from_frame(frame).encode()
    rewards = rewards[[int(text.response[-1]) for text in enc.texts]]
    return enc, rewards, np.array([[1.0, 0.0] if "0-" in r else [0.0, 1.0] for r in enc.rater_ids])


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_temperature_undoes_what_a_head_was_multiplied_by():
    enc, rewards, memberships = pairs()
    np.testing.assert_allclose(fit_temperature(enc, rewards * [3.0, 0.5], memberships), [3.0, 0.5], rtol=0.1)
    # By a second method: the likelihood on a grid of temperatures.
    grid = np.exp(np.linspace(np.log(2), np.log(5), 301))
    gaps = 3 * (rewards[enc.alternatives[:, 0], 0] - rewards[enc.alternatives[:, 1], 0])
    signed = np.where(enc.label == 0, gaps, -gaps)[memberships[enc.rater, 0] == 1]
    log_lik = np.array([np.log(expit(signed / t)).sum() - 0.5 * np.log(t) ** 2 for t in grid])
    assert fit_temperature(enc, rewards * 3, memberships)[0] == pytest.approx(grid[log_lik.argmax()], rel=0.005)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_a_head_that_nobody_speaks_for_keeps_its_logits():
    enc, rewards, memberships = pairs(n=200)
    memberships[:] = [1.0, 0.0]
    assert fit_temperature(enc, rewards, memberships)[1] == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_temperature_of_ratings_needs_thresholds():
    rows = [("u", "q", "x", 1), ("u", "q", "y", 2), ("v", "q", "x", 2), ("v", "q", "y", 1)]
    enc = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])).encode()
    with pytest.raises(JuryError, match="the likelihood of ratings needs thresholds"):
        fit_temperature(enc, np.zeros((2, 1)), np.ones((2, 1)))
    assert fit_temperature(enc, np.zeros((2, 1)), np.ones((2, 1)), {"thresholds": np.zeros(1)}) == pytest.approx(1)
    with pytest.raises(
        JuryError, match=r"rewards \(3, 1\) and memberships \(2, 1\) do not match 2 texts and 2 raters"
    ):
        fit_temperature(enc, np.zeros((3, 1)), np.ones((2, 1)))


@pytest.fixture(scope="module")
def scorer():
    tokenizer = tiny_tokenizer()
    rng = np.random.default_rng(0)
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer), rng.normal(size=(2, 32)) * [[1], [20]], [5.0, -3.0], [0.7, 0.3], ["calm", "loud"]
    )
    return JuryScorer(model, tokenizer)


PROMPTS = [p for p in ("too little?", "yes or no?") for _ in range(6)]
COMPLETIONS = [f" {word}" * n for word in ("yes", "no") for n in range(1, 7)]


def test_a_calibrated_scorer_puts_heads_on_one_scale(scorer, tmp_path):
    fresh = JuryScorer(scorer.model, scorer.tokenizer)
    raw = fresh.cluster_rewards(PROMPTS, COMPLETIONS)
    assert fresh.calibrated is False
    assert raw[:, 1].std() > 5 * raw[:, 0].std()
    calibration = fresh.calibrate(PROMPTS, COMPLETIONS)
    rewards = fresh.cluster_rewards(PROMPTS, COMPLETIONS)
    assert fresh.calibrated is True
    assert rewards.dtype == torch.float32
    within = rewards.view(2, 6, 2) - rewards.view(2, 6, 2).mean(1, keepdim=True)
    np.testing.assert_allclose(within.square().sum((0, 1)) / 10, [1.0, 1.0], rtol=1e-4)
    np.testing.assert_allclose(rewards.mean(0), [0.0, 0.0], atol=1e-5)
    # Twice is as once, and it survives saving.
    again = fresh.calibrate(PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(again.scale, calibration.scale)
    fresh.save_pretrained(tmp_path)
    loaded = JuryScorer.from_pretrained(tmp_path, calibrated=True)
    torch.testing.assert_close(loaded.cluster_rewards(PROMPTS, COMPLETIONS), rewards, atol=1e-5, rtol=1e-5)
    plain = JuryScorer.from_pretrained(tmp_path)
    torch.testing.assert_close(plain.cluster_rewards(PROMPTS, COMPLETIONS), raw, atol=1e-4, rtol=1e-5)


def test_without_a_calibration_there_is_no_common_scale(scorer):
    with pytest.raises(
        JuryError, match=r"calibrated=True, but the jury has no calibration. Call JuryScorer.calibrate"
    ):
        JuryScorer(scorer.model, scorer.tokenizer, calibrated=True)
    three = Calibration(np.ones(3), np.zeros(3), "spread", 1, 2)
    with pytest.raises(JuryError, match="the calibration is that of a jury with 3 heads, but this one has 2"):
        JuryScorer(scorer.model, scorer.tokenizer, state=JuryState(calibration=three), calibrated=True)
