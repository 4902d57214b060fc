"""Measure a model's distributions against people's: every distance with its baselines, skill, and intervals.

Knows no model and no data set. Where the answers of single raters are known, intervals resample raters and items;
elsewhere whole blocks of items, such as the questions.

Shapes: `I` items, `A` options of an item, `D` columns of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plural_rlhf.evaluation.distribution.baselines import (
    distances_to_people,
    global_marginals,
    marginals,
    modes,
    noise_floors,
    uniforms,
)
from plural_rlhf.evaluation.distribution.distances import DISTANCES
from plural_rlhf.evaluation.distribution.items import DistributionItem, positions_by
from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from reward_models.stats.answers import Interval, js_divergence, resample_people
from reward_models.stats.two_way import two_way_interval
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["DistributionMeasures", "measure_distributions"]

TOLERANCE = 1e-3

Columns = Mapping[str, np.ndarray]
Statistic = Callable[[np.ndarray], np.ndarray]
MOST_FLOOR_SAMPLES = 200_000  # of all items together: their mean is as precise with fewer of each
MOST_GROUPS = 60  # with more groups the table has a row for the worst ones only


@dataclass(frozen=True)
class DistributionMeasures:
    """What was measured.

    Attributes:
        rows: One dictionary per number: metric, value, ci_low, ci_high, n_items, n_raters, unit, direction, kind (what
            the interval resamples), group, baselines and headline.
        scores: The measures of each item, in the order of the items.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item(f"q{i}", "?", "ab", [3, 1]) for i in range(2)]
        >>> measured = measure_distributions(items, [np.array([0.5, 0.5])] * 2)
        >>> measured.row("skill_uniform")["value"], round(measured.scores[0]["jsd_nats"], 4)
        (0.0, 0.0338)
    """

    rows: list[dict[str, Any]]
    scores: list[dict[str, float]]

    def row(self, metric: str, group: str = "all") -> dict[str, Any]:
        """Return the row of a metric for one group."""
        return next(row for row in self.rows if (row["metric"], row["group"]) == (metric, group))


def measure_distributions(
    items: Sequence[DistributionItem],
    shares: Sequence[np.ndarray],
    coverage: Sequence[float] | None = None,
    *,
    sensitivity: Mapping[str, np.ndarray] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> DistributionMeasures:
    """Measure distributions over the options of items against those of people.

    Skill is `1 - distance / distance of a baseline`: 1 for people themselves, 0 for the baseline. `skill_uniform` and
    `skill_marginal` are of the Jensen-Shannon divergence, `skill_tv` of the total variation (SimBench's score / 100).
    `skill_floor` is 1 for the best that any model can do that does not know the very answers: its divergence is the
    floor. A group's skill has the group's own baseline. Where people answer exactly as a baseline does, there is no
    skill against it.

    Args:
        items: `I` items.
        shares: `I` distributions of the model, each over the options of its item.
        coverage: `(I,)` probability that the model gives to all options together, or the share of its samples that
            are one of them; None if unknown.
        sensitivity: `(I,)` how far the model's distribution moves when something changes that should not matter, such
            as the order of the options, by name of what changes; nan for an item where it cannot change.
        draws: Bootstrap draws.
        level: Level of the intervals.
        seed: Random seed.

    Raises:
        ValueError: There is no item, or not one distribution per item over its options.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item(f"q{i}", "?", "abc", [10 + i, 10, 2]) for i in range(8)]
        >>> gold = measure_distributions(items, [item.people for item in items])
        >>> mode = measure_distributions(items, modes(items))
        >>> gold.row("skill_uniform")["value"], mode.row("skill_uniform")["value"] < 0
        (1.0, True)
    """
    if not items or len(shares) != len(items):
        raise ValueError(f"{len(items)} items and {len(shares)} distributions. Fix: give one for each, at least one.")
    _check_shares(items, shares)
    rivals = _rivals(items)
    values = {"model": distances_to_people(items, shares)}
    values |= {name: distances_to_people(items, of_rival) for name, of_rival in rivals.items()}
    floors = noise_floors(items, draws=max(8, min(100, MOST_FLOOR_SAMPLES // len(items))), seed=seed)
    if floors is not None:
        values["floor"] = floors
    intervals = _Intervals(items, shares, rivals, draws, level, seed)
    rows = [
        _row(name, intervals.mean(values, name), intervals, measure.unit, measure.direction, measure.bounds)
        | {"baselines": {who: float(values[who][name].mean()) for who in values if who not in ("model", "mode")}}
        for name, measure in DISTANCES.items()
        if name in values["model"]
    ]
    extra = {} if coverage is None else {"coverage": np.asarray(coverage, dtype=np.float64)}
    extra |= dict(sensitivity or {})
    for name, column in extra.items():
        if not np.isnan(column).all():
            interval = intervals.blocks(column[:, None], lambda means: means[..., 0])
            direction = "higher" if name == "coverage" else "lower"
            rows.append(_row(name, interval, intervals, "probability", direction, (0.0, 1.0)))
    skills = _skill_rows(values, intervals)
    rows += skills
    if not skills:
        rows[0]["headline"] = True
    rows += _group_rows(items, values)
    if intervals.people is not None:
        rows.append(_row("jsd_debiased_nats", intervals.debiased(), intervals, "nats", "lower"))
    scores = [
        {
            name: float(column[i])
            for name, column in (*values["model"].items(), *extra.items())
            if not np.isnan(column[i])
        }
        for i in range(len(items))
    ]
    return DistributionMeasures(rows, scores)


def _check_shares(items: Sequence[DistributionItem], shares: Sequence[np.ndarray]) -> None:
    """Raise unless the shares are of the options and sum to one; the distances would be computed of anything."""
    for item, of_item in zip(items, shares, strict=True):
        given = np.asarray(of_item, dtype=np.float64)
        off = given.shape != (len(item.options),) or (given < -TOLERANCE).any() or abs(given.sum() - 1) > TOLERANCE
        if off:  # a model that gave no answer has nan, which is neither
            raise ValueError(
                f"item {item.name!r}: the model's shares of {len(item.options)} options are {given.tolist()}. Fix: "
                "give one share of at least 0 per option, which sum to 1."
            )


def _rivals(items: Sequence[DistributionItem]) -> dict[str, list[np.ndarray]]:
    known = {"marginal": marginals(items), "global_marginal": global_marginals(items)}
    return {"uniform": uniforms(items), "mode": modes(items)} | {
        name: shares for name, shares in known.items() if shares is not None
    }


class _Intervals:
    """Intervals of functions of means over items: over raters and items, or over blocks of items."""

    def __init__(
        self,
        items: Sequence[DistributionItem],
        shares: Sequence[np.ndarray],
        rivals: Mapping[str, Sequence[np.ndarray]],
        draws: int,
        level: float,
        seed: int,
    ) -> None:
        self.shares = {"model": shares, **rivals}
        self.level = level
        numbers: dict[str, int] = {}
        self.block = np.array([numbers.setdefault(item.block, len(numbers)) for item in items])
        self.resamples = resample_prompts(len(numbers), draws=draws, level=level, seed=seed)
        self.block_kind = f"{len(numbers)} {'items' if len(numbers) == len(items) else 'blocks of items'} resampled"
        self.people = None
        n_options = {len(item.options) for item in items}
        columns = [item.answers for item in items if item.answers is not None]
        if len(columns) == len(items) and len(n_options) == 1:
            answers = np.stack(columns, axis=1)
            self.people = resample_people(answers, n_options.pop(), draws=min(draws, 400), seed=seed)
        self.kind = self.block_kind if self.people is None else "raters and items resampled"
        self.n_items = len(items)

    def mean(self, values: Mapping[str, Columns], name: str) -> Interval:
        """Return the mean of one measure of the model."""
        return self.of([("model", name)], lambda means: means[..., 0], values)

    def of(self, wanted: list[tuple[str, str]], statistic: Statistic, values: Mapping[str, Columns]) -> Interval:
        """Return a function of the means of several columns (whose distance, which measure)."""
        columns = np.stack([values[who][name] for who, name in wanted], axis=1)
        if self.people is None or any(who == "floor" for who, _ in wanted):
            return self.blocks(columns, statistic)
        return two_way_interval(
            self.people, lambda human: self._columns(human, wanted), statistic, level=self.level, debias=False
        )

    def blocks(self, columns: np.ndarray, statistic: Statistic) -> Interval:
        """Return a function of the means of `(I, D)` columns, with whole blocks resampled."""
        known = ~np.isnan(columns).any(axis=1)
        sums = np.zeros((self.block.max() + 1, columns.shape[1] + 1))
        np.add.at(sums, self.block[known], np.column_stack([columns, np.ones(len(columns))])[known])
        with np.errstate(invalid="ignore"):  # a resample without any known item is left out
            value, low, high = self.resamples.interval(
                sums, lambda means: statistic(means[..., :-1] / means[..., -1:])
            )
        if np.count_nonzero(sums[:, -1]) < MIN_ITEMS:
            low = high = float("nan")
        return Interval(value, low, high, 0, int(known.sum()))

    def debiased(self) -> Interval:
        """Return the divergence that would be measured if everybody had been asked."""
        assert self.people is not None
        q = np.stack(list(self.shares["model"]))
        return two_way_interval(self.people, lambda human: js_divergence(human, q), level=self.level)

    def _columns(self, human: np.ndarray, wanted: list[tuple[str, str]]) -> np.ndarray:
        return np.stack(
            [DISTANCES[name].compute(human, np.stack(list(self.shares[who]))) for who, name in wanted], axis=-1
        )


def _skill_rows(values: Mapping[str, Columns], intervals: _Intervals) -> list[dict[str, Any]]:
    """Return 1 - distance / distance of a rival, for the rivals that there are; the first row is the headline."""

    def ratio(means: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - means[..., 0] / means[..., 1]

    def above_floor(means: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (means[..., 1] - means[..., 0]) / (means[..., 1] - means[..., 2])

    rows = []
    skills: list[tuple[str, list[tuple[str, str]], Statistic]] = [
        ("skill_uniform", [("model", "jsd_nats"), ("uniform", "jsd_nats")], ratio),
        ("skill_marginal", [("model", "jsd_nats"), ("marginal", "jsd_nats")], ratio),
        ("skill_tv", [("model", "total_variation"), ("uniform", "total_variation")], ratio),
        ("skill_floor", [("model", "jsd_nats"), ("uniform", "jsd_nats"), ("floor", "jsd_nats")], above_floor),
    ]
    for name, wanted, statistic in skills:
        if any(who not in values for who, _ in wanted):
            continue
        interval = intervals.of(wanted, statistic, values)
        if not np.isfinite(interval.value):
            continue  # people answer every item exactly as the rival does
        means = {who: float(column[wanted[0][1]].mean()) for who, column in values.items()}
        base = [means[who] for who, _ in wanted[1:]]
        ends: dict[str, float] = {
            who: float(statistic(np.array([means[who], *base])))
            for who in ("uniform", "marginal", "mode", "floor")
            if who in means
        }
        highest = np.inf if name == "skill_floor" else 1.0
        row = _row(name, interval, intervals, "skill", "higher", (-np.inf, highest))
        ends["ceiling"] = 1.0
        rows.append(row | {"headline": name == "skill_uniform", "baselines": ends})
    return rows


def _group_rows(items: Sequence[DistributionItem], values: Mapping[str, Columns]) -> list[dict[str, Any]]:
    """Return the skill of each group of people, and of the group that the model knows least."""
    groups = {
        str(group): positions
        for group, positions in positions_by(items, lambda item: item.group)
        if len(positions) >= MIN_ITEMS
    }
    if len(groups) < 2:
        return []
    rows: list[dict[str, Any]] = []
    for group, positions in groups.items():
        model, uniform = (float(values[who]["jsd_nats"][positions].mean()) for who in ("model", "uniform"))
        if not uniform:
            continue
        rows.append(
            {
                "metric": "skill_uniform",
                "value": 1 - model / uniform,
                "ci_low": None,
                "ci_high": None,
                "n_items": len(positions),
                "n_raters": 0,
                "unit": "skill",
                "direction": "higher",
                "kind": "mean over the items of a group",
                "group": group,
                "baselines": {"uniform": 0.0, "ceiling": 1.0},
                "headline": False,
            }
        )
    worst = min(rows, key=lambda row: row["value"])
    return [worst | {"metric": "skill_worst_group"}, *(rows if len(rows) <= MOST_GROUPS else [])]


def _row(
    metric: str,
    interval: Interval,
    intervals: _Intervals,
    unit: str,
    direction: str,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> dict[str, Any]:
    known = np.isfinite(interval.low) and np.isfinite(interval.high)
    return {
        "metric": metric,
        "value": interval.value,
        "ci_low": max(interval.low, bounds[0]) if known else None,
        "ci_high": min(interval.high, bounds[1]) if known else None,
        "n_items": interval.n_items,
        "n_raters": interval.n_raters,
        "unit": unit,
        "direction": direction,
        "kind": intervals.kind if interval.n_raters else intervals.block_kind,
        "group": "all",
        "baselines": {},
        "headline": False,
    }
