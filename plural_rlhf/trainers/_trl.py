"""Every private attribute of TRL 1.16 that this package touches, in one place.

A new TRL breaks this file and its contract test (`tests/plural_rlhf/trainers/test_trl_contract.py`), and nothing else.
Knows nothing of scorers or targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler, SequentialSampler
from transformers import GenerationConfig, Trainer
from trl import DPOTrainer, GRPOConfig, GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.models.utils import _ForwardRedirection, disable_gradient_checkpointing
from trl.trainer.utils import RepeatSampler, split_tensor_dict, use_adapter

from plural_rlhf.policies.generation import generate_with_shared_prefix
from plural_rlhf.policies.log_probs import completion_log_probs
from reward_models.trainer._trl import (
    add_extreme,
    add_metric,
    add_ratio,
    add_ratios,
    add_spread,
    changed_methods,
    checkpoint_folder,
    pooled_metrics,
    real_rows,
    rotation_last,
)


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CALLED",
    "DPO_OVERRIDDEN",
    "OVERRIDDEN",
    "EpochSampler",
    "add_extreme",
    "add_metric",
    "add_ratio",
    "add_ratios",
    "add_spread",
    "as_one_forward",
    "buffered",
    "check_contract",
    "checkpoint_folder",
    "count_tokens",
    "draw",
    "encode_prompt",
    "eos_token_id",
    "gather_objects",
    "generate",
    "group_sampler",
    "has_plain_generation",
    "keep_columns",
    "micro_step",
    "plain_sampler",
    "pooled_metrics",
    "real_rows",
    "reference",
    "reference_generate",
    "restore",
    "reward_context",
    "rollouts_only",
    "rotation_last",
    "share_prompts",
    "snapshot",
    "split_rows",
    "tokenizer_of",
    "use_own_forward",
    "without_reference_model",
]

OVERRIDDEN: dict[str, list[str]] = {
    "_prepare_inputs": ["self", "generation_batch"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_train_sampler": ["self", "dataset"],
    "_get_eval_sampler": ["self", "eval_dataset"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
}
"""Methods of `GRPOTrainer` that `PluralGRPOTrainer` overrides, with the parameters they had when this was written."""

CALLED = ("_get_per_token_logps_and_entropies", "_get_output_dir", "_tokenize_prompts")
"""Methods of `GRPOTrainer` that are called here and not overridden."""


DPO_OVERRIDDEN: dict[str, list[str]] = {
    "_prepare_dataset": ["self", "dataset", "processing_class", "args", "dataset_name"],
    "_set_signature_columns_if_needed": ["self"],
    "_compute_loss": ["self", "model", "inputs", "return_outputs"],
    "compute_ref_log_probs": ["self", "model", "inputs"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "evaluation_loop": [
        "self",
        "dataloader",
        "description",
        "prediction_loss_only",
        "ignore_keys",
        "metric_key_prefix",
    ],
}
"""Methods of `DPOTrainer` that `PluralDPOTrainer` overrides, with the parameters they had when this was written."""


def check_contract() -> list[str]:
    """Return what the installed TRL changed of what is relied on here, as sentences; empty if nothing changed.

    Example:
        >>> check_contract()
        []
    """
    return changed_methods(GRPOTrainer, OVERRIDDEN, CALLED) + changed_methods(DPOTrainer, DPO_OVERRIDDEN)


@contextmanager
def without_reference_model(args: GRPOConfig, active: bool) -> Iterator[None]:
    """Show `GRPOTrainer.__init__` `beta=0` if `active`, for which it loads no second model; the setting is kept."""
    beta = args.beta
    if active:
        args.beta = 0.0
    try:
        yield
    finally:
        args.beta = beta


def tokenizer_of(trainer: GRPOTrainer) -> PreTrainedTokenizerBase:
    """Return the trainer's tokenizer, also if its processing class is a multimodal processor."""
    return trainer._tokenizer


def use_own_forward(model: torch.nn.Module) -> None:
    """Undo TRL's patch of `forward` on a copy of a trained model; leave any other model as it is.

    TRL's trainers replace `model.forward` by a function that holds the model's original one. A deep copy takes the
    function along and goes on computing with the weights of the model that it was copied from.
    """
    patched = getattr(vars(model).get("forward"), "__func__", None)
    held = [getattr(cell.cell_contents, "__self__", None) for cell in getattr(patched, "__closure__", None) or ()]
    if any(isinstance(other, torch.nn.Module) and other is not model for other in held):
        del model.forward


def eos_token_id(trainer: GRPOTrainer) -> int:
    """Return the end token of the tokenizer, which `GRPOTrainer` always accepts as an end."""
    return trainer._tokenizer.eos_token_id


