"""Intervals of mean log-likelihood gains, resampled over raters and items, and the splits they are measured on.

Every comparison of this package is paired: two models score the same judgements, and what is resampled is their
difference. Knows nothing of the models.

Shapes: `N` scored judgements, `M` gains per judgement, `R` raters, `I` items.
"""

from __future__ import annotations

import numpy as np

from reward_models.stats.answers import Interval


__all__ = ["halve_labels", "heldout_labels", "label_parts", "two_way_intervals"]


def two_way_intervals(
    gains: np.ndarray,
    rater: np.ndarray,
    item: np.ndarray,
    *,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
    items: bool = True,
) -> list[Interval]:
    """Percentile intervals of the mean of each gain; raters and items are resampled (pigeonhole bootstrap, Owen 2007).

    All gains see the same draws, so that the interval of a difference is obtained by passing the difference as a gain.

    Args:
        gains: (N, M) gain per judgement, nats.
        rater: (N,) rater index.
        item: (N,) item index.
        draws: Number of resamples.
        level: Coverage of the interval.
        seed: Seed of the resamples.
        items: False: resample raters only; the statement then is about these items.

    Returns:
        `M` intervals; `value` is the mean over judgements.
    """
    raters, rater = np.unique(rater, return_inverse=True)
    item_ids, item = np.unique(item, return_inverse=True)
    cells, cell = np.unique(rater * len(item_ids) + item, return_inverse=True)
    sums = np.stack([np.bincount(cell, column) for column in np.column_stack([gains, np.ones(len(rater))]).T], axis=1)
    cell_rater, cell_item = np.divmod(cells, len(item_ids))
    rng = np.random.default_rng(seed)
    resampled = np.empty((draws, gains.shape[1]))
    for draw in range(draws):
        weight = np.bincount(rng.integers(len(raters), size=len(raters)), minlength=len(raters))[cell_rater]
        if items:
            weight = (
                weight
                * np.bincount(rng.integers(len(item_ids), size=len(item_ids)), minlength=len(item_ids))[cell_item]
            )
        totals = weight.astype(np.float64) @ sums
        resampled[draw] = totals[:-1] / totals[-1] if totals[-1] else np.nan
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    means = gains.mean(0)
    return [
        Interval(float(m), float(lo), float(hi), len(raters), len(item_ids))
        for m, lo, hi in zip(means, low, high, strict=True)
    ]


def halve_labels(rater: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Halve each rater's judgements at random: True for the half that places the rater, False for the half to score.

    Args:
        rater: (N,) rater index.
        rng: Source of the split.

    Returns:
        (N,) mask; of an odd number the larger half is scored, so a single judgement is scored with the rater unknown.
    """
    rank, size = _random_rank(rater, rng)
    return rank < size // 2


def label_parts(rater: np.ndarray, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Deal each rater's judgements at random into parts of nearly equal size.

    Args:
        rater: (N,) rater index.
        parts: How many.
        rng: Source of the order.

    Returns:
        (N,) part of each judgement; of a rater with fewer judgements than parts some parts have none.
    """
    return _random_rank(rater, rng)[0] % parts


def heldout_labels(rater: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hold out a share of each rater's judgements, leaving everybody at least two.

    Args:
        rater: (N,) rater index.
        share: Share to hold out; rounded at random per rater, so that the share holds on average.
        rng: Source of the split.

    Returns:
        (N,) True where held out.
    """
    rank, size = _random_rank(rater, rng)
    dither = rng.random(rater.max(initial=-1) + 1)[rater]
    return rank < np.minimum(np.floor(share * size + dither), size - 2)


def _random_rank(rater: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N,) place of each judgement in a random order of its rater's judgements, and (N,) how many these are."""
    order = np.lexsort((rng.random(len(rater)), rater))
    size = np.bincount(rater)
    start = np.cumsum(size) - size
    rank = np.empty(len(rater), dtype=np.int64)
    rank[order] = np.arange(len(rater)) - start[rater[order]]
    return rank, size[rater]
