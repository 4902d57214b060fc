"""The task `monoculture-polarized`: are a model's answers less diverse than what people wrote to the same questions?

The diversity of as many texts of both, as a ratio (Wu et al. 2024, https://arxiv.org/abs/2407.02209): of wordings, of
classes that say the same and, where MiniLM is installed, of its vectors. People against people say how far from 1 a
ratio is by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.evaluation.diversity.classes import vendi_score
from plural_rlhf.evaluation.intervals import bca_interval
from plural_rlhf.evaluation.side_effects.monoculture import Diversity, DiversityRatio, diversities, monoculture
from plural_rlhf.suites.models.protocol import END_OF_ANSWER
from plural_rlhf.suites.tasks.free_text import FREE_TEXT, OpenQuestion, minilm_embedder
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskRow
from reward_models.jury.protocol import scorable_text
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval


if TYPE_CHECKING:
    from plural_rlhf.evaluation.open_ended.scored import Embed
    from plural_rlhf.suites.engine.context import Context

__all__ = ["MonocultureTask"]

MAIN = "effective_classes"
MOST_PEOPLE = 64
"""Answers of people per question, as many for every model."""


class MonocultureTask(Task):
    """Diversity of a model's answers by that of people's, on ten questions on protests.

    Args:
        n: Answers per question.
        embedder: Returns what turns texts into vectors, or None.

    Example:
        >>> MonocultureTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/...
    """

    name, shape, licence, source = "monoculture-polarized", "generation", LICENCE, SOURCE
    title = "How diverse a model's answers are, as a ratio to people's answers to the same ten questions on protests."

    def __init__(self, n: int = 16, embedder: Callable[[], Embed | None] = minilm_embedder) -> None:
        self.n, self.embedder = n, embedder

    def load(self, data: TaskData) -> Sequence[OpenQuestion]:
        """Load the questions of `free-text-polarized`."""
        return FREE_TEXT["free-text-polarized"].load(data)

    def measure(self, items: Sequence[OpenQuestion], context: Context) -> TaskResult:
        """Sample answers, and compare their diversity with people's, and one half of people with the other."""
        prompts = [item.prompt for item in items]
        drawn = context.sample(prompts, self.n, max_new_tokens=64, stop=END_OF_ANSWER, purpose="monoculture")
        texts = {item.name: [scorable_text(text) for text in of] for item, of in zip(items, drawn, strict=True)}
        people = {item.name: _some_people(item) for item in items}
        halves = [{name: of_item[part::2] for name, of_item in people.items()} for part in (0, 1)]
        measures = _measures(self.embedder(), [texts, people])
        ratios = monoculture(texts, people, measures=measures, seed=context.seed)
        among_people = monoculture(halves[0], halves[1], measures=measures, seed=context.seed)
        rows = [row for both in zip(ratios, among_people, strict=True) for row in _rows(*both)]
        ratios.sort(key=lambda one: one.measure != MAIN)  # the first score is the one that models are compared by
        records = [
            {
                "item": item.name,
                "scores": {f"gap[{one.measure}]": _gap(one.by_prompt[item.name]) for one in ratios}
                | {f"ratio[{one.measure}]": one.by_prompt[item.name] for one in ratios},
                "prompt": prompt,
                "texts": texts[item.name],
            }
            for item, prompt in zip(items, prompts, strict=True)
        ]
        return TaskResult(rows, records)


def _some_people(item: OpenQuestion) -> list[str]:
    """Select answers of people at random, in random order."""
    written = [text for text in item.people if text.strip()]
    return [written[i] for i in seeded_rng(0, f"people of {item.name}").permutation(len(written))[:MOST_PEOPLE]]


def _measures(embed: Embed | None, sides: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, Diversity]:
    """Return measures of wordings, of classes and, if there are vectors, of these; each text is read once."""
    measures = diversities()
    if embed is not None:
        texts = list(dict.fromkeys(text for side in sides for of_item in side.values() for text in of_item))
        vectors = dict(zip(texts, embed(texts), strict=True))
        measures["vendi_score"] = lambda some: vendi_score(np.stack([vectors[text] for text in some]))
    return measures


def _gap(ratio: float) -> float:
    return abs(float(np.log(ratio)))


def _rows(model: DiversityRatio, people: DiversityRatio) -> list[TaskRow]:
    """Return the ratio, how far from 1 it is question by question, and on how many the model is narrower."""
    name, over = model.measure, "BCa over questions"
    gaps, floors = (np.array([_gap(ratio) for ratio in one.by_prompt.values()]) for one in (model, people))
    n = len(gaps)
    return [
        interval_row(
            f"ratio[{name}]",
            model.ratio,
            unit="ratio",
            direction="none",
            kind=over,
            headline=name == MAIN,
            people=people.ratio.value,
        ),
        interval_row(
            f"gap[{name}]", bca_interval(gaps), unit="log ratio", direction="lower", kind=over, floor=floors.mean()
        ),
        interval_row(
            f"narrower[{name}]",
            Interval(model.narrower, math.nan, math.nan, 0, n),
            direction="none",
            kind=f"sign test: p {model.p_holm:.3g} (Holm)",
            people=people.narrower,
        ),
    ]
