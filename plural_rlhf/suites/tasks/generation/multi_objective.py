"""The task `multi-objective`: how good are a model's answers in each of several respects?

A multi-objective benchmark publishes every objective instead of one number (Sorensen et al. 2024,
https://arxiv.org/abs/2402.05070). The objectives are the `rewards` of the suite; without any, the agreement of each
cluster of people with answers on protests, as the judge of `overton-polarized` predicts it. To them comes variety, how
many different answers there are. Which model is better than another in all objectives stands in the report.

Shapes: `N` answers to a question, `P` answers of people, `K` objectives without variety.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.diversity.classes import effective_classes, semantic_classes
from plural_rlhf.evaluation.intervals import bca_interval
from plural_rlhf.evaluation.steerable.objectives import shares_beaten
from plural_rlhf.evaluation.steerable.pareto import hypervolume_interval
from plural_rlhf.suites.models.protocol import END_OF_ANSWER
from plural_rlhf.suites.models.rewards import TextReward
from plural_rlhf.suites.tasks.free_text import polarized_questions
from plural_rlhf.suites.tasks.generation.overton import OvertonQuestion, OvertonTask
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult
from reward_models.jury.protocol import scorable_text
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.verdicts import MIN_ITEMS


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["MultiObjectiveTask", "ScoredQuestion"]

VARIETY = "variety"
MOST_PEOPLE = 200
OFF_TOPIC = 50
DRAWS_OF_PEOPLE = 20


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with its objectives and what people's answers achieve.

    Attributes:
        question: The question.
        rewards: What answers are worth.
        people: Answers of people.
        values: (P, K) their objectives.
        off_topic: (K,) share of them that people's answers to another question beat, on average. Far below .5 the
            rewards notice whether an answer is to the question; a jury that reads texts alone does not.

    Example:
        >>> score = lambda prompt, texts: np.array([[len(text)] for text in texts])
        >>> length = TextReward("long", ("long",), (1.0,), "1", score)
        >>> people = ("a", "bb", "ccc")
        >>> question = ScoredQuestion("What now?", (length,), people, score("What now?", people), np.zeros(1))
        >>> question.objectives(["bb", "dddd"])
        {'long': 0.75, 'variety': 1.0}
    """

    question: str
    rewards: tuple[TextReward, ...]
    people: tuple[str, ...]
    values: np.ndarray
    off_topic: np.ndarray

    def objectives(self, texts: Sequence[str]) -> dict[str, float]:
        """Return the mean of each objective over texts, and their variety."""
        beaten = shares_beaten(_values(self.rewards, self.question, texts), self.values).mean(axis=0)
        return {**dict(zip(_names(self.rewards), beaten.tolist(), strict=True)), VARIETY: variety(texts)}

    def objectives_of_people(self, k: int) -> dict[str, float]:
        """Return the same of people: they beat half of their own; variety is that of `k` of them, over draws."""
        rng = seeded_rng(0, f"answers of people to {self.question}")
        draws = [rng.permutation(len(self.people))[:k] for _ in range(DRAWS_OF_PEOPLE)]
        of_draws = [variety([self.people[i] for i in draw]) for draw in draws]
        return {**dict.fromkeys(_names(self.rewards), 0.5), VARIETY: float(np.mean(of_draws))}


