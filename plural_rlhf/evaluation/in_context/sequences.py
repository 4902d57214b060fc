"""What single people answered, one question after another: the shape `sequences` of an evaluation.

A model reads a person's answers from the first to the last; how well it predicts the next one is measured by `curves`.
Knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import judgement_texts
from reward_models.seeds import seeded_rng


__all__ = ["Example", "PersonSequence", "common_length", "judgement_sequences", "shuffled_people"]


@dataclass(frozen=True)
class Example:
    """One question and what a person answered.

    Attributes:
        input: Everything before the answer.
        output: The answer, one of the options.
        options: All answers that were offered.
        question: Name of the question: equal names are the same question to different people.
        best_nats: Loss of the best prediction that there is from the examples before, where it is known.
        best_correct: Chance that its most probable answer is right.

    Raises:
        ValueError: The answer is none of the options.

    Example:
        >>> Example("More parks?", "maybe", ("yes", "no"), "q1")
        Traceback (most recent call last):
        ValueError: question 'q1': 'maybe' is none of the options ('yes', 'no'). Fix: repair or drop the answer.
    """

    input: str
    output: str
    options: tuple[str, ...]
    question: str
    best_nats: float | None = None
    best_correct: float | None = None

    def __post_init__(self) -> None:
        if self.output not in self.options:
            raise ValueError(
                f"question {self.question!r}: {self.output!r} is none of the options {self.options}. Fix: repair or "
                "drop the answer."
            )


@dataclass(frozen=True)
class PersonSequence:
    """The answers of one person, in the order in which a model reads them.

    Attributes:
        person: Name of the person.
        examples: The questions and answers.
        description: Text before the first question, the same for everybody.
        rivals: Per baseline `(T,)` losses and `(T,)` chances of being right (`rivals.rival_predictions`), from more
            people than are measured; None: to be computed from those.

    Example:
        >>> sequence = PersonSequence("ann", (Example("Parks?", "yes", ("yes", "no"), "q1"),), "A survey.")
        >>> len(sequence.examples)
        1
    """

    person: str
    examples: tuple[Example, ...]
    description: str = ""
    rivals: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None


def common_length(lengths: Sequence[int] | np.ndarray) -> int:
    """Choose the length `k` of all sequences: `k` times the number of people with at least `k` answers is largest.

    This is Spectrum Tuning's rule. Everybody then has the same positions, so that a curve over them compares like with
    like.

    Example:
        >>> common_length([20, 20, 20, 18, 3])  # 4 · 18 is more than 3 · 20 and 5 · 3
        18
    """
    longest = np.sort(np.asarray(lengths))[::-1]
    return int(longest[np.argmax(longest * np.arange(1, len(longest) + 1))])


def judgement_sequences(
    judgements: Judgements,
    *,
    description: str = "One person answers several questions.",
    length: int | None = None,
    most_people: int = 1000,
    seed: int = 0,
) -> list[PersonSequence]:
    """Make a sequence of the answers of each rater, in random order.

    Choices are answered by the option, ratings by the level, preferences by A, B or tie. Options that are the same for
    all questions are named once, in the description.

    Args:
        judgements: Choices, ratings or preferences.
        description: Text before the first question.
        length: Answers per person; people with fewer are left out, longer sequences are cut at random. None:
            `common_length`.
        most_people: Most people, chosen at random.
        seed: Random seed.

    Raises:
        JudgementError: The table holds published shares, nobody has two answers, or `length` of them, or `length` is
            below 2.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=20, num_items=6)
        >>> sequence = judgement_sequences(planted.judgements)[0]
        >>> len(sequence.examples), sequence.examples[0].output in sequence.examples[0].options
        (6, True)
    """
    if judgements.kind == "soft":
        raise JudgementError("published shares are no answers of single people. Fix: pass judgements with raters.")
    frame = judgements.frame
    sizes = frame.groupby("rater_id").size()
    if length is not None and length < 2:
        raise JudgementError(f"length={length}: nothing comes before a first answer. Fix: use at least 2.")
    if sizes.max() < (length or 2):
        more = "use a table in which people answer several questions" if length is None else f"lower length={length}"
        raise JudgementError(f"nobody has {length or 2} answers. Fix: {more}.")
    length = common_length(sizes[sizes > 1].to_numpy()) if length is None else length
    people = sizes.index[sizes >= length]
    rng = seeded_rng(seed, "people and order of sequences")
    if len(people) > most_people:
        people = people[np.sort(rng.choice(len(people), size=most_people, replace=False))]
    common = _common_options(judgements)
    before = f"{description} Answers: {', '.join(common)}." if common else description
    sequences = []
    for person, rows in frame[frame["rater_id"].isin(people)].groupby("rater_id", sort=False):
        order = rng.permutation(len(rows))[:length]
        examples = tuple(_example(judgements.kind, row, common) for row in rows.iloc[order].to_dict("records"))
        sequences.append(PersonSequence(str(person), examples, before))
    return sequences


def shuffled_people(sequences: Sequence[PersonSequence], seed: int = 0) -> list[PersonSequence]:
    """Exchange the answers to each question between people: the control without a person behind the sequence.

    Questions keep their places, and how often each answer was given to a question is unchanged; only that the answers
    of a sequence are one person's is lost. What a model gains from the examples here it owes to the form of the
    answers and to what people answer in general. Questions that one person alone was asked are exchanged with their
    answers.

    Example:
        >>> of = lambda person, answer: PersonSequence(person, (Example("Parks?", answer, ("yes", "no"), "q"),))
        >>> [s.examples[0].output for s in shuffled_people([of("ann", "yes"), of("bob", "no")])]
        ['no', 'yes']
    """
    rng = seeded_rng(seed, "answers exchanged between people")
    asked = Counter(example.question for sequence in sequences for example in sequence.examples)
    places: dict[str | int, list[tuple[int, int]]] = {}
    for row, sequence in enumerate(sequences):
        for position, example in enumerate(sequence.examples):
            key = example.question if asked[example.question] > 1 else position
            places.setdefault(key, []).append((row, position))
    shuffled = [list(sequence.examples) for sequence in sequences]
    for exchanged in places.values():
        circle = [exchanged[place] for place in rng.permutation(len(exchanged))]
        for (row, position), (other_row, other_position) in zip(circle, circle[1:] + circle[:1], strict=True):
            shuffled[row][position] = sequences[other_row].examples[other_position]
    return [
        replace(sequence, examples=tuple(examples)) for sequence, examples in zip(sequences, shuffled, strict=True)
    ]


def _common_options(judgements: Judgements) -> tuple[str, ...] | None:
    """Return the options of all questions, None if they are not the same."""
    if judgements.kind == "rating":
        return tuple(f"{level:g}" for level in judgements.levels or ())
    if judgements.kind == "preference":
        return ("A", "B", "tie") if (judgements.frame["choice"] == "tie").any() else ("A", "B")
    offered = {tuple(options) for options in judgements.frame["options"]}
    return tuple(map(str, offered.pop())) if len(offered) == 1 else None


def _example(kind: str, row: Mapping[Hashable, Any], common: tuple[str, ...] | None) -> Example:
    options = tuple(map(str, row["options"])) if common is None else common
    text, output = judgement_texts(kind, row)
    shown = text if common else f"{text} ({' / '.join(options)})"
    return Example(f"{shown}\nAnswer:", output, options, str(row["item_id"]))
