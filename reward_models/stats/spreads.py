"""Choose how strongly each of several effects is shrunk, by a held-out loss: a greedy search over a grid.

Knows nothing of what the effects or the loss are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


__all__ = ["choose_spreads"]

STANDARD_ERRORS = 1.0  # of the paired difference, that an effect must gain to be added


def choose_spreads(losses: Callable[[np.ndarray], np.ndarray], n_effects: int, grid: Sequence[float]) -> np.ndarray:
    """Choose the standard deviation of each effect's prior; 0 leaves the effect out.

    Each effect is tried alone. Then, beginning with the one that helps most, each is added with the best spread of the
    grid if it lowers the loss by more than a standard error of the paired difference. So an effect that says something
    is not drowned by many that say nothing.

    Args:
        losses: Maps spreads (n_effects,) to the held-out loss of each of `R` raters, (R,).
        n_effects: Number of effects.
        grid: Positive spreads, ascending; the loss is taken to have one minimum along it.

    Returns:
        (n_effects,) spreads, each 0 or of the grid.

    Example:
        >>> def losses(spreads):  # the first effect is best at .2, the second should be left out
        ...     return np.full(30, (spreads[0] - 0.2) ** 2 + spreads[1])
        >>> choose_spreads(losses, 2, (0.1, 0.2, 0.4)).tolist()
        [0.2, 0.0]
    """
    known: dict[tuple[float, ...], np.ndarray] = {}

    def at(spreads: np.ndarray) -> np.ndarray:
        key = tuple(spreads.tolist())
        if key not in known:
            known[key] = losses(spreads)
        return known[key]

    def tuned(spreads: np.ndarray, effect: int) -> np.ndarray:
        """Return the spreads with the best one above 0 of an effect; the search ends when the loss rises."""
        tried: list[np.ndarray] = []
        for spread in grid:
            tried.append(np.where(np.arange(n_effects) == effect, spread, spreads))
            if len(tried) > 1 and at(tried[-1]).sum() > at(tried[-2]).sum():
                break
        return min(tried, key=lambda candidate: at(candidate).sum())

    spreads = np.zeros(n_effects)
    for effect in sorted(range(n_effects), key=lambda effect: at(tuned(np.zeros(n_effects), effect)).sum()):
        candidate = tuned(spreads, effect)
        gain = at(spreads) - at(candidate)
        if gain.sum() > STANDARD_ERRORS * np.sqrt(len(gain)) * gain.std():
            spreads = candidate
    return spreads
