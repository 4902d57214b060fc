"""Choose what scores the texts of a run: a fitted jury, a saved one, or objectives. Knows nothing of policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from plural_rlhf.core.rules import rule_or_pool
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.jury import jury_stage
from plural_rlhf.recipe.scorers.objectives import objectives_stage, read_objectives
from plural_rlhf.recipe.scorers.saved_jury import saved_jury_stage
from plural_rlhf.report.names import Stage
from plural_rlhf.report.results_jury import JuryResults
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer


__all__ = ["read_scorer", "read_target_scorer", "scorer_stage"]


def read_target_scorer(config: RunConfig, folder: Path) -> ClusterScorer:
    """Read the scorer as the target of a run needs it: on one scale where the welfare rule compares clusters.

    Args:
        config: The run.
        folder: Its folder.

    Raises:
        JuryError: The rule compares clusters, and the jury has no calibration.
    """
    rule = rule_or_pool(config.plural.rule)
    return read_scorer(config, folder, calibrated=rule is not None and rule.compares_heads)


def read_scorer(config: RunConfig, folder: Path, *, calibrated: bool = False) -> ClusterScorer:
    """Read what scores the texts of a run whose jury stage is complete.

    Args:
        config: The run.
        folder: Its folder.
        calibrated: Whether the heads of a jury must be on one scale. Objectives are, once pi_0 is trained.

    Raises:
        JuryError: `calibrated`, and the jury has no calibration.
    """
    if config.jury.objectives is not None:
        return read_objectives(config, folder)
    return JuryScorer.from_pretrained(folder / Stage.JURY, calibrated=calibrated)


def scorer_stage(
    config: RunConfig,
    data: RunData,
    folder: Path,
    console: Console,
    keep: Callable[[str, Callable[[], Any]], Any],
    features: Path,
) -> JuryResults:
    """Make and save what scores the texts of a run; arguments and result as for `jury_stage`."""
    if config.jury.objectives is not None:
        return objectives_stage(config, folder, console)
    if config.jury.path is not None:
        return saved_jury_stage(config, data, folder, console, keep, features)
    return jury_stage(config, data, folder, console, keep, features)
