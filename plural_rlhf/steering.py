"""Weights over clusters: read from what a user writes, drawn for training, and put into words for a prompt.

A weighting is a point on the simplex over the K clusters of a jury. It may be written as a name (`prevalence`,
`uniform`, one cluster's name), as a number or seats a cluster, or come from a data set column. This file knows nothing
of rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from reward_models.errors import JuryError, did_you_mean


__all__ = ["POPULATION", "WeightSpec", "describe_weights", "parse_weights", "sample_weights", "steer_prompt"]

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
    shares = np.asarray(weights, dtype=np.float64)
    if prevalence is not None and np.abs(shares - np.asarray(prevalence)).max() < _TOLERANCE:
        return POPULATION
    order = [k for k in np.argsort(-shares, kind="stable") if shares[k] >= _TOLERANCE]
    if len(order) == 1:
        return f"Answer as a member of this public: {cluster_names[order[0]]}."
    parts = ", ".join(f"{round(100 * float(shares[k]))}% {cluster_names[k]}" for k in order)
    return f"Answer as a member of this public: {parts}."


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
    """Draws weightings for the training of a steerable policy from Dirichlet(`concentration`·1), in whole percents.

    Rounded, because the policy only ever sees the percents that `describe_weights` writes.

    Returns:
        `(n, K)`, every row on the simplex.
    """
    k = len(prevalence)
    draws = rng.dirichlet(np.full(k, concentration), size=n)
    percents = np.floor(draws * 100)
    percents[np.arange(n), draws.argmax(axis=1)] += 100 - percents.sum(axis=1)
    return percents / 100


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
