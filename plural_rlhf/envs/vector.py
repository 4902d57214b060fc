"""`JuryVectorEnv`: many environments side by side, with their reward vectors.

Gymnasium's own vector environments are made for one number per environment: `SyncVectorEnv` fails on a vector, and
`AsyncVectorEnv` puts a bare 0 in its place when it resets an environment. This one is `SyncVectorEnv` with room for K
numbers each, as `MOSyncVectorEnv` is in MO-Gymnasium. Where the environments are wrapped in `ScalarisedReward`,
Gymnasium's own serve as they are. Knows nothing of what the environments do.
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

    A finished environment starts its next episode within the same step, since half of all steps of a bandit would be
    resets otherwise: `info["final_obs"]` and `info["final_info"]` (`answer` or `text`, `pool_reward`, ...) then tell
    of the episode that ended. `gymnasium.make_vec` of the registered ids makes one.

    Args:
        env_fns: Makers of environments of the same clusters and spaces.
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
        # The one private name of Gymnasium used here: the buffer that step fills row by row and copies out.
        self._rewards = np.zeros((self.num_envs, *self.reward_space.shape), dtype=np.float32)


class JuryBandits(JuryVectorEnv):
    """`num_envs` times the same `JuryBandit`: what `gymnasium.make_vec` makes of its id."""

    def __init__(self, num_envs: int, **settings: Any) -> None:
        super().__init__([lambda: JuryBandit(**settings)] * num_envs)


class JuryTexts(JuryVectorEnv):
    """`num_envs` times the same `JuryText`: what `gymnasium.make_vec` makes of its id."""

    def __init__(self, num_envs: int, **settings: Any) -> None:
        super().__init__([lambda: JuryText(**settings)] * num_envs)
