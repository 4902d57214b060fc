"""A config-driven run, top to bottom: judgements → jury → policies → evaluation → report.

`run` is what the command line calls. Each stage is kept in the run's folder when it is complete, so a run that was
stopped goes on where it was.
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
from functools import cache
from typing import Any, Literal

from rich.console import Console

import plural_rlhf
from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.folder import RunFolder, RunFolderError, check_folder
from reward_models.whole_file import write_json


__all__ = ["RunFolderError", "Until", "run"]

Until = Literal["jury", "train", "evaluate", "report"]

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "numpy", "scipy", "pandas")


def run(
    config: RunConfig,
    until: Until = "report",
    overwrite: bool = False,
    command: str = "",
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the stages up to `until` and returns the results so far.

    Args:
        config: The run.
        until: `jury`, `train` (policies too), `evaluate` (numbers too) or `report` (all).
        overwrite: Delete a run that is already in the output folder.
        command: The command line, for the record.
        console: Where to report progress.

    Returns:
        What `results.json` holds; with `until="report"` the report is written too.

    Raises:
        RunFolderError: The output folder holds another run, or something else; nothing was touched.
        ConfigError: A welfare rule that does not exist or lacks an option.
        JudgementError, JuryError: Data or settings that cannot work; before any training.
    """
    if config.policy.model in (SMOLLM2, TINY):
        # Nothing is fetched, so nothing should wait for a network; read when huggingface_hub is first imported.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging as transformers_logging

    from plural_rlhf.recipe.data import read_data
    from plural_rlhf.recipe.jury import jury_stage

    console = console or Console()
    # Their bars for loading and saving weights would bury ours.
    transformers_logging.disable_progress_bar()
    # TRL itself sets the option whose new name transformers announces.
    warnings.filterwarnings("ignore", message=".*activation_checkpointing.*", category=FutureWarning)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    # All that can be refused is refused before the folder is touched, and what takes long comes last.
    check_folder(config.output_dir, config.model_dump(mode="json"), overwrite=overwrite)
    _check_rules(config)
    data = read_data(config, policy=until != "jury")
    prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    folder = RunFolder(config.output_dir, config.model_dump(mode="json"), overwrite=overwrite)
    summary = data.summary(config)
    survey, other = ("people", "answers", "questions"), ("raters", "judgements", "items")
    people, answers, questions = survey if data.questions else other
    console.print(
        f"[bold]Data[/bold]      {summary['source']}: {summary['n_judgements']:,} {answers} of "
        f"{summary['n_raters']:,} {people} to {summary['n_items']} {questions}; held out: "
        f"{summary['heldout_raters']:,} {people} and {len(summary['heldout_questions'])} {questions}"
    )
    results: dict[str, Any] = {"config": config.model_dump(mode="json"), "data": summary, "skipped": []}
    seconds: dict[str, float] = {}
    fit = lambda: jury_stage(config, data, folder.path / "jury", console)  # noqa: E731
    results |= _stage(folder, "jury", seconds, console, fit)
    if until != "jury":
        _train(config, data, folder, results, seconds, console)
    if until in ("evaluate", "report"):
        from plural_rlhf.recipe.measure import evaluate_run

        found = _stage(folder, "evaluate", seconds, console, lambda: evaluate_run(config, data, folder.path, console))
        results |= found
    results["meta"] = _meta(config, command, started, seconds)
    if until in ("evaluate", "report"):
        write_json(folder.path / "results.json", results)
    if until == "report":
        from plural_rlhf.report.html import write_report

        write_report(results, folder.path)
    return results


def _check_rules(config: RunConfig) -> None:
    from plural_rlhf.core.rules import Rule, rule_or_pool

    faults = []
    asked = {"plural.rule": (rule_or_pool, config.plural.rule)}
    asked |= {f"evaluate.rules, entry {n}": (Rule.parse, rule) for n, rule in enumerate(config.evaluate.rules, 1)}
    for key, (read, spec) in asked.items():
        try:
            rule = read(spec)
            if rule is not None:
                rule.check(2)
        except (TypeError, ValueError) as error:
            faults.append(f"{key} = {spec!r}: {error}")
    if faults:
        raise ConfigError(config.name, faults)


def _train(
    config: RunConfig,
    data: Any,
    folder: RunFolder,
    results: dict[str, Any],
    seconds: dict[str, float],
    console: Console,
) -> None:
    from plural_rlhf.core.rules import rule_or_pool
    from plural_rlhf.recipe.policies import train_grpo, train_plural, train_warmup
    from reward_models.jury.scorer import JuryScorer

    @cache
    def jury() -> JuryScorer:  # only read where a stage is still to be trained
        rule = rule_or_pool(config.plural.rule)
        compares = rule is not None and rule.compares_heads
        return JuryScorer.from_pretrained(folder.path / "jury", calibrated=compares)

    questions = data.of("train")
    warm = folder.path / "warm"
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "warm": lambda: train_warmup(config, questions, jury(), warm),
        "plural": lambda: train_plural(config, questions, jury(), warm, folder.path / "plural"),
        "grpo": lambda: train_grpo(config, questions, jury(), warm, folder.path / "grpo"),
    }
    if config.grpo.steps == 0:
        del stages["grpo"]
        results["skipped"].append({"what": "stock GRPO", "reason": "grpo.steps is 0"})
    results["training"], results["budgets"] = {}, {}
    for name, train in stages.items():
        trained = _stage(folder, name, seconds, console, train)
        gc.collect()  # a trainer refers to itself, and with it to a whole model
        results["training"][name], results["budgets"][name] = trained["history"], trained["budget"]
        console.print(f"[bold]{name:10}[/bold]{_spent(trained['budget'])}")


def _spent(budget: dict[str, float]) -> str:
    counts = {unit.replace("_", " "): f"{value:,.0f}" for unit, value in budget.items()}
    return ", ".join(f"{n} {unit.removesuffix('s') if n == '1' else unit}" for unit, n in counts.items())


def _stage(
    folder: RunFolder, name: str, seconds: dict[str, float], console: Console, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    found = folder.finished(name)
    if found is not None:
        console.print(f"[dim]{name}: found in {folder.path}, kept (--overwrite starts over)[/dim]")
        seconds[name] = found["seconds"]
        return found["result"]
    start = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - start
    return folder.finish(name, {"result": result, "seconds": seconds[name]})["result"]


def _meta(config: RunConfig, command: str, started: str, seconds: dict[str, float]) -> dict[str, Any]:
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return {
        "plural_rlhf_version": plural_rlhf.__version__,
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "seed": config.seed,
        "command": command,
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "started": started,
        "seconds": seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }
