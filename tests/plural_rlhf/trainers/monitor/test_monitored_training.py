"""`CollapseMonitor` beside a trainer: what a watched reward function logs, and findings in training a tiny model."""

from __future__ import annotations

import asyncio
import json
import logging
import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers.monitor.callback import CollapseMonitor
from tests.juries import CPU, ELEVEN, TableJury, eleven_answers
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()


# ── watching a reward function ───────────────────────


def length_reward(prompts, completions, **columns):
    return [None if c == "" else float(len(c)) for c in completions]


def test_watch_logs_answers_and_ranges_of_each_prompt_and_changes_no_reward():
    logged = {}
    prompts, completions = ["a", "b"] * 4, ["x", "yy", "x", "", "x", "yyy", "x", "yy"]
    watched = CollapseMonitor.watch(length_reward)
    assert watched(prompts=prompts, completions=completions, log_metric=logged.__setitem__) == length_reward(
        prompts, completions
    )
    # Prompt a: one answer, range 0. Prompt b: yy, yy, "" and yyy, range 1 among those that have a reward.
    three = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
    assert logged == {
        "plural/effective_answers": pytest.approx((1 + three) / 2),
        "plural/effective_texts": pytest.approx((1 + three) / 2),  # no two share a word
        "plural/reward_range": pytest.approx(0.5),
    }
    assert watched.__name__ == "length_reward"
    assert watched(prompts, completions)[0] == 1.0  # without TRL there is nobody to tell


def test_watch_takes_async_functions_and_conversations():
    async def later(prompts, completions, **columns):
        return [1.0] * len(prompts)

    prompt = [{"role": "user", "content": "?"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("a", "b")]
    logged = {}
    watched = CollapseMonitor.watch(later)
    assert asyncio.iscoroutinefunction(watched)
    asyncio.run(watched(prompts=[prompt] * 2, completions=answers, log_metric=logged.__setitem__))
    two = pytest.approx(2.0)
    assert logged == {"plural/effective_answers": two, "plural/effective_texts": two, "plural/reward_range": 0.0}


@pytest.mark.parametrize("reward", ["org/reward-model", torch.nn.Linear(1, 1)])
def test_models_cannot_be_watched(reward):
    with pytest.raises(ValueError, match=r"which TRL scores by itself.*JuryReward\(path\)"):
        CollapseMonitor.watch(reward)


# ── real training ───────────────────────


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A policy that gives each of the eleven answers to two prompts about equally often."""
    folder = tmp_path_factory.mktemp("varied")
    model = tiny_causal_lm(TOKENIZER)
    batch = AnswerBatch.encode(["Item a: ", "Item b: "], [ELEVEN] * 2, TOKENIZER)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(50):
        loss = -answer_log_probs(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(answer_log_probs(model, batch).detach().exp().sum(-1).min()) > 0.8
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


def near_ties() -> TableJury:
    """Eleven answers within .02 logits of each other; anything else is worth as little as the worst of them."""
    return TableJury({a: [0.002 * n] for n, a in enumerate(ELEVEN)}, ["all"], [1.0], otherwise=0.0)


class Witness(TrainerCallback):
    """What a callback after the monitor is told."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def monitored_trainer(varied: str, folder, trainer_class, config_class, reward, callbacks, steps: int, **settings):
    common = {
        **CPU,
        "logging_steps": 1,
        "per_device_train_batch_size": 32,
        "num_generations": 16,
        "max_completion_length": 4,
        "lr_scheduler_type": "constant",
        **settings,
    }
    args = config_class(str(folder), max_steps=steps, **common)
    data = Dataset.from_list([{"prompt": f"Item {c}: "} for c in "ab"])
    model = AutoModelForCausalLM.from_pretrained(varied, dtype="float32")
    return trainer_class(model, reward, args, data, processing_class=TOKENIZER, callbacks=callbacks)


def test_stock_grpo_collapses_on_near_ties_and_the_monitor_says_why(varied, tmp_path, caplog):
    monitor, witness = CollapseMonitor(), Witness()
    reward = monitor.watch(JuryReward(near_ties(), rule="mean"))
    trainer = monitored_trainer(
        varied,
        tmp_path,
        GRPOTrainer,
        GRPOConfig,
        reward,
        [monitor, witness],
        20,
        learning_rate=5e-3,
        save_strategy="steps",
        save_steps=20,
    )
    with caplog.at_level(logging.WARNING, logger="plural_rlhf"):
        trainer.train()
    assert monitor.findings[0].cause == "scaled_rewards"
    assert monitor.findings[0].step == 0  # before anything is spent
    found = {finding.cause: finding for finding in monitor.findings}
    assert "scale_rewards='group'" in found["collapse"].message
    assert "beta=0" in found["collapse"].message
    assert found["collapse"].message in caplog.text

    saved = json.loads((tmp_path / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
    for name in ("plural/effective_answers", "plural/reward_range", "plural/entropy"):
        assert all(name in row for row in saved if "loss" in row)
        assert all(name in row for row in witness.seen if "loss" in row)
    row = next(row for row in saved if "loss" in row)
    assert row["plural/entropy"] == pytest.approx(row["entropy"] * row["completions/mean_length"])
    assert 5 < row["plural/effective_answers"] < 11
    assert row["plural/reward_range"] <= 0.02
    assert next(r for r in monitor.summary() if r["metric"] == "plural/effective_answers")["last"] < 4


def test_rloo_with_a_watched_jury_is_left_alone(varied, tmp_path):
    monitor = CollapseMonitor()
    reward = monitor.watch(JuryReward(near_ties()))
    trainer = monitored_trainer(
        varied, tmp_path, RLOOTrainer, RLOOConfig, reward, [monitor], 8, beta=1.0, learning_rate=1e-3
    )
    trainer.train()
    # Near-ties leave the policy where it is, which is right, and worth knowing.
    assert [finding.cause for finding in monitor.findings] == ["flat_rewards"]
    (row,) = (row for row in monitor.summary() if row["metric"] == "plural/effective_answers")
    assert row["last"] > 5


@pytest.mark.slow
def test_ours_keeps_three_clusters_and_the_monitor_is_silent(varied, tmp_path):
    monitor = CollapseMonitor()
    trainer = monitored_trainer(
        varied,
        tmp_path,
        PluralGRPOTrainer,
        PluralGRPOConfig,
        eleven_answers(),
        [monitor],
        30,
        learning_rate=2e-3,
        per_device_train_batch_size=64,
        num_generations=32,
    )
    trainer.train()
    assert monitor.findings == []
    answers = [row["plural/effective_answers"] for row in trainer.state.log_history[:-1]]
    assert sum(answers[-3:]) < 0.5 * sum(answers[:3])  # half as many answers as before, because the jury asks for it
    shares = [row["plural/share/few"] for row in trainer.state.log_history[:-1]]
    assert sum(shares[-10:]) / 10 > 0.05
