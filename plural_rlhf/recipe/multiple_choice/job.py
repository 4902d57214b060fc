"""A run on questions with offered answers: a warm-up, ours in exact mode, stock GRPO; measured against people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import Job, KeepPieces, Training
from plural_rlhf.report.names import Split, Stage


if TYPE_CHECKING:
    from rich.console import Console

    from plural_rlhf.recipe.data import RunData
    from plural_rlhf.report.results_policies import EvaluationResults

__all__ = ["multiple_choice_job"]


def multiple_choice_job(config: RunConfig, data: RunData, folder: Path) -> Job:
    """Return the trainings and the evaluation of a run on questions; arguments as for `job_of`."""
    from plural_rlhf.recipe.multiple_choice.policies import train_grpo, train_plural, train_warmup

    questions, warm = data.of(Split.TRAIN), folder / Stage.WARM
    trainings: dict[Stage, Training] = {
        Stage.WARM: lambda jury, training: train_warmup(config, questions, jury, training),
        Stage.PLURAL: lambda jury, training: train_plural(config, questions, jury, warm, training),
    }
    if config.grpo.steps:
        trainings[Stage.GRPO] = lambda jury, training: train_grpo(config, questions, jury, warm, training)

    def evaluate(console: Console, keep: KeepPieces, kept: Path) -> EvaluationResults:
        from plural_rlhf.recipe.multiple_choice.measure import evaluate_run

        return evaluate_run(config, data, folder, console, keep)

    return Job(trainings, evaluate)
