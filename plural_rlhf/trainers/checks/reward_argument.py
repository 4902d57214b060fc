"""The jury among the reward functions of a trainer, and whether it and the configuration describe one target.

Every error says what was passed, why it cannot work and what to do. Knows nothing of training.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from plural_rlhf.rewards.calibrated import require_calibrated
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from reward_models.jury.protocol import ClusterScorer


__all__ = ["find_jury"]

_PARTS = ("cluster_names", "prevalence", "cluster_rewards")


def find_jury(reward_funcs: Any, args: PluralGRPOConfig) -> tuple[JuryReward, list[Any]]:
    """Find the jury in `reward_funcs`.

    Args:
        reward_funcs: One reward function or a list of them, as they were passed to the trainer.
        args: The settings of the target.

    Returns:
        The jury with the target of `args` and offsets of its own, and all reward functions in their order with it
        among them.

    Raises:
        TypeError: `args` is of a stock trainer.
        ValueError: There is no jury or more than one, a jury model is not wrapped, or a `JuryReward` has another
            target than `args`.
        JuryError: The heads are on different scales, and `args` compare them.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["warm", "cold"], prevalence=np.array([0.7, 0.3]), cluster_rewards=lambda p, c: None
        ... )
        >>> args = PluralGRPOConfig("out", beta=0.5, use_cpu=True, bf16=False)
        >>> reward, functions = find_jury([len, scorer], args)
        >>> reward.target.beta, functions.index(reward)
        (0.5, 1)
        >>> find_jury(JuryReward(scorer, beta=2.0), args)
        Traceback (most recent call last):
        ValueError: beta is 0.5 in args and 2.0 in the JuryReward: they describe one target, so set both to the same.
    """
    if not isinstance(args, PluralGRPOConfig):
        raise TypeError(
            f"args is a {type(args).__name__}, which has no target: pass PluralGRPOConfig with the same settings (its "
            "additional ones all have defaults)."
        )
    functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    juries = [n for n, f in enumerate(functions) if isinstance(f, JuryReward | ClusterScorer) and not _is_module(f)]
    if not juries and functions and isinstance(functions[0], str | Path):
        juries = [0]
    if len(juries) > 1:
        raise ValueError(
            f"reward_funcs has {len(juries)} juries, but the target is defined by one: combine them into one "
            "JuryReward, and pass reward functions that give one number per completion beside it."
        )
    if not juries:
        module = next((f for f in functions if _is_module(f)), None)
        if module is not None:
            raise ValueError(
                f"reward_funcs is a {type(module).__name__} itself; TRL would read only the first column of its "
                "scores. Pass JuryReward('path/of/the/saved/jury'), or JuryReward(JuryScorer(model, tokenizer)) for "
                "one in memory."
            )
        for nearly in (f for f in functions if any(hasattr(f, part) for part in _PARTS)):
            missing = [part for part in _PARTS if not hasattr(nearly, part)]
            raise ValueError(
                f"the {type(nearly).__name__} in reward_funcs is nearly a jury, but has no "
                f"{' and no '.join(missing)}: give it cluster_names (K names), prevalence (K shares) and "
                "cluster_rewards(prompts, completions)."
            )
        raise ValueError(
            f"reward_funcs is {reward_funcs!r}, which gives one number per completion, but the target needs a reward "
            "per cluster: pass a saved jury first, an object with cluster_names, prevalence and cluster_rewards, or a "
            "JuryReward."
        )
    functions[juries[0]] = reward = _as_reward(functions[juries[0]], args)
    return reward, functions


def _is_module(function: Any) -> bool:
    return isinstance(function, torch.nn.Module)


def _as_reward(jury: Any, args: PluralGRPOConfig) -> JuryReward:
    """Return a reward with the target and the offsets of `args`, which training may change; `jury` stays as it is."""
    if isinstance(jury, JuryReward):
        for name in ("rho", "beta", "tie_margin", "tie_width"):
            of_args, of_reward = getattr(args.target, name), getattr(jury.target, name)
            if of_args != of_reward:
                raise _two_targets(name, of_args, of_reward)
        # Balancing is what a JuryReward does by default, whether that was chosen or not.
        if jury.offsets.mode not in ("responsibility", args.offsets):
            raise _two_targets("offsets", repr(args.offsets), repr(jury.offsets.mode))
    else:
        jury = JuryReward(jury, calibrated=(args.max_min or None) if isinstance(jury, str | Path) else None)
    if args.max_min:
        required = True if jury.calibrated is None else jury.calibrated
        require_calibrated(None, jury.scorer, required, why="max_min compares what the clusters gain")
    offsets = copy.deepcopy(jury.offsets)
    offsets.mode = args.offsets
    offsets.learning_rate = _either("offset_learning_rate", args, offsets.learning_rate)
    offsets.ema = _either("offset_ema", args, offsets.ema)
    offsets.max_prompts = int(_either("max_prompts", args, offsets.max_prompts))
    return jury.with_target(args.target, offsets)


def _two_targets(name: str, of_args: Any, of_reward: Any) -> ValueError:
    return ValueError(
        f"{name} is {of_args} in args and {of_reward} in the JuryReward: they describe one target, so set both to the "
        "same."
    )


def _either(name: str, args: PluralGRPOConfig, of_reward: float) -> float:
    """Return a setting that `args` and a `JuryReward` both have, from the one that changed it from its default.

    Raises:
        ValueError: Both did, to different numbers.
    """
    of_args, default = getattr(args, name), PluralGRPOConfig.__dataclass_fields__[name].default
    if default not in (of_args, of_reward) and of_args != of_reward:
        raise _two_targets(name, of_args, of_reward)
    return of_reward if of_args == default else of_args
