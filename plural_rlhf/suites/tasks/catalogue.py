"""The tasks that can be asked for by name, and the suites, which are lists of names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from plural_rlhf.suites.tasks.free_text import FREE_TEXT
from plural_rlhf.suites.tasks.generation.writing_tasks import WRITING_TASKS
from plural_rlhf.suites.tasks.juries.candidates import CANDIDATE_TASKS
from plural_rlhf.suites.tasks.juries.judgements import JUDGEMENT_TASKS
from plural_rlhf.suites.tasks.juries.stances import JurySycophancyTask
from plural_rlhf.suites.tasks.option_tables import OPTION_TABLES
from plural_rlhf.suites.tasks.protocol import Task
from plural_rlhf.suites.tasks.sequence_tables import SEQUENCE_TABLES
from plural_rlhf.suites.tasks.steerable.opinion_groups import OpinionGroupsTask
from plural_rlhf.suites.tasks.steerable.value_kaleidoscope import ValueKaleidoscopeTask
from reward_models.errors import did_you_mean


__all__ = ["SUITES", "TASKS", "make_tasks"]

TASKS: dict[str, Callable[[], Task]] = {
    **{name: functools.partial(FREE_TEXT.__getitem__, name) for name in FREE_TEXT},
    **{name: functools.partial(OPTION_TABLES.__getitem__, name) for name in OPTION_TABLES},
    **{name: functools.partial(SEQUENCE_TABLES.__getitem__, name) for name in SEQUENCE_TABLES},
    **WRITING_TASKS,
    "opinion-qa-groups": OpinionGroupsTask,
    "value-kaleidoscope": ValueKaleidoscopeTask,
    **{name: functools.partial(JUDGEMENT_TASKS.__getitem__, name) for name in JUDGEMENT_TASKS},
    **CANDIDATE_TASKS,
    "jury-sycophancy": JurySycophancyTask,
}
"""A function that makes the task, by its name."""

SUITES: dict[str, tuple[str, ...]] = {
    "smoke": ("coin", "gss-spending", "sycophancy", "urn", "verbagg"),
    "default": (
        "bfi",
        "coin",
        "coverage-both",
        "dice",
        "films",
        "free-text-polarized",
        "gss-abortion-by-party",
        "gss-spending",
        "gss-spending-by-party",
        "individual-flights",
        "individual-gss-abortion",
        "individual-verbagg",
        "individual-votes-campus-protests",
        "number-game",
        "overton-polarized",
        "personas",
        "random-number",
        "states",
        "sycophancy",
        "urn",
        "verbagg",
        "wvs-bribery",
        "wvs-immigration",
    ),
    "jury": tuple(name for name in TASKS if name.startswith("jury-")),
    "full": tuple(TASKS),
}
"""Names of tasks, by name of the suite: `smoke` takes under three minutes on two cores, `jury` is for saved
juries, `full` is everything."""


def make_tasks(names: Sequence[str]) -> list[Task]:
    """Make tasks by name; the name of a suite stands for its tasks.

    Raises:
        ValueError: Unknown names; the message lists all of them.

    Example:
        >>> [task.name for task in make_tasks(["smoke"])][0]
        'coin'
        >>> make_tasks(["unr"])
        Traceback (most recent call last):
        ValueError: unknown tasks: 'unr'. Did you mean 'urn'? Fix: use names of ...
    """
    wanted = [task for name in names for task in SUITES.get(name, (name,))]
    unknown = [f"{name!r}.{did_you_mean(name, TASKS)}" for name in wanted if name not in TASKS]
    if unknown:
        raise ValueError(
            f"unknown tasks: {' '.join(unknown)} Fix: use names of {', '.join(TASKS)}, or a suite: {', '.join(SUITES)}"
        )
    return [TASKS[name]() for name in dict.fromkeys(wanted)]
