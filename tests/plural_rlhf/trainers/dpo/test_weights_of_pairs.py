"""Counts and sampling weights in `PluralDPOTrainer`: a judgement of weight `w` moves the policy as `w` of them do."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from tests.opposed_pairs import PROMPTS, build, pair


OBJECTIVES = ("average", "mixture", "steerable")
JUDGEMENTS = [
    (PROMPTS[0], 1, "urban", 3),
    (PROMPTS[0], 0, "rural", 1),
    (PROMPTS[1], 1, "urban", 1),
    (PROMPTS[1], 0, "rural", 2),
]


def moved(data: Dataset, folder, objective: str) -> torch.Tensor:
    """How far one step of plain gradient descent moves the policy."""
    trainer = build(data, folder, objective=objective, optim="sgd", learning_rate=0.1, max_grad_norm=1e9)
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) - before


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("column", ["count", "rater_weight"])
def test_a_weight_is_as_many_equal_judgements(tmp_path, objective, column):
    weighed = [pair(p, yes, cluster=c, **{column: w}) for p, yes, c, w in JUDGEMENTS]
    repeated = [pair(p, yes, cluster=c) for p, yes, c, w in JUDGEMENTS for _ in range(w)]
    once = [pair(p, yes, cluster=c) for p, yes, c, _ in JUDGEMENTS]
    found, expected, plain = (
        moved(Dataset.from_list(rows), tmp_path / str(n), objective)
        for n, rows in enumerate((weighed, repeated, once))
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert float((found - plain).abs().max()) > 1e-4
