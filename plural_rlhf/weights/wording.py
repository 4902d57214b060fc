"""Describe weights in words, and put such a description into a prompt.

Training and inference must use the same words: a policy follows only the words that it was trained on. Knows nothing
of reward models or rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np


__all__ = ["POPULATION", "TRLPrompt", "describe_weights", "is_prevalence", "steer_prompt", "whole_parts"]


TRLPrompt = str | list[dict[str, Any]]
"""A prompt in TRL's form: text, or a conversation."""

POPULATION = "Answer as a member of the public."
"""The description of weights that equal the clusters' prevalence."""


_TOLERANCE = 0.005  # half a percentage point: two weightings closer than this read the same


def describe_weights(
    weights: Sequence[float] | np.ndarray,
    cluster_names: Sequence[str],
    prevalence: Sequence[float] | np.ndarray | None = None,
) -> str:
    """Describe weights in the words that condition a steerable policy, in training and in use.

    The percentages are whole numbers that sum to 100 (see `whole_parts`).

    Args:
        weights: `(K,)` on the simplex.
        cluster_names: The clusters, in order.
        prevalence: If given, weights equal to it (within half a percentage point) become `POPULATION`.

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
    """Return whether weights `(K,)` equal the clusters' prevalence, within half a percentage point each.

    Example:
        >>> is_prevalence([0.503, 0.497], [0.5, 0.5]), is_prevalence([0.6, 0.4], [0.5, 0.5])
        (True, False)
    """
    return bool(np.abs(np.asarray(weights) - np.asarray(prevalence)).max() < _TOLERANCE)


def whole_parts(weights: Sequence[float] | np.ndarray, parts: int = 100) -> np.ndarray:
    """Round weights to whole numbers of `parts` (percents by default) that sum to `parts`, each less than one off.

    The method of largest remainders: the parts left after rounding down go to the largest remainders, the first of
    equals first.

    Args:
        weights: `(..., K)`, on the simplex.
        parts: The sum of the result.

    Returns:
        `(..., K)` integers.

    Example:
        >>> whole_parts([1 / 3, 1 / 3, 1 / 3]).tolist()
        [34, 33, 33]
        >>> whole_parts([0.62, 0.38], parts=20).tolist()
        [12, 8]
    """
    # Rounded, so that 0.29 * 100 = 28.999999999999996 becomes 29, and equal remainders stay equal.
    exact = (np.asarray(weights, dtype=np.float64) * parts).round(9)
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort((whole - exact).round(9), axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1)
    return whole + (rank < parts - whole.sum(axis=-1, keepdims=True))


@overload
def steer_prompt(prompt: str, description: str) -> str: ...


@overload
def steer_prompt(prompt: list[dict[str, Any]], description: str) -> list[dict[str, Any]]: ...


def steer_prompt(prompt: TRLPrompt, description: str) -> TRLPrompt:
    """Put a description of the weights before a prompt: into the system message, or as first line of a plain prompt.

    Example:
        >>> steer_prompt([{"role": "user", "content": "Parks or roads?"}], "Answer as a member of the public.")[0]
        {'role': 'system', 'content': 'Answer as a member of the public.'}
    """
    if isinstance(prompt, str):
        return f"{description}\n{prompt}"
    if prompt and prompt[0]["role"] == "system":
        merged = {"role": "system", "content": f"{prompt[0]['content']}\n{description}"}
        return [merged, *prompt[1:]]
    return [{"role": "system", "content": description}, *prompt]
