"""95 % intervals on a simulated panel with effects of raters and of items cover what they say; naive ones do not."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from reward_models.stats.answers import js_divergence, normalise, resample_people
from reward_models.stats.two_way import two_way_interval


A, ITEM, RATER = 4, 0.9, 0.7
SCALE = np.arange(A) - (A - 1) / 2
UNIFORM = np.full(A, 1 / A)
THRESHOLD = 1.7  # mean answer from which an item counts as approved

Statistic = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray] | None, bool]


def statistics(near: np.ndarray, far: np.ndarray) -> dict[str, Statistic]:
    """Statistics of two policies (I, A): per item, function of the means, whether the bias is taken off."""
    return {
        "mean": (lambda human: human[..., 3], None, True),
        "divergence, near people": (lambda human: js_divergence(human, near), None, True),
        "divergence, uniform": (lambda human: js_divergence(human, UNIFORM), None, True),
        "difference of two policies": (
            lambda human: js_divergence(human, far) - js_divergence(human, near),
            None,
            False,
        ),
        "skill": (
            lambda human: np.stack([js_divergence(human, far), js_divergence(human, UNIFORM)], axis=-1),
            lambda means: 1 - means[..., 0] / means[..., 1],
            True,
        ),
        "share above a threshold": (lambda human: (human @ np.arange(A) >= THRESHOLD).astype(float), None, False),
    }


def population(item_logits: np.ndarray) -> np.ndarray:
    """Answers of all people to each item: the raters' normal effect is integrated out."""
    effects = norm.ppf((np.arange(41) + 0.5) / 41) * RATER
    return softmax(item_logits[:, None, :] + effects[:, None] * SCALE, axis=-1).mean(axis=1)


def policies(shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A policy near people and one farther off."""
    near, far = (normalise(shares * np.exp(rng.normal(0, noise, shares.shape))) for noise in (0.15, 0.5))
    return near, far


@functools.cache
def truths() -> dict[str, float]:
    rng = np.random.default_rng(99)
    shares = population(rng.normal(0, ITEM, (30_000, A)))
    truth = {}
    for name, (per_item, statistic, _) in statistics(*policies(shares, rng)).items():
        means = per_item(shares)
        means = (means[:, None] if means.ndim == 1 else means).mean(axis=0)
        truth[name] = float((statistic or (lambda m: m[..., 0]))(means))
    return truth


@functools.cache
def coverages(raters: int, items: int, panels: int) -> dict[tuple[str, str], float]:
    rng = np.random.default_rng(7)
    hits: dict[tuple[str, str], list[bool]] = {}
    for panel in range(panels):
        logits = rng.normal(0, ITEM, (items, A))
        of_raters = logits + rng.normal(0, RATER, raters)[:, None, None] * SCALE
        answers = (of_raters + rng.gumbel(size=of_raters.shape)).argmax(axis=-1)
        people = resample_people(answers, A, draws=300, seed=panel)
        for name, (per_item, statistic, debias) in statistics(*policies(population(logits), rng)).items():
            interval = two_way_interval(people, per_item, statistic, debias=debias)
            hits.setdefault((name, "two-way"), []).append(interval.low <= truths()[name] <= interval.high)
            if statistic is None:
                hits.setdefault((name, "percentiles"), []).append(
                    covered_by_percentiles(people, per_item, truths()[name])
                )
                values = per_item(people.human[0])
                half = 1.96 * values.std(ddof=1) / np.sqrt(items)
                hits.setdefault((name, "items only"), []).append(abs(values.mean() - truths()[name]) <= half)
    return {key: float(np.mean(hit)) for key, hit in hits.items()}


def covered_by_percentiles(people, per_item, truth: float) -> bool:
    """Whether percentiles of raters and items drawn together, centred on the estimate, cover."""
    values = per_item(people.human)
    means = (values[1:] * people.item_counts).sum(axis=1) / people.item_counts.sum(axis=1)
    low, high = np.quantile(means - means.mean(), [0.025, 0.975]) + values[0].mean()
    return bool(low <= truth <= high)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", statistics(UNIFORM, UNIFORM))
@pytest.mark.parametrize(("raters", "items"), [(60, 30), (30, 60)])
def test_intervals_over_raters_and_items_cover(raters, items, statistic):
    """Of 150 panels a .95 interval misses 2 to 14; fewer where few raters hide that a policy is close."""
    step = statistic == "share above a threshold"  # few raters move it, and resampling does not tell how far
    assert coverages(raters, items, 150)[statistic, "two-way"] >= (0.86 if step else 0.9)


@pytest.mark.slow
def test_percentiles_alone_miss_what_few_raters_hide():
    assert coverages(30, 60, 150)["divergence, uniform", "percentiles"] < 0.8
    assert coverages(30, 60, 150)["divergence, near people", "percentiles"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["mean", "divergence, uniform"])
def test_intervals_over_items_only_do_not_cover(statistic):
    assert coverages(60, 30, 150)[statistic, "items only"] < 0.9


def test_the_noise_of_single_answers_counts_once():
    """Raters and items without effects of their own: the interval is that of independent answers."""
    rng = np.random.default_rng(3)
    widths = []
    for panel in range(20):
        answers = rng.integers(2, size=(40, 40))
        people = resample_people(answers, 2, draws=400, seed=panel)
        interval = two_way_interval(people, lambda human: human[..., 1], debias=False)
        widths.append(interval.high - interval.low)
    independent = 2 * 2.05 * np.sqrt(0.25 / 1600)  # both resamplings together would be sqrt(2) as wide
    assert np.mean(widths) == pytest.approx(independent, rel=0.15)


def test_bounds_clip_the_interval():
    answers = np.random.default_rng(0).integers(2, size=(14, 12))
    people = resample_people(answers, 2, draws=100)
    uniform = np.full(2, 0.5)
    free, clipped = (
        two_way_interval(people, lambda human: js_divergence(human, uniform), debias=False, bounds=bounds)
        for bounds in ((-np.inf, np.inf), (0.008, 0.02))
    )
    assert free.low < 0.008 < free.value < 0.02 < free.high
    assert (clipped.low, clipped.high) == (0.008, 0.02)


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
