"""Intervals over prompts: of means, of differences between policies on the same prompts, of functions of means.

The texts of a prompt are drawn anew with the prompt, so that resampling prompts covers both: a mean over the texts of
a prompt varies between prompts by what differs between prompts and by which texts were drawn. Knows nothing of what
is measured.

Shapes: `R` prompts, `D` numbers per prompt, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from plural_rlhf.evaluation.intervals import check_draws
from reward_models.seeds import seeded_rng


__all__ = ["PromptResamples", "resample_prompts"]


@dataclass(frozen=True)
class PromptResamples:
    """How often each prompt was drawn in each resample.

    Attributes:
        counts: (B, R).
        level: Level of the intervals.

    Example:
        >>> prompts = resample_prompts(40, draws=500)
        >>> value, low, high = prompts.interval(np.arange(40.0))
        >>> value, bool(15 < low < 17), bool(22 < high < 24)  # 19.5 plus or minus 3.7
        (19.5, True, True)
    """

    counts: np.ndarray
    level: float

    def means(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average over the prompts where nothing is nan: (D,) of the data and (B, D) of the resamples.

        Args:
            values: (R,) or (R, D).
        """
        values = np.asarray(values, dtype=np.float64)
        table = values[:, None] if values.ndim == 1 else values
        known = ~np.isnan(table).any(axis=1)
        if not known.any():
            return np.full(table.shape[1], np.nan), np.full((len(self.counts), table.shape[1]), np.nan)
        counts = self.counts[:, known].astype(np.float64)
        total = counts.sum(axis=1, keepdims=True)
        drawn = np.where(total > 0, counts @ table[known] / np.where(total > 0, total, 1.0), np.nan)
        return table[known].mean(axis=0), drawn

    def interval(
        self, values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> tuple[float, float, float]:
        """Compute a function of means over prompts, and its interval.

        The percentiles are widened for few prompts as Student's t is (Hesterberg 2015,
        https://doi.org/10.1080/00031305.2015.1089789).

        Args:
            values: (R,) or (R, D); prompts with a nan take no part.
            statistic: Maps means (..., D) to (...); None: the mean itself, for D = 1.

        Returns:
            Estimate, lower and upper end; the ends are nan with fewer than two prompts, all are nan without one.
        """
        mean, drawn = self.means(values)
        statistic = statistic or (lambda means: means[..., 0])
        value = float(statistic(mean))
        table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        n = int((~np.isnan(table).any(axis=1)).sum())
        resampled = np.asarray(statistic(drawn))
        resampled = resampled[np.isfinite(resampled)]
        if n < 2 or not np.isfinite(value) or len(resampled) < 2:
            return value, float("nan"), float("nan")
        tail = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf((1 + self.level) / 2, n - 1))
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return value, float(min(low, value)), float(max(high, value))


def resample_prompts(n: int, *, draws: int = 2000, level: float = 0.95, seed: int = 0) -> PromptResamples:
    """Draw prompts with replacement.

    Args:
        n: `R`.
        draws: `B`.
        level: Level of the intervals.
        seed: Random seed.

    Raises:
        ValueError: A level that is no probability, or no draw.

    Example:
        >>> resample_prompts(3, draws=2).counts.sum(axis=1).tolist()
        [3, 3]
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not a probability between 0 and 1. Fix: e.g. level=0.95.")
    check_draws(draws)
    rng = seeded_rng(seed, "bootstrap of prompts of texts")
    return PromptResamples(rng.multinomial(n, np.full(n, 1 / n), size=draws), level)
