"""Objectives in place of a jury: reward models and functions that a run file names, as the columns of a scorer.

They are put on one scale by texts of pi_0: a unit is the spread of an objective over pi_0's texts for a prompt. Knows
nothing of raters and of trainings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.run_folder.fingerprints import adapted_hash, large_files_hash, model_hash
from plural_rlhf.recipe.settings.models import ObjectiveSection
from plural_rlhf.report.names import Stage
from plural_rlhf.report.results_jury import Cluster, ClusterSelection, Heads, JuryResults
from plural_rlhf.settings.functions import import_function, working_folder
from reward_models.borders import cell, heading
from reward_models.content_hashes import file_hash, value_hash
from reward_models.errors import JuryError
from reward_models.jury.objectives import Objectives, Scorer
from reward_models.whole_file import write_json


__all__ = ["CALIBRATION_FILE", "check_objectives", "objectives_hash", "objectives_stage", "read_objectives"]

OBJECTIVES_FILE = "objectives.json"
CALIBRATION_FILE = "objectives_scale.json"
"""The scale of the objectives, beside the policy pi_0 whose texts it comes from."""
TRIED = ("More of them, please.", "I do not know.")
"""Completions that every objective is tried on before a run begins."""


def read_objectives(config: RunConfig, folder: Path | None = None) -> Objectives:
    """Make the scorer of `jury.objectives`.

    Args:
        config: The run, which sets `jury.objectives`.
        folder: Folder of the run; where its pi_0 is trained, the objectives are on one scale.

    Raises:
        ConfigError: A function that cannot be imported or is not there, or a reward model that cannot be read; the
            message lists every fault.
    """
    sections = config.jury.objectives or {}
    scorers: dict[str, Scorer] = {}
    faults = []
    for name, section in sections.items():
        try:
            scorers[name] = import_function(section.function) if section.function else str(section.model)
        except ImportError as error:
            faults.append(f"jury.objectives.{name}: {error}")
    if faults:
        raise ConfigError(config.name, faults)
    try:
        scorer = Objectives(scorers, weights={name: section.weight for name, section in sections.items()})
    except JuryError as error:
        raise ConfigError(config.name, [f"jury.objectives: {error}"]) from error
    scale = None if folder is None else folder / Stage.WARM / CALIBRATION_FILE
    if scale is not None and scale.is_file():
        scorer.load_calibration(scale)
    return scorer


def check_objectives(config: RunConfig, prompt: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless every objective of a run scores two completions of a prompt; without objectives do nothing.

    Args:
        config: The run.
        prompt: A prompt of it, as messages.

    Raises:
        ConfigError: See `read_objectives`; or a function fails, or returns None, texts or another number of values.
    """
    if config.jury.objectives is None:
        return
    scorer = read_objectives(config)
    completions = [[{"role": "assistant", "content": text}] for text in TRIED]
    faults = []
    for name, function in scorer.functions.items():
        try:
            Objectives({name: function}).cluster_rewards([list(prompt)] * len(TRIED), completions)
        except JuryError as error:
            faults.append(f"jury.objectives.{name}: {error}")
        except Exception as error:  # whatever a function of the user raises
            faults.append(
                f"jury.objectives.{name}: the function failed on the first prompt ({type(error).__name__}: {error}). "
                "Fix: it is called with prompts=[messages, ...] and completions=[messages, ...], and returns a number "
                "per completion"
            )
    if faults:
        raise ConfigError(config.name, faults)


def objectives_stage(config: RunConfig, folder: Path, console: Console) -> JuryResults:
    """Write down the objectives of a run in place of fitting a jury.

    Args:
        config: The run.
        folder: Where they are written.
        console: Where progress is printed.

    Returns:
        What the report says of them: the objectives stand where the clusters of a jury stand, by their weights.
    """
    scorer = read_objectives(config)
    sections = config.jury.objectives or {}
    folder.mkdir(exist_ok=True)
    write_json(folder / OBJECTIVES_FILE, {name: section.model_dump() for name, section in sections.items()})
    shares = scorer.prevalence.tolist()
    console.print(heading("Scores", "by objectives, in place of a jury; their weights:"))
    for name, share in zip(scorer.cluster_names, shares, strict=True):
        console.print(cell(f"  {share:4.0%}  {name}"))
    return JuryResults(
        selection=ClusterSelection(table=[], chosen=len(shares), reason="the objectives of the run file"),
        clusters=[Cluster(name=name, prevalence=share, top=[]) for name, share in zip(sections, shares, strict=True)],
        features=Heads(prevalence=shares),
    )


def objectives_hash(sections: Mapping[str, ObjectiveSection]) -> str:
    """Return a hash of the files behind objectives: of models, and of the modules that hold functions.

    Example:
        >>> objectives_hash({"brief": ObjectiveSection(function="nowhere:brief")}) == objectives_hash({})
        False
    """
    return value_hash([[name, _files_hash(section)] for name, section in sections.items()])


def _files_hash(section: ObjectiveSection) -> list[str | None]:
    if section.model is not None:
        adapted = adapted_hash(section.model)
        return [model_hash(section.model), large_files_hash(section.model), *([adapted] if adapted else [])]
    where = str(section.function).rpartition(":")[0]
    if where.endswith(".py"):
        return [file_hash(Path(where)) if Path(where).is_file() else None]
    try:
        with working_folder():
            spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return [None]
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    return [file_hash(origin) if origin is not None and origin.is_file() else None]
