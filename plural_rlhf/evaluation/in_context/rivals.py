"""What simple statistics predict of the next answer of a person: the baselines of in-context steerability.

A model that reads a person's answers should predict the next one better than what people answer in general, than what
this person mostly answered, and than naive Bayes, which weighs each of the person's answers by what others with that
answer said. All of them leave the person out whose answer they predict. Knows no model.

Shapes: `S` people, `T` positions of a sequence, `C` cells (an option of a question).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence


__all__ = ["TEMPERS", "rival_predictions"]

LEAST_PEOPLE = 3  # who were asked a question, for a share of its own
TEMPERS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Weights of the evidence of earlier answers, of which naive Bayes takes the best."""
PRIOR = 2.0
"""Weight, in answers, of what is more general: of all questions for one of them, of everybody for one person."""


class _Answers:
    """The answers of all people as counts: of each option over all questions, of each cell, of each pair of cells."""

    def __init__(self, sequences: Sequence[PersonSequence]) -> None:
        self.sequences = sequences
        asked = Counter(_key(example) for sequence in sequences for example in sequence.examples)
        self.cells: dict[tuple[str, tuple[str, ...]], int] = {}  # first cell of a question that several were asked
        n_cells = 0
        for key, n in asked.items():
            if n >= LEAST_PEOPLE:
                self.cells[key] = n_cells
                n_cells += len(key[1])
        given = np.zeros((len(sequences), n_cells), dtype=np.float32)
        self.labels: dict[tuple[str, ...], np.ndarray] = {}  # (S + 1, A) answers by label: of each person, of all
        for row, sequence in enumerate(sequences):
            for example in sequence.examples:
                option = _given(example)
                if _key(example) in self.cells:
                    given[row, self.cells[_key(example)] + option] = 1
                counts = self.labels.setdefault(example.options, np.zeros((len(sequences) + 1, len(example.options))))
                counts[[row, -1], option] += 1
        self.totals = given.sum(axis=0)
        self.together = given.T @ given  # (C, C) people who gave both answers

    def of(self, example: Example) -> slice | None:
        """Return the cells of the options of a question, None if hardly anybody else was asked it."""
        first = self.cells.get(_key(example))
        return None if first is None else slice(first, first + len(example.options))

    def overall(self, person: int, options: tuple[str, ...]) -> np.ndarray:
        """Return the share of each answer over all questions with these options, among the others."""
        counts = self.labels[options][-1] - self.labels[options][person] + 1 / len(options)
        return counts / counts.sum()

    def marginal(self, person: int, example: Example) -> np.ndarray:
        """Return the share of each answer to this question among the others, drawn to all their answers."""
        counts = PRIOR * self.overall(person, example.options)
        cells = self.of(example)
        if cells is not None:
            counts = counts + self.totals[cells]
            counts[_given(example)] -= 1
        return counts / counts.sum()

    def evidence(self, person: int, position: int) -> np.ndarray:
        """Return, for each answer, the log chance of the person's earlier answers among others who answer so."""
        examples = self.sequences[person].examples
        example = examples[position]
        total, here = np.zeros(len(example.options)), self.of(example)
        if here is None:
            return total
        for earlier in examples[:position]:
            there = self.of(earlier)
            if there is None:
                continue
            both = self.together[there, here].astype(np.float64)
            both[_given(earlier), _given(example)] -= 1  # the person who is predicted
            general = self.marginal(person, earlier)[_given(earlier)]
            total += np.log((both[_given(earlier)] + PRIOR * general) / (both.sum(axis=0) + PRIOR))
        return total


def _key(example: Example) -> tuple[str, tuple[str, ...]]:
    return example.question, example.options


def _given(example: Example) -> int:
    return example.options.index(example.output)


def _own(answers: _Answers, person: int) -> list[np.ndarray]:
    """Return how often the person gave each answer so far, drawn to what everybody answers."""
    predicted, so_far = [], dict[tuple[str, ...], np.ndarray]()
    for example in answers.sequences[person].examples:
        counts = so_far.setdefault(example.options, PRIOR * answers.overall(person, example.options))
        predicted.append(counts / counts.sum())
        counts[_given(example)] += 1
    return predicted


def _weighed(log_p: np.ndarray) -> np.ndarray:
    return np.exp(log_p - np.logaddexp.reduce(log_p))


def rival_predictions(
    sequences: Sequence[PersonSequence], only: Sequence[int] | None = None
) -> dict[str, tuple[list[np.ndarray], list[np.ndarray]]]:
    """Compute the loss and the accuracy of every baseline at every position.

    `marginal`: what the others answer to the question. `own_answers`: what the person answered so far. `product`: the
    marginal times how much more often than others the person gave each answer. `naive_bayes`: the marginal times the
    chance of each earlier answer among others who answer so; the weight of this evidence is the one of `TEMPERS` with
    the lowest loss here, since answers to many questions are not independent.

    Args:
        sequences: The answers of `S` people; each is predicted from the others and from the person's earlier answers.
        only: Positions of the people to predict; None: all. The others are still learnt from.

    Returns:
        By name of the baseline, per person `(T,)` nats of the given answers and `(T,)` chances that the most probable
        answer is the one given (ties share).

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> def person(name, answer):  # everybody answers all questions alike
        ...     return PersonSequence(name, tuple(Example("?", answer, ("yes", "no"), f"q{i}") for i in range(6)))
        >>> predicted = rival_predictions([person(str(i), "yes" if i % 2 else "no") for i in range(20)])
        >>> {name: float(np.mean([nats[-1] for nats in losses]).round(2)) for name, (losses, _) in predicted.items()}
        {'marginal': 0.75, 'own_answers': 0.16, 'product': 0.16, 'naive_bayes': 0.0}
    """
    answers = _Answers(sequences)
    predicted: dict[str, list[list[np.ndarray]]] = {name: [] for name in ("marginal", "own_answers", "product")}
    evidence = []
    people = range(len(sequences)) if only is None else only
    asked = [sequences[person] for person in people]
    for person, sequence in zip(people, asked, strict=True):
        general = [answers.marginal(person, example) for example in sequence.examples]
        own = _own(answers, person)
        overall = [answers.overall(person, example.options) for example in sequence.examples]
        predicted["marginal"].append(general)
        predicted["own_answers"].append(own)
        predicted["product"].append(
            [_weighed(np.log(g * o / a)) for g, o, a in zip(general, own, overall, strict=True)]
        )
        evidence.append([answers.evidence(person, position) for position in range(len(sequence.examples))])
    tempered = [
        _losses(
            asked,
            [
                [_weighed(np.log(g) + weight * e) for g, e in zip(*of_person, strict=True)]
                for of_person in zip(predicted["marginal"], evidence, strict=True)
            ],
        )
        for weight in TEMPERS
    ]
    results = {name: _losses(asked, of_rival) for name, of_rival in predicted.items()}
    results["naive_bayes"] = min(tempered, key=lambda result: sum(nats.sum() for nats in result[0]))
    return results


def _losses(
    sequences: Sequence[PersonSequence], predicted: Sequence[Sequence[np.ndarray]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    losses, hits = [], []
    for sequence, of_person in zip(sequences, predicted, strict=True):
        given = [_given(example) for example in sequence.examples]
        losses.append(np.array([-np.log(p[g]) for p, g in zip(of_person, given, strict=True)]))
        best = [p >= p.max() - 1e-12 for p in of_person]
        hits.append(np.array([b[g] / b.sum() for b, g in zip(best, given, strict=True)]))
    return losses, hits
