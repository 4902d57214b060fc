"""Every private attribute of TRL 1.16 that this package touches, in one place.

A new TRL breaks this file and its contract test (`tests/test_trl_contract.py`), and nothing else. It knows nothing of
juries or targets.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CALLED",
    "OVERRIDDEN",
    "EpochSampler",
    "add_metric",
    "check_contract",
    "checkpoint_folder",
    "eos_token_id",
    "gather_objects",
    "group_sampler",
    "plain_sampler",
    "sequence_log_probs",
    "tokenizer_of",
    "without_reference_model",
]

OVERRIDDEN: dict[str, list[str]] = {
    "_prepare_inputs": ["self", "generation_batch"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_train_sampler": ["self", "dataset"],
    "_get_eval_sampler": ["self", "eval_dataset"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
}
"""Methods of `GRPOTrainer` that `PluralGRPOTrainer` overrides, with the parameters they had when this was written."""

CALLED = ("_get_per_token_logps_and_entropies", "_get_output_dir")
"""Methods of `GRPOTrainer` that are called here and not overridden."""


def check_contract() -> list[str]:
    """Returns, as sentences, what the installed TRL changed of what is relied on here; empty when nothing changed."""
    changed = [
        f"GRPOTrainer.{name} is gone" for name in CALLED if inspect.getattr_static(GRPOTrainer, name, None) is None
    ]
    for name, expected in OVERRIDDEN.items():
        method = inspect.getattr_static(GRPOTrainer, name, None)
        if method is None:
            changed.append(f"GRPOTrainer.{name} is gone")
        elif (found := list(inspect.signature(method).parameters)) != expected:
            changed.append(f"GRPOTrainer.{name} takes {found}, not {expected}")
    return changed


@contextmanager
def without_reference_model(args: GRPOConfig, active: bool) -> Iterator[None]:
    """Lets `GRPOTrainer.__init__` see `beta=0`, for which it loads no second model; the setting itself is kept."""
    beta = args.beta
    if active:
        args.beta = 0.0
    try:
        yield
    finally:
        args.beta = beta


def tokenizer_of(trainer: GRPOTrainer) -> PreTrainedTokenizerBase:
    """The trainer's tokenizer, also when its processing class is a multimodal processor."""
    return trainer._tokenizer


def eos_token_id(trainer: GRPOTrainer) -> int:
    """The token that ends an answer: the one the tokenizer names, which `GRPOTrainer` always accepts as an end."""
    return trainer._tokenizer.eos_token_id


def add_metric(trainer: GRPOTrainer, name: str, value: float) -> None:
    """Adds a value to the metrics that TRL averages at its next log."""
    trainer._metrics["train" if trainer.model.training else "eval"][name].append(value)


def plain_sampler(trainer: GRPOTrainer, dataset: Any) -> Sampler | None:
    """Every row once an epoch, in order or shuffled as in `transformers.Trainer`.

    GRPO's own sampler repeats rows for its groups.
    """
    if not trainer.args.shuffle_dataset:
        return SequentialSampler(dataset)
    return Trainer._get_train_sampler(trainer, dataset)


class EpochSampler(RepeatSampler):
    """TRL's sampler of groups, but the order in an epoch depends on that epoch alone: a resumed run finds it again."""

    def set_epoch(self, epoch: int) -> None:
        """Draws the order of `epoch` from here on; `Trainer` calls it when an epoch begins."""
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


def group_sampler(trainer: GRPOTrainer, dataset: Any) -> EpochSampler:
    """GRPO's own sampler, every row as often as a group is large, with an order that can be resumed."""
    theirs = GRPOTrainer._get_train_sampler(trainer, dataset)
    return EpochSampler(
        theirs.data_source,
        theirs.mini_repeat_count,
        theirs.batch_size,
        theirs.repeat_count,
        theirs.shuffle,
        theirs.seed,
    )


def sequence_log_probs(trainer: GRPOTrainer, model: torch.nn.Module, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability of each completion, summed over its own tokens, end token included: `(N,)` nats."""
    completion_ids = rows["completion_ids"]
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
        model,
        torch.cat([rows["prompt_ids"], completion_ids], dim=1),
        torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1),
        completion_ids.size(1),
    )
    return (log_probs * own_tokens(rows)).sum(-1)


def own_tokens(rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """`(N, T)` mask of the tokens that the policy chose: not padding, not the answer of a tool."""
    mask = rows["completion_mask"]
    return mask * rows["tool_mask"] if "tool_mask" in rows else mask


def checkpoint_folder(trainer: GRPOTrainer, trial: Any) -> Path:
    """Where the trainer keeps the checkpoint of the step it is at."""
    return Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"


def gather_objects(values: Sequence[Any]) -> list[Any]:
    """All processes' values, in the order in which `accelerator.gather` puts tensors."""
    return gather_object(list(values))
