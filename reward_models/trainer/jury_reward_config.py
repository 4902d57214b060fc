"""`JuryRewardConfig`: the settings of TRL's reward trainer, and those of clusters of raters.

Raises for values that cannot work with any data. Knows nothing of data or models: `JuryRewardTrainer` checks values
against those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trl import RewardConfig

from reward_models.errors import JuryError, did_you_mean


__all__ = ["MEMBERSHIPS_FROM", "JuryRewardConfig"]

MEMBERSHIPS_FROM = ("auto", "joint", "labels", "model", "random")


@dataclass
class JuryRewardConfig(RewardConfig):
    r"""Configuration of [`JuryRewardTrainer`], on top of [`~trl.RewardConfig`].

    `per_device_train_batch_size` counts items (pairs, questions, rated texts), each with all its judgements; see
    `judgements_per_row`. Judgements of texts longer than `max_length` are dropped, as in [`~trl.RewardTrainer`].

    Parameters:
        > Parameters that control the clusters

        num_clusters (`int`, *optional*):
            Number of rater clusters K. `None`: that of the model if it is a jury; else 2, or 1 (Bradley-Terry) if the
            data have no `rater_id`.
        cluster_names (`list[str]`, *optional*):
            K unique names. `None`: those of the model if it is a jury, else "cluster 1", "cluster 2", …
        cluster_descriptions (`list[str]`, *optional*):
            K sentences for the model card: what sets each cluster apart.
        memberships_from (`str`, *optional*, defaults to `"auto"`):
            Source of the first memberships: `"joint"` (the heads, memberships and rater terms of `fit_joint` on the
            backbone's features before training; memberships are fixed during `annealing_share`), `"labels"` (a
            label-level mixture of the same judgements, fixed likewise), `"model"` (the heads of a jury), `"random"`.
            `"auto"`: the model for a jury with K above 1, else joint; random where every rater judged one thing.
        temperature (`float`, *optional*, defaults to `4.0`):
            Initial temperature of the E-step for random memberships; it falls linearly to 1.
        annealing_share (`float`, *optional*, defaults to `0.3`):
            Share of the training during which that temperature falls, or memberships from a fit are fixed.
        dirichlet (`float`, *optional*, defaults to `1.5`):
            α of the Dirichlet prior on the prevalence; above 1 it keeps clusters from becoming empty.
        deviation_scale (`float`, *optional*, defaults to `0.01`):
            Standard deviation of the weights by which new heads differ from their common start.
        train_heads (`bool`, *optional*, defaults to `True`):
            Whether the heads are trained with the backbone. `False`: they stay as they start, e.g. those of the joint
            fit, and the backbone alone follows the judgements; on few judgements that overfits less.
        min_cluster_size (`float`, *optional*, defaults to `1.0`):
            A cluster with fewer expected raters than this at the end of an epoch counts as empty: the trainer warns,
            and restarts it from the raters who are predicted worst. 0 disables the check.

        > Parameters that control the likelihood

        rater_terms (`bool`, *optional*):
            Whether raters have terms of their own (leniency, scale, tie propensity, position), estimated from the
            labels if raters share texts. `None`: yes, unless the loss is that of [`~trl.RewardTrainer`] (one cluster,
            pairs without ties).
        term_learning_rate (`float`, *optional*, defaults to `0.05`):
            Step size (Adagrad, in logits) of the terms that all raters share: thresholds of ratings, mean tie
            propensity, mean position effect. They are not part of the saved reward. 0 keeps the estimates from the
            labels.

        > Parameters that control the data

        judgements_per_row (`int`, *optional*):
            Largest number of judgements of one item in one row; an item with more is split into several rows, and its
            texts are read several times per epoch. `None`: no limit, except that preference data without `rater_id`
            have one judgement per row, as in [`~trl.RewardTrainer`].
        group_by_prompt (`bool`, *optional*, defaults to `False`):
            Keep the items of a prompt next to each other in the shuffled order, so that responses compared several
            times are read once per batch.
        as_conversations (`bool`, *optional*):
            Whether plain prompts are read as conversations of one user message, as GRPO asks a chat model. `None`:
            for judgement tables yes, where the tokenizer has a chat template; TRL's `chosen`/`rejected` data are read
            as they come. The finished jury reads texts in the same form.
        read_prompt (`bool`, *optional*, defaults to `True`):
            Whether the prompt is read before the response, as `fit_jury(read_prompt=)` says. `False`: the response
            alone, for texts that stand by themselves. A jury that is trained further reads as it did.
        special_tokens (`bool`, *optional*):
            Whether plain (not conversational) texts get the tokenizer's special tokens and an end token, as in
            [`~trl.RewardTrainer`]. `None`: yes for TRL's `chosen`/`rejected` data, no for judgement tables.
            `JuryScorer` reads plain texts as the training did; stock trainers that load the jury by
            `reward_funcs="path"` read them without.
        eval_adaptation (`float`, *optional*, defaults to `0.0`):
            Share of each rater's evaluation judgements that the jury adapts by; they are not scored. 0: raters of the
            training data keep their memberships, others have the prevalence.
        heldout_texts (`float`, *optional*, defaults to `0.0`):
            Share of the texts (of the prompts, where there are ten or more) whose judgements are not trained on: they
            are the evaluation data, the model is evaluated on them before the first step and after every epoch
            (`eval_strategy`), training stops after `patience` evaluations without a better loss, and the best of these
            models is kept, which may be the one before the first step.
        patience (`int`, *optional*, defaults to `2`):
            See `heldout_texts`.
        save_raters (`bool`, *optional*, defaults to `False`):
            Whether the finished jury stores the posteriors of the training raters, under pseudonyms
            (`JuryScorer.remembered`).

    Raises:
        JuryError: A value cannot work; the message says why and what to set.

    Example:
        >>> args = JuryRewardConfig("runs/jury", num_clusters=3, report_to="none", bf16=False)
        >>> args.num_clusters, args.memberships_from
        (3, 'auto')
        >>> JuryRewardConfig("runs/jury", dirichlet=0.5)
        Traceback (most recent call last):
        reward_models.errors.JuryError: dirichlet=0.5: below 1 the prior empties clusters, so it must be at
        least 1.
    """

    num_clusters: int | None = field(
        default=None,
        metadata={"help": "Number of rater clusters K. Default: the jury's own, else 2, or 1 without rater_id."},
    )
    cluster_names: list[str] | None = field(default=None, metadata={"help": "K unique names of the clusters."})
    cluster_descriptions: list[str] | None = field(
        default=None, metadata={"help": "K sentences for the model card: what sets each cluster apart."}
    )
    memberships_from: str = field(
        default="auto",
        metadata={"help": "Source of the first memberships: auto, joint, labels, model or random."},
    )
    temperature: float = field(
        default=4.0, metadata={"help": "Initial temperature of the E-step for random memberships."}
    )
    annealing_share: float = field(
        default=0.3,
        metadata={"help": "Share of the training in which the temperature falls, or first memberships are fixed."},
    )
    dirichlet: float = field(default=1.5, metadata={"help": "Dirichlet prior on the prevalence; at least 1."})
    deviation_scale: float = field(
        default=0.01, metadata={"help": "Standard deviation of the weights by which new heads differ."}
    )
    train_heads: bool = field(
        default=True, metadata={"help": "Train the heads with the backbone; no: they stay as they start."}
    )
    min_cluster_size: float = field(
        default=1.0,
        metadata={"help": "A cluster with fewer expected raters at the end of an epoch restarts; 0: never."},
    )
    rater_terms: bool | None = field(
        default=None,
        metadata={"help": "Whether raters have terms. Default: unless the loss is that of RewardTrainer."},
    )
    term_learning_rate: float = field(
        default=0.05, metadata={"help": "Step size of thresholds, mean tie propensity and mean position effect."}
    )
    judgements_per_row: int | None = field(
        default=None, metadata={"help": "Largest number of judgements of one item in one row. Default: all."}
    )
    group_by_prompt: bool = field(
        default=False, metadata={"help": "Keep the items of a prompt next to each other, to read shared texts once."}
    )
    as_conversations: bool | None = field(
        default=None,
        metadata={
            "help": "Read plain prompts as conversations of one user message. Default: for judgement tables, where "
            "the tokenizer has a chat template."
        },
    )
    read_prompt: bool = field(
        default=True, metadata={"help": "Read the prompt before the response; no: the response alone."}
    )
    special_tokens: bool | None = field(
        default=None,
        metadata={
            "help": "Give plain texts the tokenizer's special tokens and an end token, as RewardTrainer does. "
            "Default: only for chosen/rejected data."
        },
    )
    eval_adaptation: float = field(
        default=0.0, metadata={"help": "Share of each rater's evaluation judgements to adapt by."}
    )
    heldout_texts: float = field(
        default=0.0,
        metadata={"help": "Share of the texts held out to stop early and to keep the best model; 0: none."},
    )
    patience: int = field(
        default=2, metadata={"help": "Evaluations on held-out texts without a better loss after which training stops."}
    )
    save_raters: bool = field(
        default=False, metadata={"help": "Store the posteriors of the training raters with the jury."}
    )

    def __post_init__(self) -> None:
        _check_values(self)
        if self.heldout_texts > 0:
            _evaluate_and_keep_the_best(self)
        super().__post_init__()


def _evaluate_and_keep_the_best(config: Any) -> None:
    """Evaluate after every epoch, unless another strategy is set, and end with the model of the lowest loss."""
    if config.eval_strategy == "no":
        config.eval_strategy = "epoch"
    config.save_strategy, config.save_steps = config.eval_strategy, config.eval_steps or config.save_steps
    config.load_best_model_at_end, config.metric_for_best_model, config.greater_is_better = True, "loss", False


def _check_values(config: JuryRewardConfig) -> None:
    if config.num_clusters is not None and config.num_clusters < 1:
        raise JuryError(
            f"num_clusters={config.num_clusters}: a jury has at least one cluster. Set 1 for a plain Bradley-Terry "
            "reward model, or leave it out."
        )
    if config.memberships_from not in MEMBERSHIPS_FROM:
        raise JuryError(
            f"memberships_from={config.memberships_from!r} is not one of {', '.join(MEMBERSHIPS_FROM)}."
            f"{did_you_mean(config.memberships_from, MEMBERSHIPS_FROM)}"
        )
    if config.judgements_per_row is not None and config.judgements_per_row < 1:
        raise JuryError(
            f"judgements_per_row={config.judgements_per_row}: a row holds at least one judgement. Leave it out to "
            "hold all judgements of an item."
        )
    # Name, smallest value, whether one above 1 makes no sense, and why.
    for name, lowest, is_share, why in (
        ("temperature", 1.0, False, "1 is Bayes' rule, larger is softer"),
        ("annealing_share", 0.0, True, "it is a share of the training"),
        ("dirichlet", 1.0, False, "below 1 the prior empties clusters"),
        ("deviation_scale", 0.0, False, "it is a standard deviation"),
        ("min_cluster_size", 0.0, False, "it is a number of raters"),
        ("term_learning_rate", 0.0, False, "it is a step size, and 0 keeps the terms"),
        ("eval_adaptation", 0.0, True, "it is a share of the judgements"),
        ("heldout_texts", 0.0, True, "it is a share of the texts"),
        ("patience", 1.0, False, "it is a number of evaluations"),
    ):
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= lowest) or (is_share and value > 1):
            upper = " and at most 1" if is_share else ""
            raise JuryError(f"{name}={value}: {why}, so it must be at least {lowest:g}{upper}.")
    if config.eval_adaptation == 1:
        raise JuryError("eval_adaptation=1.0 leaves no judgement to score. Set a share below 1, such as 0.3.")
    if config.heldout_texts == 1:
        raise JuryError("heldout_texts=1.0 leaves no text to train on. Set a share below 1, such as 0.1.")
    for name in ("cluster_names", "cluster_descriptions"):
        values = getattr(config, name)
        if values is not None and config.num_clusters is not None and len(values) != config.num_clusters:
            raise JuryError(
                f"{name} has {len(values)} entries for num_clusters={config.num_clusters}. Give one per cluster."
            )
