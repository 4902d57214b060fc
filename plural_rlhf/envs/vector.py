"""`JuryVectorEnv`: many environments side by side, with their reward vectors.

Gymnasium's own vector environments expect one number per environment: `SyncVectorEnv` fails on a vector, and
`AsyncVectorEnv` replaces it by a single 0 when it resets an environment. This one is `SyncVectorEnv` with a buffer of
K numbers each, like `MOSyncVectorEnv` of MO-Gymnasium. For environments wrapped in `ScalarisedReward`, use Gymnasium's
own. Knows nothing of what the environments do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from .bandit import JuryBandit
from .base import JuryEnv
from .text import JuryText


__all__ = ["JuryBandits", "JuryTexts", "JuryVectorEnv"]


class JuryVectorEnv(SyncVectorEnv):
    """`SyncVectorEnv` whose rewards have shape `(num_envs, K)`, float32.

    A finished environment starts its next episode within the same step, because otherwise half of all steps of a
    bandit would be resets: `info["final_obs"]` and `info["final_info"]` (`answer` or `text`, `pool_reward`, ...) then
    describe the episode that ended. `gymnasium.make_vec` of the registered ids makes one.

    Args:
        env_fns: Functions that make environments of the same clusters and spaces.
        **settings: Further arguments of `SyncVectorEnv`.

    Example:
        >>> envs = JuryVectorEnv([JuryBandit] * 3)
        >>> _ = envs.reset(seed=0)
        >>> envs.step(np.array([1, 5, 9]))[1].tolist()
        [[8.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 8.0]]
    """

    def __init__(self, env_fns: Sequence[Callable[[], JuryEnv[Any]]], **settings: Any) -> None:
        super().__init__(env_fns, **{"autoreset_mode": AutoresetMode.SAME_STEP, **settings})
        self.reward_space = cast("JuryEnv[Any]", self.envs[0].unwrapped).reward_space
        # The only private name of Gymnasium used here: the buffer that step fills row by row and copies.
        self._rewards = np.zeros((self.num_envs, *self.reward_space.shape), dtype=np.float32)


class JuryBandits(JuryVectorEnv):
    """`num_envs` copies of one `JuryBandit`: what `gymnasium.make_vec` makes from its id.

    Example:
        >>> JuryBandits(3, weights="uniform").num_envs
        3
    """

    def __init__(self, num_envs: int, **settings: Any) -> None:
        super().__init__([lambda: JuryBandit(**settings)] * num_envs)


class JuryTexts(JuryVectorEnv):
    """`num_envs` copies of one `JuryText`: what `gymnasium.make_vec` makes from its id.

    Example:
        >>> JuryTexts(3, max_tokens=2).single_action_space
        Discrete(11)
    """

    def __init__(self, num_envs: int, **settings: Any) -> None:
        super().__init__([lambda: JuryText(**settings)] * num_envs)
