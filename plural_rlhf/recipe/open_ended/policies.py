"""Train the policies of a run that write text: pi_0 on people's texts; from it ours and stock TRL trainers.

Each policy is a LoRA adapter on the base model. Knows nothing of judgements and of measures: it sees prompts, texts
and a scorer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.open_ended.kept_change import KeptChange, keep_nearest
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, training_prompts
from plural_rlhf.recipe.settings.stock import StockSection
from plural_rlhf.recipe.trainings import (
    Steps,
    common_settings,
    deal_weights,
    load_base,
    load_policy,
    save_untrained,
    train_and_save,
    with_new_adapter,
)
from plural_rlhf.report.results_policies import Budget, TrainingResults
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.weights.wording import describe_weights, steer_prompt
from reward_models.errors import JudgementError
from reward_models.jury.protocol import ClusterScorer
from reward_models.seeds import derived_seed, seeded_rng
from reward_models.trainer.kept_change import trained_weights


__all__ = [
    "imitate",
    "rows_to_imitate",
    "sampled_arguments",
    "steered_prompt",
    "train_grpo",
    "train_pi_0",
    "train_plural",
    "train_rloo",
]

REWARD_COLUMNS = {"reward": "reward", "entropy": "entropy"}
PLURAL_COLUMNS = {"loss": "loss", "plural/residual_std": "residual std", "plural/kl": "KL to pi_0"}


def steered_prompt(prompt: OpenPrompt, weights: np.ndarray, scorer: ClusterScorer) -> list[dict[str, str]]:
    """Make the prompt of a policy: whose answer is wanted, then the prompt itself.

    Example:
        >>> from types import SimpleNamespace
        >>> scorer = SimpleNamespace(cluster_names=["urban", "rural"], prevalence=np.array([0.7, 0.3]))
        >>> for message in steered_prompt(OpenPrompt("What to build?", "train"), np.array([0.0, 1.0]), scorer):
        ...     print(message["role"], "|", message["content"])
        system | ...rural...
        user | What to build?
    """
    description = describe_weights(weights, scorer.cluster_names, scorer.prevalence)
    return steer_prompt(prompt.messages, description)


def train_pi_0(
    config: RunConfig,
    prompts: Sequence[OpenPrompt],
    texts: Mapping[Any, Sequence[str]],
    scorer: ClusterScorer,
    training: TrainingFolder,
) -> TrainingResults:
    """Train pi_0 to write what people wrote, under every weighting alike, so that it knows the prompts of the others.

    Args:
        config: The run.
        prompts: All prompts; only training prompts with texts are used.
        texts: The texts to imitate, by prompt.
        scorer: The clusters and their prevalence.
        training: Where the policy is saved.
    """
    section = config.sft
    base, tokenizer = load_base(config)
    torch.manual_seed(derived_seed(config.seed, "first adapter of pi_0"))
    model = with_new_adapter(base, config.policy.lora)
    if section.steps == 0 or section.texts == "none":
        return save_untrained(model, tokenizer, training)
    rows = _sft_rows(config, prompts, texts, scorer, tokenizer)
    return imitate(rows, section, section.texts_per_step, config.seed, model, tokenizer, training, "pi_0")


def imitate(
    rows: Dataset,
    section: Steps,
    texts_per_step: int,
    seed: int,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    training: TrainingFolder,
    label: str,
) -> TrainingResults:
    """Train a policy on texts, the loss on their tokens only, and save it.

    Args:
        rows: Columns `prompt` and `completion`.
        section: Steps and learning rate.
        texts_per_step: Texts per step.
        seed: Random seed.
        model: The policy.
        tokenizer: Its tokenizer.
        training: Where it is saved.
        label: Name of the training, for the progress bar.
    """
    args = SFTConfig(
        str(training.folder),
        per_device_train_batch_size=texts_per_step,
        max_length=None,
        completion_only_loss=True,
        dataset_num_proc=None,
        **common_settings(section, seed),
    )
    trainer = SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
    columns = {"loss": "loss", "mean_token_accuracy": "token accuracy"}
    history, seconds = train_and_save(trainer, tokenizer, training, label, columns)
    scored = section.steps * texts_per_step
    return TrainingResults(
        history=history, budget=Budget(steps=section.steps, scored_sequences=scored, seconds=seconds)
    )


def _sft_rows(
    config: RunConfig,
    prompts: Sequence[OpenPrompt],
    texts: Mapping[Any, Sequence[str]],
    scorer: ClusterScorer,
    tokenizer: PreTrainedTokenizerBase,
) -> Dataset:
    """Rows of supervised training, in order; texts that are too long to be sampled are left out.

    Raises:
        JudgementError: No text is short enough.
    """
    longest = config.policy.max_new_tokens
    # Prompts in proportion to their texts, so that every text is imitated equally often.
    cards = [
        (prompt, text)
        for prompt in prompts
        for text in texts.get(prompt.prompt, ())
        if len(tokenizer(text)["input_ids"]) < longest
    ]
    if not cards:
        raise JudgementError(
            f"none of the texts that pi_0 is to imitate has fewer than {longest} tokens. Fix: raise "
            "policy.max_new_tokens, or set sft.texts=none."
        )
    section, rng = config.sft, seeded_rng(config.seed, "texts of pi_0")
    steering = config.plural.steering
    dealt = deal_weights(
        len(cards), scorer, section.steps, section.texts_per_step, rng, steering=steering, juries=config.juries
    )
    return rows_to_imitate([(cards[index], weights) for index, weights in dealt], scorer, rng)


def rows_to_imitate(
    texts: Sequence[tuple[tuple[OpenPrompt, str], np.ndarray]], scorer: ClusterScorer, rng: np.random.Generator
) -> Dataset:
    """Make the rows of a training on texts, in random order, because neighbours have the same weights.

    Args:
        texts: Each a prompt with the text that answers it, and the weights `(K,)` it is for.
        scorer: The clusters and their prevalence.
        rng: Source of the order.

    Returns:
        Columns `prompt` and `completion`.
    """
    rows = [
        {
            "prompt": steered_prompt(prompt, weights, scorer),
            "completion": [{"role": "assistant", "content": text}],
        }
        for (prompt, text), weights in texts
    ]
    return Dataset.from_list([rows[i] for i in rng.permutation(len(rows))])


def sampled_arguments(config: RunConfig, folder: Path) -> PluralGRPOConfig:
    """Make the settings of our sampled training.

    Args:
        config: The run.
        folder: Where the trainer writes.

    Raises:
        ValueError: Settings that exclude each other.
    """
    section, sampled = config.plural, config.plural.sampled
    settings = sampled.model_dump(
        exclude={"steps", "learning_rate", "prompts_per_step", "num_iterations", "kept_samples"}
    )
    return PluralGRPOConfig(
        str(folder),
        rho=section.rho,
        beta=section.beta,
        exact=False,
        shuffle_dataset=False,
        num_iterations=sampled.num_iterations,
        per_device_train_batch_size=sampled.prompts_per_step * sampled.num_generations,
        max_completion_length=config.policy.max_new_tokens,
        **settings,
        **{**common_settings(sampled, config.seed), "max_steps": sampled.steps * sampled.num_iterations},
    )


def train_plural(
    config: RunConfig, prompts: Sequence[OpenPrompt], scorer: ClusterScorer, start: Path, training: TrainingFolder
) -> TrainingResults:
    """Train ours: sampled training towards pi_0 exp(R / beta), for the population and (steering) other weights."""
    section, sampled = config.plural, config.plural.sampled
    model, tokenizer = load_policy(config, start)
    if sampled.steps == 0:
        return save_untrained(model, tokenizer, training)
    trained = training_prompts(prompts)
    dealt = deal_weights(
        len(trained),
        scorer,
        sampled.steps,
        sampled.prompts_per_step,
        seeded_rng(config.seed, "rows of a training"),
        steering=section.steering,
        juries=config.juries,
    )
    given = sampled.given_share > 0 and all(prompt.given for prompt in trained)
    rows = Dataset.from_list([_row(trained[i], weights, scorer, given=given) for i, weights in dealt])
    steps = sampled.steps * sampled.num_iterations
    args = sampled_arguments(config, training.folder)
    reward = JuryReward(scorer, rule=section.rule, rho=args.rho, beta=args.beta)
    trainer = PluralGRPOTrainer(model, reward, args, rows, processing_class=tokenizer)
    training.along = config.evaluate.along
    kept: list[KeptChange] = []
    before = trained_weights(model)

    def keep(policy: PeftModel) -> None:
        kept.append(
            keep_nearest(
                policy,
                tokenizer,
                before,
                [(prompt, steered_prompt(prompt, scorer.prevalence, scorer)) for prompt in trained],
                scorer,
                texts=sampled.kept_samples,
                max_new_tokens=config.policy.max_new_tokens,
                beta=reward.target.beta,
                rho=section.rho,
                seed=config.seed,
            )
        )
        training.show(kept[0].told())

    # Another rule has a target of its own, which is not that of the pool.
    choose = keep if sampled.kept_samples and section.rule == "pool" else None
    history, seconds = train_and_save(trainer, tokenizer, training, "plural", PLURAL_COLUMNS, choose)
    generated = round(sampled.steps * sampled.prompts_per_step * args.num_generations * (1 - args.given_share * given))
    generated += sum(change.drawn for change in kept)
    return TrainingResults(
        history=history,
        budget=Budget(
            steps=steps,
            generated_sequences=generated,
            seconds=seconds,
            kept_share=kept[0].share if kept else None,
            kept_of={f"{share:g}": nats for share, nats in kept[0].divergences.items()} if kept else None,
        ),
    )


def _row(prompt: OpenPrompt, weights: np.ndarray, scorer: ClusterScorer, *, given: bool = False) -> dict[str, Any]:
    row = {
        "prompt": steered_prompt(prompt, weights, scorer),
        "weights": [float(w) for w in weights],
        "jury_prompt": prompt.messages,
    }
    return {**row, "given_completions": list(prompt.given)} if given else row


def train_grpo(
    config: RunConfig, prompts: Sequence[OpenPrompt], scorer: ClusterScorer, start: Path, training: TrainingFolder
) -> TrainingResults:
    """Train the comparison: stock `trl.GRPOTrainer` from the same pi_0 on a reward of the same jury."""
    section = config.grpo
    drop_in = {"use_bias_correction_kl": True} if section.rule == "pool" else {}  # of TRL's KLs the nearest to k1
    args = GRPOConfig(
        str(training.folder), scale_rewards=section.scale_rewards, **drop_in, **_stock_settings(config, section)
    )
    return _train_stock(GRPOTrainer, args, "stock GRPO", section, config, prompts, scorer, start, training)


def train_rloo(
    config: RunConfig, prompts: Sequence[OpenPrompt], scorer: ClusterScorer, start: Path, training: TrainingFolder
) -> TrainingResults:
    """Train the comparison: stock `trl.RLOOTrainer` from the same pi_0 on a reward of the same jury."""
    args = RLOOConfig(str(training.folder), **_stock_settings(config, config.rloo))
    return _train_stock(RLOOTrainer, args, "stock RLOO", config.rloo, config, prompts, scorer, start, training)


def _stock_settings(config: RunConfig, section: StockSection) -> dict[str, Any]:
    return {
        "beta": section.beta,
        "num_generations": section.num_generations,
        "per_device_train_batch_size": section.prompts_per_step * section.num_generations,
        "max_completion_length": config.policy.max_new_tokens,
        **common_settings(section, config.seed),
    }


def _train_stock(
    trainer_class: type[GRPOTrainer] | type[RLOOTrainer],
    args: Any,
    label: str,
    section: StockSection,
    config: RunConfig,
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    start: Path,
    training: TrainingFolder,
) -> TrainingResults:
    model, tokenizer = load_policy(config, start)
    trained = training_prompts(prompts)
    temperature = {"beta": section.beta} if section.rule == "pool" else {"check_trainer": False}
    per_step = args.per_device_train_batch_size // args.num_generations
    rng = seeded_rng(config.seed, "rows of a stock training")
    dealt = deal_weights(len(trained), scorer, args.max_steps, per_step, rng, steering=False)
    trainer = trainer_class(
        model,
        reward_funcs=[JuryReward(scorer, rule=section.rule, **temperature)],
        args=args,
        train_dataset=Dataset.from_list([_row(trained[i], weights, scorer) for i, weights in dealt]),
        processing_class=tokenizer,
    )
    training.along = config.evaluate.along
    history, seconds = train_and_save(trainer, tokenizer, training, label, REWARD_COLUMNS)
    budget = Budget(
        steps=args.max_steps, generated_sequences=args.max_steps * args.per_device_train_batch_size, seconds=seconds
    )
    return TrainingResults(history=history, budget=budget)