class MultiObjectiveTask(Task):
    """Objectives of answers to questions on protests, each as the share of people's answers that an answer beats.

    Args:
        k: Answers per question.

    Example:
        >>> MultiObjectiveTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/...
    """

    name, shape, licence, source = "multi-objective", "generation", LICENCE, SOURCE
    title = "Several objectives of answers to questions on protests, as shares of people's answers that they beat."

    def __init__(self, k: int = 8) -> None:
        self.k = k

    def load(self, data: TaskData) -> Sequence[ScoredQuestion]:
        """Score people's answers to the questions, evenly selected if there are too many."""
        if not data.rewards:
            judged = OvertonTask().load(data)
            return _scored([(item.question, item.people, (_agreement(item),)) for item in judged])
        questions = polarized_questions(data)
        most = min(data.max_items or len(questions), len(questions))
        chosen = [questions[position * len(questions) // most] for position in range(most)]
        return _scored([(item.text, item.people, data.rewards) for item in chosen])

    def measure(self, items: Sequence[ScoredQuestion], context: Context) -> TaskResult:
        """Sample answers and score them."""
        prompts = [f"{item.question}\nAnswer in one or two sentences. Answer:" for item in items]
        drawn = context.sample(prompts, self.k, max_new_tokens=64, stop=END_OF_ANSWER, purpose="multi-objective")
        both = list(zip(items, drawn, strict=True))
        achieved = [item.objectives(texts) for item, texts in track(both, "objectives of texts")]
        people = [item.objectives_of_people(self.k) for item in items]
        names = list(achieved[0])
        scores, of_people = (np.array([list(of_item.values()) for of_item in side]) for side in (achieved, people))
        off_topic = np.append(np.mean([item.off_topic for item in items], axis=0), 1 / self.k)
        volume = hypervolume_interval(scores[None], np.zeros(len(names)), draws=context.draws, seed=context.seed)
        if len(items) < MIN_ITEMS:
            volume = replace(volume, low=np.nan, high=np.nan)
        worst = int(scores.mean(axis=0).argmin())
        means = of_people.mean(axis=0)
        over = "BCa over questions"
        rows = [
            interval_row(
                "mean_objective",
                bca_interval(scores.mean(axis=1)),
                kind=over,
                headline=True,
                **_known(people=means.mean(), off_topic=off_topic.mean()),
            ),
            interval_row("worst_objective", bca_interval(scores[:, worst]), kind=over, **_known(people=means.min())),
            interval_row(
                "hypervolume",
                volume,
                unit="volume above 0",
                kind="bootstrap of questions",
                **_known(people=means.prod(), off_topic=off_topic.prod(), ceiling=1.0),
            ),
            *(
                interval_row(
                    "objective",
                    bca_interval(scores[:, d]),
                    kind=over,
                    group=name,
                    **_known(people=means[d], off_topic=off_topic[d], ceiling=1.0),
                )
                for d, name in enumerate(names)
            ),
        ]
        records = [
            {
                "item": item.question,
                "scores": {"mean_objective": float(np.mean(list(of_item.values())))},
                "objectives": of_item,
                "objectives_of_people": theirs,
                "prompt": prompt,
                "texts": texts,
            }
            for (item, texts), prompt, of_item, theirs in zip(both, prompts, achieved, people, strict=True)
        ]
        return TaskResult(rows, records)


def variety(texts: Sequence[str]) -> float:
    """Return the effective number of different answers, by the number of answers.

    Example:
        >>> variety(["More parks.", "more parks", "lower taxes", "Lower taxes!"])
        0.5
    """
    return effective_classes(semantic_classes(texts)) / len(texts)


def _agreement(item: OvertonQuestion) -> TextReward:
    """Return the judge's agreement of the largest and of the smallest cluster, which every topic has."""
    shares = np.array(list(item.judge.shares.values()))
    ends = [int(shares.argmax()), int(shares.argmin())]

    def agreement(prompt: str, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(item.judge.judge(prompt, [scorable_text(text) for text in texts]))[:, ends]

    weights = (shares[ends] / shares[ends].sum()).tolist()
    columns = ("agreement of the largest cluster", "agreement of the smallest cluster")
    return TextReward("agreement", columns, tuple(weights), item.judge.identity, agreement)


def _scored(asked: Sequence[tuple[str, Sequence[str], tuple[TextReward, ...]]]) -> list[ScoredQuestion]:
    """Score people's answers, and those to the next question as answers to this one."""
    written = []
    for question, answers, rewards in asked:
        different = [text for text in dict.fromkeys(answers) if text.strip()]
        order = seeded_rng(0, f"people of {question}").permutation(len(different))[:MOST_PEOPLE]
        if len(order) > 1:
            written.append((question, tuple(different[i] for i in sorted(order)), rewards))
    scored = []
    for place, (question, people, rewards) in enumerate(track(written, "objectives of people's answers")):
        values = _values(rewards, question, people)
        others = written[(place + 1) % len(written)][1][:OFF_TOPIC]
        off_topic = shares_beaten(_values(rewards, question, others), values).mean(axis=0)
        if len(written) == 1:
            off_topic = np.full(values.shape[1], np.nan)
        scored.append(ScoredQuestion(question, rewards, people, values, off_topic))
    return scored


def _values(rewards: Sequence[TextReward], prompt: str, texts: Sequence[str]) -> np.ndarray:
    return np.concatenate([reward.score(prompt, texts) for reward in rewards], axis=1)


def _names(rewards: Sequence[TextReward]) -> list[str]:
    return [name for reward in rewards for name in reward.columns]


def _known(**baselines: float) -> dict[str, Any]:
    return {name: float(value) for name, value in baselines.items() if np.isfinite(value)}
