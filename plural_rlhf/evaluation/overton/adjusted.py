"""OvertonScores adjusted for the difficulty of questions: a regression with an effect per question.

`coverage = model + question + noise` by ordinary least squares, with standard errors that allow for dependence among
the answers to a question, as in OvertonBench (Poole-Dayan et al. 2025, https://arxiv.org/abs/2512.01351). Needs
statsmodels (`pip install "plural-rlhf[evaluation]"`). Knows nothing of ratings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models.evaluation.comparisons import holm


__all__ = ["AdjustedScore", "adjusted_scores", "statsmodels_api"]


@dataclass(frozen=True)
class AdjustedScore:
    """A policy's coverage as if all policies had been asked the same questions.

    Attributes:
        policy: The policy.
        value: Adjusted coverage: what the regression predicts on average over questions.
        deviation: `value` less the mean over policies.
        ci_low: Lower end of the deviation's interval.
        ci_high: Upper end.
        p_value: That the deviation is 0, two-sided.
        p_holm: The same, corrected for the number of policies.

    Example:
        >>> coverage = {"ours": {"a": 1.0, "b": 0.5, "c": 0.6}, "base": {"a": 0.5, "b": 0.0, "c": 0.1}}
        >>> [(s.policy, round(s.value, 3), round(s.deviation, 3)) for s in adjusted_scores(coverage)]
        [('ours', 0.7, 0.25), ('base', 0.2, -0.25)]
    """

    policy: str
    value: float
    deviation: float
    ci_low: float
    ci_high: float
    p_value: float
    p_holm: float


def adjusted_scores(
    coverage: Mapping[str, Mapping[str, float | Sequence[float]]], level: float = 0.95
) -> list[AdjustedScore]:
    """Fit the regression and compare every policy with the mean of all.

    Args:
        coverage: Coverage of a question by policy and question; several numbers where a policy answered repeatedly.
            Policies may have answered different questions, if some are shared.
        level: Coverage of the intervals.

    Returns:
        One per policy, the best first.

    Raises:
        ImportError: statsmodels is not installed.
        ValueError: Fewer than two policies or three questions, or policies without a question in common.

    Example:
        A policy that was asked only the hard question is not worse for it:

        >>> easy, hard = {"easy": 0.9, "easier": 0.9}, {"hard": 0.2, "harder": 0.2}
        >>> scores = adjusted_scores({"all": easy | hard, "hard only": hard})
        >>> [round(score.value, 3) for score in scores]
        [0.55, 0.55]
    """
    policies = list(coverage)
    names = list(dict.fromkeys(question for of_policy in coverage.values() for question in of_policy))
    if len(policies) < 2 or len(names) < 3:
        raise ValueError(
            f"{len(policies)} policies on {len(names)} questions cannot be compared. Fix: give at least two "
            "policies and three questions."
        )
    rows = [
        (p, q, float(value))
        for p, policy in enumerate(policies)
        for q, question in enumerate(names)
        if question in coverage[policy]
        for value in np.atleast_1d(coverage[policy][question])
    ]
    policy, question = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    values = np.array([r[2] for r in rows])
    design = np.column_stack(
        [policy[:, None] == np.arange(len(policies)), (question[:, None] == np.arange(len(names)))[:, 1:]]
    ).astype(np.float64)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(
            "some policies share no question, directly or through others, so that easy questions and good policies "
            "cannot be told apart. Fix: ask all policies some of the same questions."
        )
    fit = statsmodels_api().OLS(values, design).fit(cov_type="cluster", cov_kwds={"groups": question}, use_t=True)
    contrast = np.zeros((len(policies), design.shape[1]))
    contrast[:, : len(policies)] = np.eye(len(policies)) - 1 / len(policies)
    test = fit.t_test(contrast)
    ends = test.conf_int(alpha=1 - level)
    base = float(fit.params[len(policies) :].sum()) / len(names)
    p_values = np.nan_to_num(np.atleast_1d(test.pvalue), nan=1.0)
    corrected = holm(p_values.tolist())
    scores = [
        AdjustedScore(
            name,
            float(fit.params[i]) + base,
            float(test.effect[i]),
            float(ends[i][0]),
            float(ends[i][1]),
            float(p_values[i]),
            float(corrected[i]),
        )
        for i, name in enumerate(policies)
    ]
    return sorted(scores, key=lambda score: -score.value)


def statsmodels_api() -> Any:
    """Import `statsmodels.api`.

    Raises:
        ImportError: It is not installed; the message says how to install it.

    Example:
        >>> statsmodels_api().OLS([1.0, 2.0], [[1.0], [2.0]]).fit().params.round(3).tolist()
        [1.0]
    """
    try:
        import statsmodels.api
    except ImportError as error:
        raise ImportError('this regression needs statsmodels. Fix: pip install "plural-rlhf[evaluation]".') from error
    return statsmodels.api
