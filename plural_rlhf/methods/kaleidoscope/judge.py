r"""What values say of situations: relevance and valence, and what follows from both.

A judge maps situations and values to the probability $r$ that the value matters in the situation, and to the
probabilities $(s, o, e)$ that it supports it, opposes it, or either. Over the values $v$ of a situation $x$,

    valence(x) = \sum_v r_v (s_v, o_v, e_v) / \sum_v r_v,    ambiguity(x) = entropy of valence(x), in nats,

as in Value Kaleidoscope (Sorensen et al. 2023, https://arxiv.org/abs/2309.00779, section 5). Knows nothing of how
a judge judges.

Shapes: `N` pairs of a situation and a value, `V` values of one situation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from plural_rlhf.evaluation.tables.valued_situations import Value, ValuesError
from plural_rlhf.rewards.completions import completion_text
from reward_models.errors import did_you_mean
from reward_models.jury.objectives import Objectives, RewardFunction
from reward_models.jury.protocol import scorable_text
from reward_models.stats.answers import entropy


__all__ = [
    "RelevantValue",
    "ValueJudge",
    "ambiguity",
    "overton_windows",
    "relevant_values",
    "situation_valence",
    "value_objectives",
]


@runtime_checkable
class ValueJudge(Protocol):
    """Anything that says whether values matter in situations, and which way.

    Example:
        A judge of one rule:

        >>> class Lies:
        ...     def relevance(self, situations, values):
        ...         return np.array([0.9 if "lie" in s.lower() else 0.1 for s in situations])
        ...     def valence(self, situations, values):
        ...         return np.array([[0.1, 0.8, 0.1] if v.text == "Honesty" else [0.4, 0.3, 0.3] for v in values])
        >>> isinstance(Lies(), ValueJudge)
        True
        >>> Lies().valence(["Telling a lie"], [Value("Honesty")])
        array([[0.1, 0.8, 0.1]])
    """

    def relevance(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N,) probabilities that each value matters in its situation."""
        ...

    def valence(self, situations: Sequence[str], values: Sequence[Value]) -> np.ndarray:
        """Return (N, 3) probabilities that each value supports, opposes, or may do either; rows sum to 1."""
        ...


@dataclass(frozen=True)
class RelevantValue:
    """A value that matters in a situation.

    Attributes:
        value: The value.
        relevance: Probability that it matters.
        valence: (3,) probabilities that it supports, opposes, or may do either.

    Example:
        >>> RelevantValue(Value("Honesty"), 0.9, np.array([0.1, 0.8, 0.1])).leaning
        -0.7
    """

    value: Value
    relevance: float
    valence: np.ndarray

    @property
    def leaning(self) -> float:
        """Probability of support less that of opposition, -1 to 1."""
        return round(float(self.valence[0] - self.valence[1]), 12)


