"""`PluralGRPOConfig`: GRPO's settings, with defaults under which the mathematics of a target distribution holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from plural_rlhf.core.estimators import DIVERGENCES, ESTIMATORS, OFF_POLICY
from plural_rlhf.core.offsets import OFFSET_MODES, OffsetMode
from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.policies.sampling_settings import check_sampling
from plural_rlhf.trainers.setting_checks import check_choice, check_numbers


__all__ = ["VARIANCE_REDUCTIONS", "PluralGRPOConfig"]

VARIANCE_REDUCTIONS = ("none", "reward_to_go", "rao_blackwell", "prefix_rewards")

# Terms of GRPO's loss that would move its optimum away from the target.
_NEUTRAL = {
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "top_entropy_quantile": 1.0,
    "mask_truncated_completions": False,
    "sync_ref_model": False,
    "vllm_importance_sampling_correction": False,
}

_CHOICES = {
    "estimator": ESTIMATORS,
    "divergence": DIVERGENCES,
    "offsets": OFFSET_MODES,
    "variance_reduction": VARIANCE_REDUCTIONS,
}

_INTERVALS = {
    "kl_budget": ("(0, inf)", "a number of nats, and None keeps beta fixed"),
    "other_mass": ("[0, 1)", "a probability"),
    "offset_ema": ("(0, 1]", "a share"),
    "max_prompts": ("[1, inf)", "a number of prompts"),
    "offset_learning_rate": (
        "[0, 1]",
        "a step size, 0.1 by default, with which the offsets stay at 0 and overshoot above 1",
    ),
    "n_ref": ("[0, inf)", "a number of completions, 0 for none"),
    "prefix_every": ("[1, inf)", "a number of tokens"),
    "prefix_decay": ("[0, 1]", "a share"),
    "reference_share": ("[0, 1)", "a share"),
    "given_share": ("[0, 1)", "a share"),
    "replay_size": ("[0, inf)", "a number of completions, 0 for none"),
    "replay_share": ("(0, 1]", "a share"),
}


@dataclass
class PluralGRPOConfig(GRPOConfig):
    r"""Configuration of [`PluralGRPOTrainer`], on top of [`~trl.GRPOConfig`].

    The target, its options and the estimators are those of `plural_rlhf.core`, where their sources are named. The
    settings of GRPO's clipping, loss types and advantages are not read: the loss here has none of them.

    Parameters:
        > The target

        beta (`float`, *optional*, defaults to `1.0`):
            Temperature β of the target π₀·exp(R/β), in logits. 1 keeps the odds of a preference as the raters have
            them.
        rho (`float`, *optional*, defaults to `1.0`):
            Pool parameter ρ: 1 every cluster in proportion to its weight, 0 consensus (log pool), −∞ the worst-off
            cluster.
        tie_margin (`float`, *optional*, defaults to `0.0`):
            Answers within this many logits of a cluster's best keep π₀'s ratio. The best is the highest reward that
            the prompt had so far (exact mode: the highest of its answers).
        tie_width (`float`, *optional*, defaults to `0.0`):
            Rounding of that edge, in logits; 0 is hard.
        uniform_floor (`float`, *optional*, defaults to `0.0`):
            How much of π₀ is removed among a cluster's tied best answers: 1 makes them equally likely.
        typicality_alpha (`float`, *optional*, defaults to `0.0`):
            Raters' preference for typical text, in logits of reward per nat of log π₀, which is subtracted
            (`plural_rlhf.core.typicality.fit_typicality`).
        reference_power (`float`, *optional*, defaults to `1.0`):
            Exponent of π₀; 0 drops the reference.
        kl_budget (`float`, *optional*):
            Target value of the sequence KL(π‖π₀), in nats. β starts at `beta` and moves until the KL has this value.
        kl_budget_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of that dual ascent on log β.
        max_min (`bool`, *optional*, defaults to `False`):
            Maximise the worst-off cluster's expected reward: the weights start uniform and move to clusters that gain
            less (dual ascent). Needs `rho=0`, whose target is the optimum of a weighted mean. Rewards of different
            clusters are compared, so calibrate the jury reward model.
        max_min_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of the weights.

        > Sampled mode

        estimator (`str`, *optional*, defaults to `"vargrad"`):
            `"vargrad"` (leave-one-out of the group), `"tb"` (trajectory balance with the prompt's running log Z),
            `"js"` (bounded weights) or `"fkl"` (keeps every mode; weights cut at the group size).
        variance_reduction (`str`, *optional*, defaults to `"none"`):
            For long completions, with `estimator="vargrad"` and `num_iterations=1`: `"reward_to_go"` leaves past
            log-ratios out of each token's coefficient; `"rao_blackwell"` also replaces future ones by the KL over the
            whole vocabulary, for the memory of all logits. `"prefix_rewards"` lets the jury score the beginnings of
            each completion, too, and credits each token with what it adds; over the training it gives way to the
            whole completion's coefficient, whose fixed point is the target.
        prefix_every (`int`, *optional*, defaults to `2`):
            Tokens between two beginnings that are scored for `variance_reduction="prefix_rewards"`. The jury scores a
            completion of T tokens T / `prefix_every` times.
        prefix_decay (`float`, *optional*, defaults to `0.9`):
            What a token counts for the credit of the token before it, in the same mode.
        offsets (`str`, *optional*, defaults to `"ema"`):
            How log Z_k of each prompt is estimated: `"ema"` (running average of importance-weighted estimates),
            `"responsibility"` (balancing; ρ = 1 only), `"reference"` (from `n_ref` completions of π₀, frozen),
            `"exact"` (from the column `support`) or `"global"` (one for all prompts, for prompts that are met once).
        n_ref (`int`, *optional*, defaults to `0`):
            Number of completions that π₀ draws for each new prompt to start its offsets; 0 starts from the first
            group.
        offset_learning_rate (`float`, *optional*, defaults to `0.1`):
            Step size of responsibility balancing, at most 1. A `JuryReward` that is passed to the trainer has this
            setting, too: the one that differs from its default is used, and they must not both differ. Its mode of
            offsets becomes that of `offsets` here.
        offset_ema (`float`, *optional*, defaults to `0.02`):
            Least share of the new value in the average of `offsets="ema"`; the first visits all count the same.
        reference_share (`float`, *optional*, defaults to `0.0`):
            Share of each group that π₀ draws in place of the policy (defensive sampling): answers that the policy has
            unlearnt are still tried, and importance weights for the offsets stay below one over this share. Helps
            with answers that become rare during training; 0.25 costs a quarter of the policy's own samples.
        given_share (`float`, *optional*, defaults to `0.5`):
            Share of each group that is taken from the row's column `given_completions`, such as what people wrote, if
            the data set has that column. They are learnt from like the policy's own and cost no generation; the target
            stays the same whoever wrote them. Needs `estimator="vargrad"` or `"tb"`. 0 leaves the column unread.
        max_prompts (`int`, *optional*, defaults to `100000`):
            How many prompts offsets, normalisers and running bests are remembered of (about 3 KB each; a steerable
            policy has a normaliser for every prompt and weights). Beyond it those not visited for longest are
            forgotten, and start afresh at their next visit. `offsets="exact"` forgets none.
        replay_size (`int`, *optional*, defaults to `10000`):
            Number of completions, of all prompts together, that are remembered if `num_iterations` is above 1 and the
            estimator is `"vargrad"` or `"tb"`. Every further use of a generation batch makes its groups up anew with
            some of them, so that lost answers come back. Those of the latest batch are always among them; 0 uses each
            batch as it was drawn.
        replay_share (`float`, *optional*, defaults to `0.5`):
            Share of each group that is then drawn from the memory, in proportion to the target; the rest is of the
            batch.
        warmup_steps (`float`, *optional*):
            Number of steps in which the learning rate rises, or their share of all steps. `None`: 0.1 if completions
            are learnt from repeatedly, because the full rate on the first few may lose for good what is not among
            them; else 0.
        shared_prefix (`bool`, *optional*, defaults to `True`):
            Compute a prompt once for all its completions when generating and scoring.

        > Exact mode

        adam_beta1 (`float`, *optional*):
            Adam's decay of the mean of gradients. `None`: 0.5 if the exact mode serves all rows, because its
            gradients have no sampling noise to average out and a longer memory only carries the policy past its
            target; else 0.9.
        exact (`bool`, *optional*):
            Exact mode: nothing is sampled, every answer of the column `support` is scored. `None` turns it on for the
            rows that have a support. With `True`, GRPO's rule that a batch holds whole groups does not apply.
        divergence (`str`, *optional*, defaults to `"fkl"`):
            Loss of the exact mode: `"fkl"` KL(p‖π), `"rkl"` KL(π‖p) or `"js"`.
        other_mass (`float`, *optional*, defaults to `0.0`):
            Probability that the target leaves to answers outside the support.

        > Steerable policies

        steerable (`bool`, *optional*, defaults to `False`):
            Draw weights over the clusters at every visit of a prompt and name them in the prompt: one policy for the
            whole simplex (`plural_rlhf.WeightSampler`). Prompts must not have steering text, and training rows no
            `weights`; evaluation uses the weights of the row, or else the population's.
        steer_concentration (`float`, *optional*, defaults to `0.5`):
            Concentration of the Dirichlet distribution of the weights; at 1, weights that leave a cluster out are too
            rare to be learnt.
        steer_vertex_share (`float`, *optional*, defaults to `0.1`):
            Share of visits at which one cluster has all the weight.
        steer_prevalence_share (`float`, *optional*, defaults to `0.25`):
            Share of visits at which the weights are the population's.

    Raises:
        ValueError: `beta` of 0 or less, sampling that is not the model's own (temperature, top-k, …, also in
            `generation_kwargs`), reward scaling, or a loss term that moves the optimum; the message says why and what
            to set.

    Example:
        >>> config = PluralGRPOConfig("out", rho=0.0, num_generations=4, use_cpu=True, bf16=False)
        >>> config.target.rho, config.target.beta, config.estimator
        (0.0, 1.0, 'vargrad')
        >>> PluralGRPOConfig("out", scale_rewards="group", use_cpu=True, bf16=False)
        Traceback (most recent call last):
        ValueError: scale_rewards is 'group': dividing rewards by their standard deviation makes a gap of 0.02 the same
        as a gap of 2, so no target distribution can be kept. Set scale_rewards='none'; to sharpen or flatten the
        policy, change beta.
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
        default=0.0, metadata={"help": "How much of pi_0 is removed among a cluster's tied best answers, 0 to 1."}
    )
    typicality_alpha: float = field(
        default=0.0, metadata={"help": "Preference for typical text to subtract, logits per nat of log pi_0."}
    )
    reference_power: float = field(default=1.0, metadata={"help": "Exponent of pi_0; 0 drops the reference."})
    kl_budget: float | None = field(
        default=None,
        metadata={"help": "Target of the sequence KL to pi_0, nats; beta moves until it is reached."},
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
        default="none", metadata={"help": "Long completions: none, reward_to_go, rao_blackwell or prefix_rewards."}
    )
    prefix_every: int = field(
        default=2, metadata={"help": "Tokens between two beginnings that the jury scores (prefix_rewards)."}
    )
    prefix_decay: float = field(
        default=0.9, metadata={"help": "What a token counts for the credit of the one before it (prefix_rewards)."}
    )
    offsets: OffsetMode = field(
        default="ema",
        metadata={"help": "How log Z_k is estimated: ema, responsibility, reference, exact or global."},
    )
    n_ref: int = field(
        default=0, metadata={"help": "Reference completions that start a new prompt's offsets; 0: the first group."}
    )
    offset_learning_rate: float = field(default=0.1, metadata={"help": "Step size of responsibility balancing."})
    offset_ema: float = field(
        default=0.02, metadata={"help": "Least share of the new value in the average of offsets='ema'."}
    )
    max_prompts: int = field(
        default=100_000, metadata={"help": "Prompts whose offsets are remembered; the longest unvisited go first."}
    )
    reference_share: float = field(
        default=0.0, metadata={"help": "Share of each group that pi_0 draws in place of the policy; 0: none."}
    )
    given_share: float = field(
        default=0.5,
        metadata={"help": "Share of each group from the column `given_completions`, where the data set has it."},
    )
    replay_size: int = field(
        default=10_000,
        metadata={"help": "Completions remembered for the further uses of a batch (num_iterations > 1); 0: none."},
    )
    replay_share: float = field(
        default=0.5, metadata={"help": "Share of a group that is drawn from the memory, above 0 and at most 1."}
    )
    warmup_steps: float | None = field(
        default=None,
        metadata={"help": "Steps in which the learning rate rises, or their share. Default: 0.1 with replay, else 0."},
    )
    shared_prefix: bool = field(
        default=True, metadata={"help": "Compute a prompt once for all its completions (sampled mode)."}
    )
    adam_beta1: float | None = field(
        default=None,
        metadata={"help": "Adam's decay of the mean of gradients. Default: 0.5 in exact mode, else 0.9."},
    )
    exact: bool | None = field(
        default=None,
        metadata={
            "help": "Score every answer of the column `support` instead of sampling. Default: in rows that have one."
        },
    )
    divergence: str = field(default="fkl", metadata={"help": "Loss of the exact mode: fkl, rkl or js."})
    other_mass: float = field(
        default=0.0, metadata={"help": "Target probability of answers outside the support (exact mode)."}
    )
    steerable: bool = field(
        default=False, metadata={"help": "Draw weights over clusters at every visit and name them in the prompt."}
    )
    steer_concentration: float = field(default=0.5, metadata={"help": "Concentration of the drawn weights."})
    steer_vertex_share: float = field(
        default=0.1, metadata={"help": "Share of visits with all weight on one cluster."}
    )
    steer_prevalence_share: float = field(
        default=0.25, metadata={"help": "Share of visits with the weights of the population."}
    )
    vllm_importance_sampling_correction: bool = field(
        default=False,
        metadata={"help": "Only False: the residual has its fixed point at the target whoever drew the samples."},
    )

    @property
    def target(self) -> PoolTarget:
        """The target that these settings describe."""
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
        """How many completions of each group the reference draws."""
        return round(self.reference_share * (self.num_generations or 0))

    @property
    def given_draws(self) -> int:
        """How many completions of each group are given, in rows that have so many."""
        return round(self.given_share * (self.num_generations or 0))

    @property
    def replays(self) -> bool:
        """Whether completions of earlier visits are used again."""
        return self.replay_size > 0 and self.num_iterations > 1 and self.estimator in OFF_POLICY and not self.exact

    def __post_init__(self) -> None:
        _check_target(self)
        for name, valid in _CHOICES.items():
            check_choice(self, name, valid)
        check_numbers(self, _INTERVALS)
        _check_loss(self)
        _check_offsets(self)
        if self.reference_share > 0:
            _check_reference_share(self)
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
        """Set what the exact mode needs; the trainer calls it if the data set turns that mode on."""
        self.exact = True
        if not self._own_adam_beta1:
            self.adam_beta1 = 0.5
        self.steps_per_generation = 1
        self.generation_batch_size = self.per_device_train_batch_size * self.world_size


