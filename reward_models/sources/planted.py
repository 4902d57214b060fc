"""Judgements drawn from rater clusters whose rewards are known: for examples, tests and planning a study.

Every rater belongs to one cluster and judges with that cluster's rewards of the texts. Knows nothing of fitting.

Shapes: `R` raters, `I` items, `U` texts, `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text


__all__ = ["PlantedJudgements", "planted_judgements"]

PLANTED_KINDS = ("preference", "rating", "choice")
_LEVELS = (-1.0, 0.0, 1.0)
_THRESHOLDS = np.array([-0.7, 0.7])
# Draws that use the same seed elsewhere, e.g. a user's own simulation, must not share our stream.
_SALT = 0x706C616E


@dataclass(frozen=True)
class PlantedJudgements:
    """A table with the truth behind it.

    Attributes:
        judgements: The table; raters are `r0`, `r1`, ...
        cluster: (R,) cluster of each rater.
        texts: `U` texts, prompt by prompt.
        rewards: (U, K) reward of each text in each cluster, logits.

    Example:
        >>> planted = planted_judgements("choice", num_raters=10, num_items=3)
        >>> planted.cluster.tolist()
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """

    judgements: Judgements
    cluster: np.ndarray
    texts: list[Text]
    rewards: np.ndarray


def planted_judgements(
    kind: str = "preference",
    *,
    num_raters: int = 30,
    num_items: int = 12,
    num_options: int = 3,
    num_clusters: int = 2,
    strength: float = 2.0,
    seed: int = 0,
) -> PlantedJudgements:
    """Draw a table in which every rater judges every item with the rewards of one cluster.

    Rewards are independent normal draws per text and cluster. Pairs and choices are drawn from the softmax over the
    texts of an item; ratings are votes -1, 0, 1 from ordered logits with thresholds at -0.7 and 0.7.

    Args:
        kind: `"preference"` (each item is a prompt with two responses), `"rating"` (a prompt with one response) or
            `"choice"` (a question with `num_options` options).
        num_raters: R; rater `u` belongs to cluster `u mod K`.
        num_items: I, each judged by everybody.
        num_options: Options of an item of a `choice` table.
        num_clusters: K.
        strength: Standard deviation of the rewards, logits.
        seed: Random seed.

    Returns:
        The table and the truth behind it.

    Raises:
        JudgementError: An unknown kind.

    Example:
        >>> planted = planted_judgements("rating", num_raters=4, num_items=5)
        >>> planted.judgements.kind, len(planted.judgements), planted.rewards.shape
        ('rating', 20, (5, 2))
    """
    if kind not in PLANTED_KINDS:
        valid = ", ".join(PLANTED_KINDS)
        raise JudgementError(f"kind={kind!r} cannot be planted; use {valid}.{did_you_mean(kind, PLANTED_KINDS)}")
    rng = np.random.default_rng([_SALT, seed])
    per_item = {"preference": 2, "rating": 1, "choice": num_options}[kind]
    prompts = [f"Question {i + 1}?" for i in range(num_items)]
    letters = [f"answer {chr(ord('A') + j)}" for j in range(per_item)]
    texts = [Text(prompt, letter) for prompt in prompts for letter in letters]
    rewards = rng.normal(scale=strength, size=(len(texts), num_clusters))
    cluster = np.arange(num_raters) % num_clusters
    rater, item = np.divmod(np.arange(num_raters * num_items), num_items)
    utility = rewards.T.reshape(num_clusters, num_items, per_item)[cluster[rater], item]  # (R * I, per_item)
    columns = {"rater_id": [f"r{u}" for u in rater], "prompt": [prompts[i] for i in item]}
    if kind == "rating":
        drawn = utility + rng.logistic(size=utility.shape)
        frame = pd.DataFrame(
            {**columns, "response": letters[0], "rating": np.take(_LEVELS, (drawn > _THRESHOLDS).sum(1))}
        )
        return PlantedJudgements(Judgements.from_frame(frame, kind, _LEVELS), cluster, texts, rewards)
    chosen = (utility + rng.gumbel(size=utility.shape)).argmax(1)
    if kind == "preference":
        pair = {"response_a": letters[0], "response_b": letters[1], "choice": np.take(["a", "b"], chosen)}
        return PlantedJudgements(Judgements.from_frame(pd.DataFrame({**columns, **pair})), cluster, texts, rewards)
    frame = pd.DataFrame({**columns, "choice": chosen})
    frame["options"] = [letters] * len(frame)
    return PlantedJudgements(Judgements.from_frame(frame, kind), cluster, texts, rewards)
