"""The models of a run folder: the one before training, every policy that the run saved, and its jury.

Reads the names of folders and `config.json`; knows no task and does not load a model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.report.names import METHOD_NAMES, Method
from plural_rlhf.suites.models.jury import is_jury_folder


if TYPE_CHECKING:
    from plural_rlhf.suites.config import ModelSection

__all__ = ["expand_runs", "is_run_folder"]

CONFIG_FILE, STAGES, RERANK_FILE = "config.json", "stages", "rerank.json"
BEFORE = "before"
POLICIES = (Method.WARM, Method.PLURAL, Method.GRPO, Method.RLOO)
"""Policies that a run may save, in the order in which they are trained; the name is that of the folder."""
STEERED = (Method.WARM, Method.PLURAL)
"""Policies that are trained under weights in their prompts, and are asked so."""


def is_run_folder(path: str | Path) -> bool:
    """Return whether a folder is that of a run.

    Example:
        >>> is_run_folder("nowhere")
        False
    """
    return (Path(path) / CONFIG_FILE).is_file() and (Path(path) / STAGES).is_dir()


def expand_runs(sections: Sequence[ModelSection]) -> list[ModelSection]:
    """Put the models of a run in place of the run; sections of other models stay as they are.

    Models that two runs share, such as the one before training, occur once. With several sections, the models of a
    run are called after it, too.

    Args:
        sections: Models as a suite file has them. A `path` that is the folder of a run counts as `run`.

    Raises:
        FileNotFoundError: A folder is not that of a run, or no policy of it is saved yet.

    Warns:
        UserWarning: A policy is left out because it is no model by itself: its texts are chosen among candidates.

    Example:
        >>> from plural_rlhf.suites import SuiteConfig
        >>> config = SuiteConfig(models=["smollm2-135m"])
        >>> [section.label for section in expand_runs(config.models)]
        ['smollm2-135m']
    """
    models: dict[str, ModelSection] = {}
    for section in sections:
        run = section.run
        if run is None and section.path is not None and is_run_folder(section.path):
            run = Path(section.path)
        for model in [section] if run is None else _models_of(run, section, len(sections) > 1):
            content = repr(model.model_copy(update={"name": None}))
            if run is None or content not in models:
                models[content if run is not None else f"{len(models)} {content}"] = model
    return list(models.values())


def _models_of(run: Path, section: ModelSection, several: bool) -> list[ModelSection]:
    if not is_run_folder(run):
        raise FileNotFoundError(
            f"{run} is not the folder of a run: it has no {CONFIG_FILE} beside a folder {STAGES}. Fix: give the "
            "folder that `plural-rlhf run` wrote, or a model with path"
        )
    saved = [policy for policy in POLICIES if (run / policy).is_dir()]
    if not saved:
        raise FileNotFoundError(
            f"{run} holds no policy yet (none of the folders {', '.join(POLICIES)}). Fix: finish the run"
        )
    if (run / Method.PLURAL / RERANK_FILE).is_file():
        saved.remove(Method.PLURAL)
        warnings.warn(
            f"{run}: {METHOD_NAMES[Method.PLURAL]} is left out, because it is no model by itself: this run chooses "
            "texts among candidates of pi_0 (mode: rerank). The report of the run measures what was chosen",
            stacklevel=4,
        )
    policy = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))["policy"]
    jury = run / Method.JURY if is_jury_folder(run / Method.JURY) else None
    prefix = f"{section.name or run.name}: " if several or section.name else ""
    plain: dict[str, Any] = {"run": None, "path": None, "jury": None, "weights": "prevalence", "steered": False}

    def model(name: str, path: str | Path, **settings: Any) -> ModelSection:
        return section.model_copy(update={**plain, "name": name, "path": str(path), **settings})

    models = [model(BEFORE, policy["model"])]
    for method in saved:
        steering = {"jury": jury, "weights": section.weights} if method in STEERED else {}
        models.append(model(f"{prefix}{METHOD_NAMES[method]}", run / method, **steering))
    if section.steered and jury is not None and Method.PLURAL in saved:
        names = json.loads((jury / CONFIG_FILE).read_text(encoding="utf-8"))["cluster_names"]
        models += [
            model(f"{prefix}{METHOD_NAMES[Method.PLURAL]}, {name}", run / Method.PLURAL, jury=jury, weights={name: 1})
            for name in names
        ]
    if jury is not None:
        models.append(model(f"{prefix}{Method.JURY}", jury))
    return models