def _check_target(config: PluralGRPOConfig) -> None:
    if not (math.isfinite(config.beta) and config.beta > 0):
        raise ValueError(
            f"beta is {config.beta}, but it is the temperature of the target pi_0 exp(R / beta), which needs a number "
            "above 0: set beta=1.0 (rewards in logits). For no pull towards the reference at all, use trl.GRPOTrainer."
        )
    config.target  # noqa: B018  (an option out of its range is refused by the target itself, with the reason)
    if config.max_min and config.rho != 0:
        raise ValueError(
            f"max_min is on and rho is {config.rho}: the max-min policy is the optimum of a weighted mean under the "
            "worst weights, so set rho=0.0. For the worst-off cluster answer by answer, set rho=float('-inf') instead."
        )
    if config.max_min and config.steerable:
        raise ValueError("max_min and steerable both choose the weights: turn one of them off.")


def _check_loss(config: PluralGRPOConfig) -> None:
    """Raise if the loss has a term that moves its optimum, or compares what cannot be compared."""
    if config.num_generations is not None and config.num_generations < 2 and not config.exact:
        raise ValueError(
            f"num_generations is {config.num_generations}: a completion is compared with the others of its prompt, so "
            "set num_generations to 2 or more (8 by default; the batch must hold whole groups)."
        )
    scaling = {True: "group", False: "none"}.get(config.scale_rewards, config.scale_rewards)  # type: ignore[call-overload]
    if scaling != "none":
        raise ValueError(
            f"scale_rewards is {config.scale_rewards!r}: dividing rewards by their standard deviation makes a gap of "
            "0.02 the same as a gap of 2, so no target distribution can be kept. Set scale_rewards='none'; to sharpen "
            "or flatten the policy, change beta."
        )
    for name, neutral in _NEUTRAL.items():
        if getattr(config, name) != neutral:
            raise ValueError(
                f"{name} is {getattr(config, name)}, which moves the optimum away from the target: set "
                f"{name}={neutral}."
            )
    if config.variance_reduction != "none" and (config.estimator != "vargrad" or config.num_iterations > 1):
        raise ValueError(
            f"variance_reduction is {config.variance_reduction!r}, which is exact only for completions of the policy "
            f"that is updated: set estimator='vargrad' (it is {config.estimator!r}) and num_iterations=1 (it is "
            f"{config.num_iterations}), or variance_reduction='none'."
        )


def _check_offsets(config: PluralGRPOConfig) -> None:
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


def _check_reference_share(config: PluralGRPOConfig) -> None:
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
