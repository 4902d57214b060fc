"""Agreement between raters: Krippendorff's alpha, and the counts that it is computed from.

Knows nothing of judgement tables.
"""

from __future__ import annotations

from typing import Literal

import numpy as np


__all__ = ["AlphaLevel", "alpha_of_counts", "answer_value_counts", "krippendorff_alpha"]

AlphaLevel = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(
    answers: np.ndarray,
    level: AlphaLevel = "nominal",
    *,
    missing: float | None = None,
) -> float:
    """Return Krippendorff's alpha, the agreement between raters: 1 = full, 0 = as by chance.

    `1 - D_o / D_e` from the coincidence matrix of values within items (Krippendorff, "Computing Krippendorff's
    Alpha-Reliability", 2011). Items with fewer than two answers do not count.

    Args:
        answers: (R, I) values, e.g. votes of -1, 0 and 1. NaN is missing.
        level: Which disagreements count more: `"nominal"` all the same, `"ordinal"` by rank, `"interval"` by squared
            difference of the values.
        missing: A value that stands for a missing answer, too, e.g. -1 in `Encoded.answer_matrix`; None if there is
            none.

    Returns:
        Alpha; nan if fewer than two different answers occur, since nothing could disagree.

    Raises:
        ValueError: If `level` is not one of the three.

    Example:
        >>> krippendorff_alpha(np.array([[0, 1, 1, 0], [0, 1, 1, 0]]))
        1.0
        >>> krippendorff_alpha(np.array([[-1, 1, 1, 0], [-1, 1, 1, -1]]), missing=-1)  # two items with two answers
        nan
        >>> round(krippendorff_alpha(np.array([[0, 1, 2, 2], [0, 1, 2, 1]]), level="ordinal"), 3)
        0.79
    """
    return alpha_of_counts(*answer_value_counts(answers, missing), level)


def answer_value_counts(answers: np.ndarray, missing: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Count how often each value was given to each item, for `alpha_of_counts`; arguments as `krippendorff_alpha`.

    Returns:
        (V,) different values in ascending order, and (I, V) counts of the items with at least two answers.

    Example:
        >>> values, counts = answer_value_counts(np.array([[0, 1, -1], [2, 1, 0]]), missing=-1)
        >>> values.tolist(), counts.tolist()
        ([0.0, 1.0, 2.0], [[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    """
    answers = np.asarray(answers, dtype=np.float64)
    if missing is not None:
        answers = np.where(answers == missing, np.nan, answers)
    values = np.unique(answers[~np.isnan(answers)])
    counts = np.stack([(answers == value).sum(axis=0) for value in values], axis=-1).astype(np.float64)  # (I, V)
    return values, counts[counts.sum(axis=-1) > 1]


def alpha_of_counts(values: np.ndarray, counts: np.ndarray, level: AlphaLevel = "nominal") -> float:
    """Return `krippendorff_alpha` of values (V,) that were given so often to each item, (I, V).

    Example:
        >>> alpha_of_counts(np.array([0.0, 1.0]), np.array([[2.0, 0.0], [0.0, 2.0]]))
        1.0
    """
    weights = 1 / (counts.sum(axis=-1) - 1)
    coincidence = (counts * weights[:, None]).T @ counts - np.diag(weights @ counts)
    totals = coincidence.sum(axis=0)
    if level == "nominal":
        distance = 1 - np.eye(len(values))
    elif level == "ordinal":
        # (Σ_{g=c..k} n_g - (n_c + n_k) / 2)² is the squared difference of mid-ranks.
        middle = np.cumsum(totals) - totals / 2
        distance = (middle[:, None] - middle) ** 2
    elif level == "interval":
        distance = (values[:, None].astype(np.float64) - values) ** 2
    else:
        raise ValueError(
            f"level={level!r} is not a level of measurement. Fix: one of 'nominal', 'ordinal', 'interval'."
        )
    expected = float(totals @ distance @ totals)
    observed = float((coincidence * distance).sum())
    return 1 - float(totals.sum() - 1) * observed / expected if expected > 0 else float("nan")
