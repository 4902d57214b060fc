"""What differs between runs: policies that choose among offered answers, or policies that write text.

Both have the same stages. Knows nothing of how either works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.report.names import Stage


if TYPE_CHECKING:
    from rich.console import Console

    from plural_rlhf.recipe.checkpoints import TrainingFolder
    from plural_rlhf.report.results_policies import EvaluationResults, TrainingResults
    from reward_models.jury.protocol import ClusterScorer

__all__ = ["Job", "KeepPieces", "Training", "keep_nothing"]

KeepPieces = Callable[[str, Sequence[Callable[[], Any]]], list[Any]]
"""Does pieces of work, or returns their results where a run that was stopped has done them already."""
Training = Callable[["ClusterScorer", "TrainingFolder"], "TrainingResults"]


@dataclass(frozen=True)
class Job:
    """What differs between runs of two kinds.

    Attributes:
        trainings: What each training stage does, in order; each is given the jury and where to save the policy.
        evaluate: Measures all policies, given where to print progress, what keeps finished pieces, and a folder for
            what a stopped evaluation goes on from.
    """

    trainings: dict[Stage, Training]
    evaluate: Callable[[Console, KeepPieces, Path], EvaluationResults]


def keep_nothing(name: str, works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do pieces of work of which nothing is kept, as `KeepPieces`.

    Example:
        >>> keep_nothing("texts", [lambda: 1, lambda: 2])
        [1, 2]
    """
    return [work() for work in works]
