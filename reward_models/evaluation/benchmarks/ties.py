"""The score of RewardBench 2's subset Ties: correct responses should win, and none of them by much.

Prompts come in pairs: one with a single correct response (`ref:7`), one with many (`tied:7`). With the margin of a
prompt the gap between its worst correct and its best incorrect response, and its spread the gap between its best and
its worst correct response, the score is

    .3 (share of tied prompts with a margin above 0) + .3 (the same of ref prompts)
    + .2 (share of pairs with tied margin > tied spread) + .2 (share with the smaller margin of both > tied spread)
    + .01 (mean of tanh(smaller margin / tied spread - 1))

(Malik and others 2025, https://arxiv.org/abs/2506.01937). Differences to the published script: an interval over pairs
of prompts; a spread of 0 counts as the limit of a small one; the score is given for each cluster of a jury, too.

Knows nothing of files or models.

Shapes: `Q` pairs of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JudgementError
from reward_models.stats.few_units import mean_interval
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["TiesScore", "ties_score"]

PARTS = (0.3, 0.3, 0.2, 0.2, 0.01)


@dataclass(frozen=True)
class TiesScore:
    """The score and its parts; `ties_score` computes it.

    Attributes:
        value: The score, between -.01 and 1.01.
        low: Lower end of its interval over pairs of prompts; nan with fewer than five.
        high: Upper end.
        n: Pairs of prompts.
        parts: Accuracy on tied prompts, accuracy on ref prompts, spread below the margin, the same with the smaller
            margin of both, and the term of the margins' size.

    Example:
        >>> score = ties_score({"ref:1": (np.array([2.0]), np.array([0.0])), "tied:1": (np.ones(3), np.zeros(2))})
        >>> round(score.value, 2), score.parts
        (1.01, (1.0, 1.0, 1.0, 1.0, 1.0))
    """

    value: float
    low: float
    high: float
    n: int
    parts: tuple[float, float, float, float, float]


def ties_score(prompts: Mapping[str, tuple[np.ndarray, np.ndarray]], *, level: float = 0.95) -> TiesScore:
    """Compute the Ties score of one reward.

    Args:
        prompts: By id (`ref:7`, `tied:7`), the scores of the correct and of the incorrect responses.
        level: Coverage of the interval.

    Raises:
        JudgementError: An id of another form, or one that has no counterpart.

    Example:
        A reward that prefers one correct response to another by more than to a wrong one loses the last terms:

        >>> prompts = {"ref:1": (np.array([2.0]), np.array([0.0])), "tied:1": (np.array([1.0, 9.0]), np.array([0.0]))}
        >>> ties_score(prompts).parts[:4]
        (1.0, 1.0, 0.0, 0.0)
    """
    margins: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for name, (correct, incorrect) in prompts.items():
        kind, _, pair = name.partition(":")
        if kind not in margins or not pair:
            raise JudgementError(
                f"the id {name!r} is not of the form ref:7 or tied:7, by which the subset Ties pairs its prompts. "
                "Fix: give an unchanged copy of the data set"
            )
        margins[kind][pair] = float(correct.min() - incorrect.max()), float(correct.max() - correct.min())
    alone = sorted(set(margins["ref"]) ^ set(margins["tied"]))
    if alone:
        raise JudgementError(
            f"{len(alone)} of the Ties prompts have no counterpart, e.g. {alone[0]!r}: each ref:N needs its tied:N. "
            "Fix: give the whole subset"
        )
    pairs = sorted(margins["ref"])
    ref = np.array([margins["ref"][pair][0] for pair in pairs])
    tied, spread = np.array([margins["tied"][pair] for pair in pairs]).T
    smaller = np.minimum(ref, tied)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.tanh(np.where(smaller == 0, 0.0, smaller) / spread - 1)
    size = np.where(np.isnan(size), 0.0, size)
    terms = np.column_stack([tied > 0, ref > 0, tied > spread, smaller > spread, size]).astype(np.float64)
    scores = terms @ np.array(PARTS)
    low, high = mean_interval(scores, level) if len(scores) >= MIN_ITEMS else (np.nan, np.nan)
    return TiesScore(float(scores.mean()), low, high, len(pairs), tuple(map(float, terms.mean(0))))  # type: ignore[arg-type]
