"""What scores completions per rater cluster: all that aggregation, targets and policies ask of a jury reward model.

Knows no language model: a table or a simulated population fits as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from reward_models.errors import JuryError


__all__ = ["ClusterScorer", "check_lengths", "scorable_text"]

NOTHING = "."
"""What stands for a text without words, which juries that read texts alone refuse; it is judged as such a text."""


@runtime_checkable
class ClusterScorer(Protocol):
    """Anything that scores completions per rater cluster.

    Attributes:
        cluster_names: `K` unique names.
        prevalence: (K,) shares of the population, summing to one.

    Example:
        A table of rewards is a scorer:

        >>> class Table:
        ...     cluster_names, prevalence = ["urban", "rural"], np.array([0.7, 0.3])
        ...     rewards = {"Plant trees.": [1.0, 0.5], "Build the bypass.": [-1.0, 2.0]}
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([self.rewards[completion] for completion in completions])
        >>> isinstance(Table(), ClusterScorer)
        True
        >>> Table().cluster_rewards(["What now?"] * 2, ["Plant trees.", "Build the bypass."])
        tensor([[ 1.0000,  0.5000],
                [-1.0000,  2.0000]])
    """

    cluster_names: list[str]
    prevalence: np.ndarray

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Score `N` completions: (N, K) float32 on the CPU, in logits."""
        ...


def check_lengths(prompts: Sequence[Any], completions: Sequence[Any]) -> None:
    """Raise unless prompts and completions are two lists of equal length.

    Raises:
        JuryError: One of them is a single string, or their lengths differ.

    Example:
        >>> check_lengths(["Why?", "Who?"], ["Because."])
        Traceback (most recent call last):
        reward_models.errors.JuryError: 2 prompts and 1 completions: give two lists of equal length.
    """
    if isinstance(prompts, str) or isinstance(completions, str) or len(prompts) != len(completions):
        raise JuryError(
            f"{_count(prompts, 'prompts')} and {_count(completions, 'completions')}: give two lists of equal length."
        )


def _count(values: Sequence[Any], noun: str) -> str:
    return f"a single string as {noun}" if isinstance(values, str) else f"{len(values)} {noun}"


def scorable_text(text: str) -> str:
    """Return a text as scorers read it: a dot in place of one without words, as a policy writes that ends at once.

    Example:
        >>> scorable_text("Parks."), scorable_text(" ")
        ('Parks.', '.')
    """
    return text if text.strip() else NOTHING
