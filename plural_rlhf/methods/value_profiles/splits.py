"""Who trains and who is predicted, and what may be read of each rater: the split of Value Profiles.

Raters are halved; of each rater with n judgements, n at least 4, a number drawn from 2 to n - 2 is fit. Knows nothing
of profiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.analysis.answer_cells import AnswerCells
from reward_models.errors import JuryError
from reward_models.seeds import seeded_rng


__all__ = ["RaterSplit", "split_raters"]

LEAST = 4  # judgements of a rater: two to read, two to predict


@dataclass(frozen=True)
class RaterSplit:
    """A split of `N` judgements.

    Attributes:
        train: (N,) True for all judgements of training raters.
        fit: (N,) True for the judgements that a profile may be made from, of training and heldout raters.
        scored: (N,) True for the judgements of heldout raters that are predicted.
        raters: Raters with at least four judgements; the others take no part.
    """

    train: np.ndarray
    fit: np.ndarray
    scored: np.ndarray
    raters: int


def split_raters(cells: AnswerCells, *, seed: int = 0, largest: int = 1) -> RaterSplit:
    """Halve the raters, and divide each rater's judgements into those to read and those to predict.

    Args:
        cells: The judgements.
        seed: Random seed.
        largest: Largest number of clusters that will be made of the training raters.

    Raises:
        JuryError: Too few raters have four judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> cells = answer_cells(planted_judgements("choice", num_raters=10, num_items=6).judgements.encode())
        >>> split = split_raters(cells)
        >>> len(set(cells.rater[split.train])), bool((split.scored & split.fit).any())
        (5, False)
    """
    rng = seeded_rng(seed, "split of raters and their judgements for profiles")
    size = np.bincount(cells.rater, minlength=cells.n_raters)
    able = np.flatnonzero(size >= LEAST)
    if len(able) < 4 * largest or len(able) < 4:
        raise JuryError(
            f"{len(able)} of {cells.n_raters} raters have {LEAST} judgements or more, which a profile needs (two to "
            f"read, two to predict); {largest} clusters need {max(4 * largest, 4)} such raters. Fix: ask for fewer "
            "clusters, or bring more judgements per rater"
        )
    trains = np.zeros(cells.n_raters, dtype=bool)
    trains[rng.permutation(able)[: len(able) // 2]] = True
    takes_part = np.isin(cells.rater, able)
    order = np.lexsort((rng.random(len(cells.rater)), cells.rater))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - (np.cumsum(size) - size)[cells.rater[order]]
    to_read = np.zeros(cells.n_raters, dtype=np.int64)
    to_read[able] = rng.integers(2, size[able] - 1)
    fit = takes_part & (rank < to_read[cells.rater])
    train = takes_part & trains[cells.rater]
    return RaterSplit(train, fit, takes_part & ~trains[cells.rater] & ~fit, len(able))
