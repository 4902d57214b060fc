"""What every training of a run shares: the base model, settings that all trainers have, progress, and the saving.

Knows nothing of the wording of prompts, of rewards or of what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.progress import showing_progress
from plural_rlhf.recipe.settings.models import LoraSection
from plural_rlhf.report.results_policies import Budget, LoggedStep, TrainingResults
from plural_rlhf.weights.sampler import sample_weights
from reward_models.jury.protocol import ClusterScorer
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Steps",
    "common_settings",
    "deal_weights",
    "load_base",
    "load_policy",
    "save_untrained",
    "train_and_save",
    "with_new_adapter",
]

_LR_WARMUP_STEPS = 5


def load_base(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model in float32 and its tokenizer, which pads on the left."""
    path = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
    return AutoModelForCausalLM.from_pretrained(path, dtype="float32", trust_remote_code=False), tokenizer


def with_new_adapter(base: PreTrainedModel, lora: LoraSection) -> PeftModel:
    """Give the base model an adapter as the run file describes it; torch's random state decides its first weights."""
    settings = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    return get_peft_model(base, settings)


def load_policy(config: RunConfig, folder: Path) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load the policy that a stage has saved in a folder, to be trained further, and the tokenizer."""
    base, tokenizer = load_base(config)
    return PeftModel.from_pretrained(base, folder, is_trainable=True), tokenizer


def deal_weights(
    number: int,
    jury: ClusterScorer,
    steps: int,
    per_step: int,
    rng: np.random.Generator,
    *,
    steering: bool,
    juries: Mapping[str, WeightSpec] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Deal prompts and weightings to the rows of a whole training, in order.

    A batch has as many weightings as it has rows for: the population twice, each cluster and each jury of the run file
    once, one random mixture. Prompts are dealt to them in turn, so that no batch pulls towards one cluster or one
    prompt. Rows of a batch with the same weighting are neighbours.

    Args:
        number: How many prompts there are.
        jury: The clusters and their prevalence.
        steps: Batches.
        per_step: Rows of a batch.
        rng: Source of random numbers.
        steering: Whether to train on single clusters and mixtures too.
        juries: Named juries that are also trained on.

    Yields:
        Index of a prompt, and weights `(K,)`.

    Example:
        >>> from types import SimpleNamespace
        >>> jury = SimpleNamespace(cluster_names=["urban", "rural"], prevalence=np.array([0.75, 0.25]))
        >>> rows = list(deal_weights(3, jury, 2, 3, np.random.default_rng(0), steering=False))
        >>> sorted(index for index, _ in rows), rows[0][1].tolist()
        ([0, 0, 1, 1, 2, 2], [0.75, 0.25])
    """
    k = len(jury.cluster_names)
    steered = steering and k > 1
    named = [parse_weights(seats, jury.cluster_names, jury.prevalence) for seats in (juries or {}).values()]
    fixed = [*np.eye(k), *named] if steered else named
    drawn, everybody = (1, 2) if steered else (0, 1)
    prompts = deck(number, rng)
    weightings = deck(len(fixed) + drawn + everybody, rng)
    weightings_per_step = min(len(fixed) + drawn + everybody, per_step)
    for _ in range(steps):
        for i in range(weightings_per_step):
            turn = next(weightings)
            if turn < len(fixed):
                weights = fixed[turn]
            elif turn < len(fixed) + drawn:
                weights = sample_weights(1, jury.prevalence, rng)[0]
            else:
                weights = np.asarray(jury.prevalence)
            share, more = divmod(per_step, weightings_per_step)
            for _ in range(share + (i < more)):
                yield next(prompts), weights


def deck(size: int, rng: np.random.Generator) -> Iterator[int]:
    """Deal 0..size-1 in random order, then again in another order, without end."""
    while True:
        yield from rng.permutation(size).tolist()


class Steps(Protocol):
    """A section of the run file about a training.

    Example:
        >>> from plural_rlhf.recipe.settings.stock import GrpoSection
        >>> section: Steps = GrpoSection()
        >>> section.steps
        8
    """

    @property
    def steps(self) -> int:
        """Optimiser steps."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of AdamW."""


def common_settings(section: Steps, seed: int) -> dict[str, Any]:
    """Return the arguments that all trainers have in common.

    Example:
        >>> from plural_rlhf.recipe.settings.stock import GrpoSection
        >>> settings = common_settings(GrpoSection(steps=8), seed=0)
        >>> settings["max_steps"], settings["warmup_steps"], settings["save_strategy"]
        (8, 2, 'no')
    """
    return {
        "max_steps": section.steps,
        "learning_rate": section.learning_rate,
        "seed": seed,
        "lr_scheduler_type": "linear",
        "warmup_steps": min(_LR_WARMUP_STEPS, section.steps // 4),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    }


def train_and_save(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    training: TrainingFolder,
    label: str,
    columns: dict[str, str],
    before_saving: Callable[[PeftModel], None] | None = None,
) -> tuple[list[LoggedStep], float]:
    """Train and save; return the training curve and the seconds it took.

    Args:
        trainer: A trainer of a PEFT model, made with `common_settings`.
        tokenizer: Saved with the policy.
        training: Where checkpoints and the policy are saved.
        label: Name of the training, for the progress bar.
        columns: Logged numbers that the bar shows, and their titles.
        before_saving: Called with the policy after its last step; what it leaves is saved.
    """
    with showing_progress(trainer, label, columns):
        seconds = training.train(trainer)
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if "ref" in policy.peft_config:
        policy.delete_adapter("ref")
    if before_saving is not None:
        before_saving(policy)
    training.save(policy, tokenizer)
    return [_logged_step(row) for row in trainer.state.log_history if "loss" in row], seconds


def save_untrained(model: PeftModel, tokenizer: PreTrainedTokenizerBase, training: TrainingFolder) -> TrainingResults:
    """Save the adapter as it is: `steps: 0` means no training, but a trainer reads `max_steps=0` as whole epochs."""
    training.save(model, tokenizer)
    return TrainingResults(history=[], budget=Budget(steps=0, scored_sequences=0, seconds=0.0))


def _logged_step(row: dict[str, Any]) -> LoggedStep:
    """An entry of the trainer's log: numbers only, and without the prefix `plural/` of the dashboards."""
    numbers = {name.removeprefix("plural/"): value for name, value in row.items() if isinstance(value, int | float)}
    return LoggedStep.model_validate(numbers)
