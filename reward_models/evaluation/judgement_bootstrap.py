"""Value and interval of any statistic of judgements, for other raters and other items.

Means of numbers per judgement have the intervals of `stats.judgement_means` (`mean_ends`), people's answers to items
those of `stats.answers`. Of `Bootstrap` the statistic may be any function of how often each rater and each item was
drawn: the worst of several clusters, a rank correlation over items. It counts the noise of single judgements three
times, so that its intervals are too wide where raters share few items. Knows nothing of models or of what is measured.

Squared gaps between predicted and observed shares are averaged over pairs of *different* judgements of a group: with
`d_u = q_u - x_u`, the mean of `d_u d_v` over `u != v` is an unbiased estimate of `(q - p)^2`, while the plain
`(q - mean x)^2` also contains the variance of that mean. For 0/1 answers and one `q` it equals
`(q - p_hat)^2 - p_hat (1 - p_hat) / (n - 1)`; it may be below 0. Being a function of weights, it stays unbiased in a
resample, where the same judgement may be drawn twice.

Shapes: `N` judgements, `R` raters, `I` items, `G` groups, `M` numbers that one statistic returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.seeds import seeded_rng
from reward_models.stats.design import SamplingDesign
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.verdicts import shortage


__all__ = [
    "Bootstrap",
    "Direction",
    "Draw",
    "Metric",
    "average",
    "group_means",
    "group_sums",
    "mean_ends",
    "mean_products",
    "mean_squared_gap",
    "tail_mean",
]

Direction = Literal["lower", "higher", "zero", "context"]


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: Name of the metric; ends in the unit if the same metric has several (`jsd_nats`).
        value: The estimate; nan if the judgements do not allow one.
        low: Lower end of the interval.
        high: Upper end.
        n: Number of `counted`.
        counted: What `n` counts, e.g. `"judgements"`.
        unit: Unit of the value.
        direction: Which direction is better; `"zero"`: closer to zero; `"context"`: neither, for reading the others.

    Example:
        >>> metric = Metric.of("accuracy", np.array([0.8, 0.75, 0.85]), 240, "judgements", "share", "higher")
        >>> metric.value, metric.row("unseen rater, seen prompt", "bt")["ci_low"]
        (0.8, 0.75)
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    counted: str
    unit: str
    direction: Direction

    @classmethod
    def of(
        cls, name: str, ends: np.ndarray, n: int, counted: str, unit: str, direction: Direction = "lower"
    ) -> Metric:
        """Make one from the (3,) value and ends that `Bootstrap.estimate` and `mean_ends` return."""
        value, low, high = (float(end) for end in ends)
        return cls(name, value, low, high, int(n), counted, unit, direction)

    def row(self, case: str, method: str) -> dict[str, Any]:
        """Return the number as a flat row of `results.json`."""
        return {
            "case": case,
            "method": method,
            "metric": self.name,
            "value": self.value,
            "ci_low": self.low,
            "ci_high": self.high,
            "n": self.n,
            "counted": self.counted,
            "unit": self.unit,
            "direction": self.direction,
        }


class Draw(NamedTuple):
    """How often each rater and item was drawn; the first draw is the data itself.

    Attributes:
        weight: (N,) weight of each judgement: its count, times that of its rater, times the draws of its item.
        raters: (R,) times each rater was drawn, times the sampling weight; 0 for raters without judgements.
        items: (I,) times each item was drawn; 0 for items without judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements(num_raters=2, num_items=3).judgements.encode()
        >>> data, resample = Bootstrap(draws=1).samples(enc)
        >>> data.raters.tolist(), float(resample.raters.sum())
        ([1.0, 1.0], 2.0)
    """

    weight: np.ndarray
    raters: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class Bootstrap:
    """The pigeonhole bootstrap of raters and items (Owen 2007, https://doi.org/10.1214/07-AOAS122).

    Raters are drawn with equal probability, within strata and by sampling units where the table names them, and count
    by their sampling weights (`stats.design`).

    Resampling adds noise, which biases statistics that cannot be negative (a divergence, a calibration error) and
    minima: the percentiles are shifted so that the draws centre on the estimate.

    Attributes:
        draws: Number of resamples.
        level: Coverage probability of the intervals.
        seed: Random seed; equal seeds and tables give equal draws, so that metrics of two models are paired.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> top = (enc.label == 2).astype(float)
        >>> value, low, high = Bootstrap(draws=100).estimate(lambda draw: average(top, draw.weight), enc)[0]
        >>> bool(low < value < high), bool(value == top.mean())
        (True, True)
    """

    draws: int = 400
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.level < 1:
            raise JuryError(
                f"draws={self.draws}, level={self.level}: an interval needs at least one resample and a probability "
                "between 0 and 1. Fix: e.g. draws=400, level=0.95"
            )

    def samples(self, enc: Encoded) -> Iterator[Draw]:
        """Yield the data itself, then `draws` resamples of the raters and items that have judgements."""
        raters = np.bincount(enc.rater, minlength=enc.n_raters) > 0
        items = np.bincount(enc.item, minlength=enc.n_items) > 0
        design = enc.design or SamplingDesign(np.ones(enc.n_raters))
        yield Draw(enc.weight, design.weight * raters, items.astype(np.float64))
        rng = seeded_rng(self.seed, "bootstrap of judgements")
        for _ in range(self.draws):
            drawn_raters, drawn_items = design.weight * design.draw(raters, rng), _times(items, rng)
            yield Draw(enc.count * drawn_raters[enc.rater] * drawn_items[enc.item], drawn_raters, drawn_items)

    def estimate(
        self,
        statistic: Callable[[Draw], float | Sequence[float] | np.ndarray],
        enc: Encoded,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> np.ndarray:
        """Compute value, lower and upper end of each number that a statistic returns.

        Args:
            statistic: Maps a draw to one or `M` numbers; nan if a draw does not allow one.
            enc: The judgements.
            bounds: Smallest and largest possible value; intervals are clipped there.

        Returns:
            (M, 3); ends are nan if the value is not finite, or if raters or items are too few for an interval
            (`stats.verdicts.shortage`).
        """
        if shortage(len(np.unique(enc.rater)), len(np.unique(enc.item))):
            values = np.atleast_1d(statistic(next(self.samples(enc))))
            return np.column_stack([values, np.full((len(values), 2), np.nan)])
        return self.interval(np.stack([np.atleast_1d(statistic(draw)) for draw in self.samples(enc)]), bounds)

    def interval(self, values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> np.ndarray:
        """Compute the same as `estimate` from values (1 + draws, M) whose first row is that of the data."""
        out = np.full((values.shape[1], 3), np.nan)
        for column, (value, *drawn) in zip(out, values.T, strict=True):
            column[0] = value
            finite = np.asarray(drawn)[np.isfinite(drawn)]
            if np.isfinite(value) and len(finite):
                ends = np.quantile(finite - finite.mean(), [(1 - self.level) / 2, (1 + self.level) / 2])
                column[1:] = np.clip(value + ends, *bounds)
        return out


def _times(present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw with replacement as many of the present units as there are; return how often each was drawn."""
    times = np.zeros(len(present))
    n = int(present.sum())
    times[present] = np.bincount(rng.integers(n, size=n), minlength=n)
    return times


def tail_mean(values: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Compute the mean of the lowest `share` of the mass (CVaR).

    Args:
        values: (..., K).
        weights: (K,) mass of each, of any sum.
        share: In (0, 1].

    Returns:
        (...); nan if there is no mass.

    Example:
        >>> float(tail_mean(np.array([1.0, 2.0, 9.0]), np.ones(3), share=2 / 3))
        1.5
    """
    if weights.sum() <= 0:
        return np.full(values.shape[:-1], np.nan)
    order = np.argsort(values, axis=-1)
    mass = weights[order] / weights.sum()
    part = np.clip(share - (mass.cumsum(-1) - mass), 0.0, mass)
    lowest = np.where(part > 0, np.take_along_axis(values, order, axis=-1), 0.0)  # no mass times infinity
    return (part * lowest).sum(-1) / part.sum(-1)


def average(values: np.ndarray, weight: np.ndarray) -> float:
    """Compute the weighted mean of (N,) values; nan and values of weight 0 are ignored.

    Example:
        >>> average(np.array([1.0, 4.0, np.nan]), np.array([2.0, 1.0, 1.0]))
        2.0
    """
    used = (weight > 0) & ~np.isnan(values)
    total = weight[used].sum()
    return float(weight[used] @ values[used] / total) if total > 0 else np.nan


def mean_ends(
    values: np.ndarray,
    enc: Encoded,
    weight: np.ndarray | None = None,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> np.ndarray:
    """Compute the mean of a number per judgement and its interval for other raters and items.

    Args:
        values: (N,) numbers; nan is ignored.
        enc: The judgements.
        weight: (N,) weight of each judgement, times that of its rater; None: how often it was given.
        level: Coverage of the interval.
        bounds: Smallest and largest possible value; the interval is clipped there.

    Returns:
        (3,) value, lower and upper end (`stats.judgement_means.two_way_intervals`); ends are nan if the mean is not
        finite or raters or items are too few.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> value, low, high = mean_ends((enc.label == 2).astype(float), enc, bounds=(0.0, 1.0))
        >>> bool(0 <= low < value < high <= 1)
        True
    """
    weight = np.asarray(enc.count if weight is None else weight, dtype=np.float64)
    used = ~np.isnan(values) & (weight > 0)
    if not (used.any() and np.isfinite(values[used]).all()):
        sampled = 1.0 if enc.design is None else enc.design.weight[enc.rater]
        return np.array([average(values, weight * sampled), np.nan, np.nan])
    [interval] = two_way_intervals(
        values[used, None], enc.rater[used], enc.item[used], level=level, count=weight[used], design=enc.design
    )
    return np.array([interval.value, *np.clip((interval.low, interval.high), *bounds)])


def group_means(values: np.ndarray, group: np.ndarray, n_groups: int, weight: np.ndarray) -> np.ndarray:
    """Compute (G,) the weighted mean of each group; nan for a group without weight.

    Example:
        >>> group_means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]), 2, np.ones(3)).tolist()
        [2.0, 5.0]
    """
    used = (weight > 0) & ~np.isnan(values)
    total = np.bincount(group[used], weight[used], n_groups)
    sums = np.bincount(group[used], weight[used] * values[used], n_groups)
    return np.divide(sums, total, out=np.full(n_groups, np.nan), where=total > 0)


def group_sums(rows: np.ndarray, group: np.ndarray, n_groups: int, weight: np.ndarray) -> np.ndarray:
    """Compute (G, A) weighted sums of (N, A) rows.

    Example:
        >>> group_sums(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]), 2, np.ones(3)).tolist()
        [[4.0], [5.0]]
    """
    return np.stack([np.bincount(group, weight * column, n_groups) for column in rows.T], axis=1)


def mean_products(
    rows: np.ndarray, group: np.ndarray, n_groups: int, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean of `rows_u . rows_v` over pairs of different judgements of each group, from (N, A) rows.

    Returns:
        One mean for each group that has such a pair, and the (G,) mask of these groups.

    Example:
        >>> means, used = mean_products(np.array([[2.0], [3.0], [5.0]]), np.array([0, 0, 1]), 2, np.ones(3))
        >>> means.tolist(), used.tolist()
        ([6.0], [True, False])
    """
    total = np.bincount(group, weight, n_groups)
    pairs = total**2 - np.bincount(group, weight**2, n_groups)
    used = pairs > 1e-9 * total**2
    sums = (group_sums(rows, group, n_groups, weight) ** 2).sum(1)
    with_itself = np.bincount(group, weight**2 * (rows**2).sum(1), n_groups)
    return (sums - with_itself)[used] / pairs[used], used


def mean_squared_gap(
    gap: np.ndarray, group: np.ndarray, times: np.ndarray, weight: np.ndarray, corrected: bool = True
) -> float:
    """Compute the mean over groups of the squared mean of a group's gaps; see the module.

    Args:
        gap: (N,) predicted minus observed share of each judgement, or (N, A).
        group: (N,) group of each judgement.
        times: (G,) weight of each group.
        weight: (N,) weight within the group.
        corrected: Remove the variance of the mean; groups with one judgement are then ignored.

    Example:
        >>> gap = np.array([0.5, -0.5])  # predicted one half, observed 0 and 1
        >>> table = np.array([0, 0]), np.ones(1), np.ones(2)  # one group of two judgements
        >>> mean_squared_gap(gap, *table, corrected=False), mean_squared_gap(gap, *table)
        (0.0, -0.25)
    """
    rows = gap.reshape(len(gap), -1)
    if corrected:
        squares, used = mean_products(rows, group, len(times), weight)
        return average(squares, times[used])
    total = np.bincount(group, weight, len(times))
    used = total > 0
    means = group_sums(rows, group, len(times), weight)[used] / total[used, None]
    return average((means**2).sum(1), times[used])
