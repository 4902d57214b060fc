"""OvertonScore: the share of groups of people who feel represented by an answer, alone or among several.

A group is represented by an answer if its members' mean rating reaches the threshold (Poole-Dayan et al. 2025,
https://arxiv.org/abs/2512.01351: ratings from 1 to 5, threshold 4); by a set of answers if one of them represents it.
The weighted score counts people instead of groups. Knows nothing of where ratings and groups come from.

Shapes: `N` answers to one question, `R` raters, `C` groups, `Q` questions, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.open_ended.distances import classes_covered
from plural_rlhf.evaluation.overton.windows import recall_at_k
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval
from reward_models.stats.few_units import mean_interval
from reward_models.stats.two_way import RaterResamples
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["QuestionRatings", "Represented", "overton_score", "represented"]


@dataclass(frozen=True)
class QuestionRatings:
    """How the people who were asked about one question rate a policy's answers to it.

    Attributes:
        ratings: (N, R) how well each answer represents each rater; nan where not rated.
        groups: (R,) group of each rater, as a name or number.
        raters: (R,) who they are; give it where the same people rate several questions. None: other people every time.

    Raises:
        ValueError: Shapes that do not fit, no rating, or a rater twice.

    Example:
        >>> QuestionRatings([[5.0, 2.0]], ["left"])
        Traceback (most recent call last):
        ValueError: ratings have shape (1, 2) and there are 1 groups. Fix: give (answers, raters) and a group each.
    """

    ratings: np.ndarray
    groups: Sequence[str | int]
    raters: Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        ratings = np.asarray(self.ratings, dtype=np.float64)
        if ratings.ndim != 2 or ratings.shape[1] != len(self.groups):
            raise ValueError(
                f"ratings have shape {ratings.shape} and there are {len(self.groups)} groups. Fix: give "
                "(answers, raters) and a group each."
            )
        if not np.isfinite(ratings).any():
            raise ValueError("no answer was rated by anybody. Fix: leave the question out.")
        if self.raters is not None and not len(set(self.raters)) == len(self.raters) == ratings.shape[1]:
            raise ValueError(
                f"{len(set(self.raters))} different raters for {ratings.shape[1]} columns of ratings. Fix: name each "
                "rater once, in the order of the columns."
            )
        object.__setattr__(self, "ratings", ratings)


@dataclass(frozen=True)
class Represented:
    """Which groups each answer to a question represents.

    Attributes:
        represented: (N, C) whether an answer represents a group; False where no member rated it.
        shares: (C,) share of the raters in each group.
        names: Names of the groups, in order.
        means: (N, C) mean ratings; nan where no member rated.

    Example:
        >>> panel = QuestionRatings([[5, 5, 4, 2]], ["left", "left", "right", "rural"])
        >>> result = represented(panel, threshold=4)
        >>> result.names, result.represented.tolist(), result.shares.tolist()
        (['left', 'right', 'rural'], [[True, True, False]], [0.5, 0.25, 0.25])
    """

    represented: np.ndarray
    shares: np.ndarray
    names: list[str]
    means: np.ndarray

    def coverage(self, k: int = 1, *, weighted: bool = False) -> float:
        """Return the share of groups (or of people) that `k` of the answers represent, over all choices of `k`.

        Raises:
            ValueError: There are fewer than `k` answers.
        """
        if not 1 <= k <= len(self.represented):
            raise ValueError(
                f"k={k} of {len(self.represented)} answers cannot be chosen. Fix: k from 1 to their number."
            )
        return float(recall_at_k(self.represented, self.shares if weighted else None)[k - 1])


def represented(panel: QuestionRatings, threshold: float = 4.0) -> Represented:
    """Decide which groups each answer represents.

    Args:
        panel: Ratings of the answers to one question.
        threshold: Least mean rating, in the unit of the ratings.

    Example:
        >>> represented(QuestionRatings([[5, 1], [2, 5]], ["left", "right"])).represented.tolist()
        [[True, False], [False, True]]
    """
    names, member, reached, means = _groups_reached(panel, threshold, np.ones((1, panel.ratings.shape[1])))
    return Represented(reached[0], member.mean(axis=0), names, means[0])


def _groups_reached(
    panel: QuestionRatings, threshold: float, times: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return names of groups, (R, C) members, and (B, N, C) represented groups and means, raters counted (B, R) times.

    A group of which nobody counts has no mean.
    """
    names, group = np.unique(np.asarray([str(name) for name in panel.groups]), return_inverse=True)
    member = group[:, None] == np.arange(len(names))
    known = np.isfinite(panel.ratings)
    shape = (len(times), len(known), len(names))
    count, total = (
        (times @ (column.T[:, :, None] * member[:, None]).reshape(len(member), -1)).reshape(shape)
        for column in (known.astype(np.float64), np.where(known, panel.ratings, 0.0))
    )
    means = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    return names.tolist(), member, np.where(count > 0, means, -np.inf) >= threshold - 1e-12, means


