"""`PluralDPOConfig`: DPO's settings, and those of clusters of raters.

Raises for values that cannot work with any data. Knows nothing of data, models or scorers: the trainer checks values
against those.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import DPOConfig

from plural_rlhf.trainers.setting_checks import check_choice, check_numbers


__all__ = ["LOSSES", "OBJECTIVES", "PluralDPOConfig"]

OBJECTIVES = ("steerable", "mixture", "average")
LOSSES = ("sigmoid", "ipo")

# Settings of DPO that change what a margin means, with the only value that is understood here, and why.
_FIXED = {
    "loss_weights": (None, "one loss is used"),
    "f_divergence_type": ("reverse_kl", "the mixture over clusters is one of policies pi_ref exp(r_k / beta)"),
    "ld_alpha": (None, "the likelihood of a pair is that of whole responses"),
    "use_weighting": (False, "pairs are weighted by their raters' clusters"),
    "label_smoothing": (0.0, "raters who differ are modelled as clusters, not as noise"),
    "sync_ref_model": (False, "a reference that moves is not in the checkpoints and has no fixed point"),
    "truncation_mode": (
        "keep_start",
        "the prompt would lose its beginning, which names the cluster",
    ),
}

_INTERVALS = {
    "beta": ("(0, inf)", "the strength of the pull to the reference"),
    "sft_coef": ("[0, inf)", "the weight of a loss, and 0 turns it off"),
    "public_coef": ("[0, inf)", "the weight of a loss, and 0 turns it off"),
    "min_membership": ("[0, 0.5]", "a probability that counts as none"),
    "robust_learning_rate": ("(0, inf)", "a step size"),
    "robust_floor": ("[0, 1]", "a share"),
    "annealing_share": ("[0, 1]", "a share of training"),
    "tie_propensity": ("[0, inf)", "a ratio of probabilities, and 0 means no ties"),
}


@dataclass
class PluralDPOConfig(DPOConfig):
    r"""Configuration of [`PluralDPOTrainer`], on top of [`~trl.DPOConfig`].

    `per_device_train_batch_size` counts pairs. The reference reads a pair once. The policy reads it once
    (`"average"`, rows with `weights`), once for each cluster that its rater may be in (`"steerable"`), or once for
    each cluster and once for the public (`"mixture"`).

    Parameters:
        > Parameters that control the objective

        objective (`str`, *optional*, defaults to `"steerable"`):
            `"steerable"`: each pair is learnt under a prompt that names its rater's cluster (or the row's `weights`),
            in proportion to the membership. `"mixture"`: the likelihood of a choice is the mixture
            Σ_k q_k σ(margin_k) over the clusters the rater may be in, and a prompt that names no cluster gets the
            mixture Σ_k w_k π(y|x,k) at the prevalence. `"average"`: no prompt is changed, as in [`~trl.DPOTrainer`].
        loss_type (`str`, *optional*, defaults to `"sigmoid"`):
            `"sigmoid"` (DPO) or `"ipo"`. The objective `"mixture"` is a likelihood, so it takes `"sigmoid"` only.
        cluster_names (`list[str]`, *optional*):
            K unique names, which are also the words that steer. `None`: those of the scorer, or of the data if they
            name the clusters.
        prevalence (`list[float]`, *optional*):
            K shares of the population. `None`: those of the scorer, else the mean membership of the training raters,
            or of the judgements if the data have no `rater_id`.
        sft_coef (`float`, *optional*, defaults to `0.0`):
            Weight of the chosen response's negative log-likelihood per token, under the prompt that its pair is learnt
            with. A loss of pairs does not see when both responses lose probability to a third one; this term keeps
            probability on the chosen response (RPO, 2404.19733). A mixture of policies is of little use without it.
        public_coef (`float`, *optional*, defaults to `0.1`):
            Weight of the loss that holds the prompt without a cluster to the mixture (`"mixture"`); 0 does not train
            such prompts.
        min_membership (`float`, *optional*, defaults to `0.01`):
            Memberships below this are taken to be 0 (`"steerable"`), which saves a forward pass each.

        > Parameters that control the balance between clusters

        cluster_weights (`str` or `dict[str, float]`, *optional*):
            What each cluster counts in the loss: `"uniform"`, `"prevalence"` or a number per cluster. `None`: in
            proportion to its judgements.
        robust (`bool`, *optional*, defaults to `False`):
            Whether the weights of the clusters follow their losses, so that the worst-off cluster counts most (group
            distributionally robust optimisation). They start at `cluster_weights`.
        robust_learning_rate (`float`, *optional*, defaults to `0.05`):
            Step size of the robust weights, per nat of loss and optimizer step.
        robust_floor (`float`, *optional*, defaults to `0.0`):
            Least robust weight of a cluster.

        > Parameters that control what is known of raters and ties

        annealing_share (`float`, *optional*, defaults to `0.5`):
            Share of training during which random memberships fade out, if memberships are learnt from the choices
            alone (`"mixture"`).
        dirichlet (`float`, *optional*, defaults to `1.5`):
            α of the Dirichlet prior on the prevalence in that case.
        tie_propensity (`float`, *optional*, defaults to `0.0`):
            Davidson's ν: between equal responses a tie has probability ν/(2+ν). Needed if a column `tie` holds
            ties, unless `loss_type="ipo"`.

    Raises:
        ValueError: A value cannot work; the message says why and what to set.

    Example:
        >>> config = PluralDPOConfig("out", cluster_names=["urban", "rural"], use_cpu=True, bf16=False)
        >>> config.objective, config.loss, config.beta
        ('steerable', 'sigmoid', 0.1)
        >>> PluralDPOConfig("out", objective="mixture", loss_type="ipo", use_cpu=True, bf16=False)
        Traceback (most recent call last):
        ValueError: objective='mixture' with loss_type='ipo': a mixture over clusters needs the probability of a
        choice, which IPO does not have. Set loss_type='sigmoid', or objective='steerable'.
    """

    _VALID_DICT_FIELDS = [*DPOConfig._VALID_DICT_FIELDS, "cluster_weights"]  # noqa: RUF012  (TRL's own convention)

    objective: str = field(
        default="steerable",
        metadata={"help": "steerable (one policy, told the cluster), mixture (likelihood over clusters) or average."},
    )
    cluster_names: list[str] | None = field(
        default=None, metadata={"help": "K names, the words that steer. Default: those of the scorer or of the data."}
    )
    prevalence: list[float] | None = field(
        default=None, metadata={"help": "K shares of the population. Default: those of the scorer, or of the data."}
    )
    sft_coef: float = field(
        default=0.0, metadata={"help": "Weight of the chosen response's negative log-likelihood per token."}
    )
    public_coef: float = field(
        default=0.1,
        metadata={"help": "Weight of the loss that holds a prompt without a cluster to the mixture (mixture)."},
    )
    min_membership: float = field(
        default=0.01, metadata={"help": "Memberships below this are taken to be 0 (steerable)."}
    )
    cluster_weights: dict[str, float] | str | None = field(
        default=None,
        metadata={"help": "Weights of the clusters in the loss. Default: in proportion to their judgements."},
    )
    robust: bool = field(
        default=False, metadata={"help": "Let the clusters' weights follow their losses (group DRO)."}
    )
    robust_learning_rate: float = field(
        default=0.05, metadata={"help": "Step size of the robust weights, per nat of loss and optimizer step."}
    )
    robust_floor: float = field(default=0.0, metadata={"help": "Least robust weight of a cluster."})
    annealing_share: float = field(
        default=0.5, metadata={"help": "Share of training in which random memberships of unknown raters fade out."}
    )
    dirichlet: float = field(
        default=1.5, metadata={"help": "Dirichlet prior on the prevalence of unknown raters; at least 1."}
    )
    tie_propensity: float = field(default=0.0, metadata={"help": "Davidson's tie propensity nu; 0: no ties."})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_settings(self)

    @property
    def loss(self) -> str:
        """The one loss of `loss_type`, which TRL keeps as a list."""
        return self.loss_type[0]


def _check_settings(config: PluralDPOConfig) -> None:
    check_choice(config, "objective", OBJECTIVES)
    if len(config.loss_type) != 1 or config.loss not in LOSSES:
        raise ValueError(
            f"loss_type is {config.loss_type}, and what a rater's choice says of a cluster is worked out for one of "
            f"{', '.join(LOSSES)} only: set loss_type='sigmoid', or use trl.DPOTrainer for the others."
        )
    if config.objective == "mixture" and config.loss != "sigmoid":
        raise ValueError(
            "objective='mixture' with loss_type='ipo': a mixture over clusters needs the probability of a choice, "
            "which IPO does not have. Set loss_type='sigmoid', or objective='steerable'."
        )
    for name, (only, reason) in _FIXED.items():
        value = getattr(config, name)
        if value != only:
            raise ValueError(f"{name} is {value!r}, but {reason}: set {name}={only!r}, or use trl.DPOTrainer.")
    check_numbers(config, _INTERVALS)
    if not config.dirichlet >= 1:
        raise ValueError(
            f"dirichlet is {config.dirichlet}: below 1 the prior drives small clusters to extinction; set 1.5."
        )
