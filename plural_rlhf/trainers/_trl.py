"""Every private attribute of TRL 1.16 that this package touches, in one place.

A new TRL breaks this file and its contract test (`tests/plural_rlhf/trainers/test_trl_contract.py`), and nothing else.
It knows nothing of juries or targets.
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
from transformers import trainer as trainer_module
from trl import DPOTrainer, GRPOConfig, GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.models.utils import _ForwardRedirection
from trl.trainer.utils import RepeatSampler, split_tensor_dict, use_adapter

from plural_rlhf.policies.generation import generate_with_shared_prefix
from plural_rlhf.policies.log_probs import completion_log_probs
from reward_models.trainer._trl import add_metric, changed_methods, checkpoint_folder


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CALLED",
    "DPO_OVERRIDDEN",
    "OVERRIDDEN",
    "EpochSampler",
    "add_metric",
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
}
"""Methods of `DPOTrainer` that `PluralDPOTrainer` overrides, with the parameters they had when this was written."""


def check_contract() -> list[str]:
    """Returns, as sentences, what the installed TRL changed of what is relied on here; empty when nothing changed."""
    return changed_methods(GRPOTrainer, OVERRIDDEN, CALLED) + changed_methods(DPOTrainer, DPO_OVERRIDDEN)


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
    """The token that ends an answer: the one the tokenizer names, which `GRPOTrainer` always accepts as an end."""
    return trainer._tokenizer.eos_token_id


def encode_prompt(trainer: GRPOTrainer, prompt: str | list[dict[str, Any]]) -> list[int]:
    """Tokens of a prompt as the trainer generates from it: its chat template, `chat_template_kwargs` and tools.

    Raises:
        ValueError: The trainer has environments, which finish a prompt when they are reset.
    """
    if trainer.environment_factories is not None:
        raise ValueError(
            "there is an environment_factory, whose reset() finishes each prompt, so the prompt of a row is not what "
            "the policy reads: leave out n_ref, reference_share and the columns support and reference_prompt."
        )
    return trainer._tokenize_prompts([prompt])[0][0]


def reward_context(trainer: GRPOTrainer) -> dict[str, Any]:
    """What TRL passes to reward functions beside columns, where they score other completions than those it shows.

    Extra columns are left out: its table of completions has no rows for them.
    """
    return {
        "trainer_state": trainer.state,
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: add_metric(trainer, name, value),
    }


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


@contextmanager
def rollouts_only(trainer: GRPOTrainer) -> Iterator[None]:
    """Lets `_generate_and_score_completions` neither score the reference nor the policy: both are scored here."""
    beta, iterations, steps = trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation
    trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation = 0.0, 1, 1
    try:
        yield
    finally:
        trainer.beta, trainer.num_iterations, trainer.args.steps_per_generation = beta, iterations, steps


def has_plain_generation(trainer: GRPOTrainer) -> bool:
    """Whether completions come from `model.generate`, and not from vLLM or a batching engine."""
    return not (trainer.use_vllm or trainer.use_transformers_continuous_batching)


def generate(trainer: GRPOTrainer, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
    """Completions of the policy and the log-probability of each of their tokens, equal prompts read once."""
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
    """Completions of the reference policy and the log-probability of each of their tokens."""
    with torch.no_grad(), reference(trainer) as model:
        return _completions(trainer, trainer.accelerator.unwrap_model(model), prompt_ids)


def _completions(
    trainer: GRPOTrainer, model: Any, prompt_ids: list[list[int]]
) -> tuple[list[list[int]], list[list[float]]]:
    config = _engineless_config(trainer) if trainer.use_vllm else trainer.generation_config
    return generate_with_shared_prefix(
        model, prompt_ids, config, trainer._tokenizer.pad_token_id, trainer.eos_token_ids
    )


def _engineless_config(trainer: GRPOTrainer) -> GenerationConfig:
    """For the reference beside vLLM, which holds the policy alone: `GRPOTrainer` then makes no generation config.

    `generation_kwargs` are the engine's there.
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
    """The reference policy: a second model, or the policy with its adapter switched off."""
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    # An adapter that was trained before has a frozen copy called "ref"; a new one is the base model when switched off.
    with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
        yield trainer.model


