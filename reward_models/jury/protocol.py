"""What scores completions per rater cluster: the one thing that the rest of the road asks of a jury.

Knows no language model: a table or a simulated population fits as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


__all__ = ["ClusterScorer"]


@runtime_checkable
class ClusterScorer(Protocol):
    """Anything that scores completions per rater cluster.

    Attributes:
        cluster_names: `K` unique names.
        prevalence: (K,) shares of the population, summing to one.
    """

    cluster_names: list[str]
    prevalence: np.ndarray

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score `N` completions: (N, K) float32 on the CPU, in logits."""
        ...
