"""A run from top to bottom: judgements → jury → policies → evaluation → report.

`run` is what the command line calls. Each stage is kept in the run's folder when it is complete (`stages`), so that a
run that was stopped goes on where it was. Knows nothing of how a stage works.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model
from plural_rlhf.recipe.choose_job import job_of
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.job import Job, Training
from plural_rlhf.recipe.run_folder.disk import explain_disk_faults
from plural_rlhf.recipe.run_folder.folder import STAGES, check_folder, check_reused, kept_in, open_run_folder
from plural_rlhf.recipe.stage_inputs import RunInputs, settings_of_earlier_versions
from plural_rlhf.recipe.stages import Stages
from plural_rlhf.report.names import SkippedPart, Stage
from plural_rlhf.report.results import SCHEMA_VERSION, DataSummary, Meta, RunResults
from plural_rlhf.report.results_jury import JuryResults
from plural_rlhf.report.results_policies import Budget, EvaluationResults, Skipped, TrainingResults
from reward_models.borders import heading, lines_to


if TYPE_CHECKING:
    from plural_rlhf.recipe.data import RunData
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["Until", "run"]

Until = Literal["jury", "train", "evaluate", "report"]


def run(
    config: RunConfig,
    until: Until = "report",
    overwrite: bool = False,
    command: str = "",
    console: Console | None = None,
    reuse: Path | None = None,
) -> RunResults:
    """Run the stages up to `until` and return the results so far.

    Args:
        config: The run.
        until: Last thing to do: `jury`, `train` (the policies), `evaluate` (`results.json`) or `report` (the pages).
        overwrite: Delete a run that is already in the output folder.
        command: The command line, for the record.
        console: Where to report progress.
        reuse: Folder of another run: a stage that it has done with the same settings and data is copied from there, so
            that runs which differ in a later stage have the same jury and pi_0.

    Returns:
        What `results.json` holds.

    Raises:
        RunFolderError: The output folder holds a run with other settings or data, or something else, or another run is
            at work in it, or `reuse` is no run; nothing was touched. Or a part of the run in it is damaged.
        RunWriteError: The disk is full or read-only, or the folder was removed; what was complete is kept.
        RunInterrupted: Ctrl-C or SIGTERM; what was complete is kept, and of a training a checkpoint.
        ConfigError: Unknown welfare rule, or an option that it lacks.
        JudgementError, JuryError: Data or settings that cannot be used; raised before any training.

    Example:
        A jury from a table of 30 raters who form two clusters, on a tiny language model:

        >>> import tempfile
        >>> from plural_rlhf.recipe import make_config
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("choice", num_raters=30, num_items=6).judgements.frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table.to_json(f"{folder}/answers.jsonl", orient="records", lines=True)
        ...     settings = {
        ...         "output_dir": f"{folder}/run",
        ...         "data": {
        ...             "source": "table",
        ...             "path": f"{folder}/answers.jsonl",
        ...             "columns": {"index": 0},  # `choice` counts the options from 0
        ...             "heldout_questions": 2,
        ...         },
        ...         "policy": {"model": "tiny", "cache_dir": f"{folder}/models"},
        ...         "jury": {"clusters": 2, "restarts": 1, "l2": 1.0},
        ...     }
        ...     results = run(make_config(settings, origin="example"), until="jury", console=Console(quiet=True))
        >>> results.data.train_raters, len(results.clusters)
        (21, 2)
    """
    _quiet_libraries(config)
    console = console or Console()
    path, inputs, defaults = config.output_dir, RunInputs(config), settings_of_earlier_versions()
    interruption = Interruption(lines_to(console), kept=partial(kept_in, path))
    with interruption.handled(), explain_disk_faults(path, lambda: kept_in(path)):
        # All that can be refused is refused before the folder is touched, and what takes long comes last.
        check_folder(path, inputs.of_every_stage(), defaults, overwrite=overwrite)
        check_reused(reuse, path)
        _check_rules(config)
        data = _read(config, inputs, console, overwrite=overwrite)
        if config.jury.path is not None:
            from plural_rlhf.recipe.scorers.saved_jury import check_saved_jury

            check_saved_jury(config, data)
        settings = config.model_dump(mode="json")
        job = None if until == "jury" else job_of(config, data, path)
        with open_run_folder(path, settings, inputs.of_every_stage(), defaults, overwrite=overwrite) as folder:
            stages = Stages(folder, inputs, interruption, config.checkpoints, console, reuse)
            return _complete_stages(config, data, job, stages, until, command)


def _read(config: RunConfig, inputs: RunInputs, console: Console, *, overwrite: bool) -> RunData:
    from plural_rlhf.recipe.data import read_data
    from reward_models.evaluation.heldout import STREAMS, streams_of

    resumed = not overwrite and (config.output_dir / STAGES / f"{Stage.JURY}.json").exists()
    data = read_data(
        config,
        show=lines_to(console),
        streams=streams_of(config.output_dir) if resumed else STREAMS,
    )
    inputs.add_content(data, prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed))
    return data


def _complete_stages(
    config: RunConfig, data: RunData, job: Job | None, stages: Stages, until: Until, command: str
) -> RunResults:
    from plural_rlhf.recipe.scorers.choose import scorer_stage

    started, folder, console = time.strftime("%Y-%m-%dT%H:%M:%S%z"), stages.folder.path, stages.console
    summary = data.summary(config)
    console.print(heading("Data", _data_sentence(data, summary)))

    def fit_jury() -> JuryResults:
        features = stages.kept_in(Stage.JURY) / "features"
        return scorer_stage(config, data, folder / Stage.JURY, console, partial(stages.part, Stage.JURY), features)

    jury = stages.complete(Stage.JURY, JuryResults, fit_jury)
    trained = {} if job is None else _train_policies(config, job, stages)
    evaluation = EvaluationResults()
    if job is not None and until in ("evaluate", "report"):
        evaluation = stages.complete(Stage.EVALUATE, EvaluationResults, partial(_evaluate, job, stages))

    results = RunResults(
        schema_version=SCHEMA_VERSION,
        config=config.model_dump(mode="json"),
        data=summary,
        training={stage: policy.history for stage, policy in trained.items()},
        budgets={stage: policy.budget for stage, policy in trained.items()},
        meta=Meta.of_this_process(config.seed, command, started, stages.seconds),
        **jury.parts(),
        **{**evaluation.parts(), "skipped": [*_skipped_settings(config), *evaluation.skipped]},
    )
    if until in ("evaluate", "report"):
        results.write(folder / "results.json")
    if until == "report":
        from plural_rlhf.report.html import write_report

        write_report(results, folder)
    return results


def _quiet_libraries(config: RunConfig) -> None:
    """Set what other libraries print and fetch; called before they are imported."""
    if config.policy.model in (SMOLLM2, TINY):
        # Nothing is fetched, so nothing should wait for a network; read when huggingface_hub is first imported.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging as transformers_logging

    # Their bars for loading and saving weights would bury ours.
    transformers_logging.disable_progress_bar()
    # TRL itself sets the option whose new name transformers announces.
    warnings.filterwarnings("ignore", message=".*activation_checkpointing.*", category=FutureWarning)


def _check_rules(config: RunConfig) -> None:
    from plural_rlhf.core.rules import Rule, rule_or_pool

    unusable = []
    settings = {"plural.rule": (rule_or_pool, config.plural.rule)}
    settings |= {f"evaluate.rules, entry {n}": (Rule.parse, rule) for n, rule in enumerate(config.evaluate.rules, 1)}
    for key, (read, spec) in settings.items():
        try:
            rule = read(spec)
            if rule is not None:
                rule.check(2)
        except (TypeError, ValueError) as error:
            unusable.append(f"{key} = {spec!r}: {error}")
    if unusable:
        raise ConfigError(config.name, unusable)


def _train_policies(config: RunConfig, job: Job, stages: Stages) -> dict[Stage, TrainingResults]:
    """Train pi_0, then from it ours and the rivals."""
    from plural_rlhf.recipe.scorers.choose import read_target_scorer

    @cache
    def jury() -> ClusterScorer:  # only read where a stage is still to be trained
        return read_target_scorer(config, stages.folder.path)

    trained = {}
    for stage, train in job.trainings.items():
        trained[stage] = stages.complete(stage, TrainingResults, partial(_train, train, jury, stages, stage))
        gc.collect()  # a trainer refers to itself, and with it to a whole model
        stages.console.print(heading(stage, _budget_sentence(trained[stage].budget)))
    return trained


def _train(train: Training, jury: Callable[[], ClusterScorer], stages: Stages, stage: Stage) -> TrainingResults:
    return train(jury(), stages.training(stage))


def _evaluate(job: Job, stages: Stages) -> EvaluationResults:
    keep = partial(stages.pieces, Stage.EVALUATE)
    return job.evaluate(stages.console, keep, stages.kept_in(Stage.EVALUATE))


def _skipped_settings(config: RunConfig) -> list[Skipped]:
    """What the settings leave out."""
    reasons = {
        SkippedPart.RATERS: "the run has no judgements (data.source: none)" if config.data.source == "none" else None,
        SkippedPart.GRPO: "grpo.steps is 0" if config.grpo.steps == 0 else None,
        SkippedPart.HELDOUT: "data.heldout_questions is 0: a final fit, of which nothing is known on new questions"
        if config.data.heldout_questions == 0
        else None,
    }
    return [Skipped(what=part, reason=reason) for part, reason in reasons.items() if reason is not None]


def _data_sentence(data: RunData, summary: DataSummary) -> str:
    if not summary.n_judgements:
        return "no judgements: texts are scored by what the run file names"
    survey, other = ("people", "answers", "questions"), ("raters", "judgements", "items")
    people, answers, questions = survey if data.questions else other
    alike = summary.effective_raters
    weighted = "" if alike is None else f" (weighted; as precise as {alike:,.0f} of equal weight)"
    return (
        f"{summary.source}: {summary.n_judgements:,} {answers} of {summary.n_raters:,} {people}{weighted} to "
        f"{summary.n_items} {questions}; held out: {summary.heldout_raters:,} {people} and "
        f"{len(summary.heldout_questions)} {questions}"
    )


def _budget_sentence(budget: Budget) -> str:
    counts = {
        "step": budget.steps,
        "scored sequence": budget.scored_sequences,
        "generated sequence": budget.generated_sequences,
        "second": round(budget.seconds),
    }
    return ", ".join(
        f"{count:,} {unit}{'' if count == 1 else 's'}" for unit, count in counts.items() if count is not None
    )
