"""The ways of selecting among candidates that are compared: one reward, the jury's mean, the jury for each audience.

Knows nothing of language models or files.

Shapes: `U` texts, `K` clusters of the jury, `J` clusters of the jury that says what a response is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reward_models.evaluation.candidates.best_of_n import COUNTS, BestOfN, best_of_n
from reward_models.evaluation.candidates.pools import audience_weights, pools_of
from reward_models.judgements.texts import Text


__all__ = ["ONE_REWARD", "select_by_jury"]

ONE_REWARD = "one reward"
ITSELF = "the jury itself (an upper bound)"


def select_by_jury(
    texts: Sequence[Text],
    rewards: np.ndarray,
    one: np.ndarray,
    names: Sequence[str],
    weights: np.ndarray,
    judge: tuple[np.ndarray, Sequence[str], np.ndarray] | None = None,
    counts: Sequence[int] = COUNTS,
) -> BestOfN:
    """Compare best-of-n by one reward, by a jury's mean, and by a jury for each audience.

    Args:
        texts: `U` texts; the responses of a prompt are its candidates.
        rewards: (U, K) rewards of the jury.
        one: (U, 1) one reward for everybody, e.g. of a jury of one cluster.
        names: `K` names.
        weights: (K,) weights of the jury's mean.
        judge: Rewards (U, J), names and prevalence of another jury, of other raters, that says what a response is
            worth. Its clusters are the audiences, for which the jury's weights are chosen on the other prompts
            (`pools.audience_weights`). None: the jury itself, which can only confirm itself.
        counts: Numbers of candidates.

    Returns:
        The curves; the base of all comparisons is `"one reward"`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> texts = [Text(f"{i}?", str(j)) for i in range(8) for j in range(30)]
        >>> common, apart = rng.normal(size=(2, len(texts), 1))
        >>> rewards = np.hstack([common + apart, common - apart])
        >>> curves = select_by_jury(texts, rewards, common, ["city", "country"], np.array([0.5, 0.5]))
        >>> curves.difference("jury, each cluster", 16, "country").outcome
        'better'
        >>> judge = (rewards + 0.3 * rng.normal(size=rewards.shape), ["a", "b"], np.array([0.5, 0.5]))
        >>> curves = select_by_jury(texts, rewards, common, ["city", "country"], np.array([0.5, 0.5]), judge)
        >>> curves.difference("jury, each audience", 16, "b").outcome
        'better'
    """
    mine = pools_of(texts, rewards)
    selections = {
        ONE_REWARD: [pool.rewards[:, 0] for pool in pools_of(texts, one)],
        "jury, mean": [pool.weighted(weights) for pool in mine],
    }
    if judge is None:
        selections["jury, each cluster"] = [pool.rewards for pool in mine]
        return best_of_n(selections, mine, names, weights, base=ONE_REWARD, judge=ITSELF, counts=counts)
    of_judge, judge_names, prevalence = judge
    worth = pools_of(texts, of_judge)
    audiences = audience_weights(mine, worth)
    selections["jury, each audience"] = [pool.rewards @ w for pool, w in zip(mine, audiences, strict=True)]
    name = "a held-out jury"
    return best_of_n(selections, worth, judge_names, prevalence, base=ONE_REWARD, judge=name, counts=counts)
