"""`JuryBandit`: one choice among finite answers, scored by K rater clusters, with the optimal policy known exactly.

It shows whether an algorithm preserves a distribution, without a language model: a policy is a table of probabilities,
and its distance to the target is computed, not estimated. Knows nothing of tokens, nor of how a policy is trained.

Shapes: `P` prompts, `N` the largest number of answers of a prompt, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.error import InvalidAction
from gymnasium.spaces import Box, Discrete
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from plural_rlhf.core.estimators import exact_divergence
from plural_rlhf.core.shares import cluster_shares
from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities
from plural_rlhf.weights.wording import TRLPrompt
from reward_models.errors import JuryError, renamed_arguments
from reward_models.weights import WeightSpec

from .base import JuryEnv, load_scorer
from .number_jury import ANSWERS, PROMPT, NumberJury


if TYPE_CHECKING:
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["JuryBandit"]

# Rounding of a float32 softmax over thousands of answers.
_SUM_TOLERANCE = 1e-4
_LOG_ONE = 1e-6


class JuryBandit(JuryEnv[Any]):
    """A contextual bandit: see a prompt, choose an answer, get a reward per rater cluster, done.

    Observation: the prompt's number, or its row of `features`. Action: the answer's number. Prompts may have different
    numbers of answers: `info["action_mask"]` of `reset` has 1 where there is one, and any other action gets every
    cluster's lowest reward over the answers plus `invalid_reward`. The last `info` holds `answer` (the text, `""` for
    an invalid action), `valid`, and `pool_reward`, the aggregated reward R_ρ under the episode's weights with exact
    partition functions: its KL-regularised optimum is `optimum`.

    Args:
        rewards: Reward table in logits: an (N_p, K) array per prompt, or one (P, N, K) array. By default that of
            `number_jury`: eleven numbers and three clusters of 60, 30 and 10 %.
        prevalence: (K,) shares of the clusters; default: equal.
        cluster_names: K names.
        prompts: P prompts; only names, their text is not used.
        supports: The answers of each prompt, as text.
        log_pi_ref: Log-probabilities of the reference policy in nats, (N_p,) per prompt; default: uniform.
        features: (P, F) observations to use instead of the prompt's number.
        weights: Default weights over the clusters.
        rho: Parameter of the target pool: 1 every cluster in proportion, 0 consensus, -inf the worst-off cluster.
        beta: Temperature of the target, in logits.
        invalid_reward: Reward of an action that is no answer to the prompt, in logits below the lowest answer.
        render_mode: `"ansi"`, or None.

    Raises:
        JuryError: If tables do not fit each other, rewards are not finite, or weights cannot be used.
        ValueError: If `beta`, `rho` or `render_mode` is out of range.

    Example:
        >>> env = JuryBandit([[[8.0, 0.0], [0.0, 8.0]]], prevalence=[0.9, 0.1])  # each cluster has a favourite
        >>> env.optimum().round(3)
        array([[0.9, 0.1]])
        >>> env.jsd([[1.0, 0.0]]).round(3)  # a policy that serves only the majority, in nats
        array([0.036])
    """

    def __init__(
        self,
        rewards: Sequence[ArrayLike] | np.ndarray | None = None,
        prevalence: Sequence[float] | np.ndarray | None = None,
        *,
        cluster_names: Sequence[str] | None = None,
        prompts: Sequence[TRLPrompt] | None = None,
        supports: Sequence[Sequence[str]] | None = None,
        log_pi_ref: Sequence[ArrayLike] | None = None,
        features: ArrayLike | None = None,
        weights: WeightSpec = "prevalence",
        rho: float = 1.0,
        beta: float = 1.0,
        invalid_reward: float = -10.0,
        render_mode: str | None = None,
    ) -> None:
        if rewards is None:
            scorer = NumberJury()
            rewards = [scorer.cluster_rewards([PROMPT] * len(ANSWERS), ANSWERS).numpy()]
            prevalence = scorer.prevalence if prevalence is None else prevalence
            cluster_names = cluster_names or scorer.cluster_names
            prompts, supports = prompts or [PROMPT], supports or [ANSWERS]
        tables = _tables(rewards)
        sizes = [len(table) for table in tables]
        num_clusters = tables[0].shape[1]
        names = list(cluster_names or (f"cluster {k}" for k in range(num_clusters)))
        if len(names) != num_clusters:
            raise JuryError(
                f"cluster_names: got {len(names)}, but the rewards are of {num_clusters} clusters: name each"
            )
        prompts = list(prompts or (f"prompt {p}" for p in range(len(tables))))
        supports = supports or [[f"answer {n}" for n in range(size)] for size in sizes]
        if log_pi_ref is None:
            log_pi_ref = [np.full(size, -math.log(size)) for size in sizes]
        _check_sizes("prompts", [1] * len(prompts), [1] * len(sizes))
        _check_sizes("supports", [len(support) for support in supports], sizes)
        _check_sizes("log_pi_ref", [np.size(log_probs) for log_probs in log_pi_ref], sizes)
        table, mask, log_ref = _pad(tables, log_pi_ref, invalid_reward)
        self._table, self._action_mask = table, mask.astype(np.int8)
        # Tensors of the same memory for the exact computations; an episode reads arrays, which are faster per element.
        self._rewards, self._mask, self._log_pi_ref = (torch.from_numpy(x) for x in (table, mask, log_ref))
        self.target = PoolTarget(rho=rho, beta=beta)
        self.supports = [list(support) for support in supports]
        shares = np.full(num_clusters, 1.0 / num_clusters) if prevalence is None else prevalence
        super().__init__(prompts, names, shares, weights, (table.min((0, 1)), table.max((0, 1))), render_mode)
        self.action_space = Discrete(mask.shape[1])
        self.features = None if features is None else np.asarray(features, dtype=np.float32)
        if self.features is None:
            self.observation_space = Discrete(len(tables))
        elif self.features.ndim == 2 and len(self.features) == len(tables):
            self.observation_space = Box(self.features.min(0), self.features.max(0), dtype=np.float32)
        else:
            raise JuryError(
                f"features: got shape {self.features.shape}; give one row for each of the {len(tables)} prompts"
            )
        self._pool, self._pool_weights = self.pool_rewards(), self.weights

    @classmethod
    @renamed_arguments(jury="scorer")
    def from_scorer(
        cls,
        scorer: str | Path | ClusterScorer,
        prompts: Sequence[TRLPrompt],
        supports: Sequence[Sequence[str]],
        **settings: Any,
    ) -> JuryBandit:
        """Score all answers once; the environment then holds the table of rewards and no language model.

        Args:
            scorer: A saved jury reward model (path or hub id), or anything with `cluster_names`, `prevalence` and
                `cluster_rewards`.
            prompts: P prompts.
            supports: The answers to each prompt.
            **settings: `log_pi_ref`, `weights`, `rho`, ... of the environment.

        Raises:
            JuryError: If supports and prompts differ in number, or see the class and the scorer.

        Example:
            >>> env = JuryBandit.from_scorer(NumberJury(), ["Pick a number."], [["2", "5", "9"]])
            >>> env.optimum().round(2)
            array([[0.6, 0.3, 0.1]])
        """
        if len(prompts) != len(supports):
            raise JuryError(
                f"supports: got {len(supports)} for {len(prompts)} prompts; give the answers to each prompt"
            )
        scorer = load_scorer(scorer)
        rewards = []
        for prompt, support in zip(prompts, supports, strict=True):
            answers = [a if isinstance(prompt, str) else [{"role": "assistant", "content": a}] for a in support]
            rewards.append(scorer.cluster_rewards([prompt] * len(support), answers).double().numpy())
        return cls(
            rewards,
            scorer.prevalence,
            cluster_names=scorer.cluster_names,
            prompts=prompts,
            supports=supports,
            **settings,
        )

    @property
    def action_mask(self) -> np.ndarray:
        """Whether each action is an answer, (P, N) bool."""
        return self._mask.numpy().copy()

    @property
    def log_pi_ref(self) -> np.ndarray:
        """Log-probabilities of the reference policy as given, (P, N) nats; -inf where there is no answer."""
        return self._log_pi_ref.numpy().copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see `JuryEnv` for the options.

        Returns:
            The observation, and `info` with `prompt`, `weights` (K,) and `action_mask` (N,) int8.

        Raises:
            JuryError: If an option is unknown or cannot be used.
        """
        self._start(seed, options)
        if not np.array_equal(self._pool_weights, self._episode_weights):
            self._pool, self._pool_weights = self.pool_rewards(self._episode_weights), self._episode_weights
        return self._observe(), {**self._info(), "action_mask": self._action_mask[self._prompt].copy()}

    def step(self, action: np.int64 | int) -> tuple[Any, np.ndarray, bool, bool, dict[str, Any]]:
        """Give an answer.

        Returns:
            The observation again, the rewards (K,) float32 in logits, True (terminated), False (truncated), `info`.

        Raises:
            gymnasium.error.ResetNeeded: If the episode is over.
            gymnasium.error.InvalidAction: If the action is not in the action space.
        """
        self._refuse_if_over()
        if not self.action_space.contains(action):
            raise InvalidAction(
                f"action: got {action!r}; give the number of an answer, 0 to {self._mask.shape[1] - 1}"
            )
        support, n = self.supports[self._prompt], int(action)
        answer = support[n] if n < len(support) else ""
        reward = self._end(self._table[self._prompt, n], answer)
        pooled = float(self._pool[self._prompt, n])
        info = {**self._info(), "answer": answer, "valid": n < len(support), "pool_reward": pooled}
        return self._observe(), reward, True, False, info

    def optimum(
        self, weights: WeightSpec | None = None, rho: float | None = None, beta: float | None = None
    ) -> np.ndarray:
        """Compute the target: the policy that maximises `E[R_ρ] - beta KL(pi || pi_ref)`, which is the ρ-pool.

        Args:
            weights: Default: the environment's.
            rho: Default: the environment's.
            beta: Default: the environment's.

        Returns:
            Probabilities, (P, N); 0 where there is no answer.

        Raises:
            JuryError: If the weights cannot be used.
            ValueError: If `rho` or `beta` is out of range.
        """
        target = PoolTarget(
            rho=self.target.rho if rho is None else rho, beta=self.target.beta if beta is None else beta
        )
        return self._log_target(target, weights).exp().numpy()

    def pool_rewards(self, weights: WeightSpec | None = None) -> np.ndarray:
        """Compute the aggregated reward R_ρ of every action with exact partition functions, (P, N) logits."""
        log_z = self._log_z()
        return pool_reward(self._rewards, self._parse(weights), log_z, self.target.beta, self.target.rho).numpy()

    def jsd(self, policy: ArrayLike, weights: WeightSpec | None = None) -> np.ndarray:
        """Compute the Jensen-Shannon divergence between a policy and `optimum(weights)`, 0 to log 2.

        Args:
            policy: Probabilities, (P, N); mass outside the answers counts as one more event of target probability 0.
            weights: Default: the environment's.

        Returns:
            Nats, (P,).

        Raises:
            JuryError: If `policy` is not P distributions over N actions, or the weights cannot be used.
        """
        log_pi = torch.from_numpy(self._check_policy(policy)).log()
        return exact_divergence(self._log_target(self.target, weights), log_pi, "js", self._mask).numpy()

    def regret(self, policy: ArrayLike, weights: WeightSpec | None = None) -> np.ndarray:
        """Compute how far a policy falls short of the best `E[R_ρ] - beta KL(pi || pi_ref)`: `beta KL(pi || optimum)`.

        Args:
            policy: Probabilities, (P, N).
            weights: Default: the environment's.

        Returns:
            Logits, (P,), 0 or more; infinite where the policy has mass on an action of optimal probability 0.

        Raises:
            JuryError: See `jsd`.
        """
        return self.target.beta * rel_entr(self._check_policy(policy), self.optimum(weights)).sum(-1)

    def shares(self, policy: ArrayLike, weights: WeightSpec | None = None) -> np.ndarray:
        """Compute the share of a policy that belongs to each cluster, by the mixture's responsibilities (ρ = 1).

        Args:
            policy: Probabilities, (P, N).
            weights: Default: the environment's. The optimum for ρ = 1 has exactly these shares.

        Returns:
            (P, K), summing to one over the clusters.

        Raises:
            JuryError: See `jsd`.
        """
        log_z = self._log_z()
        gamma = responsibilities(self._rewards, self._parse(weights), log_z, self.target.beta)
        return cluster_shares(torch.from_numpy(self._check_policy(policy)), gamma).numpy()

    def _observe(self) -> np.int64 | np.ndarray:
        return np.int64(self._prompt) if self.features is None else self.features[self._prompt].copy()

    def _parse(self, weights: WeightSpec | None) -> np.ndarray:
        return self.weights if weights is None else self.parse_weights(weights)

    def _log_z(self) -> torch.Tensor:
        """Compute the exact log Z_k of every prompt, (P, 1, K) nats."""
        return log_partition(self._rewards, self._log_pi_ref, self.target.beta, self._mask).unsqueeze(-2)

    def _log_target(self, target: PoolTarget, weights: WeightSpec | None) -> torch.Tensor:
        return target.log_probs(self._rewards, self._parse(weights), self._log_pi_ref, self._mask)

    def _check_policy(self, policy: ArrayLike) -> np.ndarray:
        pi = np.asarray(policy, dtype=np.float64)
        if pi.shape != self._mask.shape:
            raise JuryError(
                f"policy: got shape {pi.shape}; give the probability of each action for each prompt, "
                f"{tuple(self._mask.shape)}"
            )
        if not ((pi >= 0).all() and np.allclose(pi.sum(-1), 1, rtol=0, atol=_SUM_TOLERANCE)):
            raise JuryError(
                f"policy: rows sum to {pi.sum(-1).min():g} to {pi.sum(-1).max():g} with smallest entry {pi.min():g}; "
                "each row must be a distribution: probabilities, not logits or log-probabilities"
            )
        return pi / pi.sum(-1, keepdims=True)


