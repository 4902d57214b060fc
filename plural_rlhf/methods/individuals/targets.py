"""Judgements that are predicted, each from a few earlier ones of the same person, and the control with others' ones.

Knows nothing of what predicts.

Shapes: `N` targets, `A` options of a question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from plural_rlhf.evaluation.in_context.sequences import PersonSequence, shuffled_people
from plural_rlhf.methods.individuals.demonstrations import Chooser, most_recent


__all__ = ["Predictor", "Targets"]

Predictor = Callable[[Sequence[PersonSequence], Sequence[Sequence[int]], Sequence[int]], list[np.ndarray]]
"""From people, the positions that are read of each and the position that is predicted, to (A,) shares of each."""
FLOOR = 1e-12


@dataclass(frozen=True)
class Targets:
    """Some judgements of some people.

    Attributes:
        people: `N` people, one per target; a person with several targets stands here several times.
        positions: `N` places of the targets in their sequences.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> answers = tuple(Example("?", "yes", ("yes", "no"), f"q{i}") for i in range(5))
        >>> targets = Targets.of([PersonSequence("ann", answers)], first=3, most=6)
        >>> targets.positions, targets.read(2)
        ([3, 4], [[1, 2], [2, 3]])
        >>> targets.nats([np.array([0.5, 0.5]), np.array([0.8, 0.2])]).round(3).tolist()
        [0.693, 0.223]
    """

    people: list[PersonSequence]
    positions: list[int]

    @classmethod
    def of(cls, people: Sequence[PersonSequence], first: int, most: int) -> Targets:
        """Take up to `most` judgements of each person as targets, from position `first` on."""
        pairs = [(p, t) for p in people for t in range(first, min(len(p.examples), first + most))]
        return cls([p for p, _ in pairs], [t for _, t in pairs])

    @property
    def given(self) -> list[int]:
        """Return the answer to each target, as a place among its options."""
        examples = [p.examples[t] for p, t in zip(self.people, self.positions, strict=True)]
        return [example.options.index(example.output) for example in examples]

    def read(self, count: int, choose: Chooser = most_recent) -> list[Sequence[int]]:
        """Return the positions of the `count` judgements that are read before each target."""
        return [choose(p, t, count) for p, t in zip(self.people, self.positions, strict=True)]

    def predicted(self, predict: Predictor, read: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return (A,) the shares that a predictor gives to the options of each target."""
        return predict(self.people, read, self.positions)

    def nats(self, shares: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N,) the losses of predicted shares."""
        return np.array([-np.log(max(p[given], FLOOR)) for p, given in zip(shares, self.given, strict=True)])

    def of_exchanged_people(self, everybody: Sequence[PersonSequence], seed: int) -> Targets:
        """Return the control: the same targets, with every other judgement exchanged between people.

        Args:
            everybody: Those among whom judgements are exchanged; the people of the targets are among them.
            seed: Random seed.
        """
        others = dict(zip([p.person for p in everybody], shuffled_people(everybody, seed=seed), strict=True))
        exchanged = [
            replace(p, examples=(*others[p.person].examples[:t], *p.examples[t:]))
            for p, t in zip(self.people, self.positions, strict=True)
        ]
        return Targets(exchanged, self.positions)
