"""A run on prompts that policies answer with text: pi_0, ours in sampled mode, stock TRL; measured by two juries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import Job, KeepPieces, Training
from plural_rlhf.recipe.open_ended.prompts import preferred_texts, run_prompts
from plural_rlhf.report.names import Stage


if TYPE_CHECKING:
    from rich.console import Console

    from plural_rlhf.recipe.data import RunData
    from plural_rlhf.report.results_policies import EvaluationResults

__all__ = ["open_ended_job"]


def open_ended_job(config: RunConfig, data: RunData, folder: Path) -> Job:
    """Return the trainings and the evaluation of a run whose policies write text; arguments as for `job_of`."""
    from plural_rlhf.recipe.open_ended.policies import train_grpo, train_pi_0, train_plural, train_rloo

    prompts, start = run_prompts(config, data), folder / Stage.WARM
    texts = {prompt.prompt: list(prompt.given) for prompt in prompts}
    if config.sft.texts == "preferred":
        texts = preferred_texts(data, prompts)
    trainings: dict[Stage, Training] = {
        Stage.WARM: lambda jury, training: train_pi_0(config, prompts, texts, jury, training),
        Stage.PLURAL: lambda jury, training: train_plural(config, prompts, jury, start, training),
    }
    if config.grpo.steps:
        trainings[Stage.GRPO] = lambda jury, training: train_grpo(config, prompts, jury, start, training)
    if config.rloo.steps:
        trainings[Stage.RLOO] = lambda jury, training: train_rloo(config, prompts, jury, start, training)

    def evaluate(console: Console, keep: KeepPieces, kept: Path) -> EvaluationResults:
        from plural_rlhf.recipe.open_ended.measure import evaluate_texts

        return evaluate_texts(config, data, prompts, folder, console, keep, kept)

    return Job(trainings, evaluate)