def situation_valence(relevance: np.ndarray, valence: np.ndarray) -> np.ndarray:
    """Compute what the values of a situation say together.

    Args:
        relevance: (V,) probabilities that each matters.
        valence: (V, 3) what each says.

    Returns:
        (3,) mean of the valences, weighted by relevance.

    Raises:
        ValuesError: No value, none that matters at all, or relevances that are no probabilities.

    Example:
        >>> situation_valence(np.array([0.9, 0.1]), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        array([0.9, 0.1, 0. ])
    """
    weights = np.asarray(relevance, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValuesError(f"the relevances are {weights.tolist()}. Fix: give probabilities.")
    if not weights.size or not weights.sum() > 0:
        raise ValuesError("no value matters in this situation. Fix: give values with a relevance above 0.")
    mean: np.ndarray = weights @ np.asarray(valence, dtype=np.float64) / weights.sum()
    return mean


def ambiguity(relevance: np.ndarray, valence: np.ndarray) -> float:
    """Compute how undecided the values leave a situation: the entropy of `situation_valence`.

    Returns:
        Nats, 0 (all say the same) to log 3.

    Example:
        >>> round(ambiguity(np.ones(2), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])), 3)  # log 2
        0.693
    """
    return float(entropy(situation_valence(relevance, valence)[None])[0])


def relevant_values(
    judge: ValueJudge, situation: str, candidates: Sequence[Value], threshold: float = 0.5
) -> list[RelevantValue]:
    """Return the values that matter in a situation, the most relevant first.

    `overton_windows` puts them into sentences, as views that an answer should cover.

    Args:
        judge: The judge.
        situation: What somebody does.
        candidates: Values to choose from; repeated texts count once.
        threshold: Least relevance.

    Raises:
        ValuesError: The situation is empty, there is no candidate, or one of no finite relevance.

    Example:
        >>> class Judge:
        ...     def relevance(self, situations, values):
        ...         return np.array([0.9 if v.text == "Honesty" else 0.2 for v in values])
        ...     def valence(self, situations, values):
        ...         return np.array([[0.1, 0.8, 0.1]] * len(values))
        >>> [r.value.text for r in relevant_values(Judge(), "Telling a lie", [Value("Speed"), Value("Honesty")])]
        ['Honesty']
    """
    if not situation.strip():
        raise ValuesError("the situation is empty. Fix: say what somebody does.")
    values = list({value.text.casefold(): value for value in reversed(candidates)}.values())[::-1]
    if not values:
        raise ValuesError("there is no value to choose from. Fix: give candidates, e.g. those of a file or a judge.")
    relevance = np.asarray(judge.relevance([situation] * len(values), values), dtype=np.float64)
    if not np.isfinite(relevance).all():
        wrong = values[int(np.argmin(np.isfinite(relevance)))]
        raise ValuesError(f"the judge gave the value {wrong.text!r} no finite relevance. Fix: return probabilities.")
    kept = [i for i in np.argsort(-relevance, kind="stable") if relevance[i] >= threshold]
    if not kept:
        return []
    valence = judge.valence([situation] * len(kept), [values[i] for i in kept])
    return [RelevantValue(values[i], float(relevance[i]), valence[row]) for row, i in enumerate(kept)]


VIEWS = (
    "{value} speaks for {situation}.",
    "{value} speaks against {situation}.",
    "{value} may speak for or against {situation}.",
)
"""A view in words, where a value most probably supports, opposes, or may do either."""


def overton_windows(
    judge: ValueJudge,
    situations: Sequence[str],
    candidates: Sequence[Value],
    *,
    threshold: float = 0.5,
    views: tuple[str, str, str] = VIEWS,
) -> list[list[str]]:
    """Put the values that matter in each situation into sentences: the views that an answer should cover.

    Args:
        judge: The judge.
        situations: What somebody does, e.g. `"telling a lie"`.
        candidates: Values to choose from.
        threshold: Least relevance.
        views: Sentences with `{value}` and `{situation}`, for a value that supports, opposes, or may do either.

    Returns:
        The `windows` of `evaluation.overton.nli_coverage`, the most relevant value first; an empty one where no value
        matters.

    Raises:
        ValuesError: As `relevant_values`, or there is one text instead of a list of situations.

    Example:
        >>> class Judge:
        ...     def relevance(self, situations, values):
        ...         return np.array([0.9 if v.text == "Honesty" else 0.2 for v in values])
        ...     def valence(self, situations, values):
        ...         return np.array([[0.1, 0.8, 0.1]] * len(values))
        >>> overton_windows(Judge(), ["telling a lie"], [Value("Speed"), Value("Honesty")])
        [['Honesty speaks against telling a lie.']]
    """
    if isinstance(situations, str):
        raise ValuesError("the situations are one text. Fix: give a list.")
    return [
        [
            views[int(np.argmax(found.valence))].format(
                value=found.value.text, situation=situation.strip().rstrip(".")
            )
            for found in relevant_values(judge, situation, candidates, threshold)
        ]
        for situation in situations
    ]


def value_objectives(
    judge: ValueJudge, values: Sequence[Value], weights: dict[str, float] | None = None
) -> Objectives:
    """Make values the objectives of an aggregator: a column of rewards for each value.

    The reward of a completion is relevance times (support less opposition) of the situation that it describes, -1 to
    1, so that values which do not matter say nothing. All columns are on one scale.

    Args:
        judge: The judge, which is asked once for each completion and value.
        values: The values; their texts are the names of the columns.
        weights: Weights by text; None: equal.

    Returns:
        Objectives, which stand where a jury does: in `JuryReward`, `rank`, `PluralGRPOTrainer`.

    Raises:
        ValuesError: Two values of the same text, or none.

    Example:
        >>> class Judge:
        ...     def relevance(self, situations, values):
        ...         return np.ones(len(values))
        ...     def valence(self, situations, values):
        ...         return np.array([[0.0, 1.0, 0.0] if "lie" in s else [1.0, 0.0, 0.0] for s in situations])
        >>> value_objectives(Judge(), [Value("Honesty")]).cluster_rewards(["?"] * 2, ["I lie.", "I tell her."])
        tensor([[-1.],
                [ 1.]])
    """
    names = [value.text for value in values]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        reason = f"{repeated} occur more than once" if repeated else "there is no value"
        raise ValuesError(f"{reason}. Fix: give each value once; their texts are the names of the objectives.")
    unknown = sorted(set(weights or {}) - set(names))
    if unknown:
        raise ValuesError(f"weights name {unknown[0]!r}, which is no value.{did_you_mean(unknown[0], names)}")

    def reward_of(value: Value) -> RewardFunction:
        def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
            situations = [scorable_text(completion_text(completion)) for completion in completions]
            same = [value] * len(situations)
            leaning = judge.valence(situations, same) @ np.array([1.0, -1.0, 0.0])
            return [float(r) for r in judge.relevance(situations, same) * leaning]

        return reward

    return Objectives({value.text: reward_of(value) for value in values}, weights, calibrated=True)
