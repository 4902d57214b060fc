"""Steered stubs under a jury that wants one word or another: what follows its weights, and what does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, Steering
from plural_rlhf.suites.tasks.generation import trade_offs
from plural_rlhf.suites.tasks.generation.trade_offs import TradeOffTask
from plural_rlhf.suites.tasks.protocol import TaskData
from tests.plural_rlhf.suites.generation.test_generation_tasks import row
from tests.plural_rlhf.suites.golden_rows import check_rows


WORDS = ("parks", "roads")


class Jury:
    cluster_names, prevalence = list(WORDS), np.array([0.75, 0.25])

    def cluster_rewards(self, prompts, texts):
        return torch.tensor([[1.0 * (word in text) for word in WORDS] for text in texts])


class Policy(EvaluatedModel):
    """Writes each word in the share of its weight, or ignores whom it is steered to."""

    name, identity, kind = "policy", "policy", "callable"

    def __init__(self, follows, weights=(0.75, 0.25)):
        self.follows, self.weights = follows, weights

    @property
    def steering(self):
        return Steering("jury", lambda weights: Policy(self.follows, weights))

    def sample(self, prompts, n, **settings):
        first = round(n * (self.weights[0] if self.follows else 0.5))
        return [[WORDS[0]] * first + [WORDS[1]] * (n - first) for _ in prompts]


@pytest.fixture
def task(tmp_path, monkeypatch):
    (tmp_path / "polarized").mkdir()
    for topic in ("campus-protests", "right-to-assemble"):
        rows = [{"question_id": f"{topic}-{i}", "question": f"{topic} {i}?", "text": "peace"} for i in range(3)]
        pd.DataFrame(rows).to_parquet(tmp_path / "polarized" / f"{topic}-answers.parquet")
    monkeypatch.setattr(trade_offs.JuryScorer, "from_pretrained", lambda folder: Jury())
    monkeypatch.setattr(trade_offs, "vote_approval", lambda scorer: None)
    task = TradeOffTask()
    items = task.load(TaskData(tmp_path))
    return lambda model: task.measure(items, Context(model, draws=50))


def test_a_policy_that_follows_its_weights_and_one_that_does_not(task):
    follows, ignores = task(Policy(True)), task(Policy(False))
    for word in WORDS:
        assert row(follows, "spearman", word).value == pytest.approx(1)
        assert row(follows, "violations", word).value == 0
        assert "spearman" not in {r.metric for r in ignores.rows if r.group == word}  # nothing varies
    # Of its own weights: 1, 1, 3/4 of 3/4 and 1/4 of 1/4, 1/2; whoever ignores them has 1/2 everywhere.
    assert row(follows, "steerable_score").value == pytest.approx((1 + 1 + 0.625 + 0.5) / 4)
    assert row(ignores, "steerable_score").value == pytest.approx(0.5)
    assert [r.metric for r in follows.rows if r.headline] == ["mean_regret"]
    assert len(follows.records) == 4 * 6
    check_rows("trade_offs", follows)


def test_a_model_that_cannot_be_steered_is_skipped(task):
    with pytest.raises(NotSupported, match="without a jury cannot be steered"):
        task(EvaluatedModelWithoutJury())


class EvaluatedModelWithoutJury(EvaluatedModel):
    name, identity, kind = "plain", "plain", "causal-lm"
