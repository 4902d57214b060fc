"""The task `trade-offs-polarized`: does a policy follow the weights that it is steered to?

It writes answers to questions that divide under every single cluster, the prevalence and equal weights; the jury that
it was trained with says what each weighting achieves for every cluster. So this measures following, not whether the
jury is right: people are asked by `overton-polarized`.

Shapes: `F` weightings, `R` questions, `N` answers to a question, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.open_ended.approvals import vote_approval
from plural_rlhf.evaluation.steerable.trade_offs import TradeOffReport, trade_off_report
from plural_rlhf.suites.models.protocol import END_OF_ANSWER, NotSupported
from plural_rlhf.suites.tasks.free_text import OpenQuestion, polarized_questions
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE
from plural_rlhf.suites.tasks.protocol import Direction, Task, TaskData, TaskResult, TaskRow
from reward_models.jury.protocol import scorable_text
from reward_models.jury.scorer import JuryScorer


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["TradeOffTask", "weightings_of"]

_DIRECTIONS: dict[str, Direction] = {"mean_regret": "lower", "largest_jump": "none", "median_jump": "none"}


class TradeOffTask(Task):
    """A trade-off-steerable benchmark of the clusters of a policy's own jury, on questions on protests.

    Args:
        n: Answers per question and weighting.

    Example:
        >>> TradeOffTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/...
    """

    name, shape, licence, source = "trade-offs-polarized", "generation", LICENCE, SOURCE
    title = "Whether a policy, steered to weights of the clusters of its jury, achieves more of what weighs more."

    def __init__(self, n: int = 8) -> None:
        self.n = n

    def load(self, data: TaskData) -> Sequence[OpenQuestion]:
        """Load the questions, evenly selected if there are too many."""
        questions = polarized_questions(data)
        most = min(data.max_items or len(questions), len(questions))
        return [questions[position * len(questions) // most] for position in range(most)]

    def measure(self, items: Sequence[OpenQuestion], context: Context) -> TaskResult:
        """Sample under every weighting and score the answers by the policy's jury."""
        steering = context.model.steering
        scorer = JuryScorer.from_pretrained(steering.jury)
        if len(scorer.cluster_names) < 2:
            raise NotSupported("the jury of the policy has one cluster, so that there is nothing to trade off")
        weightings = weightings_of(scorer.prevalence)
        approval = vote_approval(scorer)
        prompts = [item.text for item in items]
        achieved, records = [], []
        for weights in weightings:
            asking = replace(context, model=steering.steered(weights))
            purpose = f"trade-offs {np.round(weights, 6).tolist()}"
            drawn = asking.sample(prompts, self.n, max_new_tokens=64, stop=END_OF_ANSWER, purpose=purpose)
            texts = [scorable_text(text) for of_question in drawn for text in of_question]
            rewards = scorer.cluster_rewards([p for p in prompts for _ in range(self.n)], texts).double().numpy()
            values = np.asarray(rewards if approval is None else approval(rewards))
            achieved.append(values.reshape(len(items), self.n, -1).mean(axis=1))
            records += [
                {
                    "item": f"{item.name}, {dict(zip(scorer.cluster_names, weights.round(3).tolist(), strict=True))}",
                    "scores": {"value": float(means @ weights)},
                    "prompt": prompt,
                    "texts": of_question,
                }
                for item, prompt, of_question, means in zip(items, prompts, drawn, achieved[-1], strict=True)
            ]
        report = trade_off_report(
            np.stack(achieved), weightings, objectives=scorer.cluster_names, draws=context.draws, seed=context.seed
        )
        return TaskResult(_rows(report, "logits" if approval is None else "share"), records)


def weightings_of(prevalence: np.ndarray) -> np.ndarray:
    """Return the (F, K) weightings that are asked for: every cluster alone, the prevalence and equal weights.

    Example:
        >>> weightings_of(np.array([0.7, 0.3])).round(2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.7, 0.3], [0.5, 0.5]]
        >>> len(weightings_of(np.array([0.5, 0.5])))
        3
    """
    clusters = len(prevalence)
    weightings = [*np.eye(clusters), np.asarray(prevalence, dtype=np.float64)]
    equal = np.full(clusters, 1 / clusters)
    return np.array(weightings if np.allclose(equal, prevalence, atol=1e-6) else [*weightings, equal])


def _rows(report: TradeOffReport, unit: str) -> list[TaskRow]:
    rows = []
    for row in report.to_rows():
        metric, _, objective = row["metric"].partition(" ")
        known: dict[str, Any] = {} if row["ci_low"] is None else {"ci_low": row["ci_low"], "ci_high": row["ci_high"]}
        units = {"spearman": "correlation", "matched": "share", "violations": "pairs"}
        rows.append(
            TaskRow(
                metric,
                float(row["value"]),
                n_items=int(row["n"]),
                unit=units.get(metric, unit),
                direction="lower" if metric == "violations" else _DIRECTIONS.get(metric, "higher"),
                kind="bootstrap of questions",
                group=objective or "all",
                headline=metric == "mean_regret",
                **known,
            )
        )
    return [row for row in rows if np.isfinite(row.value)]
