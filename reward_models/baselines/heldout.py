"""Labels and raters that the training of an encoder does not see, and the judgements of each rater.

Knows nothing of models.

Shapes: `N` judgements, `R` raters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.stats.resampling import heldout_labels


__all__ = ["HeldOut", "RaterRows"]

MANY_RATERS = 20  # from which on some raters are held out with all their labels


@dataclass(frozen=True)
class HeldOut:
    """Judgements that training does not see.

    Attributes:
        mask: (N,) True for judgements that are not trained on.
        context: (N,) True for judgements that raters are adapted from when the held-out labels are scored.
        target: (N,) True for held-out labels, which are scored.
        raters: Raters with a target.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=10, num_items=20).judgements.encode()
        >>> heldout = HeldOut.of(enc, 0.1, np.random.default_rng(0))
        >>> int(heldout.target.sum()), bool((heldout.context & heldout.target).any())
        (20, False)
    """

    mask: np.ndarray
    context: np.ndarray
    target: np.ndarray
    raters: np.ndarray

    @classmethod
    def of(cls, enc: Encoded, share: float, rng: np.random.Generator) -> HeldOut:
        """Hold out labels of every rater and, where there are enough raters, half that share of the raters.

        The held-out labels tell whether known raters are predicted better, the held-out raters whether new raters are.

        Args:
            enc: The judgements.
            share: Share of each rater's labels to hold out.
            rng: Source of the split.

        Raises:
            JuryError: Raters with too few judgements to hold any out.
        """
        out = np.zeros(enc.n_raters, dtype=bool)
        if enc.n_raters >= MANY_RATERS:
            out[rng.permutation(enc.n_raters)[: max(1, round(share / 2 * enc.n_raters))]] = True
        # Half of the new raters are adapted from many labels, half from few.
        known = np.where(rng.random(enc.n_raters) < 0.5, 0.8, 0.25)[enc.rater]
        new = out[enc.rater]
        label = heldout_labels(enc.rater, share, rng)
        mask = new | label
        target = np.where(new, rng.random(len(enc)) >= known, label)
        context = ~target
        if not target.any() or mask.all():
            raise JuryError(
                f"none of {len(enc)} judgements can be held out to stop training. Fix: use a table in which raters "
                "have several judgements each"
            )
        return cls(mask, context, target, np.unique(enc.rater[target]))


class RaterRows:
    """Index from raters to their judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> index = RaterRows(planted_judgements("choice", num_raters=3, num_items=2).judgements.encode())
        >>> rows, position = index.rows(np.array([2, 0]))
        >>> rows.tolist(), position.tolist()
        ([4, 5, 0, 1], [0, 0, 1, 1])
    """

    def __init__(self, enc: Encoded) -> None:
        self.order = np.argsort(enc.rater, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(np.bincount(enc.rater, minlength=enc.n_raters))])

    def rows(self, raters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n,) rows of all judgements of some raters, and the (n,) position of the rater in `raters`."""
        length = self.start[raters + 1] - self.start[raters]
        first = np.concatenate([[0], np.cumsum(length)[:-1]])
        rows = self.order[np.repeat(self.start[raters] - first, length) + np.arange(length.sum())]
        return rows, np.repeat(np.arange(len(raters)), length)
