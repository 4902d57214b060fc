"""From the shapes of an evaluation to sequences: tables of distributions, and people with their answers.

Knows no data set.
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.evaluation.in_context.sequences import PersonSequence
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum_suite.data import SuiteData
from reward_models.seeds import seeded_rng


__all__ = ["item_sequences", "person_sequences"]

_ENDS = ("\nAnswer:", "\nResult:")


def item_sequences(items: Sequence[DistributionItem], data: SuiteData) -> list[SpectrumSequence]:
    r"""Make a sequence of each question of a table: the question is the description, answers drawn by shares follow.

    Example:
        >>> import numpy as np
        >>> item = DistributionItem("q1", "More parks?", ("yes", "no"), np.array([0.9, 0.1]))
        >>> [sequence] = item_sequences([item], SuiteData(examples=3))
        >>> sequence.description, sequence.shares, len(sequence.examples)
        ('More parks?\nPossible answers: yes; no.\nAnswers of different people:', (0.9, 0.1), 3)
    """
    made = []
    for item in data.select(items, data.sequences, "items"):
        rng = seeded_rng(data.seed, f"Spectrum Suite: answers to {item.name}")
        lines = [_bare(item.asked)]
        if item.listed:
            lines += [f"Possible answers: {'; '.join(item.options)}.", "Answers of different people:"]
        drawn = rng.choice(len(item.options), size=data.examples, p=item.people / item.people.sum())
        made.append(
            SpectrumSequence(
                tuple(Example(item.options[option]) for option in drawn),
                "\n".join(lines),
                name=item.name,
                options=item.options,
                shares=tuple((item.people / item.people.sum()).tolist()),
            )
        )
    return made


def person_sequences(people: Sequence[PersonSequence], data: SuiteData) -> list[SpectrumSequence]:
    r"""Make a sequence of each person: questions are inputs, answers are outputs.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example as Answer
        >>> ann = PersonSequence("ann", (Answer("Parks?\nAnswer:", "yes", ("yes", "no"), "q1"),), "A survey.")
        >>> [sequence] = person_sequences([ann], SuiteData())
        >>> sequence.examples[0], sequence.options
        (Example(output='yes', input='Parks?'), ('yes', 'no'))
    """
    made = []
    for number, person in enumerate(data.select(people, data.sequences, "people")):
        answers = data.select(person.examples, data.examples, "answers", number)
        offered = {answer.options for answer in answers}
        made.append(
            SpectrumSequence(
                tuple(Example(answer.output, _bare(answer.input)) for answer in answers),
                person.description or None,
                name=person.person,
                options=offered.pop() if len(offered) == 1 else (),
            )
        )
    return made


def _bare(text: str) -> str:
    """Return a prompt without the word before the answer, which the role of a message says."""
    for end in _ENDS:
        text = text.removesuffix(end)
    return text
