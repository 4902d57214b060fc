"""The item x profile table: what raters with a profile like this one answer to every item.

A decoder of value profiles without a language model: `p(answer | item, profile)` is the share of the answer among the
training raters whose profiles are nearest, shrunk to everybody's. It reads vectors, so the same decoder serves every
encoder, and only the encoder differs. Knows nothing of what a vector was made from.

Shapes: `N` answers, `R` raters, `S` cells (all options of all items), `V` profiles, `D` dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

from reward_models.analysis.answer_cells import AnswerCells


__all__ = ["ProfileTables", "answer_losses"]

NEIGHBOURS = (10, 30, 100, 300)
SHRINKAGE = (1.0, 4.0, 16.0)
BLOCK = 512  # profiles whose tables are made at once


@dataclass(frozen=True)
class ProfileTables:
    """Answers of training raters, looked up by the likeness of profiles; `fit` chooses how many neighbours count.

    Attributes:
        counts: (T, S) weighted answers of the training raters.
        vectors: (T, D) their unit vectors.
        base: (S,) answer distribution of everybody.
        cell_item: (S,) item of each cell.
        neighbours: Training raters that make a table.
        shrinkage: Weight of `base`, in answers.

    Example:
        >>> from plural_rlhf.methods.value_profiles import AnswerEncoder
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> planted = planted_judgements("choice", num_raters=60, num_items=8, strength=4.0)
        >>> cells = answer_cells(planted.judgements.encode())
        >>> half = cells.item < 4
        >>> vectors = AnswerEncoder().vectors(cells, half)
        >>> train = cells.rater < 40
        >>> tables = ProfileTables.fit(cells.select(train), cells.select(train & ~half), vectors, np.full(24, 1 / 3))
        >>> tables.neighbours
        10
        >>> p = tables.probabilities(vectors[40:42])  # two heldout raters, of different clusters
        >>> p.shape, bool(np.abs(p[0] - p[1]).max() > 0.5)
        ((2, 24), True)
    """

    counts: np.ndarray
    vectors: np.ndarray
    base: np.ndarray
    cell_item: np.ndarray
    neighbours: int
    shrinkage: float

    @classmethod
    def fit(cls, train: AnswerCells, scored: AnswerCells, vectors: np.ndarray, base: np.ndarray) -> ProfileTables:
        """Choose neighbours and shrinkage by what predicts training raters from the others.

        Args:
            train: All answers of the training raters.
            scored: Those of them that the vectors were not made from.
            vectors: (R, D) unit vectors of all raters.
            base: (S,) answer distribution of everybody.
        """
        raters = np.unique(train.rater)
        row = np.full(train.n_raters, -1)
        row[raters] = np.arange(len(raters))
        counts = np.zeros((len(raters), len(base)), dtype=np.float32)
        np.add.at(counts, (row[train.rater], train.cell), train.weight)
        own = vectors[raters]
        best, chosen = np.inf, (1, SHRINKAGE[0])
        for n in [n for n in NEIGHBOURS if n < len(raters)] or [max(len(raters) - 1, 1)]:
            near = _near_counts(own, own, counts, n, np.arange(len(raters)))
            for shrinkage in SHRINKAGE:
                p = _shrunken(near, base, train.cell_item, shrinkage)
                loss = -float(scored.weight @ np.log(p[row[scored.rater], scored.cell]))
                if loss < best:
                    best, chosen = loss, (n, shrinkage)
        return cls(counts, own, base, train.cell_item, *chosen)

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Return (V, S) answer probabilities of profiles (V, D); they sum to one over the cells of an item."""
        near = _near_counts(vectors, self.vectors, self.counts, self.neighbours)
        return _shrunken(near, self.base, self.cell_item, self.shrinkage)


def _near_counts(
    vectors: np.ndarray, others: np.ndarray, counts: np.ndarray, n: int, without: np.ndarray | None = None
) -> np.ndarray:
    """Return (V, S) the answers of the `n` nearest of the others to each profile, without (V,) one of them each."""
    blocks = []
    for start in range(0, len(vectors), BLOCK):
        likeness = vectors[start : start + BLOCK] @ others.T
        if without is not None:
            likeness[np.arange(len(likeness)), without[start : start + BLOCK]] = -np.inf
        near = np.argpartition(-likeness, min(n, likeness.shape[1]) - 1, axis=1)[:, :n]
        nearest = np.zeros_like(likeness)
        np.put_along_axis(nearest, near, 1.0, axis=1)
        blocks.append((nearest @ counts).astype(np.float64))
    return np.concatenate(blocks)


def _shrunken(counts: np.ndarray, base: np.ndarray, cell_item: np.ndarray, shrinkage: float) -> np.ndarray:
    """Return (V, S) probabilities from counts, drawn to (S,) those of everybody."""
    starts = np.searchsorted(cell_item, np.arange(cell_item[-1] + 1))
    totals = np.add.reduceat(counts, starts, axis=1)[:, cell_item]
    return (counts + shrinkage * base) / (totals + shrinkage)


def answer_losses(cells: AnswerCells, log_p: np.ndarray) -> np.ndarray:
    """Compute L(i, v) = Σ_j -log p(y_ij | x_j, v), the losses that Algorithm 2 clusters.

    Args:
        cells: The answers of the raters, as a rule their fit answers.
        log_p: (S, V) log-probability of every cell under each profile.

    Returns:
        (R, V) nats; a rater without an answer has 0 throughout.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> cells = answer_cells(planted_judgements("choice", num_raters=3, num_items=4).judgements.encode())
        >>> answer_losses(cells, np.log(np.full((12, 2), 1 / 3))).round(2)[0].tolist()  # 4 ln 3
        [4.39, 4.39]
    """
    shape = (cells.n_raters, len(cells.cell_item))
    return -(coo_array((cells.count, (cells.rater, cells.cell)), shape=shape).tocsr() @ log_p)
