"""Validation that several rooms of the mathematics share: temperatures, and samples on their way into averages.

Knows nothing of what the numbers are used for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reward_models.errors import JuryError


__all__ = ["check_beta", "checked_numbers", "checked_rows"]


def check_beta(beta: float) -> None:
    """Raise if a temperature is not positive and finite.

    Raises:
        ValueError: States the value.

    Example:
        >>> check_beta(0.0)
        Traceback (most recent call last):
        ValueError: beta: got 0; the temperature must be positive and finite: ...
    """
    if not 0 < beta < math.inf:
        raise ValueError(
            f"beta: got {beta:g}; the temperature must be positive and finite: 1.0 keeps Bradley-Terry odds as they "
            "are, smaller values sharpen"
        )


def checked_rows(name: str, key: str, values: Tensor, num_clusters: int) -> Tensor:
    """Validate the cluster values of samples, `(n, K)`, and return them as float64 on the CPU, detached.

    Args:
        name: What the values are, for messages.
        key: Prompt key of the samples, for messages.
        values: One row per sample.
        num_clusters: K.

    Raises:
        ValueError: If there is no sample.
        JuryError: If the values are not of K clusters, or one is NaN or infinite.

    Example:
        >>> checked_rows("rewards", "3f2a", torch.tensor([[1.0, torch.nan]]), num_clusters=2)
        Traceback (most recent call last):
        reward_models.errors.JuryError: rewards: sample 0 has nan for cluster 1 (prompt with key 3f2a), and ...
    """
    if values.ndim != 2 or values.shape[1] != num_clusters:
        raise JuryError(
            f"{name}: got shape {tuple(values.shape)}, but the tracker has {num_clusters} clusters: give one row per "
            "sample and one column per cluster"
        )
    _refuse_empty(name, len(values))
    values = values.detach().to("cpu", torch.float64)
    if not torch.isfinite(values).all():
        n, k = (~torch.isfinite(values)).nonzero()[0].tolist()
        raise JuryError(
            f"{name}: sample {n} has {values[n, k]:g} for cluster {k} (prompt with key {key}), and the offsets would "
            "keep it for ever: check the jury's scores of that prompt"
        )
    return values


def checked_numbers(name: str, key: str, values: Tensor) -> Tensor:
    """Validate one number per sample, `(n,)`, and return the numbers as float64 on the CPU, detached.

    Args:
        name: What the numbers are, for messages.
        key: Prompt key of the samples, for messages.
        values: `(n,)`, in nats.

    Raises:
        ValueError: If there is no sample.
        JuryError: If a number is NaN or infinite.

    Example:
        >>> checked_numbers("d", "3f2a", torch.tensor([0.5, -1.0])).tolist()
        [0.5, -1.0]
    """
    _refuse_empty(name, len(values))
    values = values.detach().to("cpu", torch.float64)
    if not torch.isfinite(values).all():
        n = int((~torch.isfinite(values)).nonzero()[0])
        raise JuryError(
            f"{name}: sample {n} has {values[n]:g} (prompt with key {key}): check its log-probabilities under policy "
            "and reference"
        )
    return values


def _refuse_empty(name: str, n: int) -> None:
    if n == 0:
        raise ValueError(f"{name}: got no sample; give at least one, or do not call for this prompt")
