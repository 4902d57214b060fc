"""Validity, uniqueness and yield of generations, against what a uniform policy would reach.

- validity: share of the generations that are valid;
- yield: number of different valid values, and its share of the yield of a uniform policy, `V (1 - (1 - 1/V)^n)` for
  `V` values and `n` generations;
- uniqueness: yield by number of valid generations; it falls with `n`, so compare at one `n`;
- collisions: probability that two valid generations have one value;
- entropy of the valid values in nats, and on closed sets their Jensen-Shannon divergence from uniform, with the value
  that a uniform policy has at this `n` as the floor.

Knows nothing of models or prompts.

Shapes: `n` generations, `V` values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plural_rlhf.evaluation.coverage.tasks import GenerationTask, generation_task
from plural_rlhf.evaluation.intervals import bca_interval, wilson_interval
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval, entropy, js_divergence, noise_floor_js


__all__ = ["CoverageResult", "coverage_of", "mean_coverage", "uniform_yield", "yield_interval"]


@dataclass(frozen=True)
class CoverageResult:
    """How well generations cover the valid answers of a task; nan for what is not defined.

    Attributes:
        task: Name of the task.
        n: Number of generations.
        validity: Share of valid generations, with Wilson's interval.
        yielded: Number of different valid values, with the interval of `yield_interval`.
        uniform_yield: Yield of a uniform policy that is always valid.
        yield_share: `yielded` by `uniform_yield`, with its interval; may be a little above 1.
        uniqueness: `yielded` by the number of valid generations.
        collisions: Probability that two of the valid generations have one value.
        entropy: Of the valid values, nats.
        js_to_uniform: Jensen-Shannon divergence of the valid values from uniform, nats; closed sets only.
        js_floor: The same of a uniform policy with as many valid generations.

    Example:
        >>> result = coverage_of("rng_1_10", ["7"] * 9 + ["ten"])
        >>> result.validity.value, result.yielded.value, round(result.yield_share.value, 3), result.entropy
        (0.9, 1.0, 0.154, 0.0)
    """

    task: str
    n: int
    validity: Interval
    yielded: Interval
    uniform_yield: float
    yield_share: Interval
    uniqueness: float
    collisions: float
    entropy: float
    js_to_uniform: float
    js_floor: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values, intervals as dictionaries."""
        return asdict(self)


def uniform_yield(num_values: int | None, n: int) -> float:
    """Compute the expected number of different values among `n` draws from `V` equally likely ones.

    Args:
        num_values: `V`; None for infinitely many.
        n: Number of draws.

    Example:
        >>> [round(uniform_yield(v, 100), 1) for v in (7, 50, 100, 118, None)]
        [7.0, 43.4, 63.4, 67.6, 100.0]
    """
    if num_values is None:
        return float(n)
    return num_values * (1 - (1 - 1 / num_values) ** n)


