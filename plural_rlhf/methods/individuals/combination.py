"""A model that reads judgements and a jury's posterior together: a product whose exponents depend on how much is read.

    p(answer) ∝ p_model(answer)^a(n) p_jury(answer)^b(n),      n judgements read

The exponents are those of least loss on other people. With few judgements the jury knows more, with many the model
may.
Knows nothing of what predicts.

Shapes: `S` people, `A` options of a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from plural_rlhf.methods.individuals.metrics import shares_fault


__all__ = ["Combination"]

MOST = 3.0  # of an exponent
FLOOR = 1e-6  # of a share, whose logarithm must be finite


@dataclass(frozen=True)
class Combination:
    """Exponents of both predictions by the number of judgements read.

    Attributes:
        exponents: `(a, b)` by `n`.

    Example:
        The jury is right about everybody, the model guesses:

        >>> jury = [np.array([0.9, 0.1]), np.array([0.2, 0.8])] * 10
        >>> model = [np.array([0.3, 0.7]), np.array([0.3, 0.7])] * 10
        >>> combined = Combination.fit({4: (model, jury, [0, 1] * 10)})
        >>> combined.shares(model[0], jury[0], 4).round(2)[0] > 0.9
        np.True_
    """

    exponents: Mapping[int, tuple[float, float]]

    @classmethod
    def fit(
        cls, predicted: Mapping[int, tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[int]]]
    ) -> Combination:
        """Choose exponents from 0 to 3 by the loss on people who are not scored.

        Args:
            predicted: By number of judgements read: `S` shares (A,) of the model, `S` of the jury, and the answers.

        Raises:
            ValueError: Nothing is predicted, a prediction is no distribution, or an answer is none of its options.
        """
        if not predicted:
            raise ValueError("nothing is predicted. Fix: give predictions for at least one number of judgements.")
        exponents = {}
        for n, (model, jury, given) in predicted.items():
            _check(n, model, jury, given)

            def loss(
                weights: np.ndarray,
                model: Sequence[np.ndarray] = model,
                jury: Sequence[np.ndarray] = jury,
                given: Sequence[int] = given,
            ) -> float:
                parts = zip(model, jury, given, strict=True)
                return float(np.mean([-np.log(_product(m, j, *weights)[g]) for m, j, g in parts]))

            found = minimize(loss, np.array([0.5, 0.5]), bounds=[(0.0, MOST)] * 2, method="L-BFGS-B")
            exponents[n] = (float(found.x[0]), float(found.x[1]))
        return cls(exponents)

    def shares(self, model: np.ndarray, jury: np.ndarray, n: int) -> np.ndarray:
        """Return (A,) the combined probabilities after `n` judgements, by the exponents of the nearest fitted `n`."""
        nearest = min(self.exponents, key=lambda known: (abs(known - n), known))
        return _product(model, jury, *self.exponents[nearest])


def _check(n: int, model: Sequence[np.ndarray], jury: Sequence[np.ndarray], given: Sequence[int]) -> None:
    if not len(model) == len(jury) == len(given) or not len(given):
        raise ValueError(
            f"after {n} judgements there are {len(model)} predictions of the model, {len(jury)} of the jury and "
            f"{len(given)} answers. Fix: give one of each per person, for at least one person."
        )
    for m, j, g in zip(model, jury, given, strict=True):
        for of, p in (("model", m), ("jury", j)):
            if fault := shares_fault(p):
                raise ValueError(f"after {n} judgements the predictions of the {of} {fault}. Fix: give shares.")
        if np.shape(m) != np.shape(j) or not 0 <= g < len(m):
            raise ValueError(
                f"after {n} judgements the model has {len(m)} options, the jury {len(j)}, and the answer is number "
                f"{g}. Fix: number the same options from 0."
            )


def _product(model: np.ndarray, jury: np.ndarray, a: float, b: float) -> np.ndarray:
    log_p = a * np.log(np.maximum(model, FLOOR)) + b * np.log(np.maximum(jury, FLOOR))
    p = np.exp(log_p - log_p.max())
    return p / p.sum()
