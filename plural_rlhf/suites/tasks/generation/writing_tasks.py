"""The tasks of this room by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from plural_rlhf.evaluation.coverage.tasks import SETTINGS
from plural_rlhf.suites.tasks.generation.coverage import CoverageTask
from plural_rlhf.suites.tasks.generation.monoculture import MonocultureTask
from plural_rlhf.suites.tasks.generation.multi_objective import MultiObjectiveTask
from plural_rlhf.suites.tasks.generation.novelty import NoveltyTask
from plural_rlhf.suites.tasks.generation.overton import OvertonTask
from plural_rlhf.suites.tasks.generation.personas import PersonaTask
from plural_rlhf.suites.tasks.generation.random_numbers import RandomNumberTask
from plural_rlhf.suites.tasks.generation.sycophancy import SycophancyTask
from plural_rlhf.suites.tasks.generation.trade_offs import TradeOffTask
from plural_rlhf.suites.tasks.generation.typicality import TypicalityTask
from plural_rlhf.suites.tasks.protocol import Task


__all__ = ["WRITING_TASKS"]

WRITING_TASKS: dict[str, Callable[[], Task]] = {
    **{f"coverage-{setting}": functools.partial(CoverageTask, setting) for setting in SETTINGS},
    "monoculture-polarized": MonocultureTask,
    "multi-objective": MultiObjectiveTask,
    "noveltybench": NoveltyTask,
    "overton-polarized": OvertonTask,
    "personas": PersonaTask,
    "random-number": RandomNumberTask,
    "sycophancy": SycophancyTask,
    "trade-offs-polarized": TradeOffTask,
    "typicality-pandalm": TypicalityTask,
}
"""A function that makes the task, by its name."""