def share_prompts(trainer: Any) -> None:
    """Lets a stock GRPO or RLOO trainer draw and score completions as this package does, each prompt computed once.

    Its numbers change by rounding only; its entropy metric is 0 from then on. Where its loss reads the entropy, its
    gradients are computed in its own way. For comparisons, where that takes too long on a CPU.
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
        found = completion_log_probs(model, parts)
        return found, torch.zeros_like(found), None

    def drawn(prompt_ids: list[list[int]], *more: Any, **named: Any) -> Any:
        completions = generate(trainer, prompt_ids)[0]
        return (completions, None) if isinstance(trainer, GRPOTrainer) else completions

    trainer._get_per_token_logps_and_entropies = scored
    trainer._generate_single_turn = drawn


def as_one_forward(
    trainer: GRPOTrainer, model: torch.nn.Module, function: Callable[[torch.nn.Module, Any], torch.Tensor], inputs: Any
) -> torch.Tensor:
    """`function(model, inputs)`, however often it calls the model, as one forward pass of `DistributedDataParallel`.

    Processes may need different numbers of passes for their rows, and every pass of the wrapper is a meeting of all.
    """
    if not isinstance(model, DistributedDataParallel):
        return function(model, inputs)
    inner = trainer.accelerator.unwrap_model(model)
    return _ForwardRedirection()(model, inner, lambda given: function(inner, given), inputs)


def draw(trainer: GRPOTrainer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Completions of the rows' prompts, scored."""
    return trainer._generate_and_score_completions(rows)


def micro_step(trainer: GRPOTrainer) -> int:
    """How many forward and backward passes this run has made."""
    return trainer._step


def buffered(
    trainer: GRPOTrainer, make: Callable[[], list[Any]], again: Callable[[list[Any]], list[Any]] | None = None
) -> Any:
    """The micro-batch of this step; `make` draws those of a generation batch when the last ones are used up.

    `again` makes those of the next use out of those of the last one; without it they are used as they are.
    """
    steps = trainer.args.steps_per_generation
    if trainer._step % (steps * trainer.num_iterations) == 0 or trainer._buffered_inputs is None:
        trainer._buffered_inputs = make()
    elif trainer._step % steps == 0 and again is not None:
        trainer._buffered_inputs = again(trainer._buffered_inputs)
    return trainer._buffered_inputs[trainer._step % steps]


def split_rows(rows: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Micro-batches of consecutive rows: completions of one prompt stay together, unlike in GRPO, which shuffles."""
    return split_tensor_dict(rows, parts)


def snapshot(trainer: GRPOTrainer) -> dict[str, Any]:
    """What a resumed run needs of the generation buffer: the rows in use, and how far their use has come."""
    return {"step": trainer._step, "rows": trainer._buffered_inputs}


def restore(trainer: GRPOTrainer, state: dict[str, Any]) -> None:
    """Puts back what `snapshot` returned."""
    trainer._step, trainer._buffered_inputs = state["step"], state["rows"]


@contextmanager
def rotation_last() -> Iterator[None]:
    """Holds back what `Trainer._save_checkpoint` does last, deleting old checkpoints, until the end of the block.

    What is added to a checkpoint in the block is then there before the one that it replaces is gone. After an error
    none is deleted.
    """
    rotate = trainer_module.rotate_checkpoints
    held: list[dict[str, Any]] = []
    trainer_module.rotate_checkpoints = lambda **how: held.append(how)
    try:
        yield
    finally:
        trainer_module.rotate_checkpoints = rotate
    for how in held:
        rotate(**how)


def gather_objects(values: Sequence[Any]) -> list[Any]:
    """All processes' values, in the order in which `accelerator.gather` puts tensors."""
    return gather_object(list(values))


def keep_columns(trainer: Any, columns: Sequence[str]) -> None:
    """Adds columns to those that `remove_unused_columns` leaves alone."""
    trainer._signature_columns += [column for column in columns if column not in trainer._signature_columns]


def count_tokens(trainer: Any, attention_mask: torch.Tensor) -> None:
    """Adds the tokens of a batch on all processes to `num_tokens`, where it is a training batch."""
    mode = "train" if trainer.model.training else "eval"
    if mode == "train":
        tokens = trainer.accelerator.gather_for_metrics(attention_mask.sum()).sum().item()
        trainer._total_train_tokens += tokens // trainer._tp_size
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]
