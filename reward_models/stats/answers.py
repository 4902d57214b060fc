"""Statistics of answers: divergences between answer distributions, and people resampled for intervals.

Natural logarithms throughout (nats). Needs numpy and scipy only; knows nothing of judgement tables, models or
policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from reward_models.seeds import seeded_rng
from reward_models.stats.design import SamplingDesign
from reward_models.stats.shares import kish_n


__all__ = [
    "Interval",
    "Resamples",
    "adjusted_rand_index",
    "answer_counts",
    "coverage",
    "entropy",
    "entropy_gap",
    "js_divergence",
    "marginal",
    "noise_floor",
    "noise_floor_js",
    "normalise",
    "resample_people",
    "total_variation",
]


def normalise(counts: np.ndarray) -> np.ndarray:
    """Divide counts (..., A) by their sum over the last axis; a row that sums to 0 becomes uniform.

    Example:
        >>> normalise([[1, 3], [0, 0]]).tolist()
        [[0.25, 0.75], [0.5, 0.5]]
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), 1.0 / counts.shape[-1])


def marginal(counts: np.ndarray) -> np.ndarray:
    """Return the shares (A,) of the options over all items together, from counts (I, A).

    Example:
        >>> marginal([[1, 3], [5, 1]]).tolist()
        [0.6, 0.4]
    """
    return normalise(np.asarray(counts, dtype=np.float64).sum(axis=0))


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy of distributions (..., A) in nats: (...).

    Example:
        >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    return entr(np.asarray(p, dtype=np.float64)).sum(axis=-1)


