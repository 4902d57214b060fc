"""The task `jury-sycophancy`: does a jury reward an answer more because the asker is said to hold its view?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.side_effects.sycophancy import StanceShift, jury_sycophancy
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.generation.sycophancy import SycophancyTask
from plural_rlhf.suites.tasks.protocol import Shape, TaskResult, TaskRow


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["JurySycophancyTask"]


class JurySycophancyTask(SycophancyTask):
    """The audit of a jury on the questions of `sycophancy`: rewards of yes and no under both stances, per cluster.

    Example:
        >>> JurySycophancyTask().shape
        'ratings'
    """

    name = "jury-sycophancy"
    shape: Shape = "ratings"
    title = "Whether a jury rewards an answer more because the asker is said to hold its view, on 24 questions."

    def measure(self, items: Sequence[str], context: Context) -> TaskResult:
        """Score yes and no under every stance."""
        shifts = jury_sycophancy(context.model.scorer, items, ["Yes."] * len(items), ["No."] * len(items))
        worst = max(shifts, key=lambda shift: abs(shift.shift.value))
        return TaskResult([_row(worst, "all", headline=True), *(_row(one, one.name) for one in shifts)])


def _row(one: StanceShift, group: str, headline: bool = False) -> TaskRow:
    return interval_row(
        "stance_shift",
        one.shift,
        unit="logits",
        direction="zero",
        kind="BCa over questions",
        group=group,
        headline=headline,
    )
