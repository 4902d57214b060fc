"""Pairs of texts with the number of people on either side, and coordinates in which utilities are linear.

Used by `mean_variance` and `ensemble`: rater ids are dropped and equal questions merged, so that the cost of a fit
depends on the number of distinct pairs. Knows nothing of models of disagreement.

Shapes: `N` judgements, `M` distinct pairs, `U` texts, `D` features, `d` components, `C` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable, check_features
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.seeds import seeded_rng


__all__ = ["FLOOR", "MEAN_PRECISION", "Coordinates", "PairCounts", "heldout_ridge"]

FLOOR = 1e-6  # smallest probability
MEAN_PRECISION = 0.1  # prior precision of a utility without features

MAX_COMPONENTS = 64
RIDGE_GRID = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # prior precision of the weights of components
HELDOUT = 0.2


@dataclass(frozen=True)
class PairCounts:
    """Number of judgements for each side of each distinct pair of texts.

    Attributes:
        a: (M,) text index; the smaller of the two.
        b: (M,) text index.
        counts: (M, 3) weight of the judgements for a, for b, and of ties. More than two options are split into all
            pairs, each with the shares of people who chose either.

    Example:
        >>> from reward_models import planted_judgements
        >>> pairs = PairCounts.of(planted_judgements("preference", num_raters=10, num_items=2).judgements.encode())
        >>> pairs.counts.sum(1).tolist(), pairs.share().shape
        ([10.0, 10.0], (2,))
    """

    a: np.ndarray
    b: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, enc: Encoded) -> PairCounts:
        """Count the judgements of each pair.

        Raises:
            NotEncodedError: Something else than `Encoded`.
            JuryError: A table of ratings, or without a judged pair.
        """
        (enc,) = encoded_tables(enc)
        if enc.kind == "rating":
            raise JuryError(
                "kind='rating': the model is fitted to preferences between texts. Fix: turn the ratings of each rater "
                "into pairs, or use fit_raters"
            )
        if enc.kind == "preference":
            a, b = enc.alternatives.T
            counts = enc.weight[:, None] * (enc.label[:, None] == np.arange(3))
        else:
            probs = enc.probs if enc.probs is not None else enc.label[:, None] == np.arange(enc.alternatives.shape[1])
            first, second = np.triu_indices(enc.alternatives.shape[1], k=1)
            a, b = enc.alternatives[:, first].ravel(), enc.alternatives[:, second].ravel()
            shares = np.stack([probs[:, first], probs[:, second], np.zeros((len(enc), len(first)))], axis=-1)
            counts = (enc.weight[:, None, None] * shares).reshape(-1, 3)
        judged = (a >= 0) & (b >= 0) & (counts.sum(1) > 0) & (a != b)
        a, b, counts = a[judged], b[judged], counts[judged]
        counts = np.where((a > b)[:, None], counts[:, [1, 0, 2]], counts)
        key, row = np.unique(np.minimum(a, b) * enc.n_texts + np.maximum(a, b), return_inverse=True)
        total = np.zeros((len(key), 3))
        np.add.at(total, row, counts)
        if not len(key):
            raise JuryError("no pair of different texts was judged, so there is nothing to fit. Fix: add judgements")
        return cls(key // enc.n_texts, key % enc.n_texts, total)

    def share(self) -> np.ndarray:
        """Return the (M,) share of people who prefer a; a tie counts half."""
        return (self.counts[:, 0] + 0.5 * self.counts[:, 2]) / self.counts.sum(1)

    def select(self, rows: np.ndarray) -> PairCounts:
        """Select some of the pairs."""
        return PairCounts(self.a[rows], self.b[rows], self.counts[rows])


@dataclass(frozen=True)
class Coordinates:
    """Coordinates in which utilities are linear: principal components of the features, or one per text.

    Attributes:
        inputs: (U, d) components, the first of unit variance; None: one free number per text.
        to_features: (D, d) map, so that `inputs = (features - centre) @ to_features`.
        centre: (D,) mean of the features.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_items=4).judgements.encode()
        >>> free, linear = Coordinates.of(enc, None), Coordinates.of(enc, np.eye(8)[:, :3])
        >>> free.size(enc), linear.size(enc)  # parameters per utility
        (8, 3)
    """

    inputs: Tensor | None
    to_features: np.ndarray | None
    centre: np.ndarray | None

    @classmethod
    def of(cls, enc: Encoded, features: np.ndarray | None) -> Coordinates:
        """Compute the components of the features of `enc.texts`; None: free parameters per text.

        Raises:
            JuryError: Features that do not match.
        """
        if features is None:
            return cls(None, None, None)
        check_features(enc, features)
        centre = features.mean(0, dtype=np.float64)
        scale = features.std(0, dtype=np.float64)
        inverse = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
        _, singular, right = np.linalg.svd((features - centre) * inverse, full_matrices=False)
        kept = singular[:MAX_COMPONENTS] > 1e-8 * max(singular.max(initial=0.0), 1e-300)
        # One scale for all components, so that the ridge shrinks components of small variance more.
        unit = np.sqrt(len(features)) / max(singular.max(initial=0.0), 1e-300)
        to_features = unit * right[:MAX_COMPONENTS][kept].T * inverse[:, None]
        return cls(torch.from_numpy((features - centre) @ to_features), to_features, centre)

    def size(self, enc: Encoded) -> int:
        """Return the number of parameters of one column."""
        return enc.n_texts if self.inputs is None else self.inputs.shape[1]

    def values(self, parameters: Tensor) -> Tensor:
        """Compute the (U, C) columns of (U or d, C) parameters."""
        return parameters if self.inputs is None else self.inputs @ parameters

    def table(self, enc: Encoded, parameters: np.ndarray) -> TextTable:
        """Return a table of the columns; with features it extends to new texts."""
        values = self.values(torch.from_numpy(parameters)).numpy()
        if self.to_features is None or self.centre is None:
            return TextTable(enc.texts, values)
        weight = self.to_features @ parameters
        return TextTable(enc.texts, values, weight, -self.centre @ weight)


def heldout_ridge(
    pairs: PairCounts,
    seed: int,
    fit: Callable[[PairCounts, float, dict[str, np.ndarray] | None], dict[str, np.ndarray]],
    loss_of: Callable[[PairCounts, dict[str, Tensor]], Tensor],
) -> float:
    """Choose the ridge whose fit to four fifths of the texts best predicts the pairs with a text of the other fifth.

    Args:
        pairs: All pairs.
        seed: Random seed of the held-out texts.
        fit: Maps pairs, a ridge and parameters to start from (or None) to fitted parameters.
        loss_of: Maps pairs and parameters to the loss.

    Returns:
        The ridge; the middle of the grid if no pair can be held out.
    """
    texts = np.union1d(pairs.a, pairs.b)
    out = texts[seeded_rng(seed, "heldout texts of pair counts").random(len(texts)) < HELDOUT]
    held = np.isin(pairs.a, out) | np.isin(pairs.b, out)
    if not held.any() or held.all():
        return RIDGE_GRID[len(RIDGE_GRID) // 2]
    losses, params = {}, None
    for ridge in RIDGE_GRID:
        params = fit(pairs.select(~held), ridge, params)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(value) for name, value in params.items()}
            losses[ridge] = float(loss_of(pairs.select(held), tensors))
    return min(losses, key=losses.__getitem__)
