"""Intervals over raters and items for functions of means, where people's distributions are estimated.

A mean over items of a divergence from people has two sources of error: which items were asked and which raters
answered. Its variance is that between items, which also holds the noise of single answers, plus what the items share
because the same raters answered them: the variance when raters are resampled, minus the same when every item has
resamples of its own (Cameron, Gelbach and Miller 2011, https://doi.org/10.1198/jbes.2010.07136).

A divergence is curved. Few raters move it upwards, which resampling repeats and so tells, and the curvature makes
resampled values vary more than measured ones do. Only the part that is linear in the answers counts: with `d(1)` the
change in a resample and `d(1/2)` that half-way to it, it is `4 d(1/2) - d(1)`.

Knows nothing of what is measured.

Shapes: `B` resamples, `I` items, `A` options, `D` numbers per item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reward_models.stats.answers import Interval, Resamples, resample_people
from reward_models.stats.few_units import (
    derivative,
    reads_as_share,
    skewed_t_interval,
    units_moments,
    widened_share_interval,
)
from reward_models.stats.verdicts import shortage


__all__ = ["RaterResamples", "two_way_bootstrap", "two_way_interval"]


def two_way_interval(
    people: Resamples,
    per_item: Callable[[np.ndarray], np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    level: float = 0.95,
    debias: bool = True,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    share: bool = False,
) -> Interval:
    """Compute a function of means over items and its interval, where people's distributions are estimated.

    Few raters or items widen it as Student's t does, with the degrees of freedom of the two variances together
    (Welch and Satterthwaite), and a skewed distribution over items moves its ends (`few_units.skewed_t_interval`). A
    mean of 0s and 1s, such as whether a threshold is reached, has Wilson's interval with `share=True`. Resampling does
    not tell its bias, and that of the total variation in part only: pass `debias=False`.

    Args:
        people: Resampled people (`reward_models.stats.answers.resample_people`).
        per_item: Maps people's distributions (..., I, A) to (..., I) or (..., I, D).
        statistic: Maps means (..., D) to (...); None: the mean itself, for D = 1.
        level: Coverage of the interval.
        debias: Whether to take off the bias that the number of raters causes. Without it the interval is about what
            would be measured with as many raters.
        bounds: Range of the statistic; the interval is clipped to it.
        share: Whether the numbers of items are outcomes of 0 or 1, or shares of few groups: where they agree in all
            items, others might still differ. A probability that is known, such as a policy's, is no such outcome.

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
    between = (people.human[:1] + people.human) / 2
    values, halfway = (np.asarray(per_item(human), dtype=np.float64) for human in (people.human, between))
    shape = (*values.shape[:2], -1)
    values, halfway = (part.reshape(shape)[:, known] for part in (values, halfway))
    answered = people.answered[1:, known, None]
    change, halfway = (np.where(answered, part[1:] - values[0], 0.0) for part in (values, halfway))
    resampled = RaterResamples(change, halfway, people.n_raters, people.effective)
    return resampled.interval(values[0], statistic, level=level, debias=debias, bounds=bounds, share=share)


@dataclass(frozen=True)
class RaterResamples:
    """How numbers of items change when raters are resampled.

    Attributes:
        change: (B, I, D) changes in each resample.
        halfway: (B, I, D) changes half-way between the data and the resample.
        n_raters: Raters behind the numbers.
        effective: Raters of equal weight of the same precision.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> given = rng.normal(3, 1, (40, 1)) + rng.normal(0, 1, (40, 8))  # 40 raters, 8 items
        >>> times = rng.multinomial(40, np.full(40, 1 / 40), size=300) / 40
        >>> change = (times @ given - given.mean(axis=0))[..., None]
        >>> resamples = RaterResamples(change, change / 2, 40, 40.0)
        >>> interval = resamples.interval(given.mean(axis=0)[:, None])
        >>> round(interval.value, 2), round(interval.low, 2), round(interval.high, 2)
        (2.91, 2.64, 3.18)
    """

    change: np.ndarray
    halfway: np.ndarray
    n_raters: int
    effective: float

    def interval(
        self,
        values: np.ndarray,
        statistic: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        level: float = 0.95,
        debias: bool = False,
        bounds: tuple[float, float] = (-np.inf, np.inf),
        share: bool = False,
    ) -> Interval:
        """Compute a function of the means over items of (I, D) values with its interval; see `two_way_interval`."""
        statistic = statistic or (lambda means: means[..., 0])
        n_items, estimate = len(values), values.mean(axis=0)
        few = max(self.effective / (self.effective - 1), 1.0) if self.effective > 1 else 1.0  # Bessel's correction
        bias = few * self.change.mean(axis=(0, 1)) if debias else np.zeros_like(estimate)
        value = float(statistic(estimate - bias))
        if shortage(self.n_raters, n_items) or not np.isfinite(value):
            return Interval(value, float("nan"), float("nan"), self.n_raters, n_items)
        gradient = derivative(statistic, estimate - bias)
        shared = few * self._shared_variance(gradient)
        # The bias is itself known only up to a share of about one in the number of raters.
        between, skewness = units_moments((values - estimate) @ gradient)
        unsure = float(gradient @ bias / self.effective) ** 2
        variance = between + shared + unsure
        freedom = np.inf
        if variance > 0:
            squares = between**2 / (n_items - 2) + shared**2 / max(self.effective - 1, 1.0)
            freedom = variance**2 / squares if squares else np.inf
        if share and reads_as_share(values):
            low, high = widened_share_interval(value, n_items, shared, min(freedom, n_items - 1), level)
        else:
            skewness *= (between / variance) ** 1.5 if variance else 0.0
            low, high = skewed_t_interval(value, variance, freedom, skewness, level)
        low, high = np.clip([low, high], *bounds)
        return Interval(value, float(min(low, value)), float(max(high, value)), self.n_raters, n_items)

    def _shared_variance(self, gradient: np.ndarray) -> float:
        """Compute the variance that items have in common because the same raters answered them."""
        linear = (4 * self.halfway - self.change) @ gradient  # (B, I)
        draws, n_items = linear.shape
        # The draws of each item in an order of its own vary with the noise of single answers alone.
        rolls = np.arange(n_items) * max(1, draws // n_items)
        apart = linear[(np.arange(draws)[:, None] + rolls) % draws, np.arange(n_items)]
        return max(float(linear.mean(axis=1).var() - apart.mean(axis=1).var()), 0.0)


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
