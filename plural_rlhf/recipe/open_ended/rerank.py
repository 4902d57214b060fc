"""Choose among candidates of pi_0 so that what is chosen follows the target, without training.

For the pool by sampling-importance-resampling: candidate n is chosen with probability w_n ∝ exp(R(n) / beta), and with
many candidates what is chosen is a sample of pi_0 exp(R / beta) (Rubin 1987). For a welfare rule the best one by the
rule. Knows nothing of models.

Shapes: `N` candidates, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from plural_rlhf.core.rules import rule_or_pool
from plural_rlhf.core.targets import log_partition, pool_reward
from plural_rlhf.recipe.settings.sections import PluralSection


__all__ = ["RERANK_FILE", "choice_probabilities", "choose_candidate", "deal_candidates"]

RERANK_FILE = "rerank.json"
"""How texts are chosen among candidates, beside the copy of pi_0 that draws them."""


def choice_probabilities(
    rewards: np.ndarray, weights: Sequence[float] | np.ndarray, section: PluralSection
) -> np.ndarray:
    """Compute with which probability each of `N` candidates is chosen.

    Args:
        rewards: (..., N, K) of the candidates; the normalisers log Z_k of the pool are estimated from them.
        weights: (K,) whom the text is for.
        section: Rule, rho and beta of the target.

    Returns:
        (..., N); under a rule one for the best candidate and zero for the others.

    Example:
        >>> rewards = np.log([[8.0, 1.0], [1.0, 1.0], [1.0, 8.0]])
        >>> choice_probabilities(rewards, [1.0, 0.0], PluralSection()).round(1).tolist()
        [0.8, 0.1, 0.1]
        >>> choice_probabilities(rewards, [0.2, 0.8], PluralSection(rule="mean")).tolist()
        [0.0, 0.0, 1.0]
    """
    x = torch.from_numpy(np.asarray(rewards, dtype=np.float64))
    of = np.asarray(weights, dtype=np.float64).tolist()
    rule = rule_or_pool(section.rule)
    if rule is not None:
        return np.eye(x.shape[-2])[rule.scores(x, of).argmax(dim=-1).numpy()]
    log_pi_0 = torch.full(x.shape[:-1], -math.log(x.shape[-2]), dtype=torch.float64)
    log_z = log_partition(x, log_pi_0, section.beta).unsqueeze(-2)
    return (pool_reward(x, of, log_z, section.beta, section.rho) / section.beta).softmax(dim=-1).numpy()


def choose_candidate(
    rewards: np.ndarray, weights: Sequence[float] | np.ndarray, section: PluralSection, rng: np.random.Generator
) -> int:
    """Choose one of `N` candidates that pi_0 drew for a prompt.

    Args:
        rewards: (N, K) of the candidates; the normalisers log Z_k of the pool are estimated from them.
        weights: (K,) whom the text is for.
        section: Rule, rho and beta of the target.
        rng: Draws one number under the pool, none under a rule.

    Returns:
        Its place.

    Example:
        >>> rewards = np.log([[8.0, 1.0], [1.0, 1.0], [1.0, 8.0]])
        >>> choose_candidate(rewards, [0.2, 0.8], PluralSection(rule="mean"), np.random.default_rng(0))
        2
        >>> rng = np.random.default_rng(0)  # the first cluster wants the first candidate, eight to one to one
        >>> drawn = [choose_candidate(rewards, [1.0, 0.0], PluralSection(), rng) for _ in range(1000)]
        >>> (np.bincount(drawn) / 1000).round(1).tolist()
        [0.8, 0.1, 0.1]
    """
    probabilities = choice_probabilities(rewards, weights, section)
    if rule_or_pool(section.rule) is not None:
        return int(probabilities.argmax())
    return int(rng.choice(len(probabilities), p=probabilities / probabilities.sum()))


def deal_candidates(pool: int, candidates: int, times: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Deal candidates from a pool, again and again: every text of the pool once before one comes again.

    Where `pool` is at least `candidates * times` no text is dealt twice, and texts that are chosen so are independent.
    In a smaller pool a text is among the candidates of at most ceil(candidates * times / pool) choices, each of which
    has the right law by itself.

    Args:
        pool: Number of texts.
        candidates: How many are dealt at a time, at most `pool`.
        times: How often.
        rng: Source of the order.

    Yields:
        Places (candidates,) in the pool, no two alike.

    Example:
        >>> hands = list(deal_candidates(6, 2, 3, np.random.default_rng(0)))
        >>> sorted(np.concatenate(hands).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    deck = np.empty(0, dtype=int)
    for _ in range(times):
        hand, deck = deck[:candidates], deck[candidates:]
        if len(hand) < candidates:
            order = rng.permutation(pool)
            new = order[~np.isin(order, hand)][: candidates - len(hand)]
            hand, deck = np.concatenate([hand, new]), order[~np.isin(order, new)]
        yield hand
