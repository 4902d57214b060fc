"""Shares of new questions by the wording of known ones, and how well the known ones are predicted from each other.

Knows nothing of files.

Shapes: `Q` known questions, `J` new questions, `A` options, `D` numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plural_rlhf.methods.new_questions.known import KnownQuestions, known_questions, scale_of
from plural_rlhf.methods.new_questions.new import NewQuestion
from reward_models.baselines.similar_questions import fit_similar_questions
from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["EVERYBODY", "MOST_FOLDS", "GroupPrediction", "crossed_shares", "predict_questions"]

EVERYBODY = "everybody"
LEVEL = 0.9
"""Coverage of the interval of a share."""
MOST_FOLDS = 60
"""Known questions up to which each is predicted from all others; of more, as many parts are held out in turn."""


@dataclass(frozen=True)
class GroupPrediction:
    """What a group of people would answer to new questions of one scale.

    Attributes:
        group: Its name.
        known: What it answered.
        new: The new questions.
        shares: (J, A) predicted shares.
        weights: (J, Q) weight of each known question; rows sum to 1.
        half_width: (A,) half the width of the 90 % interval of a share: so far off was the prediction of known
            questions (the jackknife, Barber et al. 2021, https://doi.org/10.1214/20-AOS1965). nan with fewer than 9.
        crossed: By way of predicting, (Q, A): the shares of each known question from those of other wording.
            `wording`, `marginal` (their mean), `nearest` (the one with the most similar wording).
        reliance: How much of the differences between questions wording is believed to tell, 0 to 1.
        unlike: Ids of new questions whose wording is farther from every known one than any known one is from its
            nearest: what known questions show of the predictions says nothing of these.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=9).judgements
        >>> by_length = lambda texts: [[float(len(text))] for text in texts]
        >>> [[prediction]] = predict_questions(judgements, [NewQuestion("new", "Question 10?")], by_length)
        >>> prediction.crossed["wording"].shape, prediction.half_width.shape
        ((9, 3), (3,))
    """

    group: str
    known: KnownQuestions
    new: list[NewQuestion]
    shares: np.ndarray
    weights: np.ndarray
    half_width: np.ndarray
    crossed: Mapping[str, np.ndarray]
    reliance: float
    unlike: list[str]

    @property
    def marginal(self) -> np.ndarray:
        """(A,) mean shares of the known questions."""
        mean: np.ndarray = self.known.shares.mean(axis=0)
        return mean


def predict_questions(
    judgements: Judgements,
    new: Sequence[NewQuestion],
    embed: Callable[[Sequence[str]], Any],
    groups: Mapping[str, Collection[str]] | None = None,
    *,
    seed: int = 0,
) -> list[list[GroupPrediction]]:
    """Predict what people would answer to new questions, from the wording of known ones.

    Args:
        judgements: A `choice` table, ratings, or published shares (`soft`).
        new: The new questions. They offer the same answers as known questions do.
        embed: Maps texts to vectors, e.g. `plural_rlhf.evaluation.open_ended.embedder.text_embedder(...)`.
        groups: Ids of the raters of each group that is predicted beside everybody.
        seed: Random seed of the parts that are held out in turn, of more than 60 known questions.

    Returns:
        For each scale that new questions have: everybody, then each group.

    Raises:
        JudgementError: New questions offer answers that no known question does; or fewer than five known questions
            offer them, in all or with at least twelve answers of a group.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=8).judgements
        >>> predict_questions(judgements, [NewQuestion("tea", "Tea?", ("yes", "no"))], lambda texts: None)
        Traceback (most recent call last):
        reward_models.errors.JudgementError: question 'tea' offers 'yes', 'no', and none of the table does: ...
    """
    everybody = known_questions(judgements)
    scales = [scale_of(known.options) for known in everybody]
    asked: dict[int, list[NewQuestion]] = {}
    for question in new:
        asked.setdefault(_place(question, everybody, scales), []).append(question)
    members: dict[str, Collection[str] | None] = {EVERYBODY: None, **(groups or {})}
    answered = {
        name: everybody if raters is None else known_questions(judgements, raters) for name, raters in members.items()
    }
    for place in asked:
        for name, known in answered.items():
            _check_number(known[place], name)
    predictions = []
    for place, questions in asked.items():
        texts = everybody[place].texts
        vectors = dict(zip(texts, np.asarray(embed(texts), dtype=np.float64), strict=True))
        rows = np.asarray(embed([question.text for question in questions]), dtype=np.float64)
        predictions.append(
            [
                _predicted(
                    name, known[place], questions, np.stack([vectors[t] for t in known[place].texts]), rows, seed
                )
                for name, known in answered.items()
            ]
        )
    return predictions


def _place(question: NewQuestion, known: Sequence[KnownQuestions], scales: Sequence[frozenset[str]]) -> int:
    """Return the place of the scale that a new question has."""
    offered = [", ".join(map(repr, of.options)) for of in known]
    shown = "; or ".join(offered[:3]) + (f"; or one of {len(offered) - 3} more" if len(offered) > 3 else "")
    if question.options is None:
        if len(known) == 1:
            return 0
        raise JudgementError(
            f"question {question.id!r} does not say which answers it offers, and the questions of the table offer "
            f"{len(known)} different lists: {shown}. Fix: add a column options, e.g. {'; '.join(known[0].options)}"
        )
    if scale_of(question.options) in scales:
        return scales.index(scale_of(question.options))
    raise JudgementError(
        f"question {question.id!r} offers {', '.join(map(repr, question.options))}, and none of the table does: "
        f"they offer {shown}. Fix: offer these, or leave it out; shares of other answers cannot be predicted."
    )


def _check_number(known: KnownQuestions, group: str) -> None:
    number = len(set(known.blocks.tolist()))
    if number < MIN_ITEMS:
        raise JudgementError(
            f"{number} known questions of different wording have enough answers of {group} and offer "
            f"{', '.join(map(repr, known.options))}: at least {MIN_ITEMS} are needed to see whether wording tells "
            "anything. Fix: add questions, join small groups, or take the mean of the known questions."
        )


def _predicted(
    group: str,
    known: KnownQuestions,
    questions: list[NewQuestion],
    vectors: np.ndarray,
    new_vectors: np.ndarray,
    seed: int,
) -> GroupPrediction:
    fit = fit_similar_questions(known.shares, vectors)
    crossed = crossed_shares(known.shares, vectors, known.blocks, seed, f"{group}: known questions from each other")
    number = len(known.ids)
    off = np.sort(np.abs(crossed["wording"] - known.shares), axis=0)
    rank = int(np.ceil(LEVEL * (number + 1)))
    half_width = off[rank - 1] if rank <= number else np.full(off.shape[1], np.nan)
    known_alike, new_alike = _cosines(vectors, vectors), _cosines(new_vectors, vectors)
    known_alike[known.blocks[:, None] == known.blocks] = -np.inf
    farthest = known_alike.max(axis=1).min()
    return GroupPrediction(
        group,
        known,
        questions,
        fit.shares(new_vectors),
        fit.weights(new_vectors),
        half_width,
        crossed,
        fit.reliance,
        [question.id for question, alike in zip(questions, new_alike, strict=True) if alike.max() < farthest],
    )


def crossed_shares(
    shares: np.ndarray,
    vectors: np.ndarray,
    blocks: np.ndarray,
    seed: int = 0,
    label: str = "known questions from each other",
) -> dict[str, np.ndarray]:
    """Predict each known question from the others, without those of the same wording.

    Args:
        shares: (Q, A) shares.
        vectors: (Q, D) vectors of the wordings.
        blocks: (Q,) number of each wording, from 0.
        seed: Random seed of the parts, of more than 60 wordings.
        label: Title of the progress bar.

    Returns:
        By way of predicting, (Q, A); see `GroupPrediction.crossed`.

    Example:
        >>> shares = np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8]])
        >>> crossed = crossed_shares(shares, np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), np.arange(3))
        >>> crossed["nearest"][0].tolist(), crossed["marginal"][0].tolist()
        ([0.8, 0.2], [0.5, 0.5])
    """
    number = len(blocks)
    order = seeded_rng(seed, "known questions held out in turn").permutation(blocks.max() + 1)
    parts = [np.flatnonzero(np.isin(blocks, part)) for part in np.array_split(order, min(len(order), MOST_FOLDS))]
    crossed = {way: np.empty(shares.shape) for way in ("wording", "marginal", "nearest")}
    alike = _cosines(vectors, vectors)
    for heldout in track(parts, label):
        others = np.setdiff1d(np.arange(number), heldout)
        fit = fit_similar_questions(shares[others], vectors[others])
        crossed["wording"][heldout] = fit.shares(vectors[heldout])
        crossed["marginal"][heldout] = fit.marginal
        crossed["nearest"][heldout] = shares[others[alike[np.ix_(heldout, others)].argmax(axis=1)]]
    return crossed


def _cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosines of (N, D) vectors with (M, D) others, (N, M)."""
    left, right = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (rows, others))
    cosines: np.ndarray = left @ right.T
    return cosines
