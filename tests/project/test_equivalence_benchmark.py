"""The benchmark of rules for texts that say the same, on planted pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.benchmark_modules import benchmark_module


def test_rules_are_scored_on_pairs_that_took_no_part():
    rng = np.random.default_rng(0)
    n = 120
    similar = np.arange(n) % 2 == 0
    first = [" ".join(rng.choice(list("abcdefghij"), size=6)) for _ in range(n)]
    second = [
        t if s else " ".join(rng.choice(list("klmnopqrst"), size=6)) for t, s in zip(first, similar, strict=True)
    ]
    split = np.where(np.arange(n) < 100, "train", "val")
    pairs = pd.DataFrame({"generation_0": first, "generation_1": second, "similar": similar, "split": split})
    ours = rng.normal(size=(n, 3))
    vectors = (ours, np.where(similar[:, None], ours, -ours))
    rows = benchmark_module("equivalence").measure(pairs, vectors)
    values = {(r["method"], r["metric"]): r["value"] for r in rows}
    assert values["words", "accuracy"] == values["vectors", "auc"] == 1.0
    assert values["words, as shipped", "accuracy"] == 1.0
    assert values["cosine of at least .5", "accuracy"] == 1.0
    assert values["vectors of short texts, cross-validated", "balanced_accuracy"] == pytest.approx(1.0)
    assert values["vectors of short texts, on short pairs", "accuracy"] == 1.0
    assert values["vectors of short texts, on short pairs", "auc"] == 1.0
    assert {r["n"] for r in rows if r["metric"] == "accuracy"} == {20}