def encode_prompt(trainer: GRPOTrainer, prompt: str | list[dict[str, Any]]) -> list[int]:
    """Return the tokens of a prompt as the trainer generates from it: chat template, `chat_template_kwargs`, tools.

    Raises:
        ValueError: The trainer has environments, which finish a prompt when they are reset.
    """
    if trainer.environment_factories is not None:
        raise ValueError(
            "there is an environment_factory, whose reset() finishes each prompt, so the policy does not read the "
            "prompt of a row as it is: leave out n_ref, reference_share and the columns support and reference_prompt."
        )
    return trainer._tokenize_prompts([prompt])[0][0]


def reward_context(trainer: GRPOTrainer) -> dict[str, Any]:
    """Return what TRL passes to reward functions beside columns, for completions that TRL has not drawn.

    `log_extra` does nothing, because TRL's table of completions has no rows for them.
    """
    return {
        "trainer_state": trainer.state,
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: add_metric(trainer, name, value),
    }


def plain_sampler(trainer: GRPOTrainer, dataset: Any) -> Sampler | None:
    """Return a sampler of every row once per epoch, in order or shuffled as in `transformers.Trainer`.

    GRPO's own sampler repeats rows for its groups.
    """
    if not trainer.args.shuffle_dataset:
        return SequentialSampler(dataset)
    return Trainer._get_train_sampler(trainer, dataset)


