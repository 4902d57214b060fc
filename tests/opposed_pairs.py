"""Preference pairs of two clusters that want opposite answers, and a policy that says either half of the time."""

from __future__ import annotations

import functools

import torch
from datasets import Dataset

from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from plural_rlhf.weights.wording import POPULATION, steer_prompt
from tests.juries import CPU
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
PROMPTS = ["Item a:", "Item b:"]
URBAN, RURAL = "Answer as a member of this public: urban.", "Answer as a member of this public: rural."
QUIET = {**CPU, "lr_scheduler_type": "constant"}
STEADY = {"beta": 0.5, "sft_coef": 0.5, "lr_scheduler_type": "linear"}


@functools.cache
def yes_or_no() -> dict[str, torch.Tensor]:
    """Weights of a policy that says yes and no with a probability of about .5 each, whoever is asked."""
    model = tiny_causal_lm(TOKENIZER)
    asked = [steer_prompt(p, w) if w else p for p in PROMPTS for w in (None, POPULATION, URBAN, RURAL)]
    batch = AnswerBatch.encode(asked, [["yes", "no"]] * len(asked), TOKENIZER)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (-answer_log_probs(model, batch).mean()).backward()
        optimizer.step()
    return model.state_dict()


def policy(state: dict[str, torch.Tensor] | None = None):
    model = tiny_causal_lm(TOKENIZER)
    model.load_state_dict(state or yes_or_no())
    return model


def pair(prompt: str, yes: bool, **columns):
    return {"prompt": prompt, "chosen": "yes" if yes else "no", "rejected": "no" if yes else "yes", **columns}


def opposed(prompts=PROMPTS) -> Dataset:
    """On every prompt the urban cluster (count 7) says yes and the rural one (count 3) no."""
    rows = [
        pair(p, yes, cluster="urban" if yes else "rural", count=7 if yes else 3) for p in prompts for yes in (1, 0)
    ]
    return Dataset.from_list(rows)


def build(data: Dataset, folder, model=None, scorer=None, peft_config=None, eval_dataset=None, **settings):
    settings = {"max_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": len(data), **QUIET, **settings}
    return PluralDPOTrainer(
        model or policy(),
        None if peft_config else policy(),
        PluralDPOConfig(str(folder), **settings),
        data,
        eval_dataset,
        processing_class=TOKENIZER,
        scorer=scorer,
        peft_config=peft_config,
    )
