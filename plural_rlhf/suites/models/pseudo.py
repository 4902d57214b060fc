"""Pseudo-models that mark the ends of every scale: gold, uniform, marginal and mode.

`gold` answers as the people do, `uniform` puts the same probability on every option, `marginal` answers as people do
on other items, `mode` always gives the most frequent answer. Knows no task: the shares come with each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, OptionRequest
from reward_models.errors import did_you_mean
from reward_models.stats.answers import normalise


__all__ = ["PSEUDO_MODELS", "PseudoModel"]


def _people(request: OptionRequest) -> np.ndarray:
    if request.people is None:
        raise NotSupported("this task knows no shares of people, which the pseudo-models gold and mode answer with")
    return normalise(request.people)


def _uniform(request: OptionRequest) -> np.ndarray:
    return np.full(len(request.options), 1 / len(request.options))


def _marginal(request: OptionRequest) -> np.ndarray:
    if request.marginal is None:
        raise NotSupported("this task has no marginal: its items do not share their options")
    return normalise(request.marginal)


def _mode(request: OptionRequest) -> np.ndarray:
    return np.eye(len(request.options))[_people(request).argmax()]


PSEUDO_MODELS: dict[str, Callable[[OptionRequest], np.ndarray]] = {
    "gold": _people,
    "uniform": _uniform,
    "marginal": _marginal,
    "mode": _mode,
}
"""Shares `(A,)` of a request, by name of the pseudo-model."""


class PseudoModel(EvaluatedModel):
    """A model that answers by what is known of the people, to mark a scale.

    Args:
        name: One of `PSEUDO_MODELS`.

    Raises:
        ValueError: Unknown name.

    Example:
        >>> request = OptionRequest("Parks or roads?", ("parks", "roads"), people=np.array([3, 1]))
        >>> [np.exp(PseudoModel(name).option_log_probs([request])[0]).tolist() for name in ("gold", "mode")]
        [[0.75, 0.25], [1.0, 0.0]]
    """

    kind = "pseudo"

    def __init__(self, name: str) -> None:
        if name not in PSEUDO_MODELS:
            raise ValueError(
                f"{name!r} is no pseudo-model.{did_you_mean(name, PSEUDO_MODELS)} Fix: one of "
                f"{', '.join(PSEUDO_MODELS)}"
            )
        self.name = name
        self.identity = f"pseudo-{name}"

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the logarithm of the shares."""
        with np.errstate(divide="ignore"):
            return [np.log(PSEUDO_MODELS[self.name](request)) for request in requests]
