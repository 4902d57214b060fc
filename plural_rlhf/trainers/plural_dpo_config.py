"""`PluralDPOConfig`: DPO's settings, and those of clusters of raters.

Refuses values that cannot work whatever the data are. Knows nothing of data, models or juries: what does not fit those
is refused by `pair_clusters`, `preference_rows` and
`plural_dpo_trainer`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trl import DPOConfig

from reward_models.errors import did_you_mean


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
        "the prompt would lose its beginning, which says whose preferences are asked for",
    ),
}


@dataclass
class PluralDPOConfig(DPOConfig):
    r"""Configuration of [`PluralDPOTrainer`], on top of [`~trl.DPOConfig`].

    `per_device_train_batch_size` counts pairs. A pair is read once for the reference, and for the policy once
    (`"average"`, rows with `weights`), once for each cluster its rater may be in (`"steerable"`), or once for each
    cluster and once for the public (`"mixture"`).

    Parameters:
        > Parameters that control the objective

        objective (`str`, *optional*, defaults to `"steerable"`):
            `"steerable"`: each pair is learnt under a prompt that names its rater's cluster (or the row's `weights`),
            in proportion to the membership. `"mixture"`: the likelihood of a choice is the mixture
            Σ_k q_k σ(margin_k) over the clusters the rater may be in, and a prompt that names nobody gets the mixture
            Σ_k w_k π(y|x,k) at the prevalence. `"average"`: no prompt is changed, as in [`~trl.DPOTrainer`].
        loss_type (`str`, *optional*, defaults to `"sigmoid"`):
            `"sigmoid"` (DPO) or `"ipo"`. `"mixture"` is a likelihood, so it takes only the first.
        cluster_names (`list[str]`, *optional*):
            K unique names, which are also the words that steer. `None`: those of the jury, or of the data where they
            write the clusters by name.
        prevalence (`list[float]`, *optional*):
            K shares of the population. `None`: those of the jury, else the mean membership of the training raters,
            or of the judgements where nobody is known by id.
        sft_coef (`float`, *optional*, defaults to `0.0`):
            Weight of the chosen response's negative log-likelihood per token, under the prompt that its pair is learnt
            with. Losses of pairs are blind to where probability goes that both responses lose; this keeps it on the
            chosen one (RPO, 2404.19733), which the mixture of policies needs to be worth having.
        public_coef (`float`, *optional*, defaults to `0.1`):
            Weight of the loss that holds the prompt without a cluster to the mixture (`"mixture"`); 0 leaves such
            prompts alone.
        min_membership (`float`, *optional*, defaults to `0.01`):
            A rater is not in a cluster that has less than this probability (`"steerable"`): its pass is saved.

        > Parameters that control the balance between clusters

        cluster_weights (`str` or `dict[str, float]`, *optional*):
            What each cluster counts in the loss: `"uniform"`, `"prevalence"` or a number a cluster. `None`: as many
            judgements as it has.
        robust (`bool`, *optional*, defaults to `False`):
            Let the weights of the clusters follow their losses, so that the worst-off cluster comes first (group
            distributionally robust optimisation). They start at `cluster_weights`.
        robust_learning_rate (`float`, *optional*, defaults to `0.05`):
            Step of the robust weights, per nat of loss and optimizer step.
        robust_floor (`float`, *optional*, defaults to `0.0`):
            Least robust weight of a cluster.

        > Parameters that control what is known of raters and ties

        annealing_share (`float`, *optional*, defaults to `0.5`):
            Where nothing is known of the raters but who judged what, the share of training during which random
            memberships fade out (`"mixture"`).
        dirichlet (`float`, *optional*, defaults to `1.5`):
            α of the Dirichlet prior on the prevalence in that case.
        tie_propensity (`float`, *optional*, defaults to `0.0`):
            Davidson's ν: between equal responses a tie has probability ν/(2+ν). Needed where a column `tie` holds
            ties, unless `loss_type="ipo"`.

    Raises:
        ValueError: A value cannot work; the message says why and what to set.
    """

    _VALID_DICT_FIELDS = [*DPOConfig._VALID_DICT_FIELDS, "cluster_weights"]  # noqa: RUF012  (TRL's own convention)

    objective: str = field(
        default="steerable",
        metadata={"help": "steerable (one policy, told the cluster), mixture (likelihood over clusters) or average."},
    )
    cluster_names: list[str] | None = field(
        default=None, metadata={"help": "K names, the words that steer. Default: those of the jury or of the data."}
    )
    prevalence: list[float] | None = field(
        default=None, metadata={"help": "K shares of the population. Default: the jury's, or those of the data."}
    )
    sft_coef: float = field(
        default=0.0, metadata={"help": "Weight of the chosen response's negative log-likelihood per token."}
    )
    public_coef: float = field(
        default=0.1,
        metadata={"help": "Weight of the loss that holds a prompt without a cluster to the mixture (mixture)."},
    )
    min_membership: float = field(
        default=0.01, metadata={"help": "Memberships below this are taken for 0 (steerable)."}
    )
    cluster_weights: dict[str, float] | str | None = field(
        default=None, metadata={"help": "What each cluster counts in the loss. Default: as its judgements are many."}
    )
    robust: bool = field(
        default=False, metadata={"help": "Let the clusters' weights follow their losses (group DRO)."}
    )
    robust_learning_rate: float = field(
        default=0.05, metadata={"help": "Step of the robust weights, per nat of loss and optimizer step."}
    )
    robust_floor: float = field(default=0.0, metadata={"help": "Least robust weight of a cluster."})
    annealing_share: float = field(
        default=0.5, metadata={"help": "Share of training in which random memberships of unknown raters fade out."}
    )
    dirichlet: float = field(
        default=1.5, metadata={"help": "Dirichlet prior on the prevalence of unknown raters; at least 1."}
    )
    tie_propensity: float = field(
        default=0.0, metadata={"help": "Davidson's tie propensity nu; 0: there are no ties."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unusable(self)

    @property
    def loss(self) -> str:
        """The one loss of `loss_type`, which TRL keeps as a list."""
        return self.loss_type[0]


def _refuse_unusable(config: PluralDPOConfig) -> None:
    if config.objective not in OBJECTIVES:
        raise ValueError(
            f"objective is {config.objective!r}.{did_you_mean(config.objective, OBJECTIVES)} It is one of "
            f"{', '.join(OBJECTIVES)}."
        )
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
    for name, (only, why) in _FIXED.items():
        value = getattr(config, name)
        if value != only:
            raise ValueError(f"{name} is {value!r}, but {why}: set {name}={only!r}, or use trl.DPOTrainer.")
    # Name, whether 0 is allowed, the largest value, and what it is.
    for name, zero, highest, what in (
        ("beta", False, math.inf, "the strength of the pull to the reference"),
        ("sft_coef", True, math.inf, "the weight of a loss, and 0 turns it off"),
        ("public_coef", True, math.inf, "the weight of a loss, and 0 turns it off"),
        ("min_membership", True, 0.5, "a probability that counts as none"),
        ("robust_learning_rate", False, math.inf, "a step size"),
        ("robust_floor", True, 1.0, "a share"),
        ("annealing_share", True, 1.0, "a share of training"),
        ("tie_propensity", True, math.inf, "a ratio of probabilities, and 0 means no ties"),
    ):
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= 0 and value <= highest) or (value == 0 and not zero):
            lowest = "at least 0" if zero else "above 0"
            upper = "" if math.isinf(highest) else f" and at most {highest:g}"
            raise ValueError(f"{name} is {value}: it is {what}, so it must be {lowest}{upper}.")
    if not config.dirichlet >= 1:
        raise ValueError(f"dirichlet is {config.dirichlet}: below 1 the prior pulls clusters to extinction; set 1.5.")
