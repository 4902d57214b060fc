"""95 % intervals on a simulated panel with effects of raters and of items cover what they say; naive ones do not."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from reward_models.stats.answers import js_divergence, resample_people, total_variation
from reward_models.stats.two_way import two_way_interval


A, ITEM, RATER = 4, 0.9, 0.7
SCALE = np.arange(A) - (A - 1) / 2
UNIFORM, SLOPED = np.full(A, 1 / A), np.array([0.1, 0.2, 0.3, 0.4])
THRESHOLD = 1.7  # mean answer from which an item counts as approved

STATISTICS = {
    "mean": (lambda human: human[..., 3], None, True),
    "jsd": (lambda human: js_divergence(human, UNIFORM), None, True),
    "total variation": (lambda human: total_variation(human, SLOPED), None, True),
    "skill": (
        lambda human: np.stack([js_divergence(human, SLOPED), js_divergence(human, UNIFORM)], axis=-1),
        lambda means: 1 - means[..., 0] / means[..., 1],
        True,
    ),
    "share above a threshold": (lambda human: (human @ np.arange(A) >= THRESHOLD).astype(float), None, False),
}


def population(item_logits: np.ndarray) -> np.ndarray:
    """Answers of all people to each item: the raters' normal effect is integrated out."""
    effects = norm.ppf((np.arange(41) + 0.5) / 41) * RATER
    return softmax(item_logits[:, None, :] + effects[:, None] * SCALE, axis=-1).mean(axis=1)


@functools.cache
def truths() -> dict[str, float]:
    shares = population(np.random.default_rng(99).normal(0, ITEM, (30_000, A)))
    found = {}
    for name, (per_item, statistic, _) in STATISTICS.items():
        means = per_item(shares)
        means = (means[:, None] if means.ndim == 1 else means).mean(axis=0)
        found[name] = float((statistic or (lambda m: m[..., 0]))(means))
    return found


@functools.cache
def coverages(raters: int, items: int, panels: int) -> dict[tuple[str, str], float]:
    rng = np.random.default_rng(7)
    hits: dict[tuple[str, str], list[bool]] = {}
    for panel in range(panels):
        logits = rng.normal(0, ITEM, (items, A)) + rng.normal(0, RATER, raters)[:, None, None] * SCALE
        answers = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
        people = resample_people(answers, A, draws=300, seed=panel)
        for name, (per_item, statistic, debias) in STATISTICS.items():
            interval = two_way_interval(people, per_item, statistic, debias=debias)
            hits.setdefault((name, "two-way"), []).append(interval.low <= truths()[name] <= interval.high)
            if statistic is None:
                values = per_item(people.human[0])
                half = 1.96 * values.std(ddof=1) / np.sqrt(items)
                hits.setdefault((name, "items only"), []).append(abs(values.mean() - truths()[name]) <= half)
    return {key: float(np.mean(hit)) for key, hit in hits.items()}


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
def test_intervals_over_raters_and_items_cover(statistic):
    assert 0.93 <= coverages(60, 30, 400)[statistic, "two-way"] <= 0.975


@pytest.mark.parametrize("statistic", ["mean", "jsd", "total variation"])
def test_naive_intervals_do_not(statistic):
    assert coverages(60, 30, 400)[statistic, "items only"] < 0.9


def test_too_few_raters_or_items_have_no_interval():
    answers = np.random.default_rng(0).integers(A, size=(11, 20))
    interval = two_way_interval(resample_people(answers, A, draws=20), lambda human: human[..., 0])
    assert np.isnan(interval.low)
    assert np.isfinite(interval.value)


def test_an_item_that_nobody_answered_does_not_count():
    answers = np.random.default_rng(0).integers(A, size=(20, 8))
    answers[:, 3] = -1
    people = resample_people(answers, A, draws=50)
    interval = two_way_interval(people, lambda human: human[..., 0], debias=False)
    assert interval.n_items == 7
    assert interval.value == pytest.approx(np.delete(people.human[0], 3, axis=0)[:, 0].mean())


def test_level():
    people = resample_people(np.random.default_rng(0).integers(A, size=(20, 8)), A, draws=20)
    with pytest.raises(ValueError, match="level=95"):
        two_way_interval(people, lambda human: human[..., 0], level=95)
