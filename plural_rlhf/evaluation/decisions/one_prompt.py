"""Verdicts on one prompt under several weightings: what `verdicts` and `flips` share.

Validates tables of rewards and applies a rule to them. Knows nothing of intervals, random juries or counterfactuals.

Shapes: `N` responses to one prompt, `K` clusters, `S` weightings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from plural_rlhf.core.rules import Rule
from reward_models.errors import JuryError
from reward_models.weights import named_weights


__all__ = ["JuryWeights", "lotteries_under", "reward_table", "rewards_and_weights", "scores_under", "winners_of"]

JuryWeights = Mapping[str, float] | Sequence[float] | np.ndarray
"""A `Jury` or another mapping from cluster name to seats (with `cluster_names`), or `K` numbers in order."""


def reward_table(rewards: ArrayLike, cluster_names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """Validate rewards and name their columns.

    Args:
        rewards: One row per response and one column per cluster.
        cluster_names: `K` names; None: `"0"`, `"1"`, and so on.

    Raises:
        JuryError: If the rewards have another shape, or the names another number.

    Example:
        >>> reward_table([[2.0, -1.0]], None)
        (array([[ 2., -1.]]), ['0', '1'])
    """
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or not len(r):
        raise JuryError(f"rewards have shape {r.shape}: give one row per response and one column per cluster.")
    names = [str(k) for k in range(r.shape[1])] if cluster_names is None else list(cluster_names)
    if len(names) != r.shape[1]:
        raise JuryError(f"rewards have {r.shape[1]} columns, but there are {len(names)} clusters: {names}.")
    return r, names


def rewards_and_weights(
    rewards: ArrayLike, weights: JuryWeights, cluster_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Validate the rewards `(N, K)` of one prompt and weights `(K,)`; the third result are the names.

    Raises:
        JuryError: If rewards or weights cannot be used.

    Example:
        >>> rewards_and_weights([[2.0, -1.0]], {"rural": 5, "urban": 15}, ["urban", "rural"])[1]
        array([0.75, 0.25])
    """
    r, names = reward_table(rewards, cluster_names)
    return r, named_weights(weights, names), names


def lotteries_under(rewards: np.ndarray, weightings: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the verdict of a rule on one prompt under each weighting; a single response needs no rule.

    Args:
        rewards: `(N, K)`.
        weightings: `(S, K)`.
        rule: The rule.

    Returns:
        `(S, N)` probabilities.

    Example:
        >>> rewards = np.array([[2.0, -1.0], [0.5, 0.4]])
        >>> lotteries_under(rewards, np.array([[0.75, 0.25], [0.25, 0.75]]), Rule("mean"))
        array([[1., 0.],
               [0., 1.]])
    """
    if len(rewards) == 1:
        return np.ones((len(weightings), 1))
    return rule.lottery(*_batch(rewards, weightings)).numpy()


def scores_under(rewards: np.ndarray, weightings: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the scores of one prompt's responses under each weighting; arguments as for `lotteries_under`.

    Returns:
        `(S, N)`; NaN for a single response under a group rule.

    Example:
        >>> scores_under(np.array([[2.0, -1.0], [0.5, 0.4]]), np.array([[0.75, 0.25]]), Rule("mean"))
        array([[1.25 , 0.475]])
    """
    if len(rewards) == 1 and rule.within_group:
        return np.full((len(weightings), 1), np.nan)
    return rule.scores(*_batch(rewards, weightings)).numpy()


def winners_of(lotteries: np.ndarray) -> np.ndarray:
    """Return which responses are the most probable, `(..., N)`.

    Example:
        >>> winners_of(np.array([0.5, 0.5, 0.0]))
        array([ True,  True, False])
    """
    return lotteries >= lotteries.max(axis=-1, keepdims=True) - 1e-9


def _batch(rewards: np.ndarray, weightings: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rewards).expand(len(weightings), *rewards.shape), torch.from_numpy(weightings)
