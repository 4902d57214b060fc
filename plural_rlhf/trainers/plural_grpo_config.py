"""`PluralGRPOConfig`: GRPO's settings, with defaults under which the mathematics of a target distribution holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from plural_rlhf.core.estimators import DIVERGENCES, ESTIMATORS, OFF_POLICY
from plural_rlhf.core.offsets import OFFSET_MODES, OffsetMode
from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.policies.sampling_settings import check_sampling
from reward_models.errors import did_you_mean


__all__ = ["VARIANCE_REDUCTIONS", "PluralGRPOConfig"]

VARIANCE_REDUCTIONS = ("none", "reward_to_go", "rao_blackwell")

# Terms of GRPO's loss that would move its optimum away from the target.
_NEUTRAL = {
    "entropy_coef": (0.0,),
    "use_adaptive_entropy": (False,),
    "top_entropy_quantile": (1.0,),
    "mask_truncated_completions": (False,),
    "sync_ref_model": (False,),
    "vllm_importance_sampling_correction": (False,),
}


@dataclass
class PluralGRPOConfig(GRPOConfig):
    r"""Configuration of [`PluralGRPOTrainer`], on top of [`~trl.GRPOConfig`].

    What a target is, its options and the estimators are those of `plural_rlhf.core`, where their sources are named.
    GRPO's clipping, loss types and advantage settings are not read: the loss here has none of them.

    Parameters:
        > The target

        beta (`float`, *optional*, defaults to `1.0`):
            Temperature β of the target π₀·exp(R/β), in logits. 1 keeps the odds of a preference as they are.
        rho (`float`, *optional*, defaults to `1.0`):
            Pool parameter ρ: 1 every cluster in proportion to its weight, 0 consensus (log pool), −∞ the worst-off
            cluster.
        tie_margin (`float`, *optional*, defaults to `0.0`):
            Answers within this many logits of a cluster's best keep π₀'s ratio. The best is the highest reward so far
            of the prompt (exact mode: of its answers).
        tie_width (`float`, *optional*, defaults to `0.0`):
            Rounding of that edge, in logits; 0 is hard.
        uniform_floor (`float`, *optional*, defaults to `0.0`):
            Share of π₀ that is taken out among a cluster's tied best answers: 1 makes them equally likely.
        typicality_alpha (`float`, *optional*, defaults to `0.0`):
            Raters' preference for typical text, in logits of reward per nat of log π₀, which is subtracted
            (`plural_rlhf.core.typicality.fit_typicality`).
        reference_power (`float`, *optional*, defaults to `1.0`):
            Exponent of π₀; 0 drops the reference.
        kl_budget (`float`, *optional*):
            Wanted sequence KL(π‖π₀) in nats. β then starts at `beta` and is moved until the KL is this.
        kl_budget_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of that dual ascent on log β.
        max_min (`bool`, *optional*, defaults to `False`):
            Maximise the worst-off cluster's expected reward: the weights move to clusters that have less (dual
            ascent), in place of prevalence. Needs `rho=0`, whose target is the optimum of a weighted mean. Rewards of
            different clusters are compared, so calibrate the jury.
        max_min_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of the weights.

        > Sampled mode

        estimator (`str`, *optional*, defaults to `"vargrad"`):
            `"vargrad"` (leave-one-out of the group), `"tb"` (trajectory balance with the prompt's running log Z),
            `"js"` (bounded weights) or `"fkl"` (keeps every mode; weights cut at the group size).
        variance_reduction (`str`, *optional*, defaults to `"none"`):
            For long completions, with `estimator="vargrad"` and `num_iterations=1`: `"reward_to_go"` leaves past
            log-ratios out of each token's coefficient; `"rao_blackwell"` also replaces future ones by the KL over the
            whole vocabulary, for the memory of all logits.
        offsets (`str`, *optional*, defaults to `"ema"`):
            How log Z_k of each prompt is kept: `"ema"` (running average of importance-weighted estimates),
            `"responsibility"` (balancing; ρ = 1 only), `"reference"` (from `n_ref` completions of π₀, frozen),
            `"exact"` (from the column `support`) or `"global"` (one for all prompts, for data that is seen once).
        n_ref (`int`, *optional*, defaults to `0`):
            Completions of π₀ drawn for each new prompt to start its offsets; 0 starts from the first group.
        offset_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of responsibility balancing, at most 1. This and `offset_ema` may also be set in a `JuryReward`
            that is passed to the trainer: what was moved from its default counts, and both must not differ. Its mode
            becomes that of `offsets` here.
        offset_ema (`float`, *optional*, defaults to `0.02`):
            Least share of the new value in the average of `offsets="ema"`; of the first visits all count the same.
        reference_share (`float`, *optional*, defaults to `0.0`):
            Share of each group that π₀ draws in place of the policy (defensive sampling): what the policy has unlearnt
            is still tried, and importance weights for the offsets stay below one over this share. For prompts with
            answers that are rare under a policy on its way; 0.25 costs a quarter of the policy's own samples.
        replay_size (`int`, *optional*, defaults to `10000`):
            With `num_iterations` above 1 and `"vargrad"` or `"tb"`: completions of all prompts together that are
            remembered. Every further use of a generation batch makes its groups up anew with some of them, so that
            an answer that got lost comes back. Those of the latest batch are always among them; 0 uses each batch as
            it was drawn.
        replay_share (`float`, *optional*, defaults to `0.5`):
            Part of each group that comes from the memory then, by the target; the rest is of the batch.
        warmup_steps (`float`, *optional*):
            Steps in which the learning rate rises, or the share of all steps that these are. By default 0.1 where
            completions are learnt from repeatedly, as a policy that does so at the full rate from its first few may
            lose for good what is not among them, and 0 elsewhere.
        shared_prefix (`bool`, *optional*, defaults to `True`):
            Compute a prompt once for all its completions when generating and scoring.

        > Exact mode

        adam_beta1 (`float`, *optional*):
            Adam's memory of earlier gradients. By default 0.5 where the exact mode serves all rows, as its gradients
            have no sampling noise to average out and a longer memory only carries the policy past its target, and 0.9
            elsewhere.
        exact (`bool`, *optional*):
            Exact mode: nothing is sampled, every answer of the column `support` is scored. `None` turns it on for the
            rows that have one. Set it to `True` to be free of GRPO's rule that a batch holds whole groups.
        divergence (`str`, *optional*, defaults to `"fkl"`):
            Loss of the exact mode: `"fkl"` KL(p‖π), `"rkl"` KL(π‖p) or `"js"`.
        other_mass (`float`, *optional*, defaults to `0.0`):
            Probability that the target leaves to answers outside the support.

        > Steerable policies

        steerable (`bool`, *optional*, defaults to `False`):
            Draw weights over the clusters at every visit of a prompt and say them in the prompt: one policy for the
            whole simplex (`plural_rlhf.WeightSampler`). Prompts have to come without steering text, and those of
            training without `weights`; evaluation asks for those of the row, or else for the population.
        steer_concentration (`float`, *optional*, defaults to `0.5`):
            Concentration of the Dirichlet that weights are drawn from; at 1 the weightings that leave a cluster out
            are too rare to be learnt.
        steer_vertex_share (`float`, *optional*, defaults to `0.1`):
            Share of visits that are one cluster alone.
        steer_prevalence_share (`float`, *optional*, defaults to `0.25`):
            Share of visits that are the population.

    Raises:
        ValueError: `beta` of 0 or less, sampling that is not the model's own (temperature, top-k, …, also in
            `generation_kwargs`), reward scaling, or a loss term that moves the optimum; the message says why and what
            to set.
    """

    beta: float = field(
        default=1.0, metadata={"help": "Temperature of the target pi_0 exp(R / beta), in logits; above 0."}
    )
    rho: float = field(
        default=1.0, metadata={"help": "Pool parameter: 1 representation, 0 consensus, -inf egalitarian."}
    )
    tie_margin: float = field(
        default=0.0, metadata={"help": "Answers within this many logits of the best keep pi_0's ratio; 0 is off."}
    )
    tie_width: float = field(default=0.0, metadata={"help": "Rounding of the tie margin's edge, in logits."})
    uniform_floor: float = field(
        default=0.0, metadata={"help": "Share of pi_0 taken out among a cluster's tied best answers, 0 to 1."}
    )
    typicality_alpha: float = field(
        default=0.0, metadata={"help": "Preference for typical text to subtract, logits per nat of log pi_0."}
    )
    reference_power: float = field(default=1.0, metadata={"help": "Exponent of pi_0; 0 drops the reference."})
    kl_budget: float | None = field(
        default=None, metadata={"help": "Wanted sequence KL to pi_0 in nats; beta moves until it is reached."}
    )
    kl_budget_learning_rate: float = field(default=0.1, metadata={"help": "Step size of the dual ascent on log beta."})
    max_min: bool = field(
        default=False, metadata={"help": "Maximise the worst-off cluster's reward by dual weights (with rho=0)."}
    )
    max_min_learning_rate: float = field(default=0.1, metadata={"help": "Step size of the max-min weights."})
    scale_rewards: str = field(
        default="none",
        metadata={"help": "Only 'none': dividing by the group's standard deviation destroys near-ties."},
    )
    estimator: str = field(default="vargrad", metadata={"help": "Sampled mode: vargrad, tb, js or fkl."})
    variance_reduction: str = field(
        default="none", metadata={"help": "Long completions: none, reward_to_go or rao_blackwell."}
    )
    offsets: OffsetMode = field(
        default="ema",
        metadata={"help": "How log Z_k is kept: ema, responsibility, reference, exact or global."},
    )
    n_ref: int = field(
        default=0, metadata={"help": "Reference completions that start a new prompt's offsets; 0: the first group."}
    )
    offset_learning_rate: float = field(default=0.1, metadata={"help": "Step size of responsibility balancing."})
    offset_ema: float = field(
        default=0.02, metadata={"help": "Least share of the new value in the average of offsets='ema'."}
    )
    reference_share: float = field(
        default=0.0, metadata={"help": "Share of each group that pi_0 draws in place of the policy; 0: none."}
    )
    replay_size: int = field(
        default=10_000,
        metadata={"help": "Completions remembered for the further uses of a batch (num_iterations > 1); 0: none."},
    )
    replay_share: float = field(
        default=0.5, metadata={"help": "Part of a group that comes from the memory, above 0 and at most 1."}
    )
    warmup_steps: float | None = field(
        default=None,
        metadata={
            "help": "Steps of rising learning rate, or their share. Default: 0.1 if num_iterations > 1, else 0."
        },
    )
    shared_prefix: bool = field(
        default=True, metadata={"help": "Compute a prompt once for all its completions (sampled mode)."}
    )
    adam_beta1: float | None = field(
        default=None,
        metadata={"help": "Adam's memory of earlier gradients. Default: 0.5 in exact mode, 0.9 elsewhere."},
    )
    exact: bool | None = field(
        default=None,
        metadata={
            "help": "Score every answer of the column `support` instead of sampling. Default: rows that have one."
        },
    )
    divergence: str = field(default="fkl", metadata={"help": "Loss of the exact mode: fkl, rkl or js."})
    other_mass: float = field(
        default=0.0, metadata={"help": "Target probability of answers outside the support (exact mode)."}
    )
    steerable: bool = field(
        default=False, metadata={"help": "Draw weights over clusters at every visit and say them in the prompt."}
    )
    steer_concentration: float = field(default=0.5, metadata={"help": "Concentration of the drawn weights."})
    steer_vertex_share: float = field(default=0.1, metadata={"help": "Share of visits with one cluster alone."})
    steer_prevalence_share: float = field(default=0.25, metadata={"help": "Share of visits with the population."})
    vllm_importance_sampling_correction: bool = field(
        default=False,
        metadata={"help": "Only False: the residual has the target as its fixed point whoever drew the samples."},
    )

    @property
    def target(self) -> PoolTarget:
        """The target these settings describe."""
        return PoolTarget(
            rho=self.rho,
            beta=self.beta,
            tie_margin=self.tie_margin,
            tie_width=self.tie_width,
            uniform_floor=self.uniform_floor,
            typicality_alpha=self.typicality_alpha,
            reference_power=self.reference_power,
        )

    @property
    def reference_draws(self) -> int:
        """Completions of each group that the reference draws."""
        return round(self.reference_share * (self.num_generations or 0))

    @property
    def replays(self) -> bool:
        """Whether earlier completions are learnt from again."""
        return self.replay_size > 0 and self.num_iterations > 1 and self.estimator in OFF_POLICY and not self.exact

    def __post_init__(self) -> None:
        _refuse_unusable(self)
        if self.exact:
            # GRPO wants whole groups of samples in a batch; there are none here, so it is shown one it accepts.
            self.num_generations, self.num_generations_eval = 2, 1
            self.steps_per_generation, self.generation_batch_size = 2, None
        if self.warmup_steps is None:
            self.warmup_steps = 0.1 if self.replays else 0.0
        self._own_adam_beta1 = self.adam_beta1 is not None
        if self.adam_beta1 is None:
            self.adam_beta1 = 0.9
        super().__post_init__()
        check_sampling(self)  # after TRL has read generation_kwargs, which may be JSON
        if self.exact:
            self.use_exact_mode()

    def use_exact_mode(self) -> None:
        """Settles what the exact mode needs; the trainer calls it where the data set turns that mode on."""
        self.exact = True
        if not self._own_adam_beta1:
            self.adam_beta1 = 0.5
        self.steps_per_generation = 1
        self.generation_batch_size = self.per_device_train_batch_size * self.world_size


def _refuse_unusable(config: PluralGRPOConfig) -> None:
    if not (math.isfinite(config.beta) and config.beta > 0):
        raise ValueError(
            f"beta is {config.beta}, but it is the temperature of the target pi_0 exp(R / beta), which needs a number "
            "above 0: set beta=1.0 (rewards in logits). For no pull towards the reference at all, use trl.GRPOTrainer."
        )
    if config.num_generations is not None and config.num_generations < 2 and not config.exact:
        raise ValueError(
            f"num_generations is {config.num_generations}: what a completion is worth shows beside others of its "
            "prompt, so set num_generations to 2 or more (8 by default; the batch must hold whole groups)."
        )
    scaling = {True: "group", False: "none"}.get(config.scale_rewards, config.scale_rewards)  # type: ignore[call-overload]
    if scaling != "none":
        raise ValueError(
            f"scale_rewards is {config.scale_rewards!r}: dividing rewards by their standard deviation makes a gap of "
            "0.02 the same as a gap of 2, so no target distribution can be kept. Set scale_rewards='none'; to sharpen "
            "or flatten the policy, change beta."
        )
    for name, allowed in _NEUTRAL.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"{name} is {getattr(config, name)}, which moves the optimum away from the target: set "
                f"{name}={allowed[0]}."
            )
    for name, valid in (
        ("estimator", ESTIMATORS),
        ("divergence", DIVERGENCES),
        ("offsets", OFFSET_MODES),
        ("variance_reduction", VARIANCE_REDUCTIONS),
    ):
        value = getattr(config, name)
        if value not in valid:
            raise ValueError(f"{name} is {value!r}.{did_you_mean(value, valid)} It is one of {', '.join(valid)}.")
    if not 0 <= config.other_mass < 1:
        raise ValueError(f"other_mass is {config.other_mass}: it is a probability, at least 0 and below 1.")
    if config.variance_reduction != "none" and (config.estimator != "vargrad" or config.num_iterations > 1):
        raise ValueError(
            f"variance_reduction is {config.variance_reduction!r}, which is exact only for completions of the policy "
            f"that is updated: set estimator='vargrad' (it is {config.estimator!r}) and num_iterations=1 (it is "
            f"{config.num_iterations}), or variance_reduction='none'."
        )
    if config.max_min and config.rho != 0:
        raise ValueError(
            f"max_min is on and rho is {config.rho}: the max-min policy is the optimum of a weighted mean under the "
            "worst weights, so set rho=0.0. For the worst-off cluster answer by answer, set rho=float('-inf') instead."
        )
    if config.max_min and config.steerable:
        raise ValueError("max_min and steerable both choose the weights: turn one of them off.")
    if config.kl_budget is not None and not config.kl_budget > 0:
        raise ValueError(f"kl_budget is {config.kl_budget}: give a number of nats above 0, or None for a fixed beta.")
    if config.offsets in ("responsibility", "global") and config.rho not in (0, 1):
        raise ValueError(
            f"offsets is {config.offsets!r}, whose balance holds at log Z for rho=1 alone, and rho is {config.rho}: "
            "set offsets='ema'."
        )
    if config.kl_budget is not None and config.offsets in ("reference", "exact") and not config.exact:
        raise ValueError(
            f"kl_budget moves beta, and log Z_k with it, but offsets={config.offsets!r} stay where they are: set "
            "offsets='ema'."
        )
    if config.offsets == "reference" and config.n_ref == 0:
        raise ValueError(
            "offsets is 'reference' and n_ref is 0, so the first few completions would decide the target for good: "
            "set n_ref to 16 or more, or offsets='ema'."
        )
    if not 0 < config.offset_ema <= 1:
        raise ValueError(f"offset_ema is {config.offset_ema}: it is a share, above 0 and at most 1.")
    if not 0 <= config.offset_learning_rate <= 1:
        raise ValueError(
            f"offset_learning_rate is {config.offset_learning_rate}: it is a step size, 0 (offsets stay) to 1; above "
            "that the offsets overshoot and swing. Set 0.1, the default, or less."
        )
    if not 0 <= config.reference_share < 1:
        raise ValueError(f"reference_share is {config.reference_share}: it is a share, at least 0 and below 1.")
    if config.reference_share > 0:
        _refuse_with_reference_draws(config)
    if not 0 < config.replay_share <= 1:
        raise ValueError(f"replay_share is {config.replay_share}: it is a share, above 0 and at most 1.")
    if config.replay_size < 0:
        raise ValueError(f"replay_size is {config.replay_size}: it is a number of completions, 0 for none.")
    if config.n_ref < 0:
        raise ValueError(f"n_ref is {config.n_ref}: it is a number of completions, 0 or more.")
    config.target  # noqa: B018  (an option out of its range is refused by the target itself, with the reason)


def _refuse_with_reference_draws(config: PluralGRPOConfig) -> None:
    share = f"reference_share is {config.reference_share}"
    if not 0 < config.reference_draws < config.num_generations:
        raise ValueError(
            f"{share}, which is {config.reference_draws} of the {config.num_generations} completions of a group: it "
            "must be one or more, and leave one to the policy."
        )
    if config.use_vllm or config.use_transformers_continuous_batching:
        raise ValueError(
            f"{share}, and an engine that holds the policy alone cannot draw for the reference: set use_vllm=False, "
            "or reference_share=0.0."
        )
    if config.offsets in ("responsibility", "global"):
        raise ValueError(
            f"{share}, and offsets={config.offsets!r} balance the shares of the policy's own completions: set "
            "offsets='ema', or reference_share=0.0."
        )
    if config.variance_reduction != "none":
        raise ValueError(
            f"{share}, and variance_reduction={config.variance_reduction!r} is exact only for completions of the "
            "policy that is updated: turn one of them off."
        )
