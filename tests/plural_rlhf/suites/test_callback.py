"""A suite during training: measured at the right steps, without touching the training, the best model kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.suites import DistributionItem, DistributionTask, SuiteCallback


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def coin(heads=0.5):
    items = [
        DistributionItem(f"coin-{i}", f"Coin {i}?", ("heads", "tails"), np.array([heads, 1 - heads]), listed=False)
        for i in range(6)
    ]
    return DistributionTask("coin", "generated", "Apache-2.0", "Coins.", lambda data: items)


def train(folder, tokenizer, callbacks, steps=6, attach=None, **more):
    rows = []
    for text in ("Coin?heads", "Coin?heads") * 8:
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        rows.append({"input_ids": ids, "labels": ids})
    torch.manual_seed(0)
    model = tiny_causal_lm()
    model.config.attention_dropout = 0.2  # draws random numbers, which a measurement must leave alone
    args = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=5e-2, report_to=[],
        disable_tqdm=True, logging_steps=1, use_cpu=True, seed=1, **{"save_strategy": "no", **more},
    )  # fmt: skip
    data = Dataset.from_list(rows)
    trainer = Trainer(
        model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, callbacks=callbacks
    )
    if attach is not None:
        attach.attach(trainer)
    trainer.train()
    return trainer


def test_steps_are_measured_and_the_training_stays_the_same(tmp_path, tokenizer):
    callback = SuiteCallback([coin()], every=3)
    watched = train(tmp_path / "a", tokenizer, [], attach=callback)
    plain = train(tmp_path / "b", tokenizer, [])
    assert [row["step"] for row in callback.history] == [0, 3, 6]
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (watched, plain)]
    assert losses[0] == losses[1]
    logged = [row for row in watched.state.log_history if "eval_suite/coin/jsd_nats" in row]
    assert [row["step"] for row in logged] == [0, 3, 6]
    assert watched.model.training


def test_the_best_model_is_kept(tmp_path, tokenizer):
    """Of a training on heads alone, beside a coin that always shows heads."""
    best = tmp_path / "best"
    callback = SuiteCallback([coin(1.0)], every=1, best="coin/jsd_nats", best_folder=best)
    train(tmp_path / "a", tokenizer, [callback], steps=8)
    values = {row["step"]: row["eval_suite/coin/jsd_nats"] for row in callback.history}
    kept = json.loads((best / "suite.json").read_text())
    assert values[kept["step"]] == min(values.values()) < max(values.values())
    assert kept["step"] > 0, values
    again = callback.measure(AutoModelForCausalLM.from_pretrained(best), tokenizer)
    [jsd] = [row.value for row in again.findings[0].result.rows if row.metric == "jsd_nats"]
    assert jsd == pytest.approx(min(values.values()), abs=1e-6)


def test_a_trainer_loads_the_best_checkpoint_by_a_number_of_the_suite(tmp_path, tokenizer):
    callback = SuiteCallback([coin()])
    trainer = train(
        tmp_path, tokenizer, [callback], steps=4, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True,
        metric_for_best_model="suite/coin/total_variation", greater_is_better=False, save_strategy="steps",
        save_steps=1,
    )  # fmt: skip
    values = [row["eval_suite/coin/total_variation"] for row in callback.history]
    assert len(values) == 4
    assert trainer.state.best_metric == pytest.approx(min(values))


def test_faults_are_named_before_training(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="give both"):
        SuiteCallback([coin()], best="coin/jsd_nats")
    with pytest.raises(ValueError, match="every=0"):
        SuiteCallback([coin()], every=0)
    with pytest.raises(ValueError, match="Did you mean 'coin/jsd_nats'"):
        train(tmp_path, tokenizer, [SuiteCallback([coin()], every=1, best="coin/jsd_nts", best_folder=tmp_path / "b")])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tasks": "urn"}, r"tasks='urn' is one text. Fix: tasks=\['urn'\]"),
        ({"every": 2.5}, "every=2.5 is no number of steps"),
        ({"every": True}, "every=True is no number of steps"),
        ({"every": "5"}, "every='5' is no number of steps"),
        ({"max_items": -1}, "max_items=-1 is no number of items"),
        ({"draws": 1}, "draws=1 is no number of draws"),
        ({"tasks": ["urm"]}, "unknown tasks: 'urm'. Did you mean 'urn'"),
        ({"tasks": []}, r"no task to measure \(none was asked for\). Fix: name one"),
        ({"tasks": ["global-opinion-qa"], "data": "nowhere"}, r"no task to measure \(global-opinion-qa: .*nowhere"),
    ],
)
def test_what_a_callback_cannot_measure_is_refused_before_training(asked, message):
    with pytest.raises(ValueError, match=message):
        SuiteCallback(**{"tasks": ["urn"]} | asked)
