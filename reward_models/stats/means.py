"""Means over independent units, such as prompts, with Student's t interval.

A bootstrap over few units is too narrow; the t interval is right for any number of them if their values are not far
from normal. Knows nothing of what the units are.

Shapes: `P` units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from reward_models.stats.few_units import reads_as_share
from reward_models.stats.shares import share_interval
from reward_models.stats.verdicts import MIN_ITEMS, minimum_detectable, outcome


__all__ = ["UnitMean"]


@dataclass(frozen=True)
class UnitMean:
    """A mean over units; `UnitMean.of` computes it.

    Attributes:
        value: The mean; nan if there is no unit.
        low: Lower end of its interval; nan with fewer units than `stats.verdicts.MIN_ITEMS`.
        high: Upper end.
        n: Number of units.

    Example:
        >>> mean = UnitMean.of([0.1, 0.3, 0.2, 0.2, 0.2])
        >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3), mean.outcome
        (0.2, 0.112, 0.288, 'better')
        >>> UnitMean.of([0.1, 0.3]).low  # two units show next to nothing of their spread
        nan
        >>> [round(end, 2) for end in (UnitMean.of([1.0] * 10, share=True).low, UnitMean.of([1.0] * 10).low)]
        [0.72, 1.0]
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: np.ndarray | list[float], level: float = 0.95, *, share: bool = False) -> UnitMean:
        """Compute the mean of (P,) values; nan are ignored.

        Args:
            values: A value per unit.
            level: Coverage of the interval.
            share: Whether they are outcomes or shares: all 0 or 1, or all alike, they have Wilson's interval, because
                ten units without a difference do not say that there is none.
        """
        used = np.asarray(values, dtype=np.float64)
        used = used[~np.isnan(used)]
        n = len(used)
        mean = float(used.mean()) if n else float("nan")
        if n < MIN_ITEMS:
            return cls(mean, float("nan"), float("nan"), n)
        if share and reads_as_share(used):
            low, high = share_interval(used.mean(), np.array(n), level)
            return cls(mean, float(low), float(high), n)
        half = float(t.ppf((1 + level) / 2, n - 1) * used.std(ddof=1) / np.sqrt(n))
        return cls(mean, mean - half, mean + half, n)

    @property
    def detectable(self) -> float:
        """Smallest true mean that units like these would show four times in five; nan without interval."""
        return minimum_detectable(self.low, self.high)

    @property
    def outcome(self) -> str:
        """Whether the mean is `"better"` or `"worse"` than 0, or `"undecided"`, where above 0 is better."""
        return outcome(self.low, self.high)

    def row(self, case: str, method: str, metric: str, unit: str, direction: str, counted: str) -> dict[str, Any]:
        """Return the mean as a flat row of `results.json`."""
        return {
            "case": case,
            "method": method,
            "metric": metric,
            "value": self.value,
            "ci_low": self.low,
            "ci_high": self.high,
            "n": self.n,
            "counted": counted,
            "unit": unit,
            "direction": direction,
        }
