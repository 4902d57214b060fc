"""Pairs of texts with the numbers of people on either side, and what utilities are linear in.

The groundwork of `distributional`: rater ids are dropped, and equal questions are merged, so that work is per distinct
pair. Knows nothing of models of disagreement.

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
from reward_models.judgements.encoding import Encoded


__all__ = ["Coordinates", "PairCounts", "heldout_ridge"]

MAX_COMPONENTS = 64
RIDGE_GRID = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # prior precision of the weights of components
HELDOUT = 0.2


@dataclass(frozen=True)
class PairCounts:
    """How often each pair of texts was judged how.

    Attributes:
        a: (M,) text index; the smaller of the two.
        b: (M,) text index.
        counts: (M, 3) weight of the judgements for a, for b, and ties. Of more than two options every two are
            compared by the shares of those who chose either.
    """

    a: np.ndarray
    b: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, enc: Encoded) -> PairCounts:
        """Count pairs.

        Raises:
            JuryError: A table of ratings.
        """
        if enc.kind == "rating":
            raise JuryError(
                "kind='rating': these models are about which of two texts people prefer. Fix: make pairs of the "
                "ratings of each rater, or use fit_raters"
            )
        if enc.kind == "preference":
            a, b = enc.alternatives.T
            counts = enc.weight[:, None] * (enc.label[:, None] == np.arange(3))
        else:
            chosen = enc.probs if enc.probs is not None else enc.label[:, None] == np.arange(enc.alternatives.shape[1])
            first, second = np.triu_indices(enc.alternatives.shape[1], k=1)
            a, b = enc.alternatives[:, first].ravel(), enc.alternatives[:, second].ravel()
            shares = np.stack([chosen[:, first], chosen[:, second], np.zeros((len(enc), len(first)))], axis=-1)
            counts = (enc.weight[:, None, None] * shares).reshape(-1, 3)
        asked = (a >= 0) & (b >= 0) & (counts.sum(1) > 0) & (a != b)
        a, b, counts = a[asked], b[asked], counts[asked]
        counts = np.where((a > b)[:, None], counts[:, [1, 0, 2]], counts)
        key, row = np.unique(np.minimum(a, b) * enc.n_texts + np.maximum(a, b), return_inverse=True)
        total = np.zeros((len(key), 3))
        np.add.at(total, row, counts)
        if not len(key):
            raise JuryError("no pair of different texts was judged, so there is nothing to fit")
        return cls(key // enc.n_texts, key % enc.n_texts, total)

    def share(self) -> np.ndarray:
        """(M,) share of people who prefer a; half of a tie is for a."""
        return (self.counts[:, 0] + 0.5 * self.counts[:, 2]) / self.counts.sum(1)

    def select(self, rows: np.ndarray) -> PairCounts:
        """Some of the pairs."""
        return PairCounts(self.a[rows], self.b[rows], self.counts[rows])


@dataclass(frozen=True)
class Coordinates:
    """What utilities are linear in: the texts' principal components (U, d), or the texts themselves.

    Attributes:
        inputs: (U, d), the first of unit variance; None: one free number per text.
        to_features: (D, d) map, so that `inputs = (features - centre) @ to_features`.
        centre: (D,).
    """

    inputs: Tensor | None
    to_features: np.ndarray | None
    centre: np.ndarray | None

    @classmethod
    def of(cls, enc: Encoded, features: np.ndarray | None) -> Coordinates:
        """Components of the features of `enc.texts`.

        Raises:
            JuryError: Features that do not fit.
        """
        if features is None:
            return cls(None, None, None)
        check_features(enc, features)
        centre = features.mean(0, dtype=np.float64)
        scale = features.std(0, dtype=np.float64)
        inverse = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 1e-12)
        _, singular, right = np.linalg.svd((features - centre) * inverse, full_matrices=False)
        kept = singular[:MAX_COMPONENTS] > 1e-8 * max(singular.max(initial=0.0), 1e-300)
        # One scale for all components: those that vary little stay small, as the ridge assumes.
        unit = np.sqrt(len(features)) / max(singular.max(initial=0.0), 1e-300)
        to_features = unit * right[:MAX_COMPONENTS][kept].T * inverse[:, None]
        return cls(torch.from_numpy((features - centre) @ to_features), to_features, centre)

    def size(self, enc: Encoded) -> int:
        """Parameters of one column."""
        return enc.n_texts if self.inputs is None else self.inputs.shape[1]

    def values(self, parameters: Tensor) -> Tensor:
        """(U, C) columns of (U or d, C) parameters."""
        return parameters if self.inputs is None else self.inputs @ parameters

    def table(self, enc: Encoded, parameters: np.ndarray) -> TextTable:
        """The columns of all texts, new ones included where there are features."""
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
    """The ridge whose fit to four fifths of the texts best predicts the pairs with a text of the other fifth."""
    texts = np.union1d(pairs.a, pairs.b)
    out = texts[np.random.default_rng(seed).random(len(texts)) < HELDOUT]
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
