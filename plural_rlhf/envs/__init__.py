"""Gymnasium environments with a reward per rater cluster, for use with any RL library.

`JuryBandit` (finite answers, optimum known) and `JuryText` (token by token) return a reward per cluster in the
MO-Gymnasium convention: a `(K,)` float32 vector, its bounds in `unwrapped.reward_space`. `ScalarisedReward` reduces it
to one number for libraries that expect one; `JuryVectorEnv` runs many side by side and keeps the vector.

Importing this package registers `plural_rlhf/JuryBandit-v0` and `plural_rlhf/JuryText-v0`, and both without the
namespace. Knows nothing of trainers: the language-model trainers live in `plural_rlhf.trainers`.

Example:
    >>> import gymnasium, plural_rlhf.envs
    >>> env = gymnasium.make("plural_rlhf/JuryBandit-v0")
    >>> observation, info = env.reset(seed=0)
    >>> env.step(9)[1]  # the answer "9", judged by the clusters low, middle and high
    array([0., 0., 8.], dtype=float32)
"""

from __future__ import annotations

from reward_models.errors import MissingExtraError


try:
    import gymnasium
except ImportError as error:
    raise MissingExtraError(
        "plural_rlhf.envs builds on the package 'gymnasium', which is not installed. "
        'Fix: pip install "plural-rlhf[envs]".'
    ) from error

from .bandit import JuryBandit
from .scalarised import ScalarisedReward
from .text import JuryText
from .vector import JuryVectorEnv


__all__ = ["JuryBandit", "JuryText", "JuryVectorEnv", "ScalarisedReward"]

for _name, _module in (("JuryBandit", "bandit"), ("JuryText", "text")):
    for _id in (f"plural_rlhf/{_name}-v0", f"{_name}-v0"):
        gymnasium.register(
            _id,
            entry_point=f"plural_rlhf.envs.{_module}:{_name}",
            vector_entry_point=f"plural_rlhf.envs.vector:{_name}s",
            # The passive checker knows scalar rewards only and would warn in every episode.
            disable_env_checker=True,
        )
