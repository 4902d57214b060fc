"""Train the policies of a run: a warm-up that teaches the answer format, then ours and stock GRPO, both from there.

Each policy is a LoRA adapter on the base model. Knows nothing of people's answers: it sees questions and a jury.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer

from plural_rlhf.policies.layouts import Layout
from plural_rlhf.policies.own_texts import draw_own_texts
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import Question, render_question
from plural_rlhf.recipe.settings.sections import PluralSection, WarmupSection
from plural_rlhf.recipe.settings.stock import GrpoSection
from plural_rlhf.recipe.trainings import (
    common_settings,
    deal_weights,
    deck,
    load_base,
    load_policy,
    save_untrained,
    train_and_save,
    with_new_adapter,
)
from plural_rlhf.report.results_policies import Budget, TrainingResults
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, Rehearsal
from plural_rlhf.weights.wording import describe_weights, steer_prompt
from reward_models.errors import JudgementError
from reward_models.jury.protocol import ClusterScorer
from reward_models.seeds import derived_seed, seeded_rng
from reward_models.weights import WeightSpec


if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FlatJury", "own_text_rows", "policy_prompt", "train_grpo", "train_plural", "train_warmup"]

OWN_TEXTS = "own_texts.json"
"""Beside pi_0: the conversations on which policies are kept as they were."""


class FlatJury:
    """A scorer that gives every answer reward 0: the target of the warm-up is then uniform over the offered answers.

    Args:
        like: A scorer whose clusters and prevalence it takes over.

    Example:
        >>> from types import SimpleNamespace
        >>> jury = FlatJury(SimpleNamespace(cluster_names=["urban", "rural"], prevalence=[0.7, 0.3]))
        >>> jury.cluster_rewards(["More parks?"] * 2, ["yes", "no"]).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, like: ClusterScorer) -> None:
        self.cluster_names = like.cluster_names
        self.prevalence = like.prevalence

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Return zeros, `(N, K)`."""
        return torch.zeros(len(completions), len(self.cluster_names))


def policy_prompt(
    question: Question,
    weights: np.ndarray,
    jury: ClusterScorer,
    layout: Layout = "line",
    order: Sequence[int] | None = None,
) -> list[dict[str, str]]:
    """Make the prompt of a policy: whose answer is wanted, then the question with the offered answers.

    Args:
        question: The question.
        weights: `(K,)` weights of the clusters.
        jury: The clusters and their prevalence.
        layout: How the offered answers are shown.
        order: Their positions in the order in which they are shown; None for that of the table.

    Example:
        >>> from types import SimpleNamespace
        >>> question = Question("parks", "More parks?", ("yes", "no"), "train")
        >>> jury = SimpleNamespace(cluster_names=["urban", "rural"], prevalence=np.array([0.7, 0.3]))
        >>> for message in policy_prompt(question, np.array([0.0, 1.0]), jury):
        ...     print(message["role"], "|", message["content"])
        system | ...rural...
        user | More parks? yes; no?
    """
    description = describe_weights(weights, jury.cluster_names, jury.prevalence)
    return steer_prompt([{"role": "user", "content": render_question(question, layout, order)}], description)


def training_rows(
    questions: Sequence[Question],
    jury: ClusterScorer,
    section: WarmupSection | PluralSection | GrpoSection,
    *,
    steering: bool,
    seed: int,
    juries: Mapping[str, WeightSpec] | None = None,
    layouts: Sequence[Layout] = ("line",),
    shuffled: bool = False,
) -> Dataset:
    """Make the rows of a whole training in order: `section.steps` batches of `section.prompts_per_step`.

    A batch has as many weightings as it has rows for: the population twice, each cluster and each jury of the run file
    once, one random mixture. Questions are dealt to them in turn, so that no batch pulls towards one cluster or one
    question. Rows with the same weighting share their instructions, which are then computed once.

    Args:
        questions: The training questions.
        jury: The clusters and their prevalence.
        section: Number of steps and of prompts per step.
        steering: Whether to train on single clusters and mixtures too.
        seed: Random seed.
        juries: Named juries that are also trained on.
        layouts: How the offered answers are shown; rows take them in turn.
        shuffled: Whether they are shown in random order.

    Returns:
        Columns `prompt`, `support`, `weights`, `jury_prompt`.
    """
    # Not a salted stream: a run that an earlier version began goes on with the rows that it would have had.
    rng = np.random.default_rng(seed)
    dealt = deal_weights(
        len(questions), jury, section.steps, section.prompts_per_step, rng, steering=steering, juries=juries
    )
    shown = seeded_rng(seed, "how questions are shown")
    turns = deck(len(layouts), shown)
    rows = []
    for index, weights in dealt:
        question = questions[index]
        order = shown.permutation(len(question.options)).tolist() if shuffled else None
        rows.append(_row(question, weights, jury, layouts[next(turns)], order))
    return Dataset.from_list(rows)


def _exact_args(
    section: WarmupSection | PluralSection, training: TrainingFolder, seed: int, **target: Any
) -> PluralGRPOConfig:
    return PluralGRPOConfig(
        str(training.folder),
        exact=True,
        shuffle_dataset=False,
        per_device_train_batch_size=section.prompts_per_step,
        **target,
        **common_settings(section, seed),
    )


def _train_exact(
    label: str,
    model: PeftModel,
    tokenizer: Any,
    reward: JuryReward,
    rows: Dataset,
    args: PluralGRPOConfig,
    training: TrainingFolder,
    heldout: Dataset | None = None,
    rehearsal: Rehearsal | None = None,
) -> TrainingResults:
    trainer = PluralGRPOTrainer(model, reward, args, rows, heldout, processing_class=tokenizer, rehearsal=rehearsal)
    columns = {"loss": "loss", "plural/jsd_nats": "JS to target", "plural/coverage": "coverage"}
    history, seconds = train_and_save(trainer, tokenizer, training, label, columns)
    per_step = args.per_device_train_batch_size * len(rows[0]["support"])
    budget = Budget(steps=args.max_steps, scored_sequences=args.max_steps * per_step, seconds=seconds)
    if training.best is None:
        return TrainingResults(history=history, budget=budget)
    return TrainingResults(history=history, budget=budget, best_step=training.best.step)


def train_warmup(
    config: RunConfig, questions: Sequence[Question], jury: ClusterScorer, training: TrainingFolder
) -> TrainingResults:
    """Teach the answer format: exact training to uniform over the offered answers. Its policy is π₀ of the others."""
    section = config.warmup
    base, tokenizer = load_base(config)
    if config.rehearsal.weight:
        training.beside[OWN_TEXTS] = own_text_rows(config, base, tokenizer, config.rehearsal.texts, config.seed)
    torch.manual_seed(derived_seed(config.seed, "first adapter"))
    model = with_new_adapter(base, config.policy.lora)
    if section.steps == 0:
        return save_untrained(model, tokenizer, training)
    args = _exact_args(section, training, config.seed, reference_power=0.0)
    rows = training_rows(questions, jury, section, steering=False, seed=config.seed, **_shown(config))
    rehearsal = _rehearsal(config, training.beside.get(OWN_TEXTS))
    reward = JuryReward(FlatJury(jury))
    return _train_exact("warm-up", model, tokenizer, reward, rows, args, training, rehearsal=rehearsal)


def train_plural(
    config: RunConfig, questions: Sequence[Question], jury: ClusterScorer, warm: Path, training: TrainingFolder
) -> TrainingResults:
    """Train ours: exact training to the ρ-pool or a welfare rule, for the population and (steering) other weights."""
    section = config.plural
    model, tokenizer = load_policy(config, warm)
    if section.steps == 0:
        return save_untrained(model, tokenizer, training)
    settings = section.model_dump(include={"rho", "beta", "divergence", "reference_power"})
    trained, validation = _set_aside(questions, section.validation_questions, config.seed)
    heldout = None
    if validation:
        settings |= {"eval_strategy": "steps", "eval_steps": section.evaluate_every}
        heldout = _validation_rows(config, validation, jury)
    args = _exact_args(section, training, config.seed, **settings)
    rows = training_rows(
        trained,
        jury,
        section,
        steering=section.steering,
        seed=config.seed,
        juries=config.juries,
        **_shown(config),
    )
    reward = JuryReward(jury, rule=section.rule, rho=args.rho, beta=args.beta)
    own = json.loads((warm / OWN_TEXTS).read_text(encoding="utf-8")) if config.rehearsal.weight else None
    return _train_exact("plural", model, tokenizer, reward, rows, args, training, heldout, _rehearsal(config, own))


def own_text_rows(
    config: RunConfig, model: PreTrainedModel, tokenizer: Any, number: int, seed: int
) -> list[dict[str, Any]]:
    """Let a language model make up the conversations on which policies are kept as they are, or measured.

    Args:
        config: The run.
        model: The language model.
        tokenizer: Its tokenizer.
        number: How many.
        seed: Random seed; others than those of the training are measured.
    """
    own = draw_own_texts(model, tokenizer, number, max_new_tokens=config.rehearsal.max_tokens, seed=seed)
    return [text.row for text in own]


def _rehearsal(config: RunConfig, texts: Sequence[dict[str, Any]] | None) -> Rehearsal | None:
    section = config.rehearsal
    if not texts:  # none are wanted, or the language model makes up none: then there is nothing to keep
        return None
    return Rehearsal(texts, weight=section.weight, per_step=section.per_step, max_tokens=section.max_tokens)


def _set_aside(questions: Sequence[Question], number: int, seed: int) -> tuple[list[Question], list[Question]]:
    """Divide questions at random into those that are trained on and `number` validation questions.

    Raises:
        JudgementError: Nothing would be left to train on.
    """
    if number >= len(questions):
        raise JudgementError(
            f"plural.validation_questions is {number} of {len(questions)} training questions, and some must be left "
            "to train on. Fix: set aside fewer, or 0."
        )
    chosen = set(seeded_rng(seed, "validation questions").permutation(len(questions))[:number].tolist())
    return [q for i, q in enumerate(questions) if i not in chosen], [q for i, q in enumerate(questions) if i in chosen]


def _validation_rows(config: RunConfig, questions: Sequence[Question], jury: ClusterScorer) -> Dataset:
    """Every question in every layout, for the population."""
    rng = seeded_rng(config.seed, "how validation questions are shown")
    orders = [rng.permutation(len(q.options)).tolist() if config.policy.shuffle_answers else None for q in questions]
    everybody = np.asarray(jury.prevalence)
    return Dataset.from_list(
        [
            _row(question, everybody, jury, layout, order)
            for question, order in zip(questions, orders, strict=True)
            for layout in config.policy.layouts
        ]
    )


def _shown(config: RunConfig) -> dict[str, Any]:
    """How questions are shown, as arguments of `training_rows`."""
    return {"layouts": config.policy.layouts, "shuffled": config.policy.shuffle_answers}


def _row(
    question: Question, weights: np.ndarray, jury: ClusterScorer, layout: Layout, order: Sequence[int] | None = None
) -> dict[str, Any]:
    return {
        "prompt": policy_prompt(question, weights, jury, layout, order),
        "support": list(question.options),
        "weights": [float(w) for w in weights],
        "jury_prompt": question.messages,
    }


def train_grpo(
    config: RunConfig, questions: Sequence[Question], jury: ClusterScorer, warm: Path, training: TrainingFolder
) -> TrainingResults:
    """Train the comparison: stock `trl.GRPOTrainer` from the same π₀ on the mean reward of the same jury."""
    section = config.grpo
    model, tokenizer = load_policy(config, warm)
    longest = max(len(tokenizer(option)["input_ids"]) for q in questions for option in q.options)
    args = GRPOConfig(
        str(training.folder),
        beta=section.beta,
        scale_rewards=section.scale_rewards,
        num_generations=section.num_generations,
        per_device_train_batch_size=section.prompts_per_step * section.num_generations,
        max_completion_length=longest + 4,
        **common_settings(section, config.seed),
    )
    rows = training_rows(questions, jury, section, steering=False, seed=config.seed, **_shown(config))
    trainer = GRPOTrainer(
        model,
        reward_funcs=[JuryReward(jury, rule="mean", check_trainer=False)],
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    history, seconds = train_and_save(
        trainer, tokenizer, training, "stock GRPO", {"reward": "reward", "entropy": "entropy"}
    )
    generated = section.steps * section.prompts_per_step * section.num_generations
    budget = Budget(steps=section.steps, generated_sequences=generated, seconds=seconds)
    return TrainingResults(history=history, budget=budget)
