"""The loss of `PluralDPOTrainer`, every term of it, added up pair by pair from the probabilities of the responses.

The judgements have what ordinary fixtures have not, all at once: counts, sampling weights, a tie, raters of two minds,
responses of several lengths, and clusters that count differently from their share.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.weights.wording import POPULATION, steer_prompt
from tests.opposed_pairs import PROMPTS, RURAL, TOKENIZER, URBAN, build, policy, yes_or_no


SETTINGS = {"beta": 0.5, "tie_propensity": 1.5, "cluster_weights": {"urban": 0.2, "rural": 0.8}, "sft_coef": 0.7}
SETTINGS |= {"cluster_names": ["urban", "rural"]}
ROWS = [
    {"prompt": PROMPTS[0], "chosen": "yes good", "rejected": "no", "membership": [0.9, 0.1], "count": 3, "tie": False},
    {"prompt": PROMPTS[0], "chosen": "no", "rejected": "yes", "membership": [0.2, 0.8], "count": 1, "tie": True},
    {"prompt": PROMPTS[1], "chosen": "no no", "rejected": "yes", "membership": [0.3, 0.7], "count": 2, "tie": False},
]  # fmt: skip
RATER_WEIGHTS = [0.5, 2.0, 1.0]


def log_probs(model, row: dict, words: str | None) -> list[float]:
    """Of the chosen and the rejected response, end token included, nats."""
    prompt = row["prompt"] if words is None else steer_prompt(row["prompt"], words)
    found = answer_probabilities(model, TOKENIZER, [prompt], [[row["chosen"], row["rejected"]]], progress=False)
    return [math.log(p) for p in np.asarray(found).ravel()]


def likelihood(margin: float, tie: bool, nu: float) -> float:
    """Davidson's model: of a preference for the chosen response, or of a tie."""
    return (nu if tie else math.exp(margin / 2)) / (math.exp(margin / 2) + math.exp(-margin / 2) + nu)


def expected_loss(trainer, objective: str) -> float:
    weight = np.array([row["count"] * w for row, w in zip(ROWS, RATER_WEIGHTS, strict=True)])
    weight /= weight.mean()
    q = np.array([row["membership"] for row in ROWS])
    share = (q * weight[:, None]).mean(0)
    factor = np.array([0.2, 0.8]) / share
    total = 0.0
    for n, (row, w, memberships) in enumerate(zip(ROWS, weight, q, strict=True)):
        base = log_probs(trainer.ref_model, row, None)
        said = [log_probs(trainer.model, row, None if objective == "average" else words) for words in (URBAN, RURAL)]
        likely = [
            likelihood(0.5 * (chosen - base[0] - rejected + base[1]), row["tie"], 1.5) for chosen, rejected in said
        ]
        if objective == "mixture":
            joint = [m * p for m, p in zip(memberships, likely, strict=True)]
            loss, of_cluster = [-math.log(sum(joint))] * 2, [p / sum(joint) for p in joint]
        else:
            loss, of_cluster = [-math.log(p) for p in likely], memberships
        tokens = len(TOKENIZER(row["chosen"])["input_ids"]) + 1
        for k in range(2):
            total += w * factor[k] * memberships[k] * loss[k]
            if not row["tie"]:
                total += 0.7 * w * factor[k] * of_cluster[k] * -said[k][0] / tokens
        if objective == "mixture":
            public = log_probs(trainer.model, row, POPULATION if n % 2 else None)  # they mean the same
            for response in range(2):
                mixture = sum(s * math.exp(lp[response]) for s, lp in zip(share, said, strict=True))
                off = abs(public[response] - math.log(mixture))
                total += 0.3 * w * (off**2 / 2 if off < 1 else off - 0.5) / 2
    return total / len(ROWS)


@pytest.mark.parametrize("objective", ["average", "steerable", "mixture"])
def test_the_loss_is_the_sum_of_its_terms(tmp_path, objective):
    noise = torch.Generator().manual_seed(3)
    state = {n: v + 0.3 * torch.randn(v.shape, generator=noise) for n, v in yes_or_no().items()}
    rows = [{**row, "rater_weight": w} for row, w in zip(ROWS, RATER_WEIGHTS, strict=True)]
    settings = SETTINGS | ({"public_coef": 0.3} if objective == "mixture" else {})
    trainer = build(Dataset.from_list(rows), tmp_path, policy(state), objective=objective, **settings)
    trainer.args.per_device_eval_batch_size = len(rows)
    found = trainer.evaluate(Dataset.from_list(rows))["eval_loss"]
    assert found == pytest.approx(expected_loss(trainer, objective), abs=2e-5)
