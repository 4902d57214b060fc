"""Distances in percentage points: of 100 people, how many would have to answer otherwise?

The total variation between the answers of people and those of a model, times 100. Reads `RunResults`; knows nothing of
plots or HTML.
"""

from __future__ import annotations

import math

import numpy as np

from plural_rlhf.report.names import METHOD_NAMES, Method, Split
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import QuestionResult
from plural_rlhf.report.tables import TextTable, format_points
from reward_models.stats.answers import normalise, total_variation
from reward_models.stats.shares import share_interval


__all__ = [
    "margins",
    "points_by_question",
    "points_of",
    "points_table",
]


def points_of(question: QuestionResult, method: str) -> float | None:
    """Return how far a policy's answers to a question are from those of all people, None if it was not measured.

    The policy's answers are taken as shares of the offered answers, as all distances are.
    """
    probs = question.jury if method == Method.JURY else question.population_answers(method)
    if not probs:
        return None
    return float(total_variation(normalise(np.array(probs)), np.array(question.human)))


def points_by_question(results: RunResults, split: str, method: str = Method.PLURAL) -> dict[str, float]:
    """Return how far a policy is from people on each question of a split, largest distance first.

    Example:
        >>> from plural_rlhf.report.results_policies import PolicyAnswers
        >>> answers = {"plural": {"all": PolicyAnswers(probs=[0.5, 0.5], coverage=1.0)}}
        >>> question = QuestionResult(
        ...     id="q", prompt="More parks?", options=["yes", "no"], split="train", n=9, human=[0.75, 0.25],
        ...     jury=[0.7, 0.3], clusters={}, policy=answers,
        ... )
        >>> points_by_question(RunResults(questions=[question]), "train")
        {'q': 0.25}
    """
    found = {q.id: points_of(q, method) for q in results.questions if q.split == split}
    known = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def points_table(results: RunResults) -> TextTable:
    """Tabulate every question in full: its wording, who was asked, and how far each policy is from them.

    Example:
        >>> points_table(RunResults()).header
        ['question', 'split', 'respondents']
    """
    methods = [
        method
        for method in (Method.PLURAL, Method.GRPO, Method.UNTOUCHED, Method.JURY)
        if any(points_of(question, method) is not None for question in results.questions) and results.rows
    ]
    body = []
    farthest_first = [q for split in (Split.HELDOUT, Split.TRAIN) for q in _farthest_first(results, split)]
    for question in farthest_first:
        cells = [format_points(points_of(question, method)) for method in methods]
        body.append([question.prompt, question.split, str(question.n), *cells])
    return TextTable(
        ["question", "split", "respondents", *(METHOD_NAMES[method] for method in methods)],
        body,
        "Points off: of 100 people, so many would have to answer otherwise for people and model to agree. "
        "Respondents: people not used for training who answered the question.",
    )


def _farthest_first(results: RunResults, split: str) -> list[QuestionResult]:
    return sorted(
        (q for q in results.questions if q.split == split), key=lambda q: -(points_of(q, Method.PLURAL) or 0)
    )


def margins(question: QuestionResult, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % margins of shares of the people who answered a question.

    Example:
        >>> question = QuestionResult(
        ...     id="q", prompt="More parks?", options=["yes", "no"], split="train", n=100, human=[0.5, 0.5], jury=[],
        ...     clusters={}, policy={},
        ... )
        >>> low, high = margins(question, np.array([0.5]))
        >>> low.round(2).tolist(), high.round(2).tolist()
        ([0.4], [0.6])
    """
    n = question.n_effective if math.isfinite(question.n_effective) else question.n
    return share_interval(shares, np.full(len(shares), float(n)))
