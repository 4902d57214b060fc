"""`PluralGRPOConfig`: GRPO's settings, with defaults under which the mathematics of a target distribution holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from reward_models.errors import did_you_mean


__all__ = ["DIVERGENCES", "ESTIMATORS", "PluralGRPOConfig"]

ESTIMATORS = ("vargrad", "tb")
DIVERGENCES = ("fkl", "rkl", "js")

# What the sampler must be for its samples to come from the model whose distribution is matched.
_EXACT_SAMPLING = {
    "temperature": (1.0,),
    "top_p": (1.0,),
    "top_k": (0, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
}
# Terms of GRPO's loss that would move its optimum away from the target.
_NEUTRAL = {
    "entropy_coef": (0.0,),
    "use_adaptive_entropy": (False,),
    "top_entropy_quantile": (1.0,),
    "mask_truncated_completions": (False,),
    "sync_ref_model": (False,),
}


@dataclass
class PluralGRPOConfig(GRPOConfig):
    r"""Configuration of [`PluralGRPOTrainer`], on top of [`~trl.GRPOConfig`].

    Parameters:
        beta (`float`, *optional*, defaults to `1.0`):
            Temperature β of the target π₀·exp(R/β), in logits. 1 keeps the odds of a preference as they are.
        rho (`float`, *optional*, defaults to `1.0`):
            Pool parameter ρ: 1 every cluster in proportion to its weight, 0 consensus (log pool), −∞ the worst-off
            cluster.
        exact (`bool`, *optional*):
            Exact mode (nothing is sampled, every answer of the column `support` is scored). `None` turns it on when
            the data set has that column. Set it to `True` to be free of GRPO's rule that a batch holds whole groups.
        divergence (`str`, *optional*, defaults to `"fkl"`):
            Loss of the exact mode: `"fkl"` KL(p‖π), `"rkl"` KL(π‖p) or `"js"`.
        estimator (`str`, *optional*, defaults to `"vargrad"`):
            Baseline of the sampled mode: `"vargrad"` (leave-one-out of the group) or `"tb"` (the group's log Z
            estimate).
        reference_power (`float`, *optional*, defaults to `1.0`):
            Exponent of π₀ on the support in exact mode; 0 drops the reference.
        tie_margin (`float`, *optional*, defaults to `0.0`):
            Answers within this many logits of a cluster's best keep π₀'s ratio (exact mode).
        other_mass (`float`, *optional*, defaults to `0.0`):
            Probability that the target leaves to answers outside the support (exact mode).
        offset_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of responsibility balancing (sampled mode).

    Raises:
        ValueError: `beta` of 0 or less, sampling that is not the model's own (temperature, top-p, top-k, …), reward
            scaling, or a loss term that moves the optimum; the message says why and what to set.
    """

    beta: float = field(
        default=1.0, metadata={"help": "Temperature of the target pi_0 exp(R / beta), in logits; above 0."}
    )
    rho: float = field(
        default=1.0, metadata={"help": "Pool parameter: 1 representation, 0 consensus, -inf egalitarian."}
    )
    scale_rewards: str = field(
        default="none",
        metadata={"help": "Only 'none': dividing by the group's standard deviation destroys near-ties."},
    )
    exact: bool | None = field(
        default=None,
        metadata={
            "help": "Score every answer of the column `support` instead of sampling. Default: if the column is there."
        },
    )
    divergence: str = field(default="fkl", metadata={"help": "Loss of the exact mode: fkl, rkl or js."})
    estimator: str = field(default="vargrad", metadata={"help": "Baseline of the sampled mode: vargrad or tb."})
    reference_power: float = field(default=1.0, metadata={"help": "Exponent of pi_0 on the support (exact mode)."})
    tie_margin: float = field(
        default=0.0, metadata={"help": "Answers within this many logits of the best keep pi_0's ratio (exact mode)."}
    )
    other_mass: float = field(
        default=0.0, metadata={"help": "Target probability of answers outside the support (exact mode)."}
    )
    offset_learning_rate: float = field(
        default=0.1, metadata={"help": "Step size of responsibility balancing (sampled mode)."}
    )

    def __post_init__(self) -> None:
        _refuse_unusable(self)
        if self.exact:
            # GRPO wants whole groups of samples in a batch; there are none here, so it is shown one it accepts.
            self.num_generations, self.num_generations_eval = 2, 1
            self.steps_per_generation, self.generation_batch_size = 2, None
        super().__post_init__()
        if self.exact:
            self.use_exact_mode()

    def use_exact_mode(self) -> None:
        """Settles what the exact mode needs; the trainer calls it where the data set turns that mode on.

        Activation checkpointing goes off, because it does not go together with the cache that holds the prompt.
        """
        self.exact = True
        self.steps_per_generation = 1
        self.generation_batch_size = self.per_device_train_batch_size * self.world_size
        self.gradient_checkpointing = self.activation_checkpointing = False


def _refuse_unusable(config: PluralGRPOConfig) -> None:
    if not (math.isfinite(config.beta) and config.beta > 0):
        raise ValueError(
            f"beta is {config.beta}, but it is the temperature of the target pi_0 exp(R / beta), which needs a number "
            "above 0: set beta=1.0 (rewards in logits). For no pull towards the reference at all, use trl.GRPOTrainer."
        )
    scaling = {True: "group", False: "none"}.get(config.scale_rewards, config.scale_rewards)  # type: ignore[call-overload]
    if scaling != "none":
        raise ValueError(
            f"scale_rewards is {config.scale_rewards!r}: dividing rewards by their standard deviation makes a gap of "
            "0.02 the same as a gap of 2, so no target distribution can be kept. Set scale_rewards='none'; to sharpen "
            "or flatten the policy, change beta."
        )
    for name, allowed in _EXACT_SAMPLING.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"{name} is {getattr(config, name)}, so samples would not come from the model whose distribution is "
                f"matched: set {name}={allowed[0]}. To flatten or sharpen the policy, change beta."
            )
    for name, allowed in _NEUTRAL.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"{name} is {getattr(config, name)}, which moves the optimum away from the target: set "
                f"{name}={allowed[0]}."
            )
    for name, valid in (("estimator", ESTIMATORS), ("divergence", DIVERGENCES)):
        value = getattr(config, name)
        if value not in valid:
            raise ValueError(f"{name} is {value!r}.{did_you_mean(value, valid)} It is one of {', '.join(valid)}.")
    if math.isnan(config.rho):
        raise ValueError(
            "rho is nan: set rho=1.0 (representation), 0 (consensus), or any number between -inf and inf."
        )
    if not 0 <= config.other_mass < 1:
        raise ValueError(f"other_mass is {config.other_mass}: it is a probability, at least 0 and below 1.")
