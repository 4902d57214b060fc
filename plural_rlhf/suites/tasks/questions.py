"""Questions with offered answers, how they are worded for a model, and what a model answers.

Knows no model and no data set.

Shapes: `A` options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plural_rlhf.policies.layouts import with_options
from plural_rlhf.suites.models.protocol import OptionRequest


__all__ = ["LABELS", "LAYOUTS", "Labels", "Layout", "OptionAnswer", "OptionQuestion", "option_request"]

Labels = Literal["text", "letters", "numbers"]
LABELS: tuple[Labels, ...] = ("text", "letters", "numbers")
"""What a model answers with: the option itself, or the letter or number in front of it."""
Layout = Literal["list", "line", "sentence"]
LAYOUTS: tuple[Layout, ...] = ("list", "line", "sentence")
"""How listed options are shown: one per line and then "Answer:"; behind the question in one line, as policies are
asked in training unless the run file says otherwise; or in a sentence that asks to choose."""


@dataclass(frozen=True)
class OptionQuestion:
    """A question with offered answers and, as far as known, the answers of people.

    Attributes:
        text: Everything before the answer, without the options.
        options: `A` different answers.
        people: `(A,)` shares or counts of the people; None if unknown.
        marginal: `(A,)` shares of the people on other items; None if the items do not share their options.
        listed: Whether the options are listed below the text. False where the text itself names them, or where they
            are so plain that nobody would list them: then neither their order nor their labels can matter.

    Example:
        >>> OptionQuestion("Is more spending on parks needed?", ("yes", "no"), people=np.array([30, 10])).listed
        True
    """

    text: str
    options: tuple[str, ...]
    people: np.ndarray | None = None
    marginal: np.ndarray | None = None
    listed: bool = True


@dataclass(frozen=True)
class OptionAnswer:
    """What a model answers to an `OptionQuestion`.

    Attributes:
        shares: `(A,)` shares of the options, summing to 1; uniform if there was no valid answer at all.
        coverage: Probability of all options together (log-probabilities), share of samples that are an option
            (sampling), or 1 / 0 for a stated distribution that could / could not be read (verbalised).
        valid: Whether there was any valid answer. Without one the shares say nothing.

    Example:
        >>> OptionAnswer(np.array([0.5, 0.5]), coverage=0.98, valid=True).shares.sum().item()
        1.0
    """

    shares: np.ndarray
    coverage: float
    valid: bool = True


def option_request(
    question: OptionQuestion,
    order: Sequence[int] | None = None,
    labels: Labels = "text",
    layout: Layout = "list",
) -> OptionRequest:
    r"""Word a question, with the options in an order and under labels.

    Args:
        question: The question.
        order: Positions of the options in the order in which they are shown; None for their own.
        labels: What stands before the options, and is the answer.
        layout: How the options are shown.

    Returns:
        The request; option `i` of it is option `order[i]` of the question.

    Example:
        >>> question = OptionQuestion("More parks?", ("yes", "no"), people=np.array([3, 1]))
        >>> request = option_request(question, order=[1, 0], labels="letters")
        >>> print(request.prompt)
        More parks?
        A. no
        B. yes
        Answer:
        >>> request.options, request.people.tolist()
        (('A', 'B'), [1, 3])
        >>> option_request(question, layout="line").prompt
        'More parks? yes; no?'
    """
    order = range(len(question.options)) if order is None else order
    shown = [question.options[position] for position in order]
    marks = _marks(len(shown), labels)
    labelled = [f"{mark}. {option}" for mark, option in zip(marks, shown, strict=True)]
    prompt = question.text
    if question.listed and labels != "text" and layout == "list":
        prompt = "\n".join([question.text, *labelled, "Answer:"])  # a label is the mark of its line
    elif question.listed:
        prompt = with_options(question.text, shown if labels == "text" else labelled, layout)
    moved = [
        None if shares is None else np.asarray(shares)[list(order)] for shares in (question.people, question.marginal)
    ]
    answers = shown if labels == "text" or not question.listed else marks
    return OptionRequest(prompt, tuple(answers), *moved)


def _marks(n: int, labels: Labels) -> list[str]:
    if labels == "letters":
        return [chr(ord("A") + i) if n <= 26 else f"A{i + 1}" for i in range(n)]
    return [str(i + 1) for i in range(n)]
