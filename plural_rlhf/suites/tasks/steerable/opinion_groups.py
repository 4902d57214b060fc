"""The task `opinion-qa-groups`: does a model that is told a group give the answer that is most likely in it?

Questions of Pew's panel with the answers of 22 groups of eight traits, as Modular Pluralism measures steering (Feng et
al. 2024, https://arxiv.org/abs/2406.15951). Every question is also asked without a group, so that what is gained by
naming it is seen. How many people are behind the shares is not published, so that there is no floor.

Shapes: `I` items, a question and a group each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.distribution.distances import DISTANCES
from plural_rlhf.evaluation.distribution.items import DistributionItem
from plural_rlhf.evaluation.distribution.measure import measure_distributions
from plural_rlhf.evaluation.tables.published import modular_items
from plural_rlhf.suites.tasks.distributions import DistributionTask, option_questions
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.group_gains import gains
from plural_rlhf.suites.tasks.grouped import grouped_interval
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskRow
from plural_rlhf.suites.tasks.steerable.files import MODULAR_PLURALISM, modular_pluralism_file


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["OpinionGroupsTask"]

FILE = "steerable_test_opinionqa_small.json"
TRAITS = {
    "RELIG": "religion",
    "RACE": "race",
    "POLIDEOLOGY": "political views",
    "SEX": "sex",
    "POLPARTY": "party",
    "INCOME": "income",
    "CREGION": "region",
    "EDUCATION": "education",
}
"""Traits in words, by their name in the file."""
_IN_USA = "A survey in the USA asks:"


class OpinionGroupsTask(Task):
    """The most likely answer of a named group.

    Example:
        >>> OpinionGroupsTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/modular_pluralism/steerable_test...
    """

    name, shape = "opinion-qa-groups", "distribution"
    source = MODULAR_PLURALISM
    licence = "no licence file; Pew Research Center's terms"
    title = "Whether a model that is told a group of people gives the answer that is most likely in it."

    def load(self, data: TaskData) -> Sequence[DistributionItem]:
        """Read the table and select items at random if there are too many; marginals are those of the whole table."""
        table = DistributionTask(self.name, self.source, self.licence, self.title, _group_items)
        return table.load(data)

    def measure(self, items: Sequence[DistributionItem], context: Context) -> TaskResult:
        """Ask every question with its group and without one."""
        nobody = [replace(item, preface=_IN_USA) for item in items]
        questions = [*option_questions(items, "list"), *option_questions(nobody, "list")]
        answers = context.option_answers(questions)
        told, untold = answers[: len(items)], answers[len(items) :]
        measured = measure_distributions(
            items,
            [answer.shares for answer in told],
            [answer.coverage for answer in told],
            draws=context.draws,
            seed=context.seed,
        )
        rows = [TaskRow(**{**row, "headline": row["metric"] == "mode_match"}) for row in measured.rows]
        gained = {name: gains(items, told, untold, name)[0] for name in ("mode_match", "jsd_nats")}
        blocks = [item.block for item in items]
        settings: dict[str, int] = {"draws": context.draws, "seed": context.seed}
        rows += [
            interval_row(
                f"steering_gain[{name}]",
                grouped_interval(gain, blocks, **settings),
                unit=DISTANCES[name].unit,
                kind="questions resampled",
                uniform=0.0,
            )
            for name, gain in gained.items()
        ]
        by_trait: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            by_trait.setdefault(_trait(item.group), []).append(place)
        rows += [
            interval_row(
                "steering_gain[mode_match]",
                grouped_interval(gained["mode_match"][places], [blocks[place] for place in places], **settings),
                kind="questions resampled",
                group=trait,
                uniform=0.0,
            )
            for trait, places in by_trait.items()
        ]
        records = [
            {
                "item": item.name,
                "scores": {**scores, "steering_gain": float(gained["mode_match"][i])},
                "group": item.group,
                "text": item.asked,
                "options": list(item.options),
                "people": item.people.tolist(),
                "answer": told[i].shares.tolist(),
                "answer_without_group": untold[i].shares.tolist(),
                "valid": told[i].valid,
            }
            for i, (item, scores) in enumerate(zip(items, measured.scores, strict=True))
        ]
        return TaskResult(rows, records)


def _group_items(data: TaskData) -> list[DistributionItem]:
    return [
        replace(
            item,
            text=item.question,
            preface=f"A survey in the USA. Answer as people of this group do. {_in_words(item.group)}.",
        )
        for item in modular_items(modular_pluralism_file(data, FILE))
    ]


def _trait(group: str) -> str:
    trait = group.split("_", 1)[0]
    return TRAITS.get(trait, trait)


def _in_words(group: str) -> str:
    """Return a group in words: `RELIG_Atheist` is `Religion: Atheist`."""
    trait, _, name = group.partition("_")
    return f"{TRAITS[trait].capitalize()}: {name}" if trait in TRAITS else f"Group: {group}"
