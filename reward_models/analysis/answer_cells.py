"""Judgements of any kind as answers in cells: what groupings of raters are compared on.

A cell is one option of one item. Pairs have two cells (three with ties), ratings one per level, choices one per
option, so that every kind of judgement is a table of categorical answers. Knows nothing of clusters or models.

Shapes: `N` answers, `R` raters, `S` cells (all options of all items), `G` groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import MissingCodes, trait_groups


__all__ = ["AnswerCells", "answer_cells", "shrunken_tables", "shuffle_within_items", "trait_codes"]

GROUP_SMOOTHING = (1.0, 4.0, 16.0, 64.0, 256.0)


@dataclass(frozen=True)
class AnswerCells:
    """Categorical answers; `answer_cells` makes them.

    Attributes:
        rater: (N,) rater of each answer.
        item: (N,) its item.
        cell: (N,) the answer, a cell of the item.
        cell_item: (S,) item of each cell, ascending.
        count: (N,) how often the rater gave this answer.
        rater_weight: (R,) sampling weight of each rater.
        n_raters: Number of raters `R`.
    """

    rater: np.ndarray
    item: np.ndarray
    cell: np.ndarray
    cell_item: np.ndarray
    count: np.ndarray
    rater_weight: np.ndarray
    n_raters: int

    @property
    def weight(self) -> np.ndarray:
        """(N,) weight of each answer in averages over people."""
        return self.count * self.rater_weight[self.rater]

    def select(self, keep: np.ndarray) -> AnswerCells:
        """Keep some answers (a mask or indices); raters, items and cells keep their numbers."""
        rater, item, cell, count = self.rater[keep], self.item[keep], self.cell[keep], self.count[keep]
        return dataclasses.replace(self, rater=rater, item=item, cell=cell, count=count)

    def group_counts(self, group: np.ndarray, n_groups: int) -> np.ndarray:
        """Count (S, G) weighted answers per cell and group of rater.

        Args:
            group: (R,) group of each rater.
            n_groups: `G`.
        """
        flat = np.bincount(self.cell * n_groups + group[self.rater], self.weight, len(self.cell_item) * n_groups)
        return flat.reshape(-1, n_groups)


def answer_cells(enc: Encoded) -> AnswerCells:
    """Return judgements of any kind as answers in cells; a pair judged in both orders counts as one item.

    Example:
        >>> from reward_models import planted_judgements
        >>> cells = answer_cells(planted_judgements("choice", num_raters=4, num_items=2).judgements.encode())
        >>> cells.cell_item.tolist()  # two questions of three options
        [0, 0, 0, 1, 1, 1]
    """
    label, n_options = enc.item_label, np.full(enc.n_items, 3)
    if enc.kind == "preference":
        n_options[:] = 3 if (label == 2).any() else 2
    elif enc.kind == "rating":
        n_options[:] = len(enc.levels or ())
    else:
        n_options = (enc.item_alternatives >= 0).sum(1)
    start = np.cumsum(n_options) - n_options
    cell_item = np.repeat(np.arange(enc.n_items), n_options)
    return AnswerCells(
        enc.rater, enc.item, start[enc.item] + label, cell_item, enc.count, enc.rater_weight, enc.n_raters
    )


def trait_codes(judgements: Judgements, enc: Encoded, missing: MissingCodes = ()) -> dict[str, np.ndarray]:
    """Return, by trait, the group (R,) of each rater; raters without a value form the last group.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=4, num_items=2).judgements.frame.copy()
        >>> frame["rater:town"] = frame["rater_id"].map({"r0": "A", "r1": "B", "r2": "A", "r3": None})
        >>> judgements = Judgements.from_frame(frame)
        >>> trait_codes(judgements, judgements.encode())["town"].tolist()
        [0, 1, 0, 2]
    """
    if not judgements.traits:
        return {}
    groups = trait_groups(judgements, missing).reindex(enc.rater_ids)
    codes = {}
    for name, column in groups.items():
        code = column.cat.codes.to_numpy().astype(np.int64)
        codes[str(name)] = np.where(code < 0, code.max() + 1, code)
    return codes


def shrunken_tables(train: AnswerCells, group: np.ndarray, n_groups: int, log_base: np.ndarray) -> np.ndarray:
    """Compute a table of log answer probabilities for each group, shrunk to everybody's.

    The strength is the one with the best leave-one-out likelihood of the training answers, so that a grouping with
    many small groups is not penalised for being fine-grained.

    Args:
        train: Answers of training raters.
        group: (R,) group of each rater.
        n_groups: `G`.
        log_base: (S,) log-probability of each cell among everybody.

    Returns:
        (S, G) log-probabilities.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=2)
        >>> cells = answer_cells(planted.judgements.encode())
        >>> shrunken_tables(cells, np.arange(40) % 2, 2, np.log(np.full(6, 1 / 3))).shape
        (6, 2)
    """
    counts = train.group_counts(group, n_groups)
    totals = np.zeros((train.cell_item.max() + 1, n_groups))
    np.add.at(totals, train.cell_item, counts)
    totals, p = totals[train.cell_item], np.exp(log_base)[:, None]

    def leave_one_out(strength: float) -> float:
        with np.errstate(divide="ignore"):
            log_p = np.log(np.maximum(counts - 1, 0) + strength * p) - np.log(np.maximum(totals - 1, 0) + strength)
        return float((counts * log_p).sum())

    strength = max(GROUP_SMOOTHING, key=leave_one_out)
    return np.log((counts + strength * p) / (totals + strength))


def shuffle_within_items(cells: AnswerCells, rng: np.random.Generator) -> AnswerCells:
    """Give every answer to another rater of its item: items keep their distributions, raters lose theirs.

    Example:
        >>> from reward_models import planted_judgements
        >>> cells = answer_cells(planted_judgements("choice", num_raters=9, num_items=2).judgements.encode())
        >>> shuffled = shuffle_within_items(cells, np.random.default_rng(0))
        >>> bool((np.bincount(shuffled.cell) == np.bincount(cells.cell)).all())
        True
    """
    drawn = np.lexsort((rng.random(len(cells.cell)), cells.item))
    by_item = np.lexsort((np.arange(len(cells.cell)), cells.item))
    cell = np.empty_like(cells.cell)
    cell[by_item] = cells.cell[drawn]
    return dataclasses.replace(cells, cell=cell)
