"""`ScalarisedReward`: reduce the reward vector to one number, for RL libraries that expect one.

Like `LinearReward` of MO-Gymnasium, with the welfare rules of `plural_rlhf.core.rules` and the pool. Knows nothing of
where the rewards come from.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium.utils import RecordConstructorArgs

from plural_rlhf.core.rules import POINTWISE, POOL, RuleSpec, rule_or_pool
from reward_models.weights import WeightSpec

from .bandit import JuryBandit
from .base import JuryEnv


__all__ = ["ScalarisedReward"]


class ScalarisedReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Aggregate the rewards of the clusters under weights and a rule.

    The vector stays in `info["vector_reward"]` and the weights in `info["weights"]`. Rewards before the end of an
    episode are 0, as in the environments; the rule is applied to the rewards at its end.

    Args:
        env: A `JuryBandit` or `JuryText`, wrapped or not.
        weights: Default weights of an episode; None: those of the environment.
        rule: A pointwise rule of `plural_rlhf.core.rules`, or, on a `JuryBandit`, `"pool"`: the ρ-pool's R_ρ. An
            algorithm that maximises reward minus `beta` KL to the reference then converges to `JuryBandit.optimum`;
            one without a KL term converges to a single answer under any rule.
        **options: Options of the rule, e.g. `p=0.5` of `"power_mean"`.

    Raises:
        JuryError: If the weights cannot be used.
        ValueError: If the rule is unknown, `"pool"` has no partition functions, or the environment is of another kind.
        TypeError: If the rule does not have an option.

    Example:
        >>> env = ScalarisedReward(JuryBandit(), rule="mean")
        >>> _ = env.reset(seed=0)
        >>> round(env.step(9)[1], 6)  # 10 % of the population prefer it, by 8 logits
        0.8
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], weights: WeightSpec | None = None, rule: RuleSpec = "mean", **options: Any
    ) -> None:
        RecordConstructorArgs.__init__(self, weights=weights, rule=rule, **options)
        gymnasium.Wrapper.__init__(self, env)
        jury_env = env.unwrapped
        if not isinstance(jury_env, JuryEnv):
            raise ValueError(f"env: got {env}; rewards per rater cluster come from a JuryBandit or a JuryText")
        if rule == POOL and not isinstance(jury_env, JuryBandit):
            raise ValueError(
                "rule: got 'pool', which needs the partition functions of a finite set of answers: use JuryBandit, "
                f"keep the vector reward and a core.offsets.OffsetTracker, or choose one of {', '.join(POINTWISE)}"
            )
        if rule == POOL and options:
            raise TypeError(f"rule 'pool': got {', '.join(options)}; rho and beta are settings of the JuryBandit")
        self.weights = None if weights is None else jury_env.parse_weights(weights)
        self.rule = rule_or_pool({"rule": rule, **options} if options else rule)
        if self.rule is not None and self.rule.within_group:
            raise ValueError(
                f"rule: got {str(self.rule)!r}, which scores a response among others, and an episode has one: choose "
                f"one of {', '.join(POINTWISE)}"
            )
        if self.rule is not None:
            self.rule.check(jury_env.reward_dim)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode under the wrapper's weights, unless the options name others."""
        if self.weights is not None:
            options = {"weights": self.weights, **(options or {})}
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the reward is a float in logits."""
        observation, rewards, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated):
            reward = 0.0
        elif self.rule is None:
            reward = info["pool_reward"]
        else:
            vector = torch.as_tensor(rewards, dtype=torch.float64)
            reward = float(self.rule.scores(vector[None], info["weights"])[0])
        return observation, reward, terminated, truncated, {**info, "vector_reward": rewards}
