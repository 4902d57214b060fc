"""Tables with known clusters and trainers of the tiny model: what the tests of `JuryRewardTrainer` share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from datasets import Dataset

from reward_models.judgements.records import Judgements
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer
from tests.tiny import tiny_causal_lm, tiny_tokenizer


TOKENIZER = tiny_tokenizer()
CPU = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_strategy": "no",
}


def planted(n_raters=30, per_rater=10, n_items=40, noise=0.1, seed=0) -> tuple[Judgements, np.ndarray]:
    """Two thirds of the raters prefer what says yes, one third what says no; both slip in a tenth of the cases."""
    rng = np.random.default_rng(seed)
    says_no = np.arange(n_raters) % 3 == 0
    rows = []
    for rater in range(n_raters):
        for item in rng.choice(n_items, per_rater, replace=False).tolist():
            wants_yes = says_no[rater] == (rng.random() < noise)
            yes, no = f"yes to {item}", f"no to {item}"
            a, b = (no, yes) if item % 2 else (yes, no)
            rows.append((f"r{rater}", f"Question {item}? ", a, b, "a" if wants_yes == (a == yes) else "b"))
    columns = ["rater_id", "prompt", "response_a", "response_b", "choice"]
    return Judgements.from_frame(pd.DataFrame(rows, columns=columns)), says_no


def make_trainer(data, folder, evaluation=None, model=None, peft_config=None, **settings) -> JuryRewardTrainer:
    """A trainer of the tiny model, without rater terms, which take longer to estimate than all the rest.

    Texts are plain: shorter, and random features of their last token are of the answer, not of the template's end.
    """
    usual = {"as_conversations": False}
    usual |= {"per_device_train_batch_size": 8, "num_train_epochs": 6, "learning_rate": 3e-3, "rater_terms": False}
    args = JuryRewardConfig(str(folder), **{**CPU, **usual, **settings})
    model = tiny_causal_lm(TOKENIZER) if model is None else model
    return JuryRewardTrainer(model, args, data, evaluation, TOKENIZER, peft_config=peft_config)


def batch_of(trainer, rows=None):
    rows = range(len(trainer.train_dataset)) if rows is None else rows
    return trainer.data_collator([trainer.train_dataset[i] for i in rows])


def one_head(seed=1) -> JuryRewardModel:
    weight = np.random.default_rng(seed).normal(size=(1, 32))
    return JuryRewardModel.from_fit(tiny_causal_lm(TOKENIZER), weight, np.zeros(1), [1.0]).train()


def pairs(n=6, **columns) -> Dataset:
    rows = [{"prompt": f"Item {i}: ", "chosen": f"good {i}", "rejected": "bad"} for i in range(n)]
    return Dataset.from_list([{**row, **{k: v[i] for k, v in columns.items()}} for i, row in enumerate(rows)])


def votes(n_raters=12, n_items=10) -> Judgements:
    rng = np.random.default_rng(1)
    rows = []
    for rater in range(n_raters):
        lenient, likes_yes = rng.normal(), rater % 2
        for item in range(n_items):
            eta = lenient + 3.0 * (1 if (item % 2) == likes_yes else -1)
            rating = int(np.searchsorted([-1.0, 1.0], eta + rng.logistic())) - 1
            rows.append((f"r{rater}", "Vote: ", f"{'yes' if item % 2 else 'no'} {item}", rating))
    return Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"]))
