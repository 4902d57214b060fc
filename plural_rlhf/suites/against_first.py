"""How many answers of the first model is one answer of another worth: distributional-to-Overton recall@k.

Works on the records of items, as comparisons do, and only on answers that were drawn anyway. Knows no model.

Shapes: `N` answers to a question, `C` groups of people, `Q` questions, `B` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plural_rlhf.evaluation.intervals import bca_interval
from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from plural_rlhf.evaluation.overton.windows import answers_needed, recall_at_k
from plural_rlhf.report.suite.results import MetricResult
from plural_rlhf.suites.tasks.generation.overton import REPRESENTED, SIZES
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["against_first"]


def against_first(
    model: Sequence[Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    *,
    name: str,
    draws: int = 1000,
    seed: int = 0,
) -> list[MetricResult]:
    """Hold one answer of a model to several of the first model, on the questions that both answered.

    One answer of a tuned model may hold what a base model says over many samples (Lake et al. 2024,
    https://arxiv.org/abs/2406.17692). A negative difference at `k = 1` says that it holds less than one.

    Args:
        model: Records of the model: `item`, and under `represented` (N,) truth values by group.
        first: Records of the first model.
        name: What the first model is called.
        draws: Resamples `B` of the questions.
        seed: Random seed.

    Returns:
        `overton_score_less_k_of_first` for each size `k`: mean share of the groups that one answer of the model
        represents, less that of `k` answers of the first model together, paired by question.
        `answers_of_first_needed`: how many answers of the first model reach one of the model; no row where all drawn
        ones do not reach it. Empty without a question that both answered for the same groups.

    Example:
        Each answer of the first model represents one of two groups, that of the other model both:

        >>> first = [{"item": f"q{i}", "represented": {"a": [1, 0], "b": [0, 1]}} for i in range(5)]
        >>> both = [{"item": f"q{i}", "represented": {"a": [1, 1], "b": [1, 1]}} for i in range(5)]
        >>> for row in against_first(both, first, name="base", draws=50):
        ...     print(row.metric, row.value)
        overton_score_less_1_of_first 0.5
        overton_score_less_2_of_first 0.0
        answers_of_first_needed 2.0
    """
    known = {record["item"]: record[REPRESENTED] for record in first}
    pairs = [
        (record[REPRESENTED], known[record["item"]])
        for record in model
        if record["item"] in known and set(record[REPRESENTED]) == set(known[record["item"]])
    ]
    if not pairs:
        return []
    ones = np.array([recall_at_k(_said(said))[0] for said, _ in pairs])  # (Q,)
    most = min(len(_said(of_first)) for _, of_first in pairs)
    curves = np.array([recall_at_k(_said(of_first))[:most] for _, of_first in pairs])  # (Q, most)
    rows = []
    for k in (size for size in SIZES if size <= most):
        difference = bca_interval(ones - curves[:, k - 1], draws=draws, seed=seed)
        rows.append(
            _row(
                f"overton_score_less_{k}_of_first",
                difference.value,
                (difference.low, difference.high),
                n=len(pairs),
                unit="share",
                kind=f"paired with {name}, BCa over questions",
                baselines={"one answer": float(ones.mean()), f"{k} of {name}": float(curves[:, k - 1].mean())},
            )
        )
    needed = answers_needed(curves.mean(axis=0), float(ones.mean()))
    if needed is not None:
        rows.append(
            _row(
                "answers_of_first_needed",
                float(needed),
                _ends(ones, curves, draws, seed),
                n=len(pairs),
                unit="answers",
                kind=f"of {name}, questions resampled",
                baselines={"drawn": float(most)},
            )
        )
    return rows


def _said(represented: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Return (N, C) whether an answer represents a group, the groups in the order of their names."""
    return np.array([represented[group] for group in sorted(represented)], dtype=bool).T


def _ends(ones: np.ndarray, curves: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Return ends of the number of answers; nan where some of the middle 95 % of resamples do not reach it."""
    if len(ones) < MIN_ITEMS:
        return math.nan, math.nan
    counts = resample_prompts(len(ones), draws=draws, seed=seed).counts
    numbers = [answers_needed(times @ curves / len(ones), float(times @ ones) / len(ones)) for times in counts]
    found = np.array([math.inf if number is None else number for number in numbers], dtype=np.float64)
    low, high = (float(np.quantile(found, level, method="nearest")) for level in (0.025, 0.975))
    return (low, high) if math.isfinite(high) else (math.nan, math.nan)


def _row(
    metric: str,
    value: float,
    ends: tuple[float, float],
    *,
    n: int,
    unit: str,
    kind: str,
    baselines: dict[str, float],
) -> MetricResult:
    known = all(map(math.isfinite, ends))
    return MetricResult(
        metric=metric,
        value=value,
        ci_low=ends[0] if known else None,
        ci_high=ends[1] if known else None,
        n_items=n,
        unit=unit,
        direction="higher",
        kind=kind,
        baselines=baselines,
    )
