"""What every fitted model of raters has in common: it gives the probability of each answer of a rater.

Juries and the baselines they are measured against are compared through this protocol only, so that no metric can treat
them differently. Knows nothing of how a model was fitted.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded, encoded_tables


__all__ = ["Predictor", "answer_log_lik", "n_answers", "n_possible_answers", "positions", "require_raters"]


@runtime_checkable
class Predictor(Protocol):
    """A fitted model of who answers what.

    Shapes: `N` judgements, `A` possible answers, `U` texts, `D` features.

    Example:
        >>> from reward_models import fit_item_mean, planted_judgements
        >>> enc = planted_judgements("rating", num_raters=4).judgements.encode()
        >>> frequencies = fit_item_mean(enc)
        >>> isinstance(frequencies, Predictor), frequencies.log_probs(enc).shape
        (True, (48, 3))
    """

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the log-probability of every possible answer; the labels of `enc` are ignored.

        What is not known of a rater is integrated out. Raters are matched by id; a rater that the model does not know
        is predicted as a random member of the population.

        Args:
            enc: `N` questions, each with its rater.
            features: (U, D) rows for `enc.texts`, for models on features; None for models that know their texts.

        Returns:
            (N, A) nats, `A` as `n_answers` returns it; -inf where an item has fewer options, and for ties if the model
            was fitted without ties.
        """
        ...

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> Predictor:
        """Return the same model with the raters of `enc` adapted from their labels; all other raters are forgotten.

        Args:
            enc: Labels of the raters to adapt.
            features: As for `log_probs`.
        """
        ...


def n_answers(enc: Encoded) -> int:
    """Return the number of possible answers: 3 for pairs (a, b, tie), the levels of a rating, the most options.

    Example:
        >>> from reward_models import planted_judgements
        >>> [n_answers(planted_judgements(kind).judgements.encode()) for kind in ("preference", "rating", "choice")]
        [3, 3, 3]
    """
    if enc.kind == "preference":
        return 3
    return len(enc.levels or ()) if enc.kind == "rating" else enc.alternatives.shape[1]


def n_possible_answers(enc: Encoded, shared: Container[str]) -> int:
    """Return the number of answers with a positive probability: `n_answers`, without the tie if there is no tie term.

    Args:
        enc: The judgements.
        shared: Names of the shared terms of the model.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference").judgements.encode()
        >>> n_possible_answers(enc, {"log_tie_mean": 0.0}), n_possible_answers(enc, {})
        (3, 2)
    """
    return 2 if enc.kind == "preference" and "log_tie_mean" not in shared else n_answers(enc)


def answer_log_lik(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Select the log-likelihood (N,) of the answers that were given, in nats.

    Args:
        log_probs: (N, A) as `Predictor.log_probs` returns them.
        enc: The judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> enc.label.tolist()  # 0 is a, 1 is b, 2 is a tie
        [0, 1, 0, 1]
        >>> np.exp(answer_log_lik(np.log([[0.5, 0.3, 0.2]] * 4), enc)).tolist()
        [0.5, 0.3, 0.5, 0.3]
    """
    return np.take_along_axis(log_probs, enc.label[:, None], axis=1)[:, 0]


def positions(names: Sequence[Hashable], known: Sequence[Hashable]) -> np.ndarray:
    """Return the (len(names),) position of each name in `known`, -1 where it is not there.

    Example:
        >>> positions(["bob", "eve"], ["ann", "bob"]).tolist()
        [1, -1]
    """
    number = {name: i for i, name in enumerate(known)}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)


def require_raters(enc: Encoded, purpose: str) -> None:
    """Raise if the table does not say who answered.

    Args:
        enc: The judgements.
        purpose: What the raters are needed for.

    Raises:
        NotEncodedError: Something else than `Encoded`.
        JuryError: A `soft` table.

    Example:
        >>> from reward_models import planted_judgements
        >>> require_raters(planted_judgements("choice").judgements.encode(), "shuffling raters")
    """
    (enc,) = encoded_tables(enc)
    if enc.kind == "soft":
        raise JuryError(
            f"kind='soft': a table of answer shares does not say who answered, and {purpose} needs raters. Fix: use "
            "judgements with rater_id"
        )
