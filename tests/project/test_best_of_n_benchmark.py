"""The benchmark of best-of-n: raters who judge are not those who are fitted, and opposed camps need a jury."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models.judgements.records import Judgements
from tests.benchmark_modules import benchmark_module


@pytest.fixture(scope="module")
def topic():
    """Six questions with twelve answers each; two camps that want opposite things, and two kinds of vectors."""
    bench, cases = benchmark_module("best_of_n"), benchmark_module("_jury.cases")
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(6, 12))
    rows = [
        (f"rater {u}", f"question {q}", f"answer {q}.{a}", 1 if rng.random() < p else -1)
        for u in range(48)
        for q in range(6)
        for a in range(12)
        for p in [1 / (1 + np.exp(-2 * taste[q, a] * (1 if u % 3 else -1)))]
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    case = cases.Case("planted", Judgements.from_frame(frame, levels=(-1, 1)), "response")
    texts = case.judgements.encode().texts
    place = {text: tuple(int(n) for n in text.response.split()[1].split(".")) for text in texts}
    vectors = {
        model: {text: np.append(taste[place[text]], rng.normal(size=2)) for text in texts}
        for model in ("minilm", "smollm2")
    }
    return bench, bench.Topic(case, texts, vectors)


@pytest.mark.slow
def test_a_jury_serves_both_camps_and_one_reward_does_not(topic):
    bench, planted = topic
    first, order = bench.measure(planted, 0, None, (1, 4))
    second, _ = bench.measure(planted, 1, order, (1, 4))
    both = bench.averaged([first, second])
    assert np.allclose(both.gains["one reward"], (first.gains["one reward"] + second.gains["one reward"]) / 2)
    assert bench.joined([both, both]).gains["jury, mean"].shape == (12, 2, 3)
    for column in bench.CLUSTERS:
        assert both.mean("jury, each audience", 4, column).outcome == "better"
    assert both.mean("one reward", 4, "smaller cluster").value < 0
    assert both.difference("jury, each audience", 4, "smaller cluster").outcome == "better"
