"""Weights over the clusters of a jury, read from what a user writes: every command and function reads them here.

Weights are a point on the simplex over the K clusters: numbers of at least 0 that sum to one. Knows nothing of rules,
rewards or prompts.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from reward_models.errors import JuryError, did_you_mean


__all__ = ["WeightSpec", "named_weights", "parse_weights", "weights_from_text"]

WeightSpec = str | Mapping[str, float] | Sequence[float] | np.ndarray
"""`"prevalence"`, `"uniform"`, a cluster's name, `"urban=7,rural=5"`, `{cluster: number}` (seats or shares), or K
numbers in the jury's order."""

WORDS = ("prevalence", "uniform")
TOLERANCE = 0.005  # shares are often written with two digits


def parse_weights(
    spec: WeightSpec, cluster_names: Sequence[str], prevalence: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the weights that `spec` means: `(K,)` float64, summing to one.

    Args:
        spec: See `WeightSpec`. Clusters that a mapping or a text does not name have weight 0.
        cluster_names: The jury's clusters, in order.
        prevalence: Their shares of the population.

    Raises:
        JuryError: An unknown cluster (the message lists the valid names), a text that cannot be read, a wrong number
            of weights, or weights that are negative, missing or all zero.

    Warns:
        UserWarning: Fractions that do not sum to one.

    Example:
        >>> parse_weights("urban=15, rural=5", ["rural", "urban"], [0.5, 0.5]).tolist()
        [0.25, 0.75]
        >>> parse_weights("prevalence", ["rural", "urban"], [0.4, 0.6]).tolist()
        [0.4, 0.6]
    """
    if isinstance(spec, str):
        if spec == "prevalence":
            return np.asarray(prevalence, dtype=np.float64)
        if spec == "uniform":
            return np.full(len(cluster_names), 1.0 / len(cluster_names))
        # A name that holds "=" is a name first.
        by_name = spec if spec in cluster_names else weights_from_text(spec)
        spec = {by_name: 1.0} if isinstance(by_name, str) else by_name
    return named_weights(spec, cluster_names, also=WORDS)


def weights_from_text(text: str) -> str | dict[str, float]:
    """Read weights as they are written in one cell or on the command line.

    Args:
        text: `name=share,...`, where a name may hold commas, or a name alone.

    Returns:
        The shares by name; the text itself if there is no `=` in it.

    Raises:
        JuryError: A part that is not `name=share`, a share that is not a number, or a name that occurs twice.

    Example:
        >>> weights_from_text("urban=7, rural=5"), weights_from_text("uniform")
        ({'urban': 7.0, 'rural': 5.0}, 'uniform')
    """
    if "=" not in text:
        return text
    shares: dict[str, float] = {}
    end = 0
    while (equals := text.find("=", end)) >= 0:
        # A cluster's name may hold commas and spaces, a number may not.
        comma = text.find(",", equals)
        stop = len(text) if comma < 0 else comma
        name, share = text[end:equals].strip(), text[equals + 1 : stop].strip()
        if not name or "=" in share:
            raise _unreadable(text, f"{_shown(text[end:stop].strip())} is not of the form name=share")
        if name in shares:
            raise _unreadable(text, f"{_shown(name)} occurs twice")
        try:
            shares[name] = float(share)
        except ValueError:
            raise _unreadable(text, f"the share of {_shown(name)} is {_shown(share)}, which is not a number") from None
        end = stop + 1
    if text[end:].strip():
        raise _unreadable(text, f"{_shown(text[end:].strip())} is not of the form name=share")
    return shares


def _unreadable(text: str, reason: str) -> JuryError:
    return JuryError(
        f"the weights {_shown(text)} cannot be read: {reason}. Write a number for each cluster, e.g. "
        '"urban=7,rural=5".'
    )


def named_weights(
    weights: Mapping[str, float] | Sequence[float] | np.ndarray,
    cluster_names: Sequence[str],
    *,
    also: Sequence[str] = (),
) -> np.ndarray:
    """Return the weights of all clusters: `(K,)` float64, summing to one.

    Args:
        weights: By cluster name, where a cluster that is not named has weight 0, or one per cluster in order: seats,
            counts or shares.
        cluster_names: The jury's clusters, in order.
        also: Words that the caller understands beside names, for the message.

    Raises:
        JuryError: An unknown cluster (the message lists the valid names), more or fewer weights than clusters,
            negative or missing weights, or none above 0.

    Warns:
        UserWarning: Fractions that do not sum to one; the message states the shares that are used.

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
        weights = [weights.get(name, 0.0) for name in names]
    try:
        w = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise JuryError(
            f"the weights {_shown(weights)} are not all numbers: give one number per cluster ({_quoted(names)})."
        ) from error
    if w.shape != (len(names),):
        number = f"{w.size} weight{'s' * (w.size != 1)}" if w.ndim == 1 else f"weights of shape {w.shape}"
        raise JuryError(
            f"{number} for {len(names)} clusters ({_quoted(names)}): give one number per cluster, in this order, or a "
            "mapping from cluster name to number."
        )
    if not np.isfinite(w).all() or (w < 0).any():
        raise JuryError(f"the weights are {w.tolist()}: every one must be a number of at least 0 (shares or seats).")
    with np.errstate(over="ignore"):
        total = float(w.sum())
    if not np.isfinite(total):  # the sum overflows, the shares do not
        w = w / w.max()
        total = float(w.sum())
    if total == 0:
        raise JuryError(
            "the weights are all zero, so nobody is on the jury: give at least one cluster a positive weight."
        )
    if abs(total - 1) > TOLERANCE and (w % 1 > 0).any() and (w <= 1).all():
        meaning = ", ".join(f"{name!r} {share:.3g}" for name, share in zip(names, w / total, strict=True))
        warnings.warn(
            f"the weights {w.tolist()} look like shares but sum to {total:.3g}; the shares used are {meaning}.",
            UserWarning,
            stacklevel=2,
        )
    return w / total


def _shown(value: object) -> str:
    """Return how a value is written in Python, cut to the length of a line."""
    written = repr(value[:200] if isinstance(value, str) else value)
    return written if len(written) <= 100 else f"{written[:99]}…"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
