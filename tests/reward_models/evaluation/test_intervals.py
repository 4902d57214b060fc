"""Intervals of the metrics of juries: as wide as raters and items are few, and ending where a number must."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JuryError
from reward_models.evaluation import metrics
from reward_models.evaluation.judgement_bootstrap import Bootstrap, average
from reward_models.judgements.records import Judgements
from tests.panels_of_votes import log, votes


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
FEW = Bootstrap(draws=60)


def few_of_many(rater, item, levels):
    """Ratings in {0, 1} of single raters and statements."""
    columns = {"rater_id": [f"r{u:02}" for u in rater], "prompt": "p", "response": [f"s{i:03}" for i in item]}
    return Judgements.from_frame(pd.DataFrame(columns | {"rating": levels}), kind="rating", levels=[0, 1]).encode()


def test_intervals_know_that_raters_are_few():
    """Forty raters who are each always right or always wrong: 4,000 judgements say as much as forty."""
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.7, 100).reshape(40, 100).astype(int)
    found = metrics.accuracy(np.tile(log([0.1, 0.9]), (4000, 1)), votes(right))
    width = found.high - found.low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.3)
    assert width > 5 * 2 * 1.96 * np.sqrt(0.7 * 0.3 / 4000)


def test_an_interval_of_squared_errors_begins_at_no_error():
    """One rater of twelve is surprised: by the normal approximation the interval would begin below 0."""
    levels = np.ones((12, 5))
    levels[0] = 0
    enc = votes(levels)
    found = metrics.brier(np.tile(log([0.01, 0.99]), (60, 1)), enc)
    assert 0 == found.low < found.value < found.high


def test_a_bootstrap_without_draws_is_refused():
    with pytest.raises(JuryError, match="draws=0"):
        Bootstrap(draws=0)


def test_intervals_end_where_a_number_must_and_nowhere_before():
    """A share ends at 1. A loss may lie above 1 nat and above what was measured, and ends at 0.

    The worst of two groups is worse in a resample than in the data, so an interval around it reaches far beyond both.
    """
    enc = votes(np.ones((12, 5)))
    wrong = np.isin(enc.rater, (0, 2)) & (enc.alternatives[:, 0] < 4)  # two raters of two clusters
    log_probs = np.where(wrong[:, None], log([1 - 1e-6, 1e-6]), log([1e-6, 1 - 1e-6]))  # a wrong one costs 13.8 nats
    groups = np.repeat(np.eye(6), 2, axis=0)
    rows = metrics.by_cluster(log_probs, enc, groups, list("abcdef"), bootstrap=FEW)
    rows += metrics.worst_raters(log_probs, enc, share=0.5, min_judgements=5, bootstrap=FEW)
    ends = {row.name: (row.low, row.value, row.high) for row in rows}
    for name in ("accuracy_worst_cluster", "accuracy_worst_50_percent"):
        low, value, high = ends[name]
        assert 0 <= low < value < high == 1, name
    for name in ("nll_nats_worst_cluster", "nll_nats_worst_50_percent"):
        low, value, high = ends[name]
        assert 0 == low < 1 < value < high, name


def test_intervals_of_means_are_neither_too_wide_nor_too_narrow_where_raters_share_few_items():
    """60 raters with 5 of 200 items each. A pigeonhole bootstrap counts the noise of a judgement three times."""
    rng, yes, held = np.random.default_rng(3), np.tile(log([0.1, 0.9]), (300, 1)), []
    for repeat in range(120):
        rater, item = np.repeat(np.arange(60), 5), np.concatenate([rng.permutation(200)[:5] for _ in range(60)])
        means = 1 / (1 + np.exp(-(0.4 * rng.normal(size=60)[rater] + 0.4 * rng.normal(size=200)[item])))
        right = (rng.random(300) < means).astype(int)  # yes, on average of a half
        enc = few_of_many(rater, item, right)
        found = metrics.accuracy(yes, enc)
        held.append(found.low <= 0.5 <= found.high)
        if repeat == 0:
            shares = (enc.label == 1).astype(float)
            _, low, high = Bootstrap(draws=300).estimate(partial(of_draw, shares), enc)[0]
            assert found.high - found.low < 0.8 * (high - low)
    assert 0.9 <= np.mean(held) <= 0.99


def of_draw(values, draw):
    return average(values, draw.weight)
