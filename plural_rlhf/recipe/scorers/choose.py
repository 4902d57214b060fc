"""Choose what scores the texts of a run: a fitted jury, a saved one, or objectives. Knows nothing of policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.jury import jury_stage
from plural_rlhf.recipe.scorers.saved_jury import saved_jury_stage
from plural_rlhf.report.results_jury import JuryResults


__all__ = ["scorer_stage"]


def scorer_stage(
    config: RunConfig,
    data: RunData,
    folder: Path,
    console: Console,
    keep: Callable[[str, Callable[[], Any]], Any],
    features: Path,
) -> JuryResults:
    """Make and save what scores the texts of a run; arguments and result as for `jury_stage`."""
    if config.jury.path is not None:
        return saved_jury_stage(config, data, folder, console, keep)
    return jury_stage(config, data, folder, console, keep, features)
