"""A run from top to bottom: judgements → jury → policies → evaluation → report.

`run` is what the command line calls. Each stage is kept in the run's folder when it is complete, so that a run that
was stopped goes on after its last complete stage. Knows nothing of how a stage works.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import ValidationError
from rich.console import Console

import plural_rlhf
from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.folder import STAGES, RunFolder, RunFolderError, check_folder
from plural_rlhf.report.names import SkippedPart, Split, Stage
from plural_rlhf.report.results import SCHEMA_VERSION, DataSummary, Meta, RunResults
from plural_rlhf.report.results_base import faults
from plural_rlhf.report.results_jury import JuryResults
from plural_rlhf.report.results_policies import Budget, EvaluationResults, Skipped, TrainingResults


if TYPE_CHECKING:
    from plural_rlhf.recipe.data import RunData
    from reward_models.jury.scorer import JuryScorer

__all__ = ["RunFolderError", "Until", "run"]

Until = Literal["jury", "train", "evaluate", "report"]
StageResults = TypeVar("StageResults", JuryResults, TrainingResults, EvaluationResults)

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "numpy", "scipy", "pandas")


def run(
    config: RunConfig,
    until: Until = "report",
    overwrite: bool = False,
    command: str = "",
    console: Console | None = None,
) -> RunResults:
    """Run the stages up to `until` and return the results so far.

    Args:
        config: The run.
        until: Last thing to do: `jury`, `train` (the policies), `evaluate` (`results.json`) or `report` (the pages).
        overwrite: Delete a run that is already in the output folder.
        command: The command line, for the record.
        console: Where to report progress.

    Returns:
        What `results.json` holds.

    Raises:
        RunFolderError: The output folder holds another run, or something else; nothing was touched.
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
    from plural_rlhf.recipe.data import read_data
    from plural_rlhf.recipe.jury import jury_stage
    from reward_models.evaluation.heldout import drawn_by_former_streams

    console = console or Console()
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    settings = config.model_dump(mode="json")

    # All that can be refused is refused before the folder is touched, and what takes long comes last.
    check_folder(config.output_dir, settings, overwrite=overwrite)
    _check_rules(config)
    resumed = not overwrite and (config.output_dir / STAGES / f"{Stage.JURY}.json").exists()
    data = read_data(
        config,
        policy=until != "jury",
        show=partial(console.print, markup=False, highlight=False),
        former_streams=resumed and drawn_by_former_streams(config.output_dir),
    )
    prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    folder = RunFolder(config.output_dir, settings, overwrite=overwrite)
    summary = data.summary(config)
    console.print(f"[bold]Data[/bold]      {_data_sentence(data, summary)}")

    stages = _Stages(folder, console)
    jury = stages.complete(
        Stage.JURY, JuryResults, lambda: jury_stage(config, data, folder.path / Stage.JURY, console)
    )
    trained = {} if until == "jury" else _train_policies(config, data, stages)
    evaluation = EvaluationResults()
    if until in ("evaluate", "report"):
        from plural_rlhf.recipe.measure import evaluate_run

        evaluation = stages.complete(
            Stage.EVALUATE, EvaluationResults, lambda: evaluate_run(config, data, folder.path, console)
        )

    results = RunResults(
        schema_version=SCHEMA_VERSION,
        config=settings,
        data=summary,
        training={stage: policy.history for stage, policy in trained.items()},
        budgets={stage: policy.budget for stage, policy in trained.items()},
        meta=_meta(config, command, started, stages.seconds),
        **jury.parts(),
        **{**evaluation.parts(), "skipped": [*_skipped_settings(config), *evaluation.skipped]},
    )
    if until in ("evaluate", "report"):
        results.write(folder.path / "results.json")
    if until == "report":
        from plural_rlhf.report.html import write_report

        write_report(results, folder.path)
    return results


class _Stages:
    """The stages of one run: each is done once, and read from the run's folder from then on."""

    def __init__(self, folder: RunFolder, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.seconds: dict[str, float] = {}

    def complete(
        self, stage: Stage, results_type: type[StageResults], work: Callable[[], StageResults]
    ) -> StageResults:
        """Return what the stage left, after doing its work if it is not complete yet.

        What was just made is read back from the folder too, so that it cannot differ from what a later run finds.
        """
        record = self.folder.finished(stage)
        if record is None:
            start = time.perf_counter()
            results = work()
            record = self.folder.finish(stage, {"result": results.to_dict(), "seconds": time.perf_counter() - start})
        else:
            self.console.print(f"[dim]{stage}: found in {self.folder.path}, kept (--overwrite starts over)[/dim]")
        try:
            self.seconds[stage] = record["seconds"]
            return results_type.model_validate(record["result"])
        except (KeyError, TypeError, ValidationError) as error:
            reason = faults(error) if isinstance(error, ValidationError) else repr(error)
            raise RunFolderError(
                f"the record of the stage {stage} in {str(self.folder.path)!r} cannot be read ({reason}). Fix: "
                "--overwrite deletes that run and starts over."
            ) from error


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


def _train_policies(config: RunConfig, data: RunData, stages: _Stages) -> dict[Stage, TrainingResults]:
    """Train the warm-up, then from its policy ours and, unless `grpo.steps` is 0, stock GRPO."""
    from plural_rlhf.core.rules import rule_or_pool
    from plural_rlhf.recipe.policies import train_grpo, train_plural, train_warmup
    from reward_models.jury.scorer import JuryScorer

    folder = stages.folder.path

    @cache
    def jury() -> JuryScorer:  # only read where a stage is still to be trained
        rule = rule_or_pool(config.plural.rule)
        compares = rule is not None and rule.compares_heads
        return JuryScorer.from_pretrained(folder / Stage.JURY, calibrated=compares)

    questions, warm = data.of(Split.TRAIN), folder / Stage.WARM
    trainings: dict[Stage, Callable[[], TrainingResults]] = {
        Stage.WARM: lambda: train_warmup(config, questions, jury(), warm),
        Stage.PLURAL: lambda: train_plural(config, questions, jury(), warm, folder / Stage.PLURAL),
        Stage.GRPO: lambda: train_grpo(config, questions, jury(), warm, folder / Stage.GRPO),
    }
    if config.grpo.steps == 0:
        del trainings[Stage.GRPO]
    trained = {}
    for stage, train in trainings.items():
        trained[stage] = stages.complete(stage, TrainingResults, train)
        gc.collect()  # a trainer refers to itself, and with it to a whole model
        stages.console.print(f"[bold]{stage:10}[/bold]{_budget_sentence(trained[stage].budget)}")
    return trained


def _skipped_settings(config: RunConfig) -> list[Skipped]:
    """What the settings leave out."""
    return [Skipped(what=SkippedPart.GRPO, reason="grpo.steps is 0")] if config.grpo.steps == 0 else []


def _data_sentence(data: RunData, summary: DataSummary) -> str:
    survey, other = ("people", "answers", "questions"), ("raters", "judgements", "items")
    people, answers, questions = survey if data.questions else other
    return (
        f"{summary.source}: {summary.n_judgements:,} {answers} of {summary.n_raters:,} {people} to {summary.n_items} "
        f"{questions}; held out: {summary.heldout_raters:,} {people} and {len(summary.heldout_questions)} {questions}"
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


def _meta(config: RunConfig, command: str, started: str, seconds: dict[str, float]) -> Meta:
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return Meta(
        plural_rlhf_version=plural_rlhf.__version__,
        versions={"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        seed=config.seed,
        command=command,
        machine={"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        started=started,
        seconds=seconds,
        peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    )
