"""How models are asked, the same for all models and tasks of a suite. Knows no model and no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from plural_rlhf.suites.tasks.questions import LAYOUTS, Layout
from reward_models.errors import did_you_mean


__all__ = ["LEAST_DRAWS", "Asking", "Scoring"]

Scoring = Literal["log_probability", "sampling", "verbalised"]
LEAST_DRAWS = 20
"""Fewest bootstrap draws of an evaluation: an end of a 95 % interval is the 2.5 % quantile of the draws."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How models are asked.

    Attributes:
        seed: Random seed of everything that is drawn.
        draws: Bootstrap draws of intervals.
        scoring: How options are scored.
        option_samples: Samples per question, where options are scored by sampling.
        permutations: Whether listed options are asked in another order and under letters too (`sensitivity`).
        layout: How listed options are shown: `list`, one per line; `line`, as in the training of a survey run; or
            `sentence`, “Choose one answer: ...”.

    Raises:
        ValueError: Unknown way of scoring, or unknown layout.

    Example:
        >>> Asking(layout="row")
        Traceback (most recent call last):
        ValueError: layout='row' is unknown. Fix: one of list, line, sentence
    """

    seed: int = 0
    draws: int = 1000
    scoring: Scoring = "log_probability"
    option_samples: int = 32
    permutations: bool = False
    layout: Layout = "list"

    def __post_init__(self) -> None:
        known = get_args(Scoring)
        if self.scoring not in known:
            raise ValueError(
                f"scoring={self.scoring!r} is unknown.{did_you_mean(self.scoring, known)} Fix: one of "
                f"{', '.join(known)}"
            )
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout={self.layout!r} is unknown. Fix: one of {', '.join(LAYOUTS)}")
