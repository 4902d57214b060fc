"""Weights over clusters, read from what a user writes.

A weighting is a point on the simplex over the K clusters of a jury. It may be written as a name (`prevalence`,
`uniform`, one cluster's name), as a number or seats per cluster, or come from a data set column. Knows nothing of
prompts (`wording`), random draws (`sampler`), rewards or models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from reward_models.errors import JuryError
from reward_models.weights import named_weights


__all__ = [
    "WeightSpec",
    "parse_weights",
    "weights_from_text",
]


WeightSpec = str | Mapping[str, float] | Sequence[float] | np.ndarray
"""`"prevalence"`, `"uniform"`, a cluster's name, `{cluster: number}` (seats or shares), or K numbers in the jury's
order."""

# A cluster's name may hold commas and spaces, a number may not.
_SHARE = re.compile(r"\s*([^=]+?)\s*=\s*([^,=]*?)\s*(?:,|$)")


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
