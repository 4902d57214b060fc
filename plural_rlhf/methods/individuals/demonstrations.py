"""Which of a person's judgements are shown: the most recent, the most similar, or the most informative.

Every chooser returns positions before the target, in the order in which a model reads them: what matters most comes
last, next to the question. Knows no language model.

Shapes: `T` judgements of a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plural_rlhf.evaluation.in_context.sequences import PersonSequence
from plural_rlhf.methods.individuals.jury_reader import JuryReader


__all__ = ["Chooser", "most_informative", "most_recent", "most_similar"]

Chooser = Callable[[PersonSequence, int, int], Sequence[int]]
"""From a person, the position of the target and a number to the positions of the demonstrations."""


def most_recent(person: PersonSequence, target: int, count: int) -> list[int]:
    """Choose the last `count` judgements before the target.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> answers = tuple(Example("?", "yes", ("yes", "no"), f"q{i}") for i in range(6))
        >>> most_recent(PersonSequence("ann", answers), 5, 2)
        [3, 4]
    """
    return list(range(max(target - count, 0), target))


def most_similar(embed: Callable[[Sequence[str]], np.ndarray]) -> Chooser:
    """Return a chooser of the judgements whose inputs are nearest to the target's, by the cosine of their vectors.

    Args:
        embed: Maps texts to vectors, e.g. `plural_rlhf.evaluation.open_ended.embedder.text_embedder`.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> topics = ["parks", "trees", "roads", "trees and parks"]
        >>> answers = tuple(Example(topic, "yes", ("yes", "no"), topic) for topic in topics)
        >>> words = lambda texts: np.array([[word in text for word in ("parks", "trees", "roads")] for text in texts])
        >>> sorted(most_similar(words)(PersonSequence("ann", answers), 3, 2))
        [0, 1]
    """

    def choose(person: PersonSequence, target: int, count: int) -> list[int]:
        vectors = np.asarray(embed([example.input for example in person.examples[: target + 1]]), dtype=np.float64)
        length = np.linalg.norm(vectors, axis=1)
        likeness = vectors[:-1] @ vectors[-1] / np.maximum(length[:-1] * length[-1], 1e-12)
        return np.argsort(likeness, kind="stable")[max(target - count, 0) :].tolist()

    return choose


def most_informative(jury: JuryReader) -> Chooser:
    """Return a chooser that takes, one after another, the judgement that is expected to tell most about the cluster.

    This is the order in which `next_question` of a jury would ask a new rater: the expected information of the
    question given what was answered so far, before its answer is seen.

    Args:
        jury: Fitted to other people.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> def person(name, town):  # q0 is answered alike by all, q1 and q2 by town
        ...     given = zip(("q0", "q1", "q2"), ("yes", town, town))
        ...     return PersonSequence(name, tuple(Example("?", a, ("yes", "no"), q) for q, a in given))
        >>> people = [person(f"p{i}", ("yes", "no")[i % 2]) for i in range(30)]
        >>> most_informative(JuryReader.fit(people, 2))(people[0], 2, 1)
        [1]
    """

    def choose(person: PersonSequence, target: int, count: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < min(count, target):
            left = [position for position in range(target) if position not in chosen]
            chosen.append(left[int(np.argmax(jury.information(person, chosen, left)))])
        return chosen[::-1]  # the first question tells most

    return choose
