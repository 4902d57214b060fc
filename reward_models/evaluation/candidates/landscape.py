"""Is the landscape of rewards multimodal on a prompt, or would one answer please everybody?

A jury, steering and distributions are worth their trouble only on prompts where clusters want different answers. For
each prompt, among its candidate responses:

- the *compromise* is the response whose worst regret over clusters is smallest, and that regret says what one answer
  for everybody costs the cluster that it suits least;
- a response is *near-best* for a cluster if the cluster would prefer its favourite to it in at most 60 of 100
  comparisons (`margin`, in logits); near-best responses that say the same in other words count as one: the number is
  that of effectively different responses (Leinster and Cobbold 2012, order 1), with the share of common words as
  similarity;
- one answer pleases everybody if the compromise is near-best for every cluster.

Rewards are estimates. Where their variance is known, favourites are also compared between draws of the *same* cluster:
clusters' favourites differ beyond noise by how much more often they differ than these do.

Knows nothing of language models or files.

Shapes: `P` prompts, `M` candidates of a prompt, `K` clusters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models.errors import JuryError
from reward_models.evaluation.candidates.pools import Pool
from reward_models.evaluation.sheets import Sheet, interval_text
from reward_models.seeds import seeded_rng
from reward_models.stats.means import UnitMean


__all__ = ["NEAR_BEST", "Landscape", "PromptLandscape", "effective_responses", "landscape", "shared_words"]

NEAR_BEST = math.log(0.6 / 0.4)
"""Margin in logits: a near-best response loses to the best one in at most 60 of 100 comparisons."""
DRAWS = 200
Similarity = Callable[[Sequence[str]], np.ndarray]


def shared_words(responses: Sequence[str]) -> np.ndarray:
    """Compute (M, M) the share of words that two responses have in common (Jaccard); 1 on the diagonal.

    Example:
        >>> shared_words(["Plant more trees.", "plant trees", "No."]).round(2).tolist()
        [[1.0, 0.67, 0.0], [0.67, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    sets = [set(re.findall(r"\w+", response.lower())) for response in responses]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(word for words in sets for word in sorted(words)))}
    has = np.zeros((len(sets), len(vocabulary)))
    for row, words in zip(has, sets, strict=True):
        row[[vocabulary[word] for word in words]] = 1.0
    both = has @ has.T
    either = has.sum(1)[:, None] + has.sum(1)[None] - both
    return np.where(np.eye(len(sets), dtype=bool), 1.0, both / np.where(either > 0, either, 1.0))


def effective_responses(near_best: np.ndarray, similarity: np.ndarray) -> float:
    """Compute the effective number of different responses among those that are near-best, each counted alike.

    Args:
        near_best: (M,) mask.
        similarity: (M, M) between 0 and 1.

    Returns:
        `exp(-sum_i p_i log (Z p)_i)` with `p` uniform over the near-best and `Z` the similarity: their number if they
        have nothing in common, 1 if they are the same.

    Example:
        >>> effective_responses(np.array([True, True, False]), np.eye(3)).round(2)
        np.float64(2.0)
        >>> effective_responses(np.array([True, True, False]), np.ones((3, 3))).round(2)
        np.float64(1.0)
    """
    z = similarity[np.ix_(near_best, near_best)]
    return np.exp(-np.log(z.mean(1)).mean())


@dataclass(frozen=True)
class PromptLandscape:
    """What one prompt's candidates are to each cluster; `landscape` computes it.

    Attributes:
        pool: The candidates.
        favourites: (K,) index of each cluster's best response.
        favourite_of_mean: Index of the best response under the mean.
        compromise: Index of the response with the smallest worst regret.
        regrets: (K,) what the compromise costs each cluster, in logits.
        regrets_of_mean: (K,) the same of the best response under the mean.
        near_best: (K,) effective number of different near-best responses for each cluster.
        near_best_of_mean: The same for the mean.
        differ: Whether the clusters' favourites are not one response; between 0 and 1 where rewards are drawn.
        same_differ: How often two draws of one cluster have different favourites; 0 if rewards are taken as exact.

    Example:
        >>> pool = Pool("Pet?", ["cat", "dog", "fish"], np.array([[2.0, 0.0], [0.0, 2.0], [1.7, 1.7]]))
        >>> prompt = landscape([pool], np.array([0.5, 0.5])).prompts[0]
        >>> pool.responses[prompt.compromise], prompt.regrets.round(1).tolist(), prompt.one_answer()
        ('fish', [0.3, 0.3], True)
    """

    pool: Pool
    favourites: np.ndarray
    favourite_of_mean: int
    compromise: int
    regrets: np.ndarray
    regrets_of_mean: np.ndarray
    near_best: np.ndarray
    near_best_of_mean: float
    differ: float
    same_differ: float

    def one_answer(self, margin: float = NEAR_BEST) -> bool:
        """Return whether the compromise is near-best for every cluster."""
        return bool(self.regrets.max() <= margin)


