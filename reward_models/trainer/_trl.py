"""Every private attribute of TRL 1.16 that `JuryRewardTrainer` uses, and metrics of any trainer of TRL, in one place.

If a new TRL changes them, only this file and its test break. Knows nothing of juries.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers import trainer as trainer_module
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import RewardConfig, RewardTrainer
from trl.trainer.utils import create_model_from_path


__all__ = [
    "OVERRIDDEN",
    "add_extreme",
    "add_metric",
    "add_ratio",
    "add_ratios",
    "add_spread",
    "changed_methods",
    "check_contract",
    "checkpoint_folder",
    "count_tokens",
    "load_model",
    "model_is_loaded",
    "pooled_metrics",
    "real_rows",
    "rotation_last",
    "save_as_best",
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

CALLED = ("_get_output_dir", "_determine_best_metric")
"""Methods of `RewardTrainer` that are called here and not overridden."""


def check_contract() -> list[str]:
    """Return, as sentences, what the installed TRL changed of what this file relies on; empty if nothing.

    Example:
        >>> check_contract()
        []
    """
    return changed_methods(RewardTrainer, OVERRIDDEN, CALLED)


def changed_methods(trainer: type, overridden: Mapping[str, list[str]], called: Sequence[str] = ()) -> list[str]:
    """Return, as sentences, which methods of a trainer of TRL are missing or have other parameters.

    Args:
        trainer: The class.
        overridden: Methods that are overridden, with their expected parameters.
        called: Methods that are only called.

    Example:
        >>> changed_methods(RewardTrainer, {"_load_best_model": ["self", "path"]}, ["_gone"])
        ['RewardTrainer._gone is gone', "RewardTrainer._load_best_model takes ['self'], not ['self', 'path']"]
    """
    changed = [f"{trainer.__name__}.{name} is gone" for name in called if not hasattr(trainer, name)]
    for name, expected in overridden.items():
        method = inspect.getattr_static(trainer, name, None)
        if method is None:
            changed.append(f"{trainer.__name__}.{name} is gone")
        elif (parameters := list(inspect.signature(method).parameters)) != expected:
            changed.append(f"{trainer.__name__}.{name} takes {parameters}, not {expected}")
    return changed


def load_model(name: str, architecture: Any, args: RewardConfig, quantization_config: Any) -> Any:
    """Load a model as `RewardTrainer` does: in float32 unless `model_init_kwargs` differ, not split over devices."""
    kwargs = {"trust_remote_code": args.trust_remote_code, **(args.model_init_kwargs or {})}
    if quantization_config is not None:
        kwargs["quantization_config"] = quantization_config
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        kwargs["device_map"] = None
    return create_model_from_path(name, architecture, **kwargs)


@contextmanager
def model_is_loaded(args: RewardConfig) -> Iterator[None]:
    """Suppress `RewardTrainer`'s warning that `model_init_kwargs` are ignored: they were used already.

    Example:
        >>> args = RewardConfig("out", model_init_kwargs={"dtype": "float32"}, bf16=False)
        >>> with model_is_loaded(args):
        ...     print(args.model_init_kwargs)
        None
        >>> args.model_init_kwargs
        {'dtype': 'float32'}
    """
    kwargs, args.model_init_kwargs = args.model_init_kwargs, None
    try:
        yield
    finally:
        args.model_init_kwargs = kwargs


def set_signature_columns(trainer: RewardTrainer, columns: list[str]) -> None:
    """Set the columns that `remove_unused_columns` must keep."""
    trainer._signature_columns = columns


def add_metric(trainer: Trainer, name: str, value: float) -> None:
    """Add a value to the metrics that any trainer of TRL averages at its next log."""
    _metrics(trainer)[name].append(value)


class _Ratio(list[float]):
    """A ratio of sums where TRL expects a list of values to average: one value. TRL drops it after each log."""

    total = counted = 0.0

    def add(self, total: float, count: float) -> None:
        self.total, self.counted = self.total + total, self.counted + count
        self[:] = [self.total / self.counted]


def add_ratio(trainer: Trainer, name: str, total: float, count: float) -> None:
    """Add to a metric that is logged as the ratio of a sum and a count since the last log, over any batches.

    A mean of the batches' means would give a short batch as much weight as a full one.

    Args:
        trainer: Any trainer of TRL.
        name: Name of the metric.
        total: Sum over the batch, on all processes.
        count: What to divide by; with 0 there is nothing to add, and a metric of which nothing was counted is not
            logged.

    Example:
        >>> from collections import defaultdict
        >>> from types import SimpleNamespace
        >>> trainer = SimpleNamespace(model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)})
        >>> for right, answers in ((3, 4), (1, 1), (0, 0)):
        ...     add_ratio(trainer, "accuracy", right, answers)
        >>> trainer._metrics["train"]["accuracy"]
        [0.8]
    """
    if not count:
        return
    metrics = _metrics(trainer)
    if name not in metrics:
        metrics[name] = _Ratio()
    metrics[name].add(total, count)


def add_ratios(trainer: Trainer, sums: Mapping[str, torch.Tensor]) -> None:
    """Call `add_ratio` for (2,) sums and counts by name, after adding up those of all processes."""
    totals = trainer.accelerator.reduce(torch.stack(list(sums.values())), "sum").tolist()
    for name, (total, count) in zip(sums, totals, strict=True):
        add_ratio(trainer, name, total, count)


class _Spread(list[float]):
    """A standard deviation over batches where TRL expects a list of values to average: one value."""

    total = squares = counted = 0.0

    def add(self, total: float, squares: float, count: float) -> None:
        self.total, self.squares, self.counted = self.total + total, self.squares + squares, self.counted + count
        around_mean = max(self.squares - self.total**2 / self.counted, 0.0)
        self[:] = [math.sqrt(around_mean / (self.counted - 1)) if self.counted > 1 else math.nan]


def add_spread(trainer: Trainer, name: str, values: torch.Tensor) -> None:
    """Add to a metric that is logged as the standard deviation of all values since the last log, over any batches.

    A mean of the batches' standard deviations leaves out how far the batches lie apart.

    Args:
        trainer: Any trainer of TRL.
        name: Name of the metric.
        values: `(N,)` values of a batch, of all processes.

    Example:
        >>> from collections import defaultdict
        >>> from types import SimpleNamespace
        >>> trainer = SimpleNamespace(model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)})
        >>> for batch in ([1.0, 3.0], [5.0]):
        ...     add_spread(trainer, "reward_std", torch.tensor(batch))
        >>> trainer._metrics["train"]["reward_std"]  # of 1, 3 and 5
        [2.0]
    """
    if not len(values):
        return
    values = values.double()
    metrics = _metrics(trainer)
    if name not in metrics:
        metrics[name] = _Spread()
    metrics[name].add(float(values.sum()), float(values.square().sum()), len(values))


def add_extreme(trainer: Trainer, name: str, value: float, extreme: Callable[[list[float]], float]) -> None:
    """Add to a metric that is logged as the smallest (`min`) or largest (`max`) value since the last log."""
    values = _metrics(trainer)[name]
    values[:] = [extreme([*values, value])]


def real_rows(trainer: Trainer, n: int) -> torch.Tensor:
    """Return `(n,)` whether each row of this process counts, in an evaluation that visits every row of the data once.

    With several processes the last batch is filled up with rows of the first one, which were counted already.
    """
    accelerator = trainer.accelerator
    state = accelerator.gradient_state
    number = torch.arange(n, device=accelerator.device) + accelerator.process_index * n
    if trainer.model.training or not state.end_of_dataloader or state.remainder <= 0:
        return torch.ones_like(number, dtype=torch.bool)
    return number < state.remainder


@contextmanager
def pooled_metrics(trainer: Trainer, num_completions: int) -> Iterator[None]:
    """Let each metric that TRL adds in the block count by its completions, where TRL averages means of batches.

    A metric `*_min_*` or `*_max_*` becomes the extreme since the last log, and one of terminated completions counts
    by their number. Means and standard deviations of rewards are left out: they are computed from the rewards.

    Args:
        trainer: Of TRL.
        num_completions: How many completions the block draws, on all processes.
    """
    mode = "train" if trainer.model.training else "eval"
    before, trainer._metrics[mode] = trainer._metrics[mode], defaultdict(list)
    try:
        yield
    finally:
        new, trainer._metrics[mode] = trainer._metrics[mode], before
    clipped = sum(new.get("completions/clipped_ratio", [0.0]))
    for name, values in new.items():
        count = num_completions * (1 - clipped) if "terminated" in name else num_completions
        words = name.replace("/", "_").split("_")
        if name == "num_tokens":
            before[name] = values
        elif name in ("reward", "reward_std") or name.startswith("rewards/"):
            continue
        elif words[-1] in ("min", "max") or {"min", "max"} & set(words[1:2]):
            extreme = min if "min" in words else max
            for value in values if count > 0 else ():
                add_extreme(trainer, name, value, extreme)
        else:
            for value in values:
                if not math.isnan(value):
                    add_ratio(trainer, name, value * count, count)


def _metrics(trainer: Trainer) -> Any:
    """Lists of values by name that TRL averages at its next log and then drops."""
    return trainer._metrics["train" if trainer.model.training else "eval"]


def count_tokens(trainer: RewardTrainer, attention_mask: torch.Tensor) -> None:
    """Add the tokens of a training batch, on all processes, to `num_tokens`."""
    trainer._total_train_tokens += int(trainer.accelerator.gather(attention_mask.sum()).sum()) // trainer._tp_size
    trainer._metrics["train"]["num_tokens"] = [trainer._total_train_tokens]


def checkpoint_folder(trainer: Trainer, trial: Any) -> Path:
    """Return the folder of the checkpoint of the current step, for any trainer of transformers."""
    return Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"


def save_as_best(trainer: Trainer) -> None:
    """Evaluate the model as it is, save it as a checkpoint, and note that it is the best one so far."""
    trainer._determine_best_metric(trainer.evaluate(), None)
    trainer._save_checkpoint(trainer.model, None)
    trainer.state.best_global_step = trainer.state.global_step
    trainer.state.best_model_checkpoint = str(checkpoint_folder(trainer, None))


@contextmanager
def rotation_last() -> Iterator[None]:
    """Delay the last act of `Trainer._save_checkpoint`, deleting old checkpoints, until the end of the block.

    What the block adds to a checkpoint is then written before older ones are deleted. After an error none is deleted.
    """
    rotate = trainer_module.rotate_checkpoints
    delayed: list[dict[str, Any]] = []
    trainer_module.rotate_checkpoints = lambda **arguments: delayed.append(arguments)
    try:
        yield
    finally:
        trainer_module.rotate_checkpoints = rotate
    for arguments in delayed:
        rotate(**arguments)
