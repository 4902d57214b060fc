"""How raters were sampled: sampling weights, strata and primary sampling units, and resamples that respect them.

A sampling weight says how many people of the population a rater stands for. It multiplies what the rater contributes
to an average over people, never the evidence about the rater: that somebody stands for ten people does not make their
five answers fifty. Only ratios of weights matter, so they are scaled to mean one. Knows nothing of judgements.

Shapes: `R` raters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


__all__ = ["SamplingDesign", "mean_one"]


def mean_one(weights: np.ndarray) -> np.ndarray:
    """Scale weights to mean one over the positive ones; return them as they are if none is positive.

    Example:
        >>> mean_one(np.array([1000.0, 3000.0, 0.0])).tolist()
        [0.5, 1.5, 0.0]
    """
    return weights / (weights.sum() / np.count_nonzero(weights)) if weights.any() else weights


@dataclass(frozen=True)
class SamplingDesign:
    """How the raters of a table were sampled.

    Attributes:
        weight: (R,) sampling weight, mean one over the positive ones.
        stratum: (R,) number of each rater's stratum; None: one stratum.
        psu: (R,) number of each rater's primary sampling unit; None: every rater is one. Units of two strata are
            different units, also under the same number.

    Example:
        Two strata of two raters: each resample draws one of two, twice as heavy:

        >>> design = SamplingDesign(np.ones(4), stratum=np.array([0, 0, 1, 1]))
        >>> times = design.draw(np.ones(4, dtype=bool), np.random.default_rng(0))
        >>> times[:2].sum(), times[2:].sum()
        (np.float64(2.0), np.float64(2.0))
    """

    weight: np.ndarray
    stratum: np.ndarray | None = None
    psu: np.ndarray | None = None

    def select(self, raters: np.ndarray) -> SamplingDesign:
        """Keep some of the raters, given by a mask or their numbers; weights keep their scale."""
        stratum, psu = (None if ids is None else ids[raters] for ids in (self.stratum, self.psu))
        return SamplingDesign(self.weight[raters], stratum, psu)

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Number the sampling units.

        Returns:
            (R,) the unit of each rater, counted over all strata, and (U,) the stratum of each unit.

        Example:
            >>> SamplingDesign(np.ones(4), stratum=np.array([3, 3, 7, 7]), psu=np.array([0, 0, 0, 1])).units()
            (array([0, 0, 1, 2]), array([0, 1, 1]))
        """
        n = len(self.weight)
        stratum = np.zeros(n, dtype=np.int64) if self.stratum is None else self.stratum
        unit = np.arange(n) if self.psu is None else self.psu
        units, of_rater = np.unique(np.column_stack([stratum, unit]), axis=0, return_inverse=True)
        return of_rater.ravel(), np.unique(units[:, 0], return_inverse=True)[1].ravel()

    def draw(self, present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Resample raters: how often each is drawn, to be multiplied by the sampling weight.

        Raters are drawn with equal probability and carry their weights, so that the spread of the draws includes what
        unequal weights cost. Without strata and units, as many raters as there are are drawn with replacement. With
        them, `n - 1` of the `n` units of each stratum are drawn, and each counts `n / (n - 1)` times (Rao and Wu 1988,
        https://doi.org/10.1080/01621459.1988.10478591). A stratum of one unit does not vary.

        Args:
            present: (R,) True for raters to draw from.
            rng: Random generator.

        Returns:
            (R,) times each rater was drawn; 0 for raters who are not present.
        """
        times = np.zeros(len(present))
        if self.stratum is None and self.psu is None:
            n = int(present.sum())
            times[present] = np.bincount(rng.integers(n, size=n), minlength=n)
            return times
        of_rater, stratum = self.select(present).units()
        of_unit = np.ones(len(stratum))
        for number in np.unique(stratum):
            members = np.flatnonzero(stratum == number)
            n = len(members)
            if n > 1:
                of_unit[members] = np.bincount(rng.integers(n, size=n - 1), minlength=n) * (n / (n - 1))
        times[present] = of_unit[of_rater]
        return times
