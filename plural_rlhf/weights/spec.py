"""Weights over clusters: read from what a user writes, drawn at random, and put into words for a prompt.

A weighting is a point on the simplex over the K clusters of a jury. It may be written as a name (`prevalence`,
`uniform`, one cluster's name), as a number or seats a cluster, or come from a data set column. This file knows nothing
of rewards, models or training steps; which weightings a training run asks for is in `weight_sampler`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from reward_models.errors import JuryError
from reward_models.weights import named_weights


__all__ = [
    "POPULATION",
    "WeightSpec",
    "describe_weights",
    "is_prevalence",
    "parse_weights",
    "sample_weights",
    "steer_prompt",
    "weights_from_text",
    "whole_parts",
]

POPULATION = "Answer as a member of the public."
"""What a prompt says when the weights are the clusters' prevalence."""

WeightSpec = str | Mapping[str, float] | Sequence[float] | np.ndarray
"""`"prevalence"`, `"uniform"`, a cluster's name, `{cluster: number}` (seats or shares), or K numbers in the jury's
order."""

# A cluster's name may hold commas and spaces, a number may not.
_SHARE = re.compile(r"\s*([^=]+?)\s*=\s*([^,=]*?)\s*(?:,|$)")
_TOLERANCE = 0.005  # half a percentage point: two weightings closer than this read the same


def parse_weights(
    spec: WeightSpec, cluster_names: Sequence[str], prevalence: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Returns the weights that `spec` means, `(K,)`, summing to one.

    Args:
        spec: See `WeightSpec`. In a mapping, clusters left out weigh nothing.
        cluster_names: The jury's clusters, in order.
        prevalence: Their shares of the population.

    Raises:
        JuryError: An unknown cluster (the message lists the valid names), a wrong number of weights, negative, missing
            or all-zero weights.

    Warns:
        UserWarning: Fractions that do not sum to one.

    Example:
        >>> parse_weights({"rural": 5, "urban": 15}, ["urban", "rural"], [0.5, 0.5]).tolist()
        [0.75, 0.25]
    """
    if isinstance(spec, str):
        if spec == "prevalence":
            return np.asarray(prevalence, dtype=np.float64)
        if spec == "uniform":
            return np.full(len(cluster_names), 1.0 / len(cluster_names))
        spec = {spec: 1.0}
    return named_weights(spec, cluster_names, also=("prevalence", "uniform"))


def weights_from_text(text: str) -> str | dict[str, float]:
    """Weights as they are written in one cell or on the command line: `name=share,...`, or a name alone.

    Raises:
        JuryError: There is a `=`, but not of that form.

    Example:
        >>> weights_from_text("urban=7, rural=5"), weights_from_text("uniform")
        ({'urban': 7.0, 'rural': 5.0}, 'uniform')
    """
    if "=" not in text:
        return text
    try:
        shares = {name: float(share) for name, share in _SHARE.findall(text)}
    except ValueError:
        shares = {}
    if not shares or _SHARE.sub("", text).strip():
        raise JuryError(f'the weights {text!r} are not of the form name=share,... Write e.g. "urban=7,rural=5".')
    return shares


def describe_weights(
    weights: Sequence[float] | np.ndarray,
    cluster_names: Sequence[str],
    prevalence: Sequence[float] | np.ndarray | None = None,
) -> str:
    """Puts weights into the words that steer a conditional policy; the same words must be used in training and after.

    The percents are whole and always sum to 100 (see `whole_parts`).

    Args:
        weights: `(K,)` on the simplex.
        cluster_names: The jury's clusters, in order.
        prevalence: When given, weights equal to it (to half a percentage point) become `POPULATION`.

    Example:
        >>> describe_weights([0.25, 0.75], ["urban", "rural"])
        'Answer as a member of this public: 75% rural, 25% urban.'
        >>> describe_weights([0.0, 1.0], ["urban", "rural"])
        'Answer as a member of this public: rural.'
    """
    if prevalence is not None and is_prevalence(weights, prevalence):
        return POPULATION
    percents = whole_parts(weights)
    order = [k for k in np.argsort(-percents, kind="stable") if percents[k] > 0]
    if len(order) == 1:
        return f"Answer as a member of this public: {cluster_names[order[0]]}."
    parts = ", ".join(f"{percents[k]}% {cluster_names[k]}" for k in order)
    return f"Answer as a member of this public: {parts}."


def is_prevalence(weights: Sequence[float] | np.ndarray, prevalence: Sequence[float] | np.ndarray) -> bool:
    """Whether weights `(K,)` are the clusters' prevalence, to half a percentage point: then they read `POPULATION`."""
    return bool(np.abs(np.asarray(weights) - np.asarray(prevalence)).max() < _TOLERANCE)


def whole_parts(weights: Sequence[float] | np.ndarray, parts: int = 100) -> np.ndarray:
    """Rounds weights to whole numbers of `parts` (percents by default) that sum to `parts`, each less than one off.

    The method of largest remainders: what is left after rounding down goes to those who lost most by it, the first of
    equals first.

    Args:
        weights: `(..., K)`, on the simplex.
        parts: Of how many the weights are shares.

    Returns:
        `(..., K)` integers.

    Example:
        >>> whole_parts([1 / 3, 1 / 3, 1 / 3]).tolist()
        [34, 33, 33]
        >>> whole_parts([0.62, 0.38], parts=20).tolist()
        [12, 8]
    """
    # Rounded, lest 0.29 * 100 = 28.999999999999996 lose its last part, or equal remainders differ.
    exact = (np.asarray(weights, dtype=np.float64) * parts).round(9)
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort((whole - exact).round(9), axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1)
    return whole + (rank < parts - whole.sum(axis=-1, keepdims=True))


@overload
def steer_prompt(prompt: str, description: str) -> str: ...
@overload
def steer_prompt(prompt: list[dict[str, str]], description: str) -> list[dict[str, str]]: ...
def steer_prompt(prompt: str | list[dict[str, str]], description: str) -> str | list[dict[str, str]]:
    """Puts a description of the weights before a prompt: as the system message, or as first line of a plain prompt."""
    if isinstance(prompt, str):
        return f"{description}\n{prompt}"
    if prompt and prompt[0]["role"] == "system":
        merged = {"role": "system", "content": f"{prompt[0]['content']}\n{description}"}
        return [merged, *prompt[1:]]
    return [{"role": "system", "content": description}, *prompt]


def sample_weights(
    n: int, prevalence: Sequence[float] | np.ndarray, rng: np.random.Generator, concentration: float = 1.0
) -> np.ndarray:
    """Draws weightings from Dirichlet(`concentration`·1), in whole percents.

    Rounded, because the policy only ever sees the percents that `describe_weights` writes.

    Returns:
        `(n, K)`, every row on the simplex.
    """
    return whole_parts(rng.dirichlet(np.full(len(prevalence), concentration), size=n)) / 100