def yield_interval(
    values: Sequence[str], n: int | None = None, level: float = 0.95, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Compute the number of different values and its interval over repetitions of the same number of draws.

    A plain bootstrap of the draws would not do: it repeats rows, so that of 100 different values 63 are left. Draws
    are repeated from an estimated distribution, in which values that were drawn are less probable than their share and
    those not drawn yet have the rest (Chao et al. 2014, https://doi.org/10.1890/13-0133.1). Of 95 %
    intervals 95 to 97 % cover where values are about equally probable, 86 to 91 % where a few have nearly all.

    Args:
        values: The valid values, in any order.
        n: Number of draws, the invalid ones included; None: all are valid.
        level: Coverage of the interval.
        draws: Number of resamples.
        seed: Random seed.

    Returns:
        Within 1 (0 without a value) and `n`.

    Example:
        >>> interval = yield_interval(["a"] * 50)
        >>> interval.value, interval.low, interval.high
        (1.0, 1.0, 1.0)
    """
    n = len(values) if n is None else n
    counts = np.array(list(Counter(values).values()), dtype=np.float64)
    value = float(len(counts))
    if not len(counts):
        return Interval(value, 0.0, 0.0, 0, n)
    probabilities = _with_unseen(np.append(counts, n - counts.sum()), n)
    seen = seeded_rng(seed, "yield of generations").multinomial(n, probabilities, size=draws)
    number = (np.delete(seen, len(counts), axis=1) > 0).sum(axis=1)  # invalid generations are no value
    low, high = np.quantile(number - number.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(np.clip(value - high, 1.0, value)), float(np.clip(value - low, value, n)), 0, n)


def _with_unseen(counts: np.ndarray, n: int) -> np.ndarray:
    """Estimate the probabilities of values from their counts, followed by those of values that were not drawn."""
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    share = counts / n
    if not once:
        return share
    unseen = (n - 1) / n * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)  # Chao's estimate
    left = once / n * ((n - 1) * once / ((n - 1) * once + 2 * twice)) if unseen else 0.0  # Good and Turing's
    missed = share * (1 - share) ** n
    seen = share * (1 - left * (1 - share) ** n / missed.sum())
    new = int(np.ceil(unseen))
    every = np.maximum(np.concatenate([seen, np.full(new, left / max(new, 1))]), 0.0)
    return every / every.sum()


def coverage_of(task: str | GenerationTask, generations: Sequence[str], level: float = 0.95) -> CoverageResult:
    """Measure generations of one task in one setting.

    Args:
        task: The task or its name.
        generations: `n` texts as they were drawn, of which the first line counts.
        level: Coverage of the intervals.

    Raises:
        ValueError: There are no generations.

    Example:
        >>> result = coverage_of("weekdays_full", ["Monday", "Tuesday", "Monday", "Holiday"])
        >>> result.validity.value, result.yielded.value, round(result.uniqueness, 3), round(result.collisions, 3)
        (0.75, 2.0, 0.667, 0.333)
    """
    task = generation_task(task) if isinstance(task, str) else task
    n = len(generations)
    if not n:
        raise ValueError(f"there are no generations of {task.name!r}. Fix: draw some, 100 as a rule.")
    valid = [value for value in map(task.value, generations) if value is not None]
    counts = Counter(valid)
    yielded, ceiling = yield_interval(valid, n, level), uniform_yield(task.num_values, n)
    share = Interval(yielded.value / ceiling, yielded.low / ceiling, yielded.high / ceiling, 0, n)
    shares = np.array(list(counts.values())) / max(len(valid), 1)
    pairs = len(valid) * (len(valid) - 1)
    js, floor = _to_uniform(task, counts)
    return CoverageResult(
        task=task.name,
        n=n,
        validity=wilson_interval(len(valid), n, level),
        yielded=yielded,
        uniform_yield=ceiling,
        yield_share=share,
        uniqueness=len(counts) / len(valid) if valid else float("nan"),
        collisions=sum(c * (c - 1) for c in counts.values()) / pairs if pairs else float("nan"),
        entropy=float(entropy(shares)) if valid else float("nan"),
        js_to_uniform=js,
        js_floor=floor,
    )


def mean_coverage(results: Sequence[CoverageResult], level: float = 0.95) -> Mapping[str, Interval]:
    """Average validity, uniqueness, yield and share of the uniform yield over tasks.

    Args:
        results: One per task, all of one setting and policy.
        level: Coverage of the intervals, which resample tasks (BCa).

    Example:
        >>> results = [coverage_of(task, ["7"] * 100) for task in ("rng_1_10", "rng_1_100", "weekdays_full")]
        >>> {name: round(interval.value, 3) for name, interval in mean_coverage(results).items()}
        {'validity': 0.667, 'uniqueness': 0.01, 'yield': 0.667, 'yield_share': 0.039}
    """
    columns = {
        "validity": [result.validity.value for result in results],
        "uniqueness": [result.uniqueness for result in results],
        "yield": [result.yielded.value for result in results],
        "yield_share": [result.yield_share.value for result in results],
    }
    return {name: bca_interval(np.array(values), level=level) for name, values in columns.items()}


def _to_uniform(task: GenerationTask, counts: Counter[str]) -> tuple[float, float]:
    if not task.values or not counts:
        return float("nan"), float("nan")
    uniform = np.full((1, len(task.values)), 1 / len(task.values))
    shares = np.array([counts[value] for value in task.values]) / counts.total()
    floor = noise_floor_js(uniform, np.array([counts.total()]))
    return float(js_divergence(shares, uniform[0])), float(floor[0])