def overton_score(
    questions: Mapping[str, QuestionRatings | Represented],
    *,
    k: int = 1,
    weighted: bool = False,
    threshold: float = 4.0,
    level: float = 0.95,
    draws: int = 300,
    seed: int = 0,
) -> Interval:
    """Compute the OvertonScore of a policy: the mean share of represented groups over questions.

    Args:
        questions: Ratings of a policy's answers by question, or which groups they represent, as a judge says.
        k: Size of the sets of answers; 1 is the published score.
        weighted: Count people instead of groups.
        threshold: Least mean rating of a group that is represented.
        level: Coverage of the interval.
        draws: Resamples `B` of raters.
        seed: Random seed.

    Returns:
        The mean with its interval over questions. Where people's ratings name their raters, the interval is over
        raters and questions; without names it takes it that other people rate every question. About judged groups it
        is over questions alone. The ends are nan with fewer than 5 questions, or 12 raters with names.

    Raises:
        ValueError: No question, or one with fewer than `k` answers.

    Example:
        Three groups, of which two are represented:

        >>> panel = QuestionRatings([[5, 4, 5, 2]], ["left", "left", "right", "rural"])
        >>> round(overton_score({"Parks?": panel}).value, 3), overton_score({"Parks?": panel}, weighted=True).value
        (0.667, 0.75)
        >>> two = QuestionRatings([[5, 4, 5, 2], [1, 1, 1, 5]], ["left", "left", "right", "rural"])
        >>> overton_score({"Parks?": two}, k=2).value  # together they represent everybody
        1.0
    """
    if not questions:
        raise ValueError("there is no question. Fix: give the ratings of at least one.")
    panels = [p if isinstance(p, Represented) else represented(p, threshold) for p in questions.values()]
    values = np.array([panel.coverage(k, weighted=weighted) for panel in panels])
    ratings = [p for p in questions.values() if isinstance(p, QuestionRatings) and p.raters is not None]
    if len(ratings) == len(panels):
        resampled = _resampled_raters(ratings, panels, k, weighted, threshold, draws, seed)
        return resampled.interval(values[:, None], level=level, bounds=(0.0, 1.0), share=True)
    low, high = mean_interval(values, level) if len(values) >= MIN_ITEMS else (np.nan, np.nan)
    return Interval(float(values.mean()), max(low, 0.0), min(high, 1.0), 0, len(values))


def _resampled_raters(
    questions: Sequence[QuestionRatings],
    panels: Sequence[Represented],
    k: int,
    weighted: bool,
    threshold: float,
    draws: int,
    seed: int,
) -> RaterResamples:
    """Resample the people who rate all questions; a group of which nobody is drawn stays as it is."""
    place = {rater: n for n, rater in enumerate(dict.fromkeys(r for q in questions for r in q.raters or ()))}
    times = seeded_rng(seed, "raters of an OvertonScore").multinomial(
        len(place), np.full(len(place), 1 / len(place)), size=draws
    )
    changes = np.empty((2, draws, len(questions), 1))
    for column, (question, panel) in enumerate(zip(questions, panels, strict=True)):
        of_question = times[:, [place[rater] for rater in question.raters or ()]].astype(np.float64)
        before = panel.coverage(k, weighted=weighted)
        for step, counted in enumerate((of_question, (1 + of_question) / 2)):
            _, member, reached, means = _groups_reached(question, threshold, counted)
            reached = np.where(np.isfinite(means), reached, panel.represented)
            mass = counted @ member if weighted else np.ones((draws, member.shape[1]))
            shares = mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-12)
            changes[step, :, column, 0] = classes_covered(reached, shares, k) - before
    return RaterResamples(changes[0], changes[1], len(place), float(len(place)))
