"""Weights over clusters: read from what a user writes, drawn at random, and put into words for a prompt.

A weighting is a point on the simplex over the K clusters of a jury. It may be written as a name (`prevalence`,
`uniform`, one cluster's name), as a number or seats a cluster, or come from a data set column. This file knows nothing
of rewards, models or training steps; which weightings a training run asks for is in `weight_sampler`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from reward_models.errors import JuryError, did_you_mean


__all__ = [
    "POPULATION",
    "WeightSpec",
    "describe_weights",
    "is_prevalence",
    "parse_weights",
    "sample_weights",
    "steer_prompt",
    "whole_parts",
]

POPULATION = "Answer as a member of the public."
"""What a prompt says when the weights are the clusters' prevalence."""

WeightSpec = str | Mapping[str, float] | Sequence[float] | np.ndarray
"""`"prevalence"`, `"uniform"`, a cluster's name, `{cluster: number}` (seats or shares), or K numbers in the jury's
order."""

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

    Example:
        >>> parse_weights({"rural": 5, "urban": 15}, ["urban", "rural"], [0.5, 0.5]).tolist()
        [0.75, 0.25]
    """
    names = list(cluster_names)
    if isinstance(spec, str):
        if spec == "prevalence":
            return np.asarray(prevalence, dtype=np.float64)
        if spec == "uniform":
            return np.full(len(names), 1.0 / len(names))
        spec = {spec: 1.0}
    if isinstance(spec, Mapping):
        unknown = [name for name in spec if name not in names]
        if unknown:
            raise JuryError(
                f"the weights name {_quoted(unknown)}, which the jury does not have."
                f"{did_you_mean(str(unknown[0]), names)} Its clusters are {_quoted(names)}; 'prevalence' and "
                "'uniform' are understood too."
            )
        spec = [float(spec.get(name, 0.0)) for name in names]
    weights = np.asarray(spec, dtype=np.float64)
    if weights.shape != (len(names),):
        raise JuryError(
            f"the weights have shape {weights.shape}, but the jury has {len(names)} clusters ({_quoted(names)}): give "
            "one number a cluster, in this order, or a mapping from cluster name to number."
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise JuryError(
            f"the weights are {weights.tolist()}: every one must be a number of at least 0 (shares or seats)."
        )
    if weights.sum() <= 0:
        raise JuryError(
            "the weights are all zero, so nobody is on the jury: give at least one cluster a positive weight."
        )
    return weights / weights.sum()


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


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
