"""Intervals of means of numbers per judgement, such as gains in log-likelihood, over raters and items.

Judgements by one rater, or of one item, stand or fall together. The variance of their mean is that of sums over raters
plus that of sums over items, minus that of sums over both, which each of them holds (Cameron, Gelbach and Miller 2011,
https://doi.org/10.1198/jbes.2010.07136); so is the third cumulant. Nothing is drawn at random. A pigeonhole bootstrap
(Owen 2007) counts the noise of single judgements three times, and its percentiles miss where items are few.

Knows nothing of the models. Shapes: `N` judgements, `M` numbers per judgement, `R` raters, `I` items, `G` groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.stats.answers import Interval
from reward_models.stats.design import SamplingDesign
from reward_models.stats.few_units import skewed_t_interval
from reward_models.stats.verdicts import shortage


__all__ = ["two_way_intervals"]

MOST_SKEWNESS = 2.0
"""Largest skewness of a mean that is believed; an estimate from few raters or items may lie far beyond."""


def two_way_intervals(
    gains: np.ndarray,
    rater: np.ndarray,
    item: np.ndarray,
    *,
    level: float = 0.95,
    items: bool = True,
    count: np.ndarray | None = None,
    design: SamplingDesign | None = None,
) -> list[Interval]:
    """Compute the interval of the mean of each column of gains, for other raters and other items.

    Ends are those of Student's t, with the degrees of freedom of both variances together (Welch and Satterthwaite)
    less one for the skewness, which moves them (`few_units.skewed_t_interval`). For the interval of a difference of
    gains, pass the difference as another column.

    Args:
        gains: (N, M) gain per judgement, nats.
        rater: (N,) rater index.
        item: (N,) item index.
        level: Coverage of the interval.
        items: False: for other raters, but about these very items.
        count: (N,) how often each judgement was given; None: once.
        design: How the raters were sampled, one entry per rater index; None: all alike. Judgements count by the
            sampling weight of their rater, and primary sampling units vary within their strata.

    Returns:
        `M` intervals; `value` is the weighted mean over judgements. With too few raters or items
        (`stats.verdicts.shortage`) the ends are nan. The interval over raters and items is never narrower than that
        over raters alone but by its degrees of freedom.

    Example:
        >>> rater, item = np.divmod(np.arange(20 * 5), 5)  # 20 raters, 5 items
        >>> gains = np.where(rater % 2 == 0, 0.1, 0.3)[:, None]
        >>> [interval] = two_way_intervals(gains, rater, item)
        >>> round(interval.value, 3), round(interval.low, 2), round(interval.high, 2)
        (0.2, 0.15, 0.25)
        >>> two_way_intervals(gains[:15], rater[:15], item[:15])[0].low  # three raters
        nan
    """
    raters, rater = np.unique(rater, return_inverse=True)
    item_ids, item = np.unique(item, return_inverse=True)
    design = SamplingDesign(np.ones(len(raters))) if design is None else design.select(raters)
    weight = design.weight[rater] * (1 if count is None else count)
    sizes = len(raters), len(item_ids)
    if not weight.any():
        return [Interval(np.nan, np.nan, np.nan, *sizes) for _ in gains.T]
    means = np.average(gains, axis=0, weights=weight)
    if shortage(len(raters), len(item_ids) if items else None):
        return [Interval(float(mean), np.nan, np.nan, *sizes) for mean in means]
    off = (gains - means) * (weight / weight.sum())[:, None]
    unit, stratum = design.units()
    by_rater = _ClusterSums.of(off, unit[rater], stratum)
    variance, third, squares = by_rater.variance, by_rater.third, by_rater.variance**2 / by_rater.freedom
    if items:
        by_item = _ClusterSums.of(off, item)
        by_both = _ClusterSums.of(off, unit[rater] * len(item_ids) + item)
        variance = by_rater.variance + by_item.variance - by_both.variance
        variance = np.maximum(variance, np.maximum(by_rater.variance, by_item.variance))
        third = by_rater.third + by_item.third - by_both.third
        squares = squares + by_item.variance**2 / by_item.freedom
    varies = variance > 0
    freedom = np.divide(variance**2, squares, out=np.full(len(means), np.inf), where=varies)
    skewness = np.divide(third, variance**1.5, out=np.zeros(len(means)), where=varies)
    skewness = np.clip(skewness, -MOST_SKEWNESS, MOST_SKEWNESS)
    ends = (skewed_t_interval(*numbers, level) for numbers in zip(means, variance, freedom, skewness, strict=True))
    return [Interval(float(mean), low, high, *sizes) for mean, (low, high) in zip(means, ends, strict=True)]


@dataclass(frozen=True)
class _ClusterSums:
    """Variance and third cumulant (M,) of a total of independent clusters' sums, and the degrees of freedom."""

    variance: np.ndarray
    third: np.ndarray
    freedom: float

    @classmethod
    def of(cls, parts: np.ndarray, cluster: np.ndarray, stratum: np.ndarray | None = None) -> _ClusterSums:
        """Sum (N, M) parts of a total by their clusters (N,), which vary about the mean of their stratum (G,).

        A stratum of a single cluster does not vary.
        """
        numbers, cluster = np.unique(cluster, return_inverse=True)
        sums = np.stack([np.bincount(cluster, part, len(numbers)) for part in parts.T], axis=1)
        stratum = np.zeros(len(numbers), dtype=np.int64) if stratum is None else stratum[numbers]
        size = np.bincount(stratum)[stratum][:, None]
        total = np.stack([np.bincount(stratum, column) for column in sums.T], axis=1)
        off = sums - total[stratum] / size
        second = off**2 * size / np.maximum(size - 1, 1)
        third = off**3 * size**2 / np.maximum((size - 1) * (size - 2), 1)
        freedom = len(numbers) - len(np.unique(stratum)) - 1  # one for the skewness
        return cls(second.sum(axis=0), third.sum(axis=0), max(freedom, 1))
