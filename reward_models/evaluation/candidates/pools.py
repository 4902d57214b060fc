"""Candidate responses by prompt, scored by a jury, and whose cluster is whose in two juries.

Knows nothing of how candidates are chosen.

Shapes: `M` candidates of a prompt, `K` clusters, `J` clusters of another jury.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from reward_models.errors import JuryError
from reward_models.judgements.texts import Prompt, Text


__all__ = ["Pool", "audience_weights", "matched_clusters", "pools_of"]


@dataclass(frozen=True)
class Pool:
    """The candidate responses to one prompt, and how a jury scores them.

    Attributes:
        prompt: The prompt.
        responses: `M` different responses.
        rewards: (M, K) rewards, in logits.

    Example:
        >>> pool = Pool("Pet?", ["cat", "dog"], np.array([[1.0, -1.0], [0.0, 2.0]]))
        >>> pool.weighted(np.array([0.75, 0.25])).tolist()
        [0.5, 0.5]
    """

    prompt: Prompt
    responses: list[str]
    rewards: np.ndarray

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return (M,) mean rewards under weights (K,) of the clusters."""
        return self.rewards @ weights


def pools_of(texts: Sequence[Text], rewards: np.ndarray, least: int = 2) -> list[Pool]:
    """Sort scored texts by their prompt.

    Args:
        texts: `U` texts, each once.
        rewards: (U, K) their rewards.
        least: Fewest responses of a prompt that is kept.

    Returns:
        A pool per prompt with enough responses, in the order in which prompts occur.

    Raises:
        JuryError: No prompt has enough responses.

    Example:
        >>> texts = [Text("Pet?", "cat"), Text("Tea?", "yes"), Text("Pet?", "dog")]
        >>> [pool] = pools_of(texts, np.array([[1.0], [2.0], [3.0]]))
        >>> pool.responses, pool.rewards[:, 0].tolist()
        (['cat', 'dog'], [1.0, 3.0])
    """
    rows: dict[Prompt, list[int]] = {}
    for i, text in enumerate(texts):
        rows.setdefault(text.prompt, []).append(i)
    pools = [Pool(p, [texts[i].response for i in at], rewards[at]) for p, at in rows.items() if len(at) >= least]
    if not pools:
        raise JuryError(
            f"none of {len(rows)} prompts has {least} different responses, so there is nothing to choose among. Fix: "
            "give a table in which prompts have several responses"
        )
    return pools


def matched_clusters(pools: Sequence[Pool], others: Sequence[Pool]) -> list[np.ndarray]:
    """Say which cluster of a jury corresponds to each cluster of another jury, prompt by prompt.

    The counterpart of a cluster is the one whose rewards correlate most with its own. For each prompt this is asked of
    all *other* prompts, so that a match by chance does not make the jury look better on the prompt where it occurred;
    with a single prompt there is nothing else to ask.

    Args:
        pools: Candidates, scored by a jury of `K` clusters.
        others: The same candidates, scored by another jury of `J` clusters.

    Returns:
        For each prompt, (J,) the cluster of the first jury that corresponds to each cluster of the other.

    Raises:
        JuryError: The pools do not have the same candidates.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pools = [Pool(f"{i}?", list("abcdef"), rng.normal(size=(6, 2))) for i in range(3)]
        >>> turned = [Pool(p.prompt, p.responses, p.rewards[:, ::-1]) for p in pools]
        >>> [match.tolist() for match in matched_clusters(pools, turned)]
        [[1, 0], [1, 0], [1, 0]]
    """
    moments = _moments(pools, others)
    matches = []
    for rest in _others(len(pools)):
        mine, both, its = (np.sum([part[j] for j in rest], axis=0) for part in moments)
        scale = np.sqrt(np.outer(np.diag(mine), np.diag(its)))
        matches.append((both / np.where(scale > 0, scale, 1.0)).argmax(0))
    return matches


def audience_weights(pools: Sequence[Pool], others: Sequence[Pool]) -> list[np.ndarray]:
    """Choose weights under which a jury speaks for each cluster of another jury, prompt by prompt.

    The weights are those of the non-negative combination of the jury's rewards that is closest to the rewards of the
    other jury's cluster (least squares within prompts) on all *other* prompts. Estimated clusters are seldom one to
    one: where a jury knows little of a small cluster, the weights fall back to what all clusters share.

    Args:
        pools: Candidates, scored by a jury of `K` clusters.
        others: The same candidates, scored by another jury of `J` clusters.

    Returns:
        For each prompt, (K, J) weights; each column sums to one.

    Raises:
        JuryError: The pools do not have the same candidates.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pools = [Pool(f"{i}?", list("abcdef"), rng.normal(size=(6, 2))) for i in range(3)]
        >>> mixed = [Pool(p.prompt, p.responses, p.rewards @ [[0.0, 1.5], [1.0, 0.5]]) for p in pools]
        >>> audience_weights(pools, mixed)[0].round(2).tolist()
        [[0.0, 0.75], [1.0, 0.25]]
    """
    mine, both, _ = _moments(pools, others)
    weights = []
    for rest in _others(len(pools)):
        normal, right = (np.sum([part[j] for j in rest], axis=0) for part in (mine, both))
        root = np.linalg.cholesky(normal + 1e-9 * np.trace(normal) * np.eye(len(normal)) + 1e-12 * np.eye(len(normal)))
        columns = np.stack([nnls(root.T, np.linalg.solve(root, column))[0] for column in right.T], axis=1)
        total = columns.sum(0)
        weights.append(np.where(total > 0, columns / np.where(total > 0, total, 1.0), 1 / len(columns)))
    return weights


def _others(count: int) -> list[list[int]]:
    """For each prompt, the other ones; for a single prompt itself."""
    return [[j for j in range(count) if j != i] or [i] for i in range(count)]


def _moments(pools: Sequence[Pool], others: Sequence[Pool]) -> tuple[list[np.ndarray], ...]:
    """Sums of products of rewards within prompts: (K, K) of the jury, (K, J) of both, (J, J) of the other."""
    moments: tuple[list[np.ndarray], ...] = ([], [], [])
    for pool, other in zip(pools, others, strict=True):
        if (pool.prompt, pool.responses) != (other.prompt, other.responses):
            raise JuryError(
                f"the candidates of the prompt {pool.prompt!r} are not those that the other jury scored. Fix: score "
                "the same texts with both juries"
            )
        mine, its = (p.rewards - p.rewards.mean(0) for p in (pool, other))
        for part, product in zip(moments, (mine.T @ mine, mine.T @ its, its.T @ its), strict=True):
            part.append(product)
    return moments
