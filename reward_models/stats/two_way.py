"""Intervals over raters and items for functions of means, where people's distributions are estimated.

A mean over items of a divergence from people has two sources of error: which items were asked and which raters
answered. Both resamplings also vary with the noise of single answers, which must count once: the variance is that over
items plus that over raters minus that of single answers (Cameron, Gelbach and Miller 2011,
https://doi.org/10.1198/jbes.2010.07136). Few raters move a divergence upwards. Resampling them moves it once more by
about as much, which tells the bias.

Knows nothing of what is measured.

Shapes: `B` resamples, `I` items, `A` options, `D` numbers per item.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import norm, t

from reward_models.stats.answers import Interval, Resamples, resample_people
from reward_models.stats.verdicts import shortage


__all__ = ["two_way_bootstrap", "two_way_interval"]


def two_way_interval(
    people: Resamples,
    per_item: Callable[[np.ndarray], np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    level: float = 0.95,
    debias: bool = True,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Compute a function of means over items and its interval, where people's distributions are estimated.

    Percentiles are widened for few raters or items as Student's t is (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789). A mean of 0s and 1s, such as whether a threshold is reached, has
    no bias that resampling could tell, and that of the total variation is told in part only: pass `debias=False`.

    Args:
        people: Resampled people (`reward_models.stats.answers.resample_people`).
        per_item: Maps people's distributions (..., I, A) to (..., I) or (..., I, D).
        statistic: Maps means (..., D) to (...); None: the mean itself, for D = 1.
        level: Coverage of the interval.
        debias: Whether to take off the bias that the number of raters causes. Without it the interval is about what
            would be measured with as many raters.
        bounds: Range of the statistic; the interval is clipped to it.

    Returns:
        The estimate, corrected if `debias`, with its interval; the ends are nan with too few raters or items
        (`reward_models.stats.verdicts.shortage`).

    Raises:
        ValueError: If `level` is not in (0, 1).

    Example:
        >>> from reward_models.stats.answers import js_divergence, resample_people
        >>> answers = np.random.default_rng(0).integers(4, size=(30, 40))  # 30 raters answer 40 questions at random
        >>> people = resample_people(answers, 4, draws=300)
        >>> per_item = lambda human: js_divergence(human, np.full(4, 0.25))
        >>> round(float(per_item(people.human[0]).mean()), 4)  # (A - 1) / (8 · 30) from the noise of 30 answers alone
        0.0139
        >>> interval = two_way_interval(people, per_item)
        >>> bool(interval.low < 0 < interval.high)
        True
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not a probability between 0 and 1. Fix: e.g. level=0.95.")
    known = people.answered[0]
    values = np.asarray(per_item(people.human), dtype=np.float64)
    values = (values[..., None] if values.ndim == 2 else values)[:, known]
    statistic = statistic or (lambda means: means[..., 0])
    estimate = values[0].mean(axis=0)
    items = _weighted_means(values[:1], people.item_counts[:, known].astype(np.float64))
    answered = people.answered[1:, known]
    raters = _weighted_means(values[1:], answered.astype(np.float64))
    centre = estimate - (np.nanmean(raters, axis=0) - estimate) if debias else estimate
    value = float(statistic(centre))
    n_items = int(known.sum())
    if shortage(people.n_raters, n_items):
        return Interval(value, float("nan"), float("nan"), people.n_raters, n_items)
    # Resampling items and resampling raters both vary with the noise of single answers. The draws of each item in an
    # order of its own vary with that noise alone.
    rolls = np.arange(n_items) * max(1, len(answered) // n_items)
    order = (np.arange(len(answered))[:, None] + rolls) % len(answered), np.arange(n_items)
    answers = _weighted_means(values[1:][order], answered[order].astype(np.float64))
    items, raters, answers = (draws - np.nanmean(draws, axis=0) for draws in (items, raters, answers))
    spread_items, spread_raters, spread_answers = (_spread(statistic(centre + d)) for d in (items, raters, answers))
    drawn = statistic(centre + items + raters)
    both = spread_items + spread_raters
    once = spread_items + max(spread_raters - spread_answers, 0.0)
    drawn = value + (drawn - value) * (np.sqrt(once / both) if both else 1.0)
    n = min(people.n_raters, n_items)
    tail = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf((1 + level) / 2, n - 1))
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    low, high = np.clip([low, high], *bounds)
    return Interval(value, float(min(low, value)), float(max(high, value)), people.n_raters, n_items)


def two_way_bootstrap(
    per_item: Callable[[np.ndarray], np.ndarray],
    answers: np.ndarray,
    n_options: int,
    *,
    rater_weights: np.ndarray | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    clip: bool = False,
    debias: bool = False,
) -> Interval:
    """Compute the interval of a mean over items, where the people's distribution is itself a sample of raters.

    For several statistics of the same people, or a function of several means, call `resample_people` once and
    `two_way_interval` for each.

    Args:
        per_item: Maps people's distributions (I, A) to a statistic (I,), e.g. a divergence, or the difference of the
            divergences of two policies.
        answers: (R, I) option index, -1 = missing.
        n_options: `A`.
        rater_weights: (R,) or (R, I) weight of each rater, e.g. soft membership in a cluster.
        draws: Bootstrap samples.
        level: Coverage of the interval.
        seed: Random seed.
        clip: Keep the lower end at or above 0, for statistics that cannot be negative.
        debias: Whether to take off the bias that few raters give a smooth divergence, so that value and interval are
            about what would be measured if everybody had been asked. Without it they are about what is measured with
            as many raters, to be read beside the noise floor (`noise_floor`).

    Returns:
        The mean of `per_item` over the items that anyone answered, with its interval and the numbers of raters with an
        answer (and a positive weight) and of such items. The ends are nan for fewer than 12 raters or 5 items.

    Raises:
        ValueError: If `answers` is not (R, I) or holds no answer, or `level` is not in (0, 1).

    Example:
        >>> from reward_models.stats.answers import js_divergence
        >>> answers = np.array([[0, 1, 0, 0, 1], [0, 0, 1, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 1, 1]] * 5)
        >>> uniform = np.full((5, 2), 0.5)
        >>> interval = two_way_bootstrap(lambda p: js_divergence(p, uniform), answers, 2, clip=True)
        >>> round(interval.value, 4), interval.n_raters, interval.n_items
        (0.0702, 20, 5)
    """
    people = resample_people(answers, n_options, rater_weights=rater_weights, draws=draws, seed=seed)
    return two_way_interval(
        people,
        lambda human: np.stack([per_item(draw) for draw in human]),
        level=level,
        debias=debias,
        bounds=(0.0 if clip else -np.inf, np.inf),
    )


def _spread(drawn: np.ndarray) -> float:
    """Return the variance of draws (B,), from the width of their middle: a ratio of means may have heavy tails."""
    low, high = np.nanquantile(drawn, norm.cdf([-1, 1]))
    return float((high - low) / 2) ** 2


def _weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (B, D) means over items of (1 or B, I, D) values with (B, I) weights; nan where no item counts."""
    total = weights.sum(axis=1, keepdims=True)
    sums = (np.where(weights[..., None] > 0, values, 0.0) * weights[..., None]).sum(axis=1)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)
