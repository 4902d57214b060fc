"""What people answered to the questions that they were asked, by group, one scale of answers at a time.

Knows nothing of wordings' likeness.

Shapes: `Q` known questions, `A` options.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JudgementError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.spelling import one_form
from reward_models.judgements.texts import prompt_wording
from reward_models.stats.answers import normalise
from reward_models.stats.verdicts import MIN_RATERS


__all__ = ["KnownQuestions", "known_questions", "scale_of"]

KINDS = ("choice", "soft", "rating")


@dataclass(frozen=True)
class KnownQuestions:
    """Questions with the same offered answers, and what a group of people answered.

    Attributes:
        ids: `Q` ids.
        texts: `Q` wordings.
        options: The offered answers.
        shares: (Q, A) share of each answer, of people by their sampling weights.
        people: (Q,) answers behind them.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=3).judgements
        >>> [known] = known_questions(judgements)
        >>> known.texts[0], len(known.options), known.people.tolist()
        ('Question 1?', 3, [40.0, 40.0, 40.0])
    """

    ids: list[str]
    texts: list[str]
    options: tuple[str, ...]
    shares: np.ndarray
    people: np.ndarray

    @property
    def blocks(self) -> np.ndarray:
        """(Q,) number of each wording: the same where a question was asked twice, e.g. in two years."""
        number: dict[str, int] = {}
        return np.array([number.setdefault(text.casefold(), len(number)) for text in self.texts], dtype=int)

    def select(self, kept: np.ndarray) -> KnownQuestions:
        """Select questions by (Q,) mask."""
        rows = np.flatnonzero(kept)
        return KnownQuestions(
            [self.ids[row] for row in rows],
            [self.texts[row] for row in rows],
            self.options,
            self.shares[rows],
            self.people[rows],
        )


def scale_of(options: Sequence[str]) -> frozenset[str]:
    """Return what two questions with the same offered answers have in common, whatever their order and capitals.

    Example:
        >>> scale_of(["Yes", "no "]) == scale_of(["No", "yes"])
        True
    """
    return frozenset(str(one_form(option)).strip().casefold() for option in options)


def known_questions(
    judgements: Judgements, raters: Collection[str] | None = None, *, fewest: int = MIN_RATERS
) -> list[KnownQuestions]:
    """Count what people answered, by scale of answers.

    Args:
        judgements: A `choice` table, ratings (their levels are the answers), or published shares (`soft`).
        raters: Ids of the people who count; None: all.
        fewest: Questions with fewer answers of these people are left out.

    Returns:
        One entry per scale, in the order in which the scales occur. Questions with the same answers in another order
        are of one scale, in the order of the first.

    Raises:
        JudgementError: The table is of another kind, or its questions have no wording but their ids.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=3).judgements
        >>> known_questions(judgements, judgements.raters[:3])[0].ids  # three people say nothing of a question
        []
    """
    if judgements.kind not in KINDS:
        raise JudgementError(
            f"the table holds {judgements.kind!r} judgements, of which there are no shares of offered answers. Fix: "
            "give answers to questions (kind: choice), ratings (kind: rating) or published shares (kind: soft)."
        )
    enc = judgements.encode()
    if enc.probs is not None and raters is not None:
        raise JudgementError(
            "the table holds published shares without people, and cannot be divided by group. Fix: leave the group "
            "out, or give a table of each group."
        )
    levels = [f"{level:g}" for level in enc.levels or ()]
    counts = np.zeros((enc.n_items, len(levels) or enc.alternatives.shape[1]))
    people = np.zeros(enc.n_items)
    if enc.probs is not None:
        np.add.at(counts, enc.item, enc.probs * enc.count[:, None])
        np.add.at(people, enc.item, enc.count)
        fewest = fewest if (enc.count > 1).any() else 1  # without a column n nobody knows how many
    else:
        counted = np.ones(len(enc), dtype=bool) if raters is None else np.isin(enc.rater_ids, list(raters))[enc.rater]
        np.add.at(counts, (enc.item[counted], enc.label[counted]), enc.weight[counted])
        np.add.at(people, enc.item[counted], enc.count[counted])
    wordings = _wordings(enc)
    _check_wordings(enc.item_ids, wordings)
    options = [
        tuple(levels) or tuple(enc.texts[text].response for text in texts if text >= 0)
        for texts in enc.item_alternatives
    ]
    by_scale: dict[frozenset[str], list[int]] = {}
    for item, offered in enumerate(options):
        by_scale.setdefault(scale_of(offered), []).append(item)
    return [
        KnownQuestions(
            [enc.item_ids[item] for item in items],
            [wordings[item] for item in items],
            options[items[0]],
            normalise(np.stack([_in_order(counts[item], options[item], options[items[0]]) for item in items])),
            people[items],
        ).select(people[items] >= fewest)
        for items in by_scale.values()
    ]


def _wordings(enc: Encoded) -> list[str]:
    """Return the wording of each item: the question; of ratings the statement, after its prompt if prompts differ."""
    first = [enc.texts[texts[0]] for texts in enc.item_alternatives]
    prompts = [prompt_wording(text.prompt) for text in first]
    if enc.levels is None:
        return prompts
    statements = [text.response for text in first]
    if len(set(prompts)) == 1:
        return statements
    return [f"{prompt} {statement}" for prompt, statement in zip(prompts, statements, strict=True)]


def _in_order(counts: np.ndarray, options: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """Return the counts of a question in the order of the first question of its scale."""
    place: Mapping[str, int] = {option.strip().casefold(): column for column, option in enumerate(options)}
    return counts[[place[option.strip().casefold()] for option in order]]


def _check_wordings(ids: Sequence[str], wordings: Sequence[str]) -> None:
    """Raise if questions are known by a code only."""
    bare = [
        wording
        for name, wording in zip(ids, wordings, strict=True)
        if wording == name and wording.isascii() and " " not in wording.strip()
    ]
    if bare:
        raise JudgementError(
            f"{len(bare)} of {len(ids)} questions have no wording but the name of their column ({bare[0]!r}), and the "
            "wording is all that a prediction rests on. Fix: give their texts, in the column map under questions "
            "(column: wording), or in the column prompt."
        )
