"""Every private attribute of TRL 1.16 that `JuryRewardTrainer` touches, in one place.

A new TRL breaks this file and its test, and nothing else. Knows nothing of juries.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import RewardConfig, RewardTrainer
from trl.trainer.utils import create_model_from_path


__all__ = [
    "OVERRIDDEN",
    "add_metric",
    "changed_methods",
    "check_contract",
    "checkpoint_folder",
    "count_tokens",
    "load_model",
    "model_is_loaded",
    "set_signature_columns",
]

OVERRIDDEN: dict[str, list[str]] = {
    "_prepare_dataset": ["self", "dataset", "processing_class", "args", "dataset_name"],
    "_set_signature_columns_if_needed": ["self"],
    "_get_train_sampler": ["self", "train_dataset"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_best_model": ["self"],
}
"""Methods of `RewardTrainer` that `JuryRewardTrainer` overrides, with the parameters they had when written."""

CALLED = ("_get_output_dir",)
"""Methods of `RewardTrainer` that are called here and not overridden."""


def check_contract() -> list[str]:
    """Returns, as sentences, what the installed TRL changed of what is relied on here; empty when nothing changed."""
    return changed_methods(RewardTrainer, OVERRIDDEN, CALLED)


def changed_methods(trainer: type, overridden: Mapping[str, list[str]], called: Sequence[str] = ()) -> list[str]:
    """What a trainer of TRL lacks of `called`, and has in other form of `overridden`, as sentences.

    Args:
        trainer: The class.
        overridden: Its methods that are overridden, with the parameters they had.
        called: Its methods that are only called.
    """
    changed = [f"{trainer.__name__}.{name} is gone" for name in called if not hasattr(trainer, name)]
    for name, expected in overridden.items():
        method = inspect.getattr_static(trainer, name, None)
        if method is None:
            changed.append(f"{trainer.__name__}.{name} is gone")
        elif (found := list(inspect.signature(method).parameters)) != expected:
            changed.append(f"{trainer.__name__}.{name} takes {found}, not {expected}")
    return changed


def load_model(name: str, architecture: Any, args: RewardConfig, quantization_config: Any) -> Any:
    """Load a model as `RewardTrainer` loads one: in float32 unless told otherwise, and not split over devices."""
    kwargs = {"trust_remote_code": args.trust_remote_code, **(args.model_init_kwargs or {})}
    if quantization_config is not None:
        kwargs["quantization_config"] = quantization_config
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        kwargs["device_map"] = None
    return create_model_from_path(name, architecture, **kwargs)


@contextmanager
def model_is_loaded(args: RewardConfig) -> Iterator[None]:
    """Spare the user `RewardTrainer`'s warning that `model_init_kwargs` are ignored: they were used."""
    kwargs, args.model_init_kwargs = args.model_init_kwargs, None
    try:
        yield
    finally:
        args.model_init_kwargs = kwargs


def set_signature_columns(trainer: RewardTrainer, columns: list[str]) -> None:
    """The columns that `remove_unused_columns` must leave alone."""
    trainer._signature_columns = columns


def add_metric(trainer: RewardTrainer, name: str, value: float) -> None:
    """Adds a value to the metrics that TRL averages at its next log."""
    trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)


def count_tokens(trainer: RewardTrainer, attention_mask: torch.Tensor) -> None:
    """Adds the tokens of a training batch, on all processes, to `num_tokens`."""
    trainer._total_train_tokens += int(trainer.accelerator.gather(attention_mask.sum()).sum()) // trainer._tp_size
    trainer._metrics["train"]["num_tokens"] = [trainer._total_train_tokens]


def checkpoint_folder(trainer: RewardTrainer, trial: Any) -> Path:
    """Where the trainer keeps the checkpoint of the step it is at."""
    return Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
