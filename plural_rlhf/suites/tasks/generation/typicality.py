"""The task `typicality-pandalm`: do people prefer the answers that a model finds more probable, at equal length?

A model from which people's choices can be predicted so is a reference under which preferences have a typicality bias:
training on them narrows it. Ties are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.evaluation.side_effects.typicality import typicality_bias
from plural_rlhf.suites.models.protocol import NotSupported, Segment
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult, TaskRow
from plural_rlhf.suites.tasks.tables import pandalm_frame
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["JudgedPair", "TypicalityTask"]


@dataclass(frozen=True)
class JudgedPair:
    """Two answers and what each of several people prefers.

    Attributes:
        prompt: The prompt.
        responses: The two answers.
        choices: "a", "b" or "tie" of each person.

    Example:
        >>> JudgedPair("Pet?", ("Cat.", "Dog."), ("a", "tie", "b")).first_preferred
        [1.0, nan, 0.0]
    """

    prompt: str
    responses: tuple[str, str]
    choices: tuple[str, ...]

    @property
    def first_preferred(self) -> list[float]:
        """1 where the first answer is preferred, 0 where the second is, nan of a tie."""
        return [{"a": 1.0, "b": 0.0}.get(choice, float("nan")) for choice in self.choices]


class TypicalityTask(Task):
    """A logistic regression of people's choices on the difference of log-probability, with words as control.

    Example:
        >>> TypicalityTask().load(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/pandalm/...
    """

    name, shape, licence, source = (
        "typicality-pandalm",
        "sequences",
        "Apache-2.0",
        "https://github.com/WeOpenML/PandaLM",
    )
    title = "Whether people prefer the answers that a model finds more probable, at equal length."

    def load(self, data: TaskData) -> Sequence[JudgedPair]:
        """Read the pairs and select some at random if there are too many."""
        frame = pandalm_frame(data)
        pairs = [
            JudgedPair(str(prompt), (str(a), str(b)), tuple(rows["choice"]))
            for (prompt, a, b), rows in frame.groupby(["prompt", "response_a", "response_b"], sort=True)
        ]
        if data.max_items is None or len(pairs) <= data.max_items:
            return pairs
        chosen = seeded_rng(data.seed, "pairs of PandaLM").permutation(len(pairs))[: data.max_items]
        return [pairs[place] for place in sorted(chosen)]

    def measure(self, items: Sequence[JudgedPair], context: Context) -> TaskResult:
        """Compute the log-probability of both answers and fit the regression."""
        sequences = [[Segment(f"{pair.prompt}\n", text)] for pair in items for text in pair.responses]
        nats = np.array([losses.nats.sum() for losses in context.sequence_losses(sequences)]).reshape(-1, 2)
        more_probable = nats[:, 1] - nats[:, 0]
        words = np.array([len(pair.responses[0].split()) - len(pair.responses[1].split()) for pair in items])
        of_pair = [place for place, pair in enumerate(items) for _ in pair.choices]
        preferred = [choice for pair in items for choice in pair.first_preferred]
        prompts = [items[place].prompt for place in of_pair]
        try:
            bias = typicality_bias(more_probable[of_pair], preferred, prompts, {"words": words[of_pair]})
        except (ImportError, ValueError) as error:
            raise NotSupported(str(error)) from error
        row = TaskRow(
            "typicality_alpha",
            bias.alpha,
            bias.ci_low,
            bias.ci_high,
            n_items=bias.n,
            unit="log odds per nat",
            direction="zero",
            kind="errors clustered by prompt",
            headline=True,
        )
        per_sd = TaskRow("typicality_per_sd", bias.per_sd, n_items=bias.n, unit="log odds", direction="zero", kind="")
        of_words = TaskRow("words_alpha", bias.controls["words"], n_items=bias.n, unit="log odds per word", kind="")
        records = [
            {"item": pair.prompt[:200], "scores": {"nats_more": float(-more)}, "choices": list(pair.choices)}
            for pair, more in zip(items, more_probable, strict=True)
        ]
        return TaskResult([row, per_sd, of_words], records)
