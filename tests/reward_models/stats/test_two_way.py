"""95 % intervals on a simulated panel with effects of raters and of items cover what they say; naive ones do not."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from reward_models.stats.answers import js_divergence, resample_people
from reward_models.stats.two_way import two_way_interval
from tests.benchmark_modules import benchmark_module


A = 4
PANELS = 100
benchmark = benchmark_module("interval_coverage")


@functools.cache
def coverages(raters: int, items: int) -> dict[tuple[str, str], float]:
    measured = benchmark.measure("usual", raters, items, PANELS, overton=items < 10)
    return {key: share for key, (share, _) in measured.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raters", "items", "statistic"),
    [
        *((raters, items, s) for raters, items in ((30, 60), (100, 5)) for s in benchmark.STATISTICS),
        (100, 5, "OvertonScore"),  # sixty items take long
    ],
)
def test_intervals_over_raters_and_items_cover(raters, items, statistic):
    """Of 100 panels a .95 interval misses 1 to 10, and that of a skewed distance over five items up to 13."""
    assert coverages(raters, items)[statistic, "both"] >= (0.87 if items == 5 else 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["mean", "share above a threshold"])
def test_intervals_over_items_only_do_not_cover(statistic):
    assert coverages(30, 60)[statistic, "items"] < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["mean", "divergence, far", "difference, far and near"])
def test_intervals_over_raters_only_do_not_cover(statistic):
    assert coverages(100, 5)[statistic, "raters"] < 0.85


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


def test_a_share_of_items_has_an_interval_also_where_all_agree():
    answers = np.concatenate([np.zeros((39, 6), dtype=int), np.ones((1, 6), dtype=int)])
    interval = two_way_interval(
        resample_people(answers, 2, draws=50),
        lambda human: (human[..., 0] > 0.5).astype(float),
        debias=False,
        share=True,
    )
    assert interval.value == interval.high == 1
    assert 0.4 < interval.low < 0.7  # Wilson's lower end of six of six is .61


def test_a_known_number_that_is_the_same_for_all_items_has_no_width():
    people = resample_people(np.random.default_rng(0).integers(2, size=(20, 6)), 2, draws=50)
    interval = two_way_interval(people, lambda human: np.ones(human.shape[:-1]), debias=False)
    assert (interval.low, interval.value, interval.high) == (1, 1, 1)


def test_unequal_weights_count_as_fewer_raters():
    answers = np.random.default_rng(0).integers(2, size=(40, 12))
    weights = np.repeat([1.0, 0.01], [10, 30])
    people = resample_people(answers, 2, rater_weights=weights, draws=50)
    assert people.n_raters == 40
    assert people.effective == pytest.approx(10.3**2 / (10 + 30e-4))


def test_the_curvature_of_a_divergence_does_not_widen_the_interval_twice():
    """A policy that is exactly people: the debiased divergence varies as measured, not as resamples of it do."""
    rng = np.random.default_rng(0)
    values, widths = [], []
    for panel in range(60):
        effects = rng.normal(0, 0.7, (30, 1, 1)) * (np.arange(A) - 1.5)
        answers = (effects + rng.gumbel(size=(30, 20, A))).argmax(axis=-1)
        truth = benchmark.population(np.zeros((20, A)), 0.7)
        people = resample_people(answers, A, draws=200, seed=panel)
        interval = two_way_interval(people, lambda human, truth=truth: js_divergence(human, truth))
        values.append(interval.value)
        widths.append(interval.high - interval.low)
    assert np.mean(values) == pytest.approx(0, abs=0.002)
    assert np.median(widths) < 2 * 2.1 * np.std(values) * 1.4  # with resampled curvature nearly twice this
