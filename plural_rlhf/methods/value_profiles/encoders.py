"""From the judgements of a rater to a vector: the encoders of value profiles that ask no model.

A profile must be made from a rater's *fit* judgements alone and must say something of judgements it was not made
from. Three encoders do so: answers as numbers (`AnswerEncoder`), answers as text through a sentence embedder, and
profiles in words through the same (both `TextEncoder`). Knows nothing of losses or splits.

Shapes: `R` raters, `S` cells (all options of all items), `D` dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from reward_models.analysis.answer_cells import AnswerCells
from reward_models.fitting.latent_class import population
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import judgement_texts


__all__ = ["AnswerEncoder", "RaterEncoder", "TextEncoder", "judgement_lines"]

Embed = Callable[[Sequence[str]], np.ndarray]


class RaterEncoder(Protocol):
    """What makes a vector of each rater's judgements."""

    name: str

    def vectors(self, cells: AnswerCells, fit: np.ndarray) -> np.ndarray:
        """Return (R, D) unit vectors.

        Args:
            cells: All answers.
            fit: (N,) True for the answers that may be read.
        """
        ...


class AnswerEncoder:
    """Answers as numbers: how far a rater's answers are from everybody's.

    The vector has an entry per cell: on the items that the rater answered, 1 for the answer minus the share of the
    population, elsewhere 0. Unit length, so that raters of many and of few answers can be compared.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> planted = planted_judgements("choice", num_raters=6, num_items=9, strength=4.0)
        >>> cells = answer_cells(planted.judgements.encode())
        >>> vectors = AnswerEncoder().vectors(cells, np.ones(len(cells.cell), dtype=bool))
        >>> similar = vectors @ vectors.T
        >>> bool(similar[0, 2] > similar[0, 1])  # raters 0 and 2 are of one cluster
        True
    """

    name = "table"

    def vectors(self, cells: AnswerCells, fit: np.ndarray) -> np.ndarray:
        """Return (R, S) unit vectors; 0 for a rater without an answer to read."""
        read = cells.select(fit)
        n_cells = len(cells.cell_item)
        counts = np.zeros((cells.n_raters, n_cells), dtype=np.float32)
        np.add.at(counts, (read.rater, read.cell), read.count)
        base = population(np.bincount(read.cell, read.weight, n_cells), cells.cell_item)
        starts = np.searchsorted(cells.cell_item, np.arange(cells.cell_item[-1] + 1))
        answered = np.add.reduceat(counts, starts, axis=1)[:, cells.cell_item]
        return _unit(counts - answered * base.astype(np.float32))


class TextEncoder:
    """Texts about raters through a sentence embedder: their judgements in words, or profiles that a model wrote.

    Args:
        name: What the report calls it.
        texts: Maps the answers that may be read, `(N,)` True, to `R` texts; an empty text for a rater of whom nothing
            is known.
        embed: Maps texts to (n, D) vectors, e.g. `plural_rlhf.evaluation.open_ended.embedder.text_embedder`.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.analysis.answer_cells import answer_cells
        >>> judgements = planted_judgements("choice", num_raters=4, num_items=3).judgements
        >>> letters = lambda texts: np.array([[text.count("answer A"), text.count("answer B")] for text in texts])
        >>> encoder = TextEncoder("letters", lambda fit: judgement_lines(judgements, fit), letters)
        >>> cells = answer_cells(judgements.encode())
        >>> encoder.vectors(cells, np.ones(12, dtype=bool)).shape
        (4, 2)
    """

    def __init__(self, name: str, texts: Callable[[np.ndarray], Sequence[str]], embed: Embed) -> None:
        self.name, self.texts, self.embed = name, texts, embed

    def vectors(self, cells: AnswerCells, fit: np.ndarray) -> np.ndarray:
        """Return (R, D) unit vectors around the mean of all; 0 for a rater without a text."""
        texts = list(self.texts(fit))
        known = np.array([bool(text.strip()) for text in texts])
        if not known.any():
            return np.zeros((len(texts), 1), dtype=np.float32)
        embedded = np.asarray(
            self.embed([text for text, has in zip(texts, known, strict=True) if has]), dtype=np.float32
        )
        vectors = np.zeros((len(texts), embedded.shape[1]), dtype=np.float32)
        # All texts of a table are about the same questions: what they share would make everybody alike.
        vectors[known] = embedded - embedded.mean(axis=0)
        return _unit(vectors)


def judgement_lines(judgements: Judgements, fit: np.ndarray) -> list[str]:
    r"""Return each rater's judgements in words, one line per judgement that may be read.

    Args:
        judgements: The table.
        fit: (N,) True for judgements to read, in the order of `judgements.encode()`.

    Returns:
        `R` texts, in the order of the encoded raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=2, num_items=2).judgements
        >>> judgement_lines(judgements, np.array([True, True, False, False]))
        ['Question 1?: answer A\nQuestion 2?: answer A', '']
    """
    frame = judgements.in_order().frame
    lines: dict[str, list[str]] = {rater: [] for rater in judgements.encode().rater_ids}
    for row in frame[np.asarray(fit)].to_dict("records"):
        asked, answer = judgement_texts(judgements.kind, row)
        lines[str(row["rater_id"])].append(f"{asked}: {answer}")
    return ["\n".join(of_rater) for of_rater in lines.values()]


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)
