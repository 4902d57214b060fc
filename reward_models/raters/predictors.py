"""What every fitted model of raters has in common: it says how probable each answer of a rater is.

Juries and the baselines they are measured against are compared through this face only, so that no metric can treat
them differently. Knows nothing of how a model was fitted.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from reward_models.judgements.encoding import Encoded


__all__ = ["Predictor", "answer_log_lik", "n_answers"]


@runtime_checkable
class Predictor(Protocol):
    """A fitted model of who answers what.

    Shapes: `N` judgements, `A` possible answers, `U` texts, `D` features.
    """

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Log-probability of every possible answer; the labels of `enc` are not looked at.

        What is not known of the rater is integrated out. Raters are matched by id, and one that the model does not
        know is the population.

        Args:
            enc: `N` questions put to raters.
            features: (U, D) rows for `enc.texts`, for models on features; None for models that know their texts.

        Returns:
            (N, A) nats, `A` as `n_answers` says; -inf at the padding of options, and at ties where the model knows
            none.
        """
        ...

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> Predictor:
        """The same model with the raters of `enc` placed by their labels in `enc`; all other raters are forgotten.

        Args:
            enc: Labels of the raters to place.
            features: As for `log_probs`.
        """
        ...


def n_answers(enc: Encoded) -> int:
    """How many answers a question can have: 3 for pairs (a, b, tie), the levels of a rating, the most options."""
    if enc.kind == "preference":
        return 3
    return len(enc.levels or ()) if enc.kind == "rating" else enc.alternatives.shape[1]


def answer_log_lik(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Log-likelihood (N,) of the answers that were given, in nats.

    Args:
        log_probs: (N, A) as `Predictor.log_probs` returns them.
        enc: The judgements.
    """
    return np.take_along_axis(log_probs, enc.label[:, None], axis=1)[:, 0]
