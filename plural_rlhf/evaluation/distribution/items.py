"""Questions with the distribution of people over their options: the shape `distribution` of an evaluation.

Knows no model, no data set and no measure.

Shapes: `A` options, `R` raters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


__all__ = ["DistributionItem", "counted_item", "positions_by"]

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DistributionItem:
    """A question with the distribution of people over its options.

    Attributes:
        name: Name of the item, unique in its table.
        text: The question, without the options.
        options: `A` different answers.
        people: `(A,)` shares of the people.
        n: People behind the shares; None where they are exact, e.g. computed.
        group: Group of people, e.g. a country.
        ordinal: Whether the options are in an order.
        listed: Whether a prompt lists the options below the text.
        question: Name of the question, the same for all groups that were asked it; `""`: the name of the item.
        block: What is resampled as one for intervals, e.g. the country of a country in a year; `""`: the question.
        answers: `(R,)` option of each rater, -1 where there is none; the same raters in the same order in every item
            of the table. None where only shares are known.
        preface: What stands before the question, e.g. whom it was asked; `""` for nothing.
        marginal: `(A,)` what people answer elsewhere (`baselines.marginals`), computed from a larger table than the
            items that are measured; None: to be computed from those.

    Raises:
        ValueError: The shares do not sum to one, are negative, or are not as many as the options; two options are the
            same, or one is empty.

    Example:
        >>> DistributionItem("q1", "Parks?", ("yes", "no"), np.array([0.7, 0.7]))
        Traceback (most recent call last):
        ValueError: item 'q1': the shares of people are [0.7, 0.7] and sum to 1.4, not 1. Fix: divide counts by ...
    """

    name: str
    text: str
    options: tuple[str, ...]
    people: np.ndarray
    n: int | None = None
    group: str = "all"
    ordinal: bool = False
    listed: bool = True
    question: str = ""
    block: str = ""
    answers: np.ndarray | None = None
    preface: str = ""
    marginal: np.ndarray | None = None

    @property
    def asked(self) -> str:
        """The question with what stands before it."""
        return f"{self.preface}\n{self.text}" if self.preface else self.text

    def __post_init__(self) -> None:
        if len(set(self.options)) < max(len(self.options), 2) or not all(option.strip() for option in self.options):
            raise ValueError(
                f"item {self.name!r}: the options are {list(self.options)}. Fix: give at least two, all different and "
                "none empty"
            )
        shares = np.asarray(self.people, dtype=np.float64)
        if shares.shape != (len(self.options),) or not np.isfinite(shares).all() or (shares < 0).any():
            raise ValueError(
                f"item {self.name!r}: {len(self.options)} options have the shares {shares.tolist()}. Fix: give one "
                "share of at least 0 per option"
            )
        if abs(shares.sum() - 1) > _TOLERANCE:
            raise ValueError(
                f"item {self.name!r}: the shares of people are {shares.tolist()} and sum to {shares.sum():.4g}, "
                "not 1. Fix: divide counts by their sum"
            )
        if self.n is not None and self.n < 1:
            raise ValueError(f"item {self.name!r}: n={self.n} people answered. Fix: leave the item out")
        object.__setattr__(self, "people", shares)
        object.__setattr__(self, "question", self.question or self.name)
        object.__setattr__(self, "block", self.block or self.question)


def counted_item(
    name: str, text: str, options: Sequence[str], counts: Sequence[float] | np.ndarray, **fields: object
) -> DistributionItem:
    """Make an item from the number of people who chose each option.

    Args:
        name: As in `DistributionItem`.
        text: As in `DistributionItem`.
        options: As in `DistributionItem`.
        counts: `(A,)` people per option.
        **fields: Further fields of the item.

    Example:
        >>> item = counted_item("q1", "More parks?", ("yes", "no"), [30, 10])
        >>> item.people.tolist(), item.n
        ([0.75, 0.25], 40)
    """
    total = float(np.sum(counts))
    shares = np.asarray(counts, dtype=np.float64) / (total or 1.0)
    return DistributionItem(name, text, tuple(options), shares, n=round(total), **fields)  # type: ignore[arg-type]


def positions_by(
    items: Iterable[DistributionItem], key: Callable[[DistributionItem], Hashable]
) -> Iterator[tuple[Hashable, np.ndarray]]:
    """Yield each value of a key with the positions of its items, in the order of first appearance.

    Example:
        >>> items = [counted_item(f"q{a}", "?", "abc"[:a], [1] * a) for a in (2, 3, 2)]
        >>> [(n, positions.tolist()) for n, positions in positions_by(items, lambda item: len(item.options))]
        [(2, [0, 2]), (3, [1])]
    """
    positions: dict[Hashable, list[int]] = {}
    for position, item in enumerate(items):
        positions.setdefault(key(item), []).append(position)
    for value, found in positions.items():
        yield value, np.array(found)
