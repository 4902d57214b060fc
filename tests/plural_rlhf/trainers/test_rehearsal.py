"""A policy that keeps what it said elsewhere: the term of the loss, its texts, and what it does to a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback

from plural_rlhf.policies.answers import answer_probabilities, encode_prompt
from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.policies.reference_texts import ReferenceTexts
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers import rehearsal as rehearsal_module
from plural_rlhf.trainers.rehearsal import Rehearsal


ELSEWHERE = [{"prompt": f"Tell me of {what}: ", "completion": "it is like this"} for what in ("cats", "dogs", "rain")]
DATA = Dataset.from_list([{"prompt": "A colour? ", "support": ["red", "blue"]}] * 4)
WANTED = [0.9, 0.1]


class Reward:
    cluster_names, prevalence = ["all"], np.ones(1)

    def cluster_rewards(self, prompts, completions):
        return torch.tensor([[np.log(WANTED[0] if c == "red" else WANTED[1])] for c in completions])


def trainer_of(folder, rehearsal, steps=20, **more):
    options = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    options |= {"bf16": False, "learning_rate": 1e-2, "per_device_train_batch_size": 2, "reference_power": 0.0}
    args = PluralGRPOConfig(str(folder), exact=True, max_steps=steps, **{**options, **more})
    tokenizer = tiny_tokenizer()
    return PluralGRPOTrainer(
        tiny_causal_lm(tokenizer), Reward(), args, DATA, processing_class=tokenizer, rehearsal=rehearsal
    )


def moved(trainer):
    """Nats per token between the model before and the trained one, on the texts elsewhere."""
    tokenizer = tiny_tokenizer()
    before = ReferenceTexts.of(
        tiny_causal_lm(tokenizer), tokenizer, ELSEWHERE, lambda prompt: encode_prompt(prompt, tokenizer)
    )
    with torch.no_grad():
        return before.divergences(trainer.model.eval(), range(len(ELSEWHERE))).mean().item()


def answers(trainer):
    return answer_probabilities(trainer.model, tiny_tokenizer(), ["A colour? "], [["red", "blue"]], progress=False)[0]


def test_the_target_is_reached_with_it_too_and_the_rest_stays(tmp_path):
    found = {}
    for weight in (None, 3.0):
        rehearsal = None if weight is None else Rehearsal(ELSEWHERE, weight=weight, per_step=3)
        trainer = trainer_of(tmp_path / str(weight), rehearsal, steps=40)
        trainer.train()
        found[weight] = moved(trainer), answers(trainer)
    for _, shares in found.values():
        assert shares / shares.sum() == pytest.approx(WANTED, abs=0.03)
        assert shares.sum() > 0.9
    assert found[None][0] > 0.3
    assert found[3.0][0] < found[None][0] / 10


def test_what_is_logged_is_the_divergence_and_the_loss_has_it_times_its_weight(tmp_path, monkeypatch):
    logged = {}
    for weight in (1.0, 2.0):
        monkeypatch.setattr(
            Rehearsal, "divergence", lambda self, model, chosen: 0 * next(model.parameters()).sum() + 5
        )
        trainer = trainer_of(tmp_path / str(weight), Rehearsal(ELSEWHERE, weight=weight), steps=1)
        trainer.train()
        logged[weight] = trainer.state.log_history[0]
    assert logged[1.0]["plural/rehearsal_kl"] == logged[2.0]["plural/rehearsal_kl"] == 5
    assert logged[2.0]["loss"] - logged[1.0]["loss"] == pytest.approx(5, abs=1e-4)


def test_an_evaluation_is_about_the_target_alone(tmp_path):
    losses = []
    for rehearsal in (None, Rehearsal(ELSEWHERE)):
        trainer = trainer_of(tmp_path / str(rehearsal is None), rehearsal, steps=1)
        trainer.train()
        trainer.model.load_state_dict(tiny_causal_lm(tiny_tokenizer()).state_dict())
        losses.append(trainer.evaluate(DATA)["eval_loss"])
    assert losses[0] == losses[1]


def test_a_resumed_training_ends_as_one_without_a_break(tmp_path):
    whole = trainer_of(tmp_path / "whole", Rehearsal(ELSEWHERE, per_step=2), steps=4)
    whole.train()
    first = trainer_of(
        tmp_path / "parts", Rehearsal(ELSEWHERE, per_step=2), steps=4, save_strategy="steps", save_steps=2
    )
    first.add_callback(StopAt(2))
    first.train()
    again = trainer_of(tmp_path / "parts", Rehearsal(ELSEWHERE, per_step=2), steps=4)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), atol=0, rtol=0)
    kl = "plural/rehearsal_kl"
    assert [row[kl] for row in again.state.log_history if kl in row] == [
        row[kl] for row in whole.state.log_history if kl in row
    ]


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_it_goes_with_sampled_completions(tmp_path):
    data = Dataset.from_list([{"prompt": "A colour? "}] * 4)
    options = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    options |= {"bf16": False, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 3}
    args = PluralGRPOConfig(str(tmp_path), max_steps=2, **options)
    tokenizer = tiny_tokenizer()
    adapter = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = PluralGRPOTrainer(
        tiny_causal_lm(tokenizer),
        Reward(),
        args,
        data,
        processing_class=tokenizer,
        peft_config=adapter,
        rehearsal=Rehearsal(ELSEWHERE),
    )
    trainer.train()
    assert [row["plural/rehearsal_kl"] > -1e-6 for row in trainer.state.log_history if "loss" in row] == [True, True]


def test_a_number_of_texts_are_made_up_by_the_policy(tmp_path):
    trainer = trainer_of(tmp_path, Rehearsal(5, max_tokens=3), steps=1)
    trainer.train()
    known = trainer.rehearsal._known()
    assert len(known) == 5
    assert max(map(len, known.tokens)) <= 3 * 4 + 1


def test_a_policy_that_makes_up_nothing_has_nothing_to_keep(monkeypatch):
    monkeypatch.setattr(rehearsal_module, "draw_own_texts", lambda *args, **settings: [])
    with pytest.raises(ValueError, match="makes up no text by itself"):
        Rehearsal(3).begin(tiny_causal_lm(tiny_tokenizer()), tiny_tokenizer(), len)


def test_every_text_has_its_turn_on_every_process():
    rehearsal = Rehearsal(ELSEWHERE, per_step=2)
    tokenizer = tiny_tokenizer()
    rehearsal.begin(tiny_causal_lm(tokenizer), tokenizer, lambda prompt: encode_prompt(prompt, tokenizer))
    assert [rehearsal.next_texts(step) for step in range(3)] == [[0, 1], [2, 0], [1, 2]]
    assert [rehearsal.next_texts(0, process, 2) for process in (0, 1)] == [[0, 1], [2, 0]]
    assert rehearsal.next_texts(1, 0, 2) == [1, 2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight": 0}, "weight is 0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": True}, "weight is True"),
        ({"weight": -1}, "weight is -1"),
        ({"weight": "1"}, "weight is '1'"),
        ({"texts": 0}, "texts is 0"),
        ({"texts": True}, "texts is True"),
        ({"texts": []}, "there are no texts"),
        ({"texts": [{"prompt": "a"}]}, "completion is None"),
        ({"per_step": 0}, "per_step is 0"),
        ({"per_step": 1.5}, "per_step is 1.5"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Rehearsal(**settings)


@pytest.mark.parametrize("wrong", [0.5, True, ELSEWHERE])
def test_what_is_no_rehearsal_is_refused_before_anything_is_loaded(wrong):
    with pytest.raises(ValueError, match=r"rehearsal is .*: give plural_rlhf\.Rehearsal"):
        PluralGRPOTrainer("no-such-model", "no-such-jury", rehearsal=wrong)


def test_without_a_policy_before_there_is_no_divergence():
    with pytest.raises(ValueError, match=r"call begin\(\) first"):
        Rehearsal(ELSEWHERE).next_texts(0)