class EpochSampler(RepeatSampler):
    """TRL's sampler of groups with an order that depends on the epoch alone, so that a resumed run has the same."""

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch` from here on; `Trainer` calls it when an epoch begins."""
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


def group_sampler(trainer: GRPOTrainer, dataset: Any) -> EpochSampler:
    """Return GRPO's own sampler, every row as often as a group is large, with an order that can be resumed."""
    stock = GRPOTrainer._get_train_sampler(trainer, dataset)
    return EpochSampler(
        stock.data_source, stock.mini_repeat_count, stock.batch_size, stock.repeat_count, stock.shuffle, stock.seed
    )


@contextmanager
def rollouts_only(trainer: GRPOTrainer) -> Iterator[None]:
    """Keep `_generate_and_score_completions` from scoring the reference and the policy, which are scored here."""
    beta, iterations, steps = trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation
    trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation = 0.0, 1, 1
    try:
        yield
    finally:
        trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation = beta, iterations, steps


def has_plain_generation(trainer: GRPOTrainer) -> bool:
    """Return whether completions come from `model.generate`, and not from vLLM or a batching engine."""
    return not (trainer.use_vllm or trainer.use_transformers_continuous_batching)


def generate(trainer: GRPOTrainer, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
    """Draw completions of the policy, with equal prompts read once; return tokens and their log-probabilities."""
    with (
        profiling_context(trainer, "transformers.generate"),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            generation_kwargs=trainer.generation_kwargs,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
        trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False),
    ):
        return _completions(trainer, model, prompt_ids)


def reference_generate(trainer: GRPOTrainer, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
    """Draw completions of the reference policy; return tokens and their log-probabilities."""
    with torch.no_grad(), reference(trainer) as wrapped:
        model = trainer.accelerator.unwrap_model(wrapped)
        # The policy with its adapter switched off is in training mode, where checkpointing drops the cache.
        with disable_gradient_checkpointing(model, trainer.args.gradient_checkpointing_kwargs):
            return _completions(trainer, model, prompt_ids)


def _completions(
    trainer: GRPOTrainer, model: Any, prompt_ids: list[list[int]]
) -> tuple[list[list[int]], list[list[float]]]:
    config = _engineless_config(trainer) if trainer.use_vllm else trainer.generation_config
    return generate_with_shared_prefix(
        model, prompt_ids, config, trainer._tokenizer.pad_token_id, trainer.eos_token_ids
    )


def _engineless_config(trainer: GRPOTrainer) -> GenerationConfig:
    """Return a config for the reference beside vLLM, where `GRPOTrainer` makes none.

    vLLM holds the policy alone, and `generation_kwargs` are its own.
    """
    return GenerationConfig(
        max_new_tokens=trainer.max_completion_length,
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repetition_penalty=1.0,
        pad_token_id=trainer._tokenizer.pad_token_id,
        eos_token_id=trainer.eos_token_ids,
        disable_compile=True,
    )


@contextmanager
def reference(trainer: GRPOTrainer) -> Iterator[torch.nn.Module]:
    """Give the reference policy: a second model, or the policy with its adapter switched off."""
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    # An adapter that was trained before has a frozen copy called "ref"; a new one is the base model when switched off.
    with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
        yield trainer.model


def share_prompts(trainer: Any) -> None:
    """Make a stock GRPO or RLOO trainer draw and score completions as this package does, each prompt computed once.

    For comparisons on a CPU, where the stock way takes too long. Its numbers change by rounding only; its entropy
    metric is 0 from then on. If its loss reads the entropy, its gradients are computed in its own way.
    """
    stock = trainer._get_per_token_logps_and_entropies
    reads_entropy = isinstance(trainer, GRPOTrainer) and (
        trainer._entropy_bonus_enabled or trainer.top_entropy_quantile < 1
    )

    def scored(
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *more: Any,
        **named: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        if reads_entropy and named.get("compute_entropy"):
            return stock(model, input_ids, attention_mask, logits_to_keep, *more, **named)
        parts = {
            "prompt_ids": input_ids[:, :-logits_to_keep],
            "completion_ids": input_ids[:, -logits_to_keep:],
            "prompt_mask": attention_mask[:, :-logits_to_keep],
            "completion_mask": attention_mask[:, -logits_to_keep:],
        }
        log_probs = completion_log_probs(model, parts)
        return log_probs, torch.zeros_like(log_probs), None

    def drawn(prompt_ids: list[list[int]], *more: Any, **named: Any) -> Any:
        completions = generate(trainer, prompt_ids)[0]
        return (completions, None) if isinstance(trainer, GRPOTrainer) else completions

    trainer._get_per_token_logps_and_entropies = scored
    trainer._generate_single_turn = drawn


def as_one_forward(
    trainer: GRPOTrainer, model: torch.nn.Module, function: Callable[[torch.nn.Module, Any], torch.Tensor], inputs: Any
) -> torch.Tensor:
    """Return `function(model, inputs)`, with all its calls of the model in one forward pass of a distributed wrapper.

    Processes may need different numbers of passes for their rows, and all processes wait for each other in every pass
    of `DistributedDataParallel`.
    """
    if not isinstance(model, DistributedDataParallel):
        return function(model, inputs)
    inner = trainer.accelerator.unwrap_model(model)
    return _ForwardRedirection()(model, inner, lambda batch: function(inner, batch), inputs)


def draw(trainer: GRPOTrainer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw and score completions of the rows' prompts; return TRL's columns."""
    return trainer._generate_and_score_completions(rows)


def micro_step(trainer: GRPOTrainer) -> int:
    """Return how many forward and backward passes this run has made."""
    return trainer._step


def buffered(
    trainer: GRPOTrainer, make: Callable[[], list[Any]], again: Callable[[list[Any]], list[Any]] | None = None
) -> Any:
    """Return the micro-batch of this step.

    Args:
        trainer: Its buffer holds the micro-batches of a generation batch.
        make: Makes them when the last ones are used up.
        again: Makes those of a further use out of those of the last use; None uses them as they are.
    """
    steps = trainer.args.steps_per_generation
    if trainer._step % (steps * trainer.num_iterations) == 0 or trainer._buffered_inputs is None:
        trainer._buffered_inputs = make()
    elif trainer._step % steps == 0 and again is not None:
        trainer._buffered_inputs = again(trainer._buffered_inputs)
    return trainer._buffered_inputs[trainer._step % steps]


def split_rows(rows: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Return micro-batches of consecutive rows: completions of one prompt stay together, where GRPO shuffles them.

    Example:
        >>> [part["row"].tolist() for part in split_rows({"row": torch.arange(4)}, parts=2)]
        [[0, 1], [2, 3]]
    """
    return split_tensor_dict(rows, parts)


def snapshot(trainer: GRPOTrainer) -> dict[str, Any]:
    """Return what a resumed run needs of the generation buffer: the rows in use, and the micro-step."""
    return {"step": trainer._step, "rows": trainer._buffered_inputs}


def restore(trainer: GRPOTrainer, state: dict[str, Any]) -> None:
    """Put back what `snapshot` returned."""
    trainer._step, trainer._buffered_inputs = state["step"], state["rows"]


def gather_objects(values: Sequence[Any]) -> list[Any]:
    """Return the values of all processes, in the order in which `accelerator.gather` puts tensors.

    Example:
        >>> gather_objects(["of", "one", "process"])
        ['of', 'one', 'process']
    """
    return gather_object(list(values))


def keep_columns(trainer: Any, columns: Sequence[str]) -> None:
    """Add columns to those that `remove_unused_columns` keeps."""
    trainer._signature_columns += [column for column in columns if column not in trainer._signature_columns]


def count_tokens(trainer: Any, attention_mask: torch.Tensor) -> None:
    """Add the tokens of a training batch on all processes to `num_tokens`; log it for any batch."""
    mode = "train" if trainer.model.training else "eval"
    if mode == "train":
        tokens = trainer.accelerator.gather_for_metrics(attention_mask.sum()).sum().item()
        trainer._total_train_tokens += tokens // trainer._tp_size
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]