def entropy_gap(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the entropy of a model's `q` (..., A) minus that of the people's `p`, in nats: (...).

    Below 0 the model is more certain than the people are divided: it has collapsed.

    Example:
        >>> round(float(entropy_gap([1.0, 0.0], [0.5, 0.5])), 4)
        -0.6931
    """
    return entropy(q) - entropy(p)


def js_divergence(p: np.ndarray, q: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Return the Jensen-Shannon divergence over the last axis.

    `½ KL(p ‖ m) + ½ KL(q ‖ m)` with `m = (p + q) / 2`. It is the divergence, not its square root (the distance).

    Args:
        p: (..., A) distributions.
        q: (..., A) distributions, broadcast against `p`.
        eps: Added to every option of both sides before they are normalised again; Spectrum Tuning's evaluation adds
            1e-6.

    Returns:
        (...) in nats, between 0 and log 2.

    Example:
        >>> round(float(js_divergence([.1, .2, .3, .4], [.4, .3, .2, .1])), 6)
        0.10644
    """
    p = np.asarray(p, dtype=np.float64) + eps
    q = np.asarray(q, dtype=np.float64) + eps
    p = p / p.sum(axis=-1, keepdims=True)
    q = q / q.sum(axis=-1, keepdims=True)
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.maximum(divergence, 0.0)  # rounding may leave -1e-17


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the total variation distance `½ Σ |p - q|` over the last axis: (...), between 0 and 1.

    Example:
        >>> float(total_variation([0.1, 0.9], [0.6, 0.4]))
        0.5
    """
    return np.abs(np.asarray(p, dtype=np.float64) - np.asarray(q, dtype=np.float64)).sum(axis=-1) / 2


def coverage(option_probs: np.ndarray) -> np.ndarray:
    """Return the probability (...) that a model puts on the offered answers (..., A) together.

    The rest of its probability is on texts that are no answer.

    Example:
        >>> coverage([[0.2, 0.3], [0.1, 0.0]]).tolist()
        [0.5, 0.1]
    """
    return np.asarray(option_probs, dtype=np.float64).sum(axis=-1)


def noise_floor(
    p: np.ndarray,
    n: np.ndarray,
    seed: int = 0,
    draws: int = 200,
    *,
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray] = js_divergence,
) -> np.ndarray:
    """Estimate the distance that a perfect model would still have because only `n` people answered.

    It is the expected distance between a sample of size `n` from `p` and `p` itself. Of the Jensen-Shannon divergence
    it goes to 0 as (A - 1) / (8n).

    Args:
        p: (I, A) true distributions.
        n: (I,) people who answered each item.
        seed: Random seed.
        draws: Multinomial samples per item.
        distance: Distance of distributions over the last axis, e.g. `total_variation`.

    Returns:
        (I,) in the unit of the distance.

    Example:
        >>> noise_floor([[0.5, 0.5]], [100], distance=total_variation).round(2).tolist()  # .4 / sqrt(100)
        [0.04]
    """
    p = normalise(p)
    samples = seeded_rng(seed, "noise floor").multinomial(np.asarray(n, dtype=np.int64), p, size=(draws, len(p)))
    return distance(normalise(samples), p).mean(axis=0)


def noise_floor_js(p: np.ndarray, n: np.ndarray, seed: int = 0, draws: int = 200) -> np.ndarray:
    """Estimate the `noise_floor` of the Jensen-Shannon divergence: (I,) nats.

    Example:
        >>> noise_floor_js([[0.5, 0.5], [0.5, 0.5]], [50, 5000]).round(4).tolist()
        [0.0024, 0.0]
    """
    return noise_floor(p, n, seed, draws)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        n_raters: Raters behind it.
        n_items: Items behind it.

    Example:
        >>> interval = Interval(0.83, 0.79, 0.88, n_raters=40, n_items=12)
        >>> interval.low < 0.8 < interval.high
        True
    """

    value: float
    low: float
    high: float
    n_raters: int
    n_items: int


def answer_counts(answers: np.ndarray, n_options: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Count the answers to each item.

    Args:
        answers: (R, I) option index, -1 = missing.
        n_options: `A`.
        weights: (R,) or (R, I) weight of each rater, e.g. their membership in a cluster; None for 1.

    Returns:
        (I, A) weighted counts.

    Example:
        >>> answer_counts(np.array([[0, 1], [1, -1], [1, 1]]), 2).tolist()
        [[1.0, 2.0], [0.0, 2.0]]
    """
    answers = np.asarray(answers)
    weight = np.ones(len(answers)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.ndim == 1:
        return np.stack([weight @ (answers == option) for option in range(n_options)], axis=-1)
    return np.stack([(weight * (answers == option)).sum(axis=0) for option in range(n_options)], axis=-1)


@dataclass(frozen=True)
class Resamples:
    """Resampled answers of people, from which `two_way_interval` computes the intervals of several statistics.

    Attributes:
        human: (1 + B, I, A) people's distributions; the first is that of the data, the others of the B resamples.
        answered: (1 + B, I) whether anyone answered.
        n_raters: Raters with an answer and a positive weight.
        effective: Raters of equal weight of the same precision (Kish), by the weight of all their answers.

    Example:
        >>> people = resample_people(np.array([[0, 1], [1, 1], [1, 1]]), 2, draws=200)
        >>> people.human[0].round(3).tolist()
        [[0.333, 0.667], [0.0, 1.0]]
        >>> people.human.shape, people.n_raters
        ((201, 2, 2), 3)
    """

    human: np.ndarray
    answered: np.ndarray
    n_raters: int
    effective: float


def resample_people(
    answers: np.ndarray,
    n_options: int,
    *,
    rater_weights: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
    design: SamplingDesign | None = None,
) -> Resamples:
    """Resample raters with replacement.

    Args:
        answers: (R, I) option index, -1 = missing.
        n_options: `A`.
        rater_weights: (R,) or (R, I) weight of each rater, e.g. soft membership in a cluster.
        draws: Bootstrap samples `B`.
        seed: Random seed.
        design: How the `R` raters were sampled: weights, which multiply `rater_weights`, and strata and units,
            within which they are resampled (`SamplingDesign.draw`). None: all alike.

    Returns:
        The resampled distributions, for `reward_models.stats.two_way.two_way_interval`.

    Raises:
        ValueError: If `answers` is not (R, I) or holds no answer.

    Example:
        >>> resample_people(np.array([[0, 1, -1], [1, 1, -1]]), 2, draws=5).answered[0].tolist()
        [True, True, False]
    """
    answers = np.asarray(answers)
    if answers.ndim != 2 or not (answers >= 0).any():
        raise ValueError(
            f"answers has shape {answers.shape} and {int((answers >= 0).sum())} answers, so there is nothing to "
            "resample. Fix: pass (R, I) option indices with -1 = missing."
        )
    weight = np.ones(len(answers)) if rater_weights is None else np.asarray(rater_weights, dtype=np.float64)
    design = SamplingDesign(np.ones(len(answers))) if design is None else design
    matrix = (weight if weight.ndim == 2 else weight[:, None]) * design.weight[:, None] * np.ones(answers.shape)
    n_raters, n_items = answers.shape
    everybody = np.ones(n_raters, dtype=bool)
    # (R, I * A): one product with the raters' draw counts gives all the counts of a draw.
    onehot = np.concatenate([matrix * (answers == option) for option in range(n_options)], axis=1)
    rng = seeded_rng(seed, "bootstrap of people")
    counts = [np.ones((1, n_raters)) @ onehot]
    for start in range(0, draws, 100):  # in blocks, so that the draw counts of many raters fit in memory
        block = np.stack([design.draw(everybody, rng) for _ in range(min(100, draws - start))])
        counts.append(block @ onehot)
    tables = np.concatenate(counts).reshape(-1, n_options, n_items).swapaxes(1, 2)
    mass = np.where(answers >= 0, matrix, 0.0)
    active = int((mass > 0).any(axis=1).sum())
    effective = float(kish_n(mass.sum(axis=1) / np.maximum((mass > 0).sum(axis=1), 1)))
    return Resamples(normalise(tables), tables.sum(axis=-1) > 0, active, effective)


def adjusted_rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Return the agreement of two groupings (N,) of the same things, corrected for chance.

    Hubert and Arabie (1985): 1 = the same grouping under other names, 0 = as by chance. Two groupings that both put
    everything into one group, or everything apart, agree fully.

    Example:
        >>> adjusted_rand_index([0, 0, 1, 1], ["x", "x", "y", "y"])
        1.0
        >>> round(adjusted_rand_index([0, 0, 1, 1], [0, 1, 0, 1]), 3)
        -0.5
    """
    _, rows = np.unique(np.asarray(a), return_inverse=True)
    _, columns = np.unique(np.asarray(b), return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, in_a, in_b, total = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(table.sum()[None])
    expected = in_a * in_b / total if total else 0.0
    ceiling = (in_a + in_b) / 2
    return 1.0 if ceiling == expected else (both - expected) / (ceiling - expected)
