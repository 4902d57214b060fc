"""Tasks of free text: does a model, asked often, write what people wrote to the same question, and as variously?

The measures are those of the open-ended run (`plural_rlhf.evaluation.open_ended`), without a jury and without a rival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plural_rlhf.evaluation.open_ended.embedder import text_embedder
from plural_rlhf.evaluation.open_ended.people import measure_against_people
from plural_rlhf.suites.models.protocol import END_OF_ANSWER
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE, TOPICS, polarized_files
from plural_rlhf.suites.tasks.protocol import Shape, Task, TaskData, TaskResult, TaskRow
from reward_models.jury.backbones.loading import minilm_folder


if TYPE_CHECKING:
    from plural_rlhf.evaluation.open_ended.scored import Embed
    from plural_rlhf.suites.engine.context import Context

__all__ = ["FREE_TEXT", "FreeTextTask", "OpenQuestion", "minilm_embedder", "polarized_questions"]

_ASKED = "Answer in one or two sentences, as one person with an opinion would.\nAnswer:"


@dataclass(frozen=True)
class OpenQuestion:
    """A question and what people wrote.

    Attributes:
        name: Name of the question.
        text: The question.
        people: Their answers.

    Example:
        >>> OpenQuestion("q1", "What now?", ("Parks.", "Roads.")).people
        ('Parks.', 'Roads.')
    """

    name: str
    text: str
    people: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The question as a model is asked."""
        return f"{self.text}\n{_ASKED}"


def polarized_questions(data: TaskData) -> list[OpenQuestion]:
    """Read what people wrote on campus protests and on the right to assemble: `polarized/<topic>-answers.parquet`.

    Example:
        >>> polarized_questions(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/... Its source: ...
    """
    import pandas as pd

    questions = []
    for topic in TOPICS:
        [path] = polarized_files(data, topic, "answers")
        for name, rows in pd.read_parquet(path).groupby("question_id", sort=True):
            questions.append(OpenQuestion(str(name), str(rows["question"].iloc[0]).strip(), tuple(rows["text"])))
    return questions


def minilm_embedder() -> Embed | None:
    """Return MiniLM's vectors if the package is installed; without it there are measures of words only.

    Example:
        >>> embed = minilm_embedder()
        >>> None if embed is None else embed(["Parks."]).shape
        (1, 384)
    """
    folder = minilm_folder()
    return None if folder is None else text_embedder(folder)


@dataclass(frozen=True)
class FreeTextTask(Task):
    """A task of this family.

    Attributes:
        name: See `Task`.
        source: See `Task`.
        licence: See `Task`.
        title: See `Task`.
        questions: Loads the questions from `TaskData`; may raise `TaskUnavailable`.
        embedder: Returns what turns texts into vectors, or None.
        n: Texts per question.
        max_new_tokens: Longest text.

    Example:
        >>> from plural_rlhf.suites.engine.context import Context
        >>> from plural_rlhf.suites.models.protocol import EvaluatedModel
        >>> class Parrot(EvaluatedModel):
        ...     name, identity, kind = "parrot", "parrot", "callable"
        ...
        ...     def sample(self, prompts, n, **settings):
        ...         return [["Parks."] * n for prompt in prompts]
        >>> question = OpenQuestion("q", "What now?", ("Parks.", "Roads.", "Schools.", "Trains."))
        >>> task = FreeTextTask("towns", "x", "x", "Towns.", lambda data: [question], embedder=lambda: None, n=4)
        >>> rows = task.measure(task.load(TaskData()), Context(Parrot())).rows
        >>> {row.metric: round(row.value, 2) for row in rows if row.metric == "effective_classes"}
        {'effective_classes': 1.0}
    """

    name: str
    source: str
    licence: str
    title: str
    questions: Callable[[TaskData], Sequence[OpenQuestion]]
    embedder: Callable[[], Embed | None] = minilm_embedder
    n: int = 32
    max_new_tokens: int = 64
    shape: Shape = "generation"

    def load(self, data: TaskData) -> Sequence[OpenQuestion]:
        """Load the questions, evenly selected if there are more than `data.max_items`."""
        questions = self.questions(data)
        most = min(data.max_items or len(questions), len(questions))
        return [questions[position * len(questions) // most] for position in range(most)]

    def measure(self, items: Sequence[OpenQuestion], context: Context) -> TaskResult:
        """Sample texts and compare them with people's."""
        prompts = [item.prompt for item in items]
        drawn = context.sample(
            prompts, self.n, max_new_tokens=self.max_new_tokens, stop=END_OF_ANSWER, purpose="free text"
        )
        texts = {item.name: of_question for item, of_question in zip(items, drawn, strict=True)}
        rows, scores = measure_against_people(
            {item.name: item.people for item in items},
            texts,
            self.embedder(),
            draws=context.draws,
            seed=context.seed,
        )
        records = [
            {"item": item.name, "scores": of_question, "prompt": prompt, "texts": texts[item.name]}
            for item, of_question, prompt in zip(items, scores, prompts, strict=True)
        ]
        return TaskResult([TaskRow(**row) for row in rows], records)


FREE_TEXT: dict[str, FreeTextTask] = {
    "free-text-polarized": FreeTextTask(
        "free-text-polarized",
        SOURCE,
        LICENCE,
        "What people wrote to ten questions on protests.",
        polarized_questions,
    )
}
"""Every task of this family by name."""
