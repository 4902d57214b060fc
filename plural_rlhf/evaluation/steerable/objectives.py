"""Several objectives of a text on one scale: the share of people's texts that it beats in each.

So objectives of any unit, a jury's rewards or a function's numbers, can be published side by side, and a volume of
them has a meaning: .5 is a median text of people, 0 is below all of theirs. Knows nothing of what an objective is.

Shapes: `N` texts, `P` texts of people, `K` objectives.
"""

from __future__ import annotations

import numpy as np


__all__ = ["shares_beaten"]


def shares_beaten(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Compute for each text and objective the share of people's texts that it beats; a draw counts half.

    Args:
        values: (N, K) objectives of the texts; higher is better.
        people: (P, K) objectives of people's texts to the same prompt.

    Returns:
        (N, K), between 0 and 1. The mean of people's own texts is .5.

    Raises:
        ValueError: No text of people, another number of objectives, or a number that is not finite.

    Example:
        >>> people = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
        >>> shares_beaten(np.array([[2.0, 9.0], [1.0, 0.0]]), people)
        array([[0.375, 1.   ],
               [0.125, 0.   ]])
    """
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(people, dtype=np.float64)
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or not len(theirs):
        raise ValueError(
            f"the objectives of texts have shape {ours.shape}, those of people's texts {theirs.shape}. Fix: give "
            "(N, K) and (P, K) with at least one text of people."
        )
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("an objective is not a finite number. Fix: leave such texts out.")
    below = (theirs[None] < ours[:, None]).mean(axis=1)
    equal = (theirs[None] == ours[:, None]).mean(axis=1)
    shares: np.ndarray = below + equal / 2
    return shares
