"""A run on prompts that policies answer with text: pi_0, ours in sampled mode, stock TRL; measured by two juries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import Job, KeepPieces, Training
from plural_rlhf.recipe.open_ended.measured_policies import check_rivals
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, preferred_texts, run_prompts
from plural_rlhf.recipe.open_ended.requests import check_raters
from plural_rlhf.recipe.scorers.objectives import check_objectives
from plural_rlhf.report.names import Stage
from reward_models.jury.objectives import Objectives
from reward_models.jury.scorer import JuryScorer


if TYPE_CHECKING:
    from rich.console import Console

    from plural_rlhf.recipe.checkpoints import TrainingFolder
    from plural_rlhf.recipe.data import RunData
    from plural_rlhf.report.results_policies import EvaluationResults, TrainingResults
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["open_ended_job"]


def open_ended_job(config: RunConfig, data: RunData, folder: Path) -> Job:
    """Return the trainings and the evaluation of a run whose policies write text; arguments as for `job_of`.

    Raises:
        ConfigError: An objective that cannot score the first prompt, a rival that cannot be measured, an unknown
            rater, a prompt that the model cannot read, texts that are all too long, or settings of the sampled
            training that exclude each other.
    """
    from plural_rlhf.recipe.open_ended.policies import train_grpo, train_pi_0, train_rloo
    from plural_rlhf.recipe.open_ended.start_checks import (
        check_imitated,
        check_readers,
        check_rendering,
        check_sampled,
        warn_of_broken_pi_0,
        warn_of_other_texts,
    )

    prompts, start = run_prompts(config, data), folder / Stage.WARM
    check_objectives(config, prompts[0].messages)
    check_rivals(config)
    check_raters(config, data)
    check_rendering(config, prompts)
    check_readers(config)
    warn_of_other_texts(config, data, prompts)
    texts = {prompt.prompt: list(prompt.given) for prompt in prompts}
    if config.sft.texts == "preferred":
        texts = preferred_texts(data, prompts)
    check_imitated(config, texts)
    check_sampled(config, prompts, folder)

    def train_start(scorer: ClusterScorer, training: TrainingFolder) -> TrainingResults:
        results = train_pi_0(config, prompts, texts, scorer, training)
        warn_of_broken_pi_0(config, prompts, scorer, training.policy)
        if isinstance(scorer, Objectives):
            from plural_rlhf.recipe.open_ended.one_scale import put_on_one_scale

            put_on_one_scale(config, prompts, scorer, training.policy)
        return results

    trainings: dict[Stage, Training] = {
        Stage.WARM: train_start,
        Stage.PLURAL: lambda jury, training: _train_ours(config, data, prompts, jury, start, training),
    }
    if config.grpo.steps:
        trainings[Stage.GRPO] = lambda jury, training: train_grpo(config, prompts, jury, start, training)
    if config.rloo.steps:
        trainings[Stage.RLOO] = lambda jury, training: train_rloo(config, prompts, jury, start, training)

    def evaluate(console: Console, keep: KeepPieces, kept: Path) -> EvaluationResults:
        from plural_rlhf.recipe.open_ended.measure import evaluate_texts

        return evaluate_texts(config, data, prompts, folder, console, keep, kept)

    return Job(trainings, evaluate)


def _train_ours(
    config: RunConfig,
    data: RunData,
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    start: Path,
    training: TrainingFolder,
) -> TrainingResults:
    """Make our policy from pi_0 as `plural.mode` says."""
    from plural_rlhf.recipe.open_ended.policies import train_plural
    from plural_rlhf.recipe.open_ended.without_rl import distil_candidates, keep_pi_0, train_dpo

    match config.plural.mode:
        case "rerank":
            return keep_pi_0(config, start, training)
        case "distil":
            return distil_candidates(config, prompts, scorer, start, training)
        case "dpo":
            pairs = data.pairs()
            assert pairs is not None  # choose_job refuses mode dpo without pairs
            assert isinstance(scorer, JuryScorer)  # with pairs there is a jury
            return train_dpo(config, pairs, scorer, start, training)
        case _:
            return train_plural(config, prompts, scorer, start, training)
