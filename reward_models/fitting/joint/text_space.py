"""Coordinates of texts: features, centred and turned to their principal axes, learnt on training texts only.

The rotation keeps all distances between texts, so that a ridge prior on the coordinates is one on the features; it
makes the coordinates nearly independent, which is what a fit by gradients needs. Constant features carry nothing and
drop out. Knows nothing of rewards or raters.

Shapes: `U` texts, `D` features, `d` coordinates, `P` parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.stats.groups import differences


__all__ = ["TextSpace"]

LEAST_SINGULAR = 1e-6  # of the largest singular value: smaller directions are rounding errors


@dataclass(frozen=True)
class TextSpace:
    """Map from features to coordinates; the training texts have coordinates of mean square length 1 around their mean.

    Where only texts of one prompt are compared with each other, "around their mean" is around that of the prompt.

    Attributes:
        centre: (D,) mean features of the training texts.
        axes: (D, d) map from centred features to coordinates.

    Example:
        >>> space = TextSpace.of(np.array([[0.0, 1.0], [2.0, 1.0]]))  # the second feature is constant
        >>> np.abs(space.coordinates(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))).round(6).tolist()
        [[1.0], [1.0], [3.0]]
    """

    centre: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray | None = None) -> TextSpace:
        """Learn the space from the (U, D) features of training texts; `groups` (U,) if compared within them alone."""
        centre = features.mean(0, dtype=np.float64)
        centred = features - centre
        apart = centred if groups is None else differences(centred, groups)
        length = float(np.sqrt(np.einsum("ud,ud->", apart, apart) / max(len(apart), 1)))
        if length <= 1e-12 * max(float(np.abs(features).max(initial=0.0)), 1e-300):
            return cls(centre, np.zeros((features.shape[1], 0)))
        # The covariance has the same axes as the features and is small however many texts there are.
        size, axes = np.linalg.eigh(centred.T @ centred / len(centred) / length**2)
        kept = size > LEAST_SINGULAR**2 * size[-1] + 1e-14
        return cls(centre, axes[:, kept][:, ::-1] / length)

    @classmethod
    def identity(cls, dimensions: int) -> TextSpace:
        """Return the space of features that are coordinates already."""
        return cls(np.zeros(dimensions), np.eye(dimensions))

    def coordinates(self, features: np.ndarray) -> np.ndarray:
        """Return the (U, d) coordinates of texts with features (U, D)."""
        return (features - self.centre) @ self.axes

    def heads(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn weights (d, P) on coordinates into weights (D, P) and a constant (P,) on features."""
        raw = self.axes @ weight
        return raw, -self.centre @ raw