@dataclass(frozen=True)
class Landscape:
    """The landscapes of several prompts; `landscape` computes it.

    Attributes:
        prompts: One per prompt.
        names: `K` names of the clusters.
        margin: Largest regret, in logits, of a near-best response.
        noisy: Whether favourites were also compared between draws of one cluster.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> taste = [rng.normal(size=(30, 1)) for _ in range(8)]
        >>> opposed = [Pool(f"{i}?", [str(j) for j in range(30)], t * [1, -1]) for i, t in enumerate(taste)]
        >>> found = landscape(opposed, np.array([0.5, 0.5]), names=["city", "country"])
        >>> print(found.verdict())
        On 0 of 8 prompts one answer is near-best for every cluster; clusters' favourites differ on 8.
    """

    prompts: list[PromptLandscape]
    names: Sequence[str]
    margin: float
    noisy: bool

    def means(self) -> dict[str, tuple[UnitMean, str, str]]:
        """Return each measure as a mean over prompts, with its unit and the direction that is better."""
        prompts = self.prompts
        near = {f"near_best_responses[{name}]": [p.near_best[k] for p in prompts] for k, name in enumerate(self.names)}
        near["near_best_responses[mean]"] = [p.near_best_of_mean for p in prompts]
        out = {
            "one_answer_share": (
                UnitMean.of([float(p.one_answer(self.margin)) for p in prompts], share=True),
                "share",
                "context",
            ),
            "compromise_worst_regret": (UnitMean.of([p.regrets.max() for p in prompts]), "logits", "lower"),
            "favourite_of_mean_worst_regret": (
                UnitMean.of([p.regrets_of_mean.max() for p in prompts]),
                "logits",
                "lower",
            ),
            "favourites_differ": (UnitMean.of([p.differ for p in prompts], share=True), "share", "context"),
        }
        if self.noisy:
            out["favourites_differ_by_noise"] = (
                UnitMean.of([p.same_differ for p in prompts], share=True),
                "share",
                "context",
            )
            beyond = UnitMean.of([p.differ - p.same_differ for p in prompts])
            out["favourites_differ_beyond_noise"] = (beyond, "share", "context")
        return out | {name: (UnitMean.of(values), "responses", "context") for name, values in near.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return flat rows of `results.json`."""
        return [
            mean.row("landscape", "jury", name, unit, direction, "prompts")
            for name, (mean, unit, direction) in self.means().items()
        ]

    def sheets(self) -> list[Sheet | str]:
        """Return the measures, and the most divided prompts, as tables."""
        lines = [[name, unit, interval_text(row, 2, sign=False)] for name, unit, row in self._lines()]
        divided = sorted(self.prompts, key=lambda p: -p.regrets.max())[:5]
        worst = [
            [
                _short(p.pool.prompt),
                f"{p.regrets.max():.2f}",
                _short(p.pool.responses[p.compromise]),
                *(_short(p.pool.responses[i]) for i in p.favourites),
            ]
            for p in divided
        ]
        return [
            Sheet("Landscape of rewards", ["measure", "unit", "mean over prompts, 95 % interval"], lines, words=2),
            Sheet(
                "Prompts on which one answer costs most",
                ["prompt", "worst regret", "compromise", *(f"favourite of {name}" for name in self.names)],
                worst,
                "worst regret: logits that the compromise costs the cluster that it suits least.",
                words=3 + len(self.names),
            ),
            self.verdict(),
        ]

    def _lines(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(row["metric"].replace("_", " "), row["unit"], row) for row in self.rows()]

    def verdict(self) -> str:
        """Say on how many prompts one answer would do."""
        one = sum(p.one_answer(self.margin) for p in self.prompts)
        differ = sum(p.differ for p in self.prompts)
        sentence = (
            f"On {one} of {len(self.prompts)} prompts one answer is near-best for every cluster; clusters' favourites "
            f"differ on {differ:.0f}"
        )
        if self.noisy:
            noise = sum(p.same_differ for p in self.prompts)
            return f"{sentence}, and those of one cluster with itself, by noise of the rewards, on {noise:.0f}."
        return f"{sentence}."


def landscape(
    pools: Sequence[Pool],
    weights: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    variance: Sequence[np.ndarray] | None = None,
    margin: float = NEAR_BEST,
    similarity: Similarity = shared_words,
    seed: int = 0,
) -> Landscape:
    """Measure for each prompt what one answer for everybody would cost.

    Args:
        pools: Candidates by prompt, with the rewards (M, K) of each cluster in logits.
        weights: (K,) weights of the mean.
        names: `K` names of the clusters; numbers if None.
        variance: For each prompt (M, K) variance of the rewards, independent between responses; None: taken as exact.
        margin: Largest regret of a near-best response, in logits.
        similarity: Maps responses to their similarities (M, M) between 0 and 1.
        seed: Random seed of the draws of uncertain rewards.

    Raises:
        JuryError: Weights, names or variances of another shape.

    Example:
        >>> pool = Pool("Pet?", ["cat", "dog"], np.array([[1.0, 0.9], [0.0, 1.0]]))
        >>> landscape([pool], np.array([0.5, 0.5])).prompts[0].one_answer()  # the second prefers dogs, but hardly
        True
    """
    clusters = pools[0].rewards.shape[1]
    if weights.shape != (clusters,) or (names is not None and len(names) != clusters):
        named = "" if names is None else f", {len(names)} names"
        raise JuryError(
            f"{clusters} clusters, weights of shape {weights.shape}{named}. Fix: one weight and one name per cluster"
        )
    shapes = [pool.rewards.shape for pool in pools]
    spreads = shapes if variance is None else [np.shape(spread) for spread in variance]
    if spreads != shapes:
        wrong = next((i for i, pair in enumerate(zip(spreads, shapes, strict=False)) if pair[0] != pair[1]), None)
        which = f"{len(spreads)} for {len(shapes)} prompts" if wrong is None else f"{spreads[wrong]} at prompt {wrong}"
        raise JuryError(f"variances are {which}. Fix: one for each prompt, of the shape of its rewards")
    rng = seeded_rng(seed, "draws of uncertain rewards")
    prompts = [
        _prompt(pool, weights, None if variance is None else variance[i], margin, similarity, rng)
        for i, pool in enumerate(pools)
    ]
    return Landscape(prompts, names or [str(k) for k in range(clusters)], margin, variance is not None)


def _prompt(
    pool: Pool,
    weights: np.ndarray,
    variance: np.ndarray | None,
    margin: float,
    similarity: Similarity,
    rng: np.random.Generator,
) -> PromptLandscape:
    regret, mean = pool.rewards.max(0) - pool.rewards, pool.weighted(weights)
    compromise, favourite_of_mean = int(regret.max(1).argmin()), int(mean.argmax())
    alike = similarity(pool.responses)
    differ, same = float(regret.max(1).min() > 0), 0.0
    if variance is not None:
        clusters = pool.rewards.shape[1]
        differ = _differ(pool.rewards, variance, rng)
        alone = [
            np.repeat(np.stack([pool.rewards[:, k], variance[:, k]])[..., None], clusters, 2) for k in range(clusters)
        ]
        same = float(np.mean([_differ(rewards, spread, rng) for rewards, spread in alone]))
    return PromptLandscape(
        pool=pool,
        favourites=pool.rewards.argmax(0),
        favourite_of_mean=favourite_of_mean,
        compromise=compromise,
        regrets=regret[compromise],
        regrets_of_mean=regret[favourite_of_mean],
        near_best=np.array([effective_responses(column <= margin, alike) for column in regret.T]),
        near_best_of_mean=float(effective_responses(mean.max() - mean <= margin, alike)),
        differ=differ,
        same_differ=same,
    )


def _differ(rewards: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> float:
    """Return the share of draws in which the favourites of the columns (M, K) are not one response."""
    favourites = (rewards + rng.normal(size=(DRAWS, *rewards.shape)) * np.sqrt(variance)).argmax(1)
    return float((favourites != favourites[:, :1]).any(1).mean())


def _short(text: object, length: int = 60) -> str:
    """Return a text, or the last message of a conversation, cut to one line."""
    whole = text if isinstance(text, str) else text[-1][1]  # type: ignore[index]
    line = " ".join(whole.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
