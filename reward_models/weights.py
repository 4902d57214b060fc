"""Weights over the clusters of a jury: read from what a user writes, by name or in order.

Knows nothing of rules, rewards or prompts.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from reward_models.errors import JuryError, did_you_mean


__all__ = ["named_weights"]

TOLERANCE = 0.005  # shares are often written with two digits


def named_weights(
    weights: Mapping[str, float] | Sequence[float] | np.ndarray,
    cluster_names: Sequence[str],
    *,
    also: Sequence[str] = (),
) -> np.ndarray:
    """The weights of all clusters, `(K,)` float64, summing to one.

    Args:
        weights: By cluster name, where clusters left out weigh nothing, or one per cluster in order: seats, counts or
            shares.
        cluster_names: The jury's clusters, in order.
        also: Words that the caller understands beside names, for the message.

    Raises:
        JuryError: An unknown cluster (the message lists the valid names), more or fewer weights than clusters,
            negative or missing weights, or none above 0.

    Warns:
        UserWarning: Fractions that do not sum to one, and what they are taken for.

    Example:
        >>> named_weights({"rural": 5, "urban": 15}, ["urban", "rural"]).tolist()
        [0.75, 0.25]
    """
    names = list(cluster_names)
    if isinstance(weights, Mapping):
        unknown = [name for name in weights if name not in names]
        if unknown:
            words = f" {_quoted(also)} are understood too." if also else ""
            raise JuryError(
                f"the weights name {_quoted(unknown)}, and there is no such cluster."
                f"{did_you_mean(str(unknown[0]), names)} The clusters are {_quoted(names)}.{words}"
            )
        weights = [float(weights.get(name, 0.0)) for name in names]
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (len(names),):
        given = f"{w.size} weight{'s' * (w.size != 1)}" if w.ndim == 1 else f"weights of shape {w.shape}"
        raise JuryError(
            f"{given} for {len(names)} clusters ({_quoted(names)}): give one number a cluster, in this order, or a "
            "mapping from cluster name to number."
        )
    if not np.isfinite(w).all() or (w < 0).any():
        raise JuryError(f"the weights are {w.tolist()}: every one must be a number of at least 0 (shares or seats).")
    total = float(w.sum())
    if total == 0:
        raise JuryError(
            "the weights are all zero, so nobody is on the jury: give at least one cluster a positive weight."
        )
    if abs(total - 1) > TOLERANCE and (w % 1 > 0).any() and (w <= 1).all():
        taken = ", ".join(f"{name!r} {share:.3g}" for name, share in zip(names, w / total, strict=True))
        warnings.warn(
            f"the weights {w.tolist()} look like shares but sum to {total:.3g}; they are taken as {taken}.",
            UserWarning,
            stacklevel=2,
        )
    return w / total


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
