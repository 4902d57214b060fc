"""What a `PluralDPOTrainer` is given, checked before TRL loads anything.

Who judged each pair is checked where it is read (`dpo.pair_clusters`, `dpo.preference_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets import Dataset

from plural_rlhf.trainers.checks.datasets import each_dataset
from plural_rlhf.trainers.checks.policy import check_reloadable
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["check_pair_dataset", "check_pair_training"]


def check_pair_training(
    args: Any,
    *,
    model: str | PreTrainedModel | PeftModel,
    ref_model: Any,
    train_dataset: Any,
    eval_dataset: Any,
    peft_config: Any,
) -> None:
    """Raise if what a trainer was given cannot work.

    Raises:
        TypeError: `args` is of another trainer.
        ValueError: A data set is missing, is a stream or has images, or the reference cannot be loaded.
    """
    if not isinstance(args, PluralDPOConfig):
        raise TypeError(
            f"args is a {type(args).__name__}, which has no settings of clusters: pass a PluralDPOConfig, which takes "
            "all that trl.DPOConfig takes, too."
        )
    if train_dataset is None:
        raise ValueError("train_dataset is missing: pass a datasets.Dataset of preference pairs.")
    for dataset in each_dataset(train_dataset, eval_dataset):
        check_pair_dataset(dataset)
    if ref_model is None and not args.precompute_ref_log_probs:
        cure = "save it and pass its path, pass ref_model= or peft_config=, or set precompute_ref_log_probs=True"
        check_reloadable(model, peft_config, args.model_init_kwargs, cure)


def check_pair_dataset(dataset: Any) -> None:
    """Raise if a data set is a stream or has images.

    Raises:
        ValueError: Says which, and what to do.

    Example:
        >>> pairs = Dataset.from_list([{"chosen": "yes", "rejected": "no", "image": "a.png"}])
        >>> check_pair_dataset(pairs)
        Traceback (most recent call last):
        ValueError: pairs with images are not supported: remove the column, or use trl.DPOTrainer.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"a {type(dataset).__name__} cannot be trained on: who judged, and how often, must be known before "
            "training. Pass a datasets.Dataset, loaded without streaming."
        )
    if {"image", "images"} & set(dataset.column_names):
        raise ValueError("pairs with images are not supported: remove the column, or use trl.DPOTrainer.")
