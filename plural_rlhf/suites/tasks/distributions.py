"""Tasks of the shape `distribution`: how far is a model's distribution over offered answers from that of people?

Knows no data set: a task of this family is a name, a source and a function that loads items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from plural_rlhf.evaluation.distribution.baselines import marginals
from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.evaluation.distribution.measure import measure_distributions
from plural_rlhf.suites.tasks.group_gains import gain_rows, gains, questions_without_group
from plural_rlhf.suites.tasks.protocol import Shape, Task, TaskData, TaskResult, TaskRow
from plural_rlhf.suites.tasks.questions import Layout, OptionAnswer, OptionQuestion
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["DistributionTask", "option_questions"]


@dataclass(frozen=True)
class DistributionTask(Task):
    """A task of this family.

    Attributes:
        name: See `Task`.
        source: See `Task`.
        licence: See `Task`.
        title: See `Task`.
        items: Loads the items from `TaskData`; may raise `TaskUnavailable`.
        published: Published values of `jsd_spectrum_nats` by model. They are on other prompts, and on other selections
            of items: for orientation.
        nobody: Of a table by group: what stands before a question that is asked of nobody's group, to measure what
            is gained by naming the group; None: that is not measured, which saves these questions.

    Example:
        >>> import numpy as np
        >>> from plural_rlhf.suites.engine.context import Context
        >>> from plural_rlhf.suites.models.pseudo import PseudoModel
        >>> items = [DistributionItem(f"q{i}", "Parks?", ("yes", "no"), np.array([0.9, 0.1])) for i in range(3)]
        >>> task = DistributionTask("parks", "generated", "Apache-2.0", "Parks.", lambda data: items)
        >>> rows = task.measure(task.load(TaskData()), Context(PseudoModel("gold"))).rows
        >>> {row.metric: round(row.value, 3) for row in rows if row.metric in ("jsd_nats", "skill_uniform")}
        {'jsd_nats': 0.0, 'skill_uniform': 1.0}
    """

    name: str
    source: str
    licence: str
    title: str
    items: Callable[[TaskData], Sequence[DistributionItem]]
    published: Mapping[str, float] = field(default_factory=dict)
    nobody: str | None = None
    shape: Shape = "distribution"

    def load(self, data: TaskData) -> Sequence[DistributionItem]:
        """Load the items; if there are more than `data.max_items`, a random selection in their own order.

        Selected items keep the marginals of the whole table, so that what a model is compared with does not depend on
        how many items it is asked.
        """
        items = self.items(data)
        if data.max_items is None or len(items) <= data.max_items:
            return items
        elsewhere = marginals(items)
        chosen = seeded_rng(data.seed, "items of a task").choice(len(items), size=data.max_items, replace=False)
        return [
            replace(items[position], marginal=elsewhere[position] if elsewhere else None)
            for position in sorted(chosen)
        ]

    def measure(self, items: Sequence[DistributionItem], context: Context) -> TaskResult:
        """Ask for the distribution over the options of every item and measure it against people's."""
        questions = option_questions(items, context.layout)
        answers = context.option_answers(questions)
        measured = measure_distributions(
            items,
            [answer.shares for answer in answers],
            [answer.coverage for answer in answers],
            sensitivity=context.sensitivity(questions, answers),
            draws=context.draws,
            seed=context.seed,
        )
        measured.row("jsd_spectrum_nats")["baselines"].update(
            {f"published: {model}": value for model, value in self.published.items()}
        )
        records = [_record(*parts) for parts in zip(items, answers, measured.scores, strict=True)]
        rows = [TaskRow(**row) for row in measured.rows]
        if self.nobody is not None:
            untold, places = questions_without_group(items, questions, self.nobody)
            without = context.option_answers(untold)
            gain, leak = gains(items, answers, [without[place] for place in places])
            rows += gain_rows(items, gain, leak, draws=context.draws, seed=context.seed)
            for record, place, gained in zip(records, places, gain, strict=True):
                record["scores"] = {**record["scores"], "steering_gain[jsd_nats]": float(gained)}
                record["answer_without_group"] = without[place].shares.tolist()
        return TaskResult(rows, records)


def option_questions(items: Sequence[DistributionItem], layout: Layout) -> list[OptionQuestion]:
    """Return the questions of items as they are put to a model.

    Policies are trained without words about whom everybody is, so `line` leaves these out.

    Args:
        items: The items; their marginals are those of the others, unless they bring their own.
        layout: How the options are shown.

    Example:
        >>> import numpy as np
        >>> item = DistributionItem("q1", "Parks?", ("yes", "no"), np.array([0.9, 0.1]))
        >>> [question.text for question in option_questions([item], "list")]
        ['Parks?']
    """
    elsewhere = marginals(items)
    return [
        OptionQuestion(
            item.text if layout == "line" and item.group == "all" else item.asked,
            item.options,
            item.people,
            elsewhere[position] if elsewhere else None,
            item.listed,
        )
        for position, item in enumerate(items)
    ]


def _record(item: DistributionItem, answer: OptionAnswer, scores: Mapping[str, float]) -> dict[str, Any]:
    return {
        "item": item.name,
        "group": item.group,
        "text": item.asked,
        "options": list(item.options),
        "people": item.people.tolist(),
        "n": item.n,
        "answer": answer.shares.tolist(),
        "valid": answer.valid,
        "scores": scores,
    }
