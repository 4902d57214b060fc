"""Whether a stock trainer of TRL leads to the target of a `JuryReward`: its KL, its temperature, its scaling.

A reward function is told nothing of its trainer's settings, but the `log_metric` that it is given is a method of the
trainer. Public settings are read and nothing else. Knows nothing of rewards.
"""

from __future__ import annotations

import warnings
from typing import Any


__all__ = ["check_stock_trainer", "trainer_of"]

_WHY = (
    "The target π₀ exp(R/β) is the fixed point of a penalty whose gradient is that of KL(π ‖ π₀): the log-ratio "
    "log π − log π₀, summed over the sequence and subtracted from the reward (k1), as RLOOTrainer does by default"
)


def trainer_of(log_metric: Any) -> Any:
    """Return the trainer of TRL whose method `log_metric` is; None for any other function.

    Example:
        >>> trainer_of(print) is None
        True
    """
    trainer = getattr(log_metric, "__self__", None)
    names = {cls.__name__ for cls in type(trainer).__mro__}
    return trainer if names & {"GRPOTrainer", "RLOOTrainer"} else None


def check_stock_trainer(trainer: Any, beta: float) -> None:
    """Raise if the trainer's KL leads to another target, and warn of settings that do.

    Args:
        trainer: An `RLOOTrainer` or a `GRPOTrainer`.
        beta: Temperature of the reward's target, logits.

    Raises:
        ValueError: Its KL is not k1: `kl_estimator` of RLOO, or GRPO's k3 without bias correction.

    Example:
        >>> from types import SimpleNamespace
        >>> RLOOTrainer = type("RLOOTrainer", (), {"args": SimpleNamespace(beta=1.0, kl_estimator="k3")})
        >>> check_stock_trainer(RLOOTrainer(), beta=1.0)
        Traceback (most recent call last):
        ValueError: kl_estimator is 'k3', whose fixed point is another distribution: ... Set kl_estimator='k1'.
    """
    args = trainer.args
    rloo = "RLOOTrainer" in {cls.__name__ for cls in type(trainer).__mro__}
    estimator = getattr(args, "kl_estimator", "k1")
    if rloo and estimator != "k1":
        raise ValueError(
            f"kl_estimator is {estimator!r}, whose fixed point is another distribution: subtracted from the reward, "
            f"its gradient is not that of the KL, and near-ties end as one answer. {_WHY}. Set kl_estimator='k1'."
        )
    if not rloo and args.beta and not getattr(args, "use_bias_correction_kl", True):
        raise ValueError(
            "use_bias_correction_kl is False, so that GRPO's loss has the gradient of KL(π₀ ‖ π) in place of KL(π ‖ "
            f"π₀), and its fixed point is another distribution. {_WHY}. Use RLOOTrainer or PluralGRPOTrainer, or set "
            "use_bias_correction_kl=True, which is right for answers of one token."
        )
    for fault in _faults(args, rloo, beta):
        warnings.warn(fault, stacklevel=3)


def _faults(args: Any, rloo: bool, beta: float) -> list[str]:
    """Return what the settings change of the target, as sentences."""
    name = "RLOOConfig" if rloo else "GRPOConfig"
    faults = []
    if args.beta == 0:
        faults.append(
            f"beta is 0 in {name}, so nothing holds the policy near its reference and it ends at the answers of "
            f"the largest reward: set {name}(beta={beta:g}), the temperature of this JuryReward."
        )
    elif args.beta != beta:
        faults.append(
            f"beta is {args.beta:g} in {name} and {beta:g} in the JuryReward, whose target is another one then: set "
            f"both to the same, 1.0 for rewards in logits."
        )
    if rloo and args.normalize_advantages:
        faults.append(
            "normalize_advantages is True: divided by their standard deviation, a gap of 0.02 between rewards counts "
            "as much as one of 2, so near-ties end as one answer. Set normalize_advantages=False."
        )
    if rloo and args.reward_clip_range:
        faults.append(
            f"reward_clip_range is {args.reward_clip_range}, so rewards beyond it are equal: set "
            "reward_clip_range=None."
        )
    if rloo:
        return faults
    aggregation = args.multi_objective_aggregation
    if args.scale_rewards not in ("none", False) or aggregation == "normalize_then_sum":
        setting = f"scale_rewards is {args.scale_rewards!r}"
        cure = "scale_rewards='none'"
        if aggregation == "normalize_then_sum":
            setting, cure = f"multi_objective_aggregation is {aggregation!r}", f"{cure}, multi_objective_aggregation="
            cure += "'sum_then_normalize'"
        faults.append(
            f"{setting}: divided by their standard deviation, a gap of 0.02 between rewards counts as much as one of "
            f"2, so near-ties end as one answer. Set {cure}."
        )
    if args.beta:
        faults.append(
            "GRPO puts its KL into the loss token by token, where a token does not count for the KL of those after "
            "it: the fixed point is the target for answers of one token only. Use RLOOTrainer or PluralGRPOTrainer."
        )
    return faults