def _tables(rewards: Sequence[ArrayLike] | np.ndarray) -> list[np.ndarray]:
    """Validate the rewards and return one (N_p, K) float64 array per prompt."""
    tables = [np.asarray(table, dtype=np.float64) for table in rewards]
    if not tables:
        raise JuryError("rewards: got no table; give an (answers, clusters) array for each prompt")
    for p, table in enumerate(tables):
        if table.ndim != 2 or 0 in table.shape or table.shape[1] != tables[0].shape[-1]:
            raise JuryError(
                f"rewards: the table of prompt {p} has shape {table.shape} and that of prompt 0 {tables[0].shape}; "
                "give each at least one answer and all the same clusters, (answers, clusters)"
            )
        if not np.isfinite(table).all():
            n, k = np.argwhere(~np.isfinite(table))[0]
            raise JuryError(
                f"rewards: cluster {k} gives {table[n, k]} to answer {n} of prompt {p}, and a reward is a finite "
                "number of logits; for prompts with fewer answers give shorter tables"
            )
    return tables


def _pad(
    tables: list[np.ndarray], log_pi_ref: Sequence[ArrayLike], invalid_reward: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rewards (P, N, K), a mask of answers (P, N), and the reference (P, N), -inf where there is no answer.

    Beyond a prompt's answers the rewards are those of an invalid action; the targets never read them.
    """
    if not invalid_reward <= 0:
        raise JuryError(
            f"invalid_reward: got {invalid_reward:g}; an invalid action may not rank above an answer: give 0 or less"
        )
    shape = (len(tables), max(map(len, tables)))
    rewards = np.stack([np.broadcast_to(t.min(0) + invalid_reward, (shape[1], t.shape[1])) for t in tables])
    mask, log_ref = np.zeros(shape, dtype=bool), np.full(shape, -np.inf)
    for p, table in enumerate(tables):
        rewards[p, : len(table)], mask[p, : len(table)], log_ref[p, : len(table)] = table, True, log_pi_ref[p]
    if not (log_ref <= _LOG_ONE).all():
        raise JuryError(
            f"log_pi_ref: got {log_ref.max():g}; give logarithms of probabilities, which are 0 or less, not the "
            "probabilities"
        )
    return rewards, mask, log_ref


def _check_sizes(name: str, counts: list[int], sizes: list[int]) -> None:
    if counts != sizes:
        raise JuryError(f"{name}: got {counts} per prompt, but the rewards have {sizes} answers: give one for each")
