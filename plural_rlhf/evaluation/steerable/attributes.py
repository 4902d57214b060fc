"""Steering towards attributes: gain over no steering, the worst attribute, leaks to others, and who matches whom.

A model that is steered towards attribute `a` is scored on every attribute `b`: `S[a, b]`. Attributes are groups to
answer for, personas, values; a score is an accuracy, a skill, a probability. Knows nothing of how a model was steered.

Shapes: `A` attributes, `I` items per attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.intervals import bca_interval
from reward_models.stats.answers import Interval


__all__ = ["AttributeSteering", "attribute_steering", "percentile_ranks"]


@dataclass(frozen=True)
class AttributeSteering:
    """How well a model follows the attribute that it is steered towards.

    Attributes:
        names: The `A` attributes.
        gain: Mean over attributes of `S[a, a]` less the score of the unsteered model on `a`; BCa interval over
            attributes.
        gains: (A,) gain of each attribute.
        intervals: The same with BCa intervals over its items; without ends where there are no items.
        worst: Name of the attribute with the least gain, and in `worst_gain` that gain.
        worst_gain: Its gain.
        leaks: (A, A) how much steering towards `a` (row) moves the score on `b`, against no steering; nan on the
            diagonal.
        leak: Mean of `leaks`: far below 0, steering towards one attribute is steering away from the others; near the
            gain, all are steered alike.
        sensitivity: Mean percentile rank of `S[a, a]` in its column: does steering towards `a` raise `a` more than
            steering towards the others does? Chance .5.
        specificity: Mean percentile rank in its row: is a model steered towards `a` better at `a` than at others?
            Chance .5.
        steerability: Mean of `sensitivity` and `specificity`.

    Example:
        >>> result = attribute_steering([[0.9, 0.2], [0.3, 0.6]], unsteered=[0.5, 0.5], names=["left", "right"])
        >>> round(result.gain.value, 2), result.worst, round(result.worst_gain, 2), round(result.leak, 2)
        (0.25, 'right', 0.1, -0.25)
        >>> result.sensitivity, result.specificity
        (1.0, 1.0)
    """

    names: list[str]
    gain: Interval
    gains: np.ndarray
    intervals: list[Interval]
    worst: str
    worst_gain: float
    leaks: np.ndarray
    leak: float
    sensitivity: float
    specificity: float

    @property
    def steerability(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2


def attribute_steering(
    scores: np.ndarray | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]],
    unsteered: np.ndarray | Sequence[float] | Sequence[Sequence[float]],
    names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
) -> AttributeSteering:
    """Measure steering from the scores of steered models on all attributes.

    Args:
        scores: (A, A) score of the model steered towards `a` on attribute `b`; or (A, A, I) by item of `b`, so that
            each gain has an interval.
        unsteered: (A,) or (A, I) scores of the unsteered model on the same.
        names: Names of the attributes; None: numbers.
        level: Coverage of the intervals.

    Returns:
        Higher scores are better.

    Raises:
        ValueError: Shapes that do not fit, or a single attribute.

    Example:
        >>> deaf = attribute_steering(np.full((3, 3), 0.5), unsteered=[0.5] * 3)  # it does not follow at all
        >>> deaf.gain.value, deaf.sensitivity, deaf.specificity
        (0.0, 0.5, 0.5)
    """
    table, base = np.asarray(scores, dtype=np.float64), np.asarray(unsteered, dtype=np.float64)
    if (
        table.ndim not in (2, 3)
        or table.shape[0] != table.shape[1]
        or table.shape[0] < 2
        or base.shape != table.shape[1:]
    ):
        raise ValueError(
            f"scores have shape {table.shape}, those of the unsteered model {base.shape}. Fix: (attributes, "
            "attributes) or (attributes, attributes, items), and the same without the first axis; two or more."
        )
    number = len(table)
    labels = [str(i) for i in range(number)] if names is None else list(names)
    if len(labels) != number:
        raise ValueError(f"there are {len(labels)} names for {number} attributes. Fix: one name each.")
    own = np.stack([table[a, a] - base[a] for a in range(number)])
    by_item = own.ndim == 2
    intervals = [
        bca_interval(own[a], level=level) if by_item else Interval(float(own[a]), np.nan, np.nan, 0, 1)
        for a in range(number)
    ]
    means, plain = (table.mean(axis=-1), base.mean(axis=-1)) if by_item else (table, base)
    gains = np.array([interval.value for interval in intervals])
    leaks = np.where(np.eye(number, dtype=bool), np.nan, means - plain)
    worst = int(gains.argmin())
    return AttributeSteering(
        names=labels,
        gain=bca_interval(gains, level=level),
        gains=gains,
        intervals=intervals,
        worst=labels[worst],
        worst_gain=float(gains[worst]),
        leaks=leaks,
        leak=float(np.nanmean(leaks)),
        sensitivity=float(percentile_ranks(means).mean()),
        specificity=float(percentile_ranks(means.T).mean()),
    )


def percentile_ranks(scores: np.ndarray) -> np.ndarray:
    """Compute for each attribute the share of the other rows that its own row exceeds in its column; ties count half.

    Args:
        scores: (A, A) score of the model steered towards the row on the column.

    Returns:
        (A,): 1 where the diagonal is the highest of its column, .5 by chance.

    Example:
        >>> percentile_ranks(np.array([[0.9, 0.2, 0.1], [0.1, 0.5, 0.6], [0.1, 0.5, 0.4]])).tolist()
        [1.0, 0.75, 0.5]
    """
    own = np.diag(scores)
    below = (scores < own).sum(axis=0) + ((scores == own).sum(axis=0) - 1) / 2
    return below / (len(scores) - 1)
