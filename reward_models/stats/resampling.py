"""Intervals of mean log-likelihood gains, resampled over raters and items, and the splits they are measured on.

`resampled_interval` is for any other statistic of rows that has to be computed anew in every resample.

Every comparison of this package is paired: two models score the same judgements, and what is resampled is their
difference. Knows nothing of the models.

Shapes: `N` scored judgements, `M` gains per judgement, `R` raters, `I` items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval
from reward_models.stats.design import SamplingDesign
from reward_models.stats.verdicts import shortage


__all__ = ["halve_labels", "heldout_labels", "label_parts", "resampled_interval", "two_way_intervals"]


def two_way_intervals(
    gains: np.ndarray,
    rater: np.ndarray,
    item: np.ndarray,
    *,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
    items: bool = True,
    count: np.ndarray | None = None,
    design: SamplingDesign | None = None,
) -> list[Interval]:
    """Compute percentile intervals of the mean of each gain, with raters and items resampled independently.

    This is the pigeonhole bootstrap (Owen 2007). All gains see the same draws: for the interval of a difference of
    gains, pass the difference as another column.

    Args:
        gains: (N, M) gain per judgement, nats.
        rater: (N,) rater index.
        item: (N,) item index.
        draws: Number of resamples.
        level: Coverage of the interval.
        seed: Random seed.
        items: False: resample raters only; the interval then is about these very items.
        count: (N,) how often each judgement was given; None: once.
        design: How the raters were sampled, one entry per rater index; None: all alike. Raters are drawn as its `draw`
            says and count by their sampling weight.

    Returns:
        `M` intervals; `value` is the weighted mean over judgements. With too few raters or items
        (`stats.verdicts.shortage`) the ends are nan.

    Example:
        >>> rater, item = np.divmod(np.arange(20 * 5), 5)  # 20 raters, 5 items
        >>> gains = np.where(rater % 2 == 0, 0.1, 0.3)[:, None]
        >>> [interval] = two_way_intervals(gains, rater, item)
        >>> round(interval.value, 3), round(interval.low, 2), round(interval.high, 2)
        (0.2, 0.16, 0.25)
        >>> two_way_intervals(gains[:15], rater[:15], item[:15])[0].low  # three raters
        nan
    """
    raters, rater = np.unique(rater, return_inverse=True)
    item_ids, item = np.unique(item, return_inverse=True)
    design = SamplingDesign(np.ones(len(raters))) if design is None else design.select(raters)
    count = np.ones(len(rater)) if count is None else count
    weight = count * design.weight[rater]
    means = np.average(gains, axis=0, weights=weight) if weight.any() else np.full(gains.shape[1], np.nan)
    if shortage(len(raters), len(item_ids) if items else None):
        return [Interval(float(mean), np.nan, np.nan, len(raters), len(item_ids)) for mean in means]
    cells, cell = np.unique(rater * len(item_ids) + item, return_inverse=True)
    columns = np.column_stack([gains, np.ones(len(rater))]) * weight[:, None]
    sums = np.stack([np.bincount(cell, column) for column in columns.T], axis=1)
    cell_rater, cell_item = np.divmod(cells, len(item_ids))
    rng = seeded_rng(seed, "bootstrap of raters and items")
    resampled = np.empty((draws, gains.shape[1]))
    everybody = np.ones(len(raters), dtype=bool)
    for draw in range(draws):
        times = design.draw(everybody, rng)[cell_rater]
        if items:
            drawn = rng.integers(len(item_ids), size=len(item_ids))
            times = times * np.bincount(drawn, minlength=len(item_ids))[cell_item]
        totals = times @ sums
        resampled[draw] = totals[:-1] / totals[-1] if totals[-1] else np.nan
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(float(m), float(lo), float(hi), len(raters), len(item_ids))
        for m, lo, hi in zip(means, low, high, strict=True)
    ]


def resampled_interval(
    statistic: Callable[[np.ndarray], float],
    n_rows: int,
    rng: np.random.Generator,
    *,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute a percentile interval of a statistic of rows that are drawn with replacement.

    Args:
        statistic: Maps the numbers (n_rows,) of the drawn rows to the statistic, or to nan where there is none.
        n_rows: Number of rows.
        rng: Random generator.
        draws: Resamples.
        level: Coverage of the interval.

    Returns:
        The ends; nan where no resample has the statistic.

    Example:
        >>> x = np.arange(30.0)
        >>> low, high = resampled_interval(lambda rows: np.median(x[rows]), 30, np.random.default_rng(0))
        >>> bool(7 < low < 11), bool(18 < high < 22)
        (True, True)
    """
    drawn = np.array([statistic(rng.integers(n_rows, size=n_rows)) for _ in range(draws)])
    if not np.isfinite(drawn).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def halve_labels(rater: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Halve each rater's judgements at random: one half to adapt to the rater, the other to score.

    Args:
        rater: (N,) rater index.
        rng: Random generator.

    Returns:
        (N,) True for the half to adapt to. Of an odd number the larger half is scored, so that a single judgement is
        scored with the rater unknown.

    Example:
        >>> rater = np.array([0, 0, 0, 0, 1])
        >>> np.bincount(rater, halve_labels(rater, np.random.default_rng(0))).tolist()
        [2.0, 0.0]
    """
    rank, size = _random_rank(rater, rng)
    return rank < size // 2


def label_parts(rater: np.ndarray, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Deal each rater's judgements at random into parts of nearly equal size.

    Args:
        rater: (N,) rater index.
        parts: Number of parts.
        rng: Random generator.

    Returns:
        (N,) part of each judgement. Of a rater with fewer judgements than parts, some parts have none.

    Example:
        >>> sorted(label_parts(np.zeros(5, dtype=int), 2, np.random.default_rng(0)).tolist())
        [0, 0, 0, 1, 1]
    """
    return _random_rank(rater, rng)[0] % parts


def heldout_labels(rater: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out a share of each rater's judgements, leaving everybody at least two.

    Args:
        rater: (N,) rater index.
        share: Share to hold out; rounded at random per rater, so that the share holds on average.
        rng: Random generator.

    Returns:
        (N,) True where held out.

    Example:
        >>> rater = np.repeat([0, 1], [10, 2])
        >>> heldout = heldout_labels(rater, 0.2, np.random.default_rng(0))
        >>> np.bincount(rater, heldout).tolist()
        [2.0, 0.0]
    """
    rank, size = _random_rank(rater, rng)
    dither = rng.random(rater.max(initial=-1) + 1)[rater]
    return rank < np.minimum(np.floor(share * size + dither), size - 2)


def _random_rank(rater: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the rank of each judgement in a random order of its rater's judgements, and (N,) their number."""
    order = np.lexsort((rng.random(len(rater)), rater))
    size = np.bincount(rater)
    start = np.cumsum(size) - size
    rank = np.empty(len(rater), dtype=np.int64)
    rank[order] = np.arange(len(rater)) - start[rater[order]]
    return rank, size[rater]
