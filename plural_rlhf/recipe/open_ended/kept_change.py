"""How much of a sampled training to keep: the policy between pi_0 and the last step that is nearest to the target.

Steps that are too long leave a policy farther from its target than pi_0 was, in a direction that may be right. Weights
between start and end are policies too (Wortsman and others 2022, https://arxiv.org/abs/2109.01903, on fine-tuning).
The share of the change that is kept is the one with the smallest estimated divergence from the target, over fresh
texts to training prompts; none of it is among the candidates, so that by this estimate the result is never worse than
pi_0. Held-out prompts are not looked at. Knows nothing of how a policy was trained.

Shapes: `N` texts of a prompt, `K` clusters, `S` shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from plural_rlhf.core.targets import pool_reward
from plural_rlhf.recipe.open_ended.plain_texts import candidate_rewards, draw_texts, text_log_probs
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from reward_models.inference import evaluating
from reward_models.jury.protocol import ClusterScorer
from reward_models.progress import track
from reward_models.seeds import derived_seed, seeded_rng
from reward_models.stats.shares import kish_n
from reward_models.trainer.kept_change import Weights, set_weights, trained_weights


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SHARES", "KeptChange", "divergences_on_the_line", "keep_nearest"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TEXTS_PER_PROMPT = 32
"""Texts of a prompt by which divergences are estimated, half of them by pi_0."""
LEAST_EFFECTIVE = 0.25
"""Least share of the texts that must be effective for a policy on the line to be told of."""


@dataclass(frozen=True)
class KeptChange:
    """What was kept of a training, and why.

    Attributes:
        share: Share of the change of weights that is kept.
        divergences: Estimated KL from the target by share, nats; nan where the texts do not tell.
        drawn: Texts that were drawn for it.

    Example:
        >>> KeptChange(0.5, {0.0: 0.8, 0.5: 0.6, 1.0: 1.3}, 96).told()
        '0.5 of the change of weights is kept: KL to the target 0.60 nats, of all of it 1.30, of none 0.80'
    """

    share: float
    divergences: dict[float, float]
    drawn: int

    def told(self) -> str:
        """Put it into a sentence."""
        kept, whole, none = (self.divergences[share] for share in (self.share, 1.0, 0.0))
        return (
            f"{self.share:g} of the change of weights is kept: KL to the target {kept:.2f} nats, of all of it "
            f"{whole:.2f}, of none {none:.2f}"
        )


def divergences_on_the_line(
    log_probs: np.ndarray,
    rewards: np.ndarray,
    *,
    weights: Sequence[float] | np.ndarray,
    beta: float,
    rho: float = 1.0,
) -> np.ndarray:
    """Estimate `KL(policy || target)` of several policies from the same texts of a prompt, by importance.

    The texts are drawn half by the first policy, pi_0, and half by the last, so that the importance weights of these
    two are at most two, and of those between them seldom much more.

    Args:
        log_probs: (S, N) log-probability of each text under each policy, nats; the first is pi_0.
        rewards: (N, K) logits.
        weights: (K,) weights of the target.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.

    Returns:
        (S,) nats; nan where the texts hardly ever say what the policy says.

    Example:
        >>> first = np.repeat([True, False, True, False], [50, 50, 99, 1])  # drawn by the policies of .5 and .99
        >>> rewards = np.log(np.where(first, 3.0, 1.0))[:, None]  # odds of the target: 3 to 1
        >>> log_probs = np.log([np.where(first, p, 1 - p) for p in (0.5, 0.75, 0.99)])
        >>> divergences_on_the_line(log_probs, rewards, weights=[1.0], beta=1.0).round(2).tolist()
        [0.14, 0.0, 0.24]
    """
    log_drawn = np.logaddexp(log_probs[0], log_probs[-1]) - np.log(2.0)
    importance = np.exp(log_probs - log_drawn)
    from_pi_0 = importance[0] / importance[0].sum()
    with np.errstate(divide="ignore"):
        log_z = np.logaddexp.reduce(rewards / beta + np.log(from_pi_0)[:, None], axis=0)
        pooled = (
            pool_reward(torch.from_numpy(rewards), list(weights), torch.from_numpy(log_z), beta, rho).numpy() / beta
        )
        log_norm = np.logaddexp.reduce(pooled + np.log(from_pi_0))
    terms = log_probs - log_probs[0] - pooled
    values = (importance * terms).sum(axis=1) / importance.sum(axis=1) + log_norm
    effective = np.array([float(kish_n(row[:, None])[0]) for row in importance]) / log_probs.shape[1]
    return np.where(effective >= LEAST_EFFECTIVE, values, np.nan)


def keep_nearest(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    start: Weights,
    prompts: Sequence[tuple[OpenPrompt, list[dict[str, str]]]],
    scorer: ClusterScorer,
    *,
    texts: int,
    max_new_tokens: int,
    beta: float,
    rho: float,
    seed: int,
) -> KeptChange:
    """Set the weights of a policy to those between its start and its end that are nearest to the target.

    Args:
        model: The policy after its last step.
        tokenizer: Its tokenizer.
        start: Its trained weights before the first step (`trained_weights`).
        prompts: Training prompts, each with what the policy is asked for the population.
        scorer: The clusters and their prevalence.
        texts: Texts to draw, over all prompts; about 32 for each of as many prompts as that is enough for.
        max_new_tokens: Longest text.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.
        seed: Random seed.

    Returns:
        What is kept.
    """
    end = trained_weights(model)
    order = seeded_rng(seed, "prompts that say how much of a training is kept").permutation(len(prompts))
    used = [prompts[i] for i in order[: max(1, texts // TEXTS_PER_PROMPT)]]
    each = max(1, texts // (2 * len(used)))
    estimates = []
    with torch.no_grad(), torch.random.fork_rng(), evaluating(model):
        torch.manual_seed(derived_seed(seed, "texts that say how much of a training is kept"))
        for prompt, asked in track(used, "texts that say how much is kept"):
            drawn = []
            for share in (0.0, 1.0):
                set_weights(model, start, end, share)
                drawn += draw_texts(model, tokenizer, asked, each, max_new_tokens)[0]
            words = [text.strip() for text in tokenizer.batch_decode(drawn, skip_special_tokens=True)]
            rewards = candidate_rewards(scorer, prompt, words)
            log_probs = []
            for share in SHARES:
                set_weights(model, start, end, share)
                log_probs.append(text_log_probs(model, tokenizer, asked, drawn))
            estimates.append(
                divergences_on_the_line(np.array(log_probs), rewards, weights=scorer.prevalence, beta=beta, rho=rho)
            )
    means = np.mean(estimates, axis=0)
    divergences = dict(zip(SHARES, means.tolist(), strict=True))
    share = SHARES[int(np.nanargmin(means))]
    set_weights(model, start, end, share)
    return KeptChange(share, divergences, 2 * each * len(used))
