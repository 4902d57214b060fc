"""What a run reads: choice judgements, split by people and by questions, before anything is trained.

This file knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.inputs import read_judgements
from reward_models.errors import JudgementError, JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import split_items, split_raters
from reward_models.judgements.texts import Prompt, as_messages, freeze_prompt
from reward_models.sources import survey_labels


__all__ = ["Question", "RunData", "read_data", "render_question"]


@dataclass(frozen=True)
class Question:
    """One question of the data.

    Attributes:
        id: Its item id.
        prompt: Its wording as the table has it, a string or a frozen conversation.
        options: The offered answers, in order.
        split: `train` or `heldout` (never shown to the jury nor to RL).
    """

    id: str
    prompt: Prompt
    options: tuple[str, ...]
    split: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the jury sees: the question alone, as a conversation."""
        return as_messages(self.prompt)

    @property
    def wording(self) -> str:
        """The question as one text."""
        return "\n".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class RunData:
    """Judgements and their splits.

    Attributes:
        everything: All judgements.
        train: Train raters' answers to the train questions: all that the jury and RL learn from.
        heldout_raters: The other raters' answers to all questions: all that is measured against.
        questions: All questions, train questions first.
        labels: Short names of questions for tables, by id.
    """

    everything: Judgements
    train: Judgements
    heldout_raters: Judgements
    questions: list[Question]
    labels: dict[str, str]

    def of(self, split: str) -> list[Question]:
        """The questions of a split."""
        return [q for q in self.questions if q.split == split]

    def summary(self, config: RunConfig) -> dict[str, Any]:
        """Counts for the report."""
        return {
            "source": str(config.data.path) if config.data.source == "table" else config.data.name,
            "kind": self.everything.kind,
            "n_judgements": len(self.everything),
            "n_raters": self.everything.n_raters,
            "n_items": self.everything.n_items,
            "train_raters": self.train.n_raters,
            "heldout_raters": self.heldout_raters.n_raters,
            "train_questions": [q.id for q in self.of("train")],
            "heldout_questions": [q.id for q in self.of("heldout")],
        }


def read_data(config: RunConfig) -> RunData:
    """Reads, validates and splits.

    Raises:
        JudgementError: Data that cannot be used; the message names every fault.
        JuryError: More clusters asked for than the raters can support.
    """
    judgements = read_judgements(config.data, config.seed)
    if judgements.kind != "choice":
        raise JudgementError(
            f"the judgements are of kind {judgements.kind!r}, but a run trains a policy on `choice` judgements (a "
            "question, the offered answers and which one was chosen): bring the data into that form, or use "
            "`plural-rlhf headroom` and the reward_models package, which take all kinds."
        )
    train_raters, heldout_raters = split_raters(judgements, config.data.heldout_raters, config.seed)
    largest = max(config.jury.clusters)
    if largest > train_raters.n_raters // 2:
        raise JuryError(
            f"jury.clusters asks for {largest} clusters of {train_raters.n_raters} training raters: ask for at most "
            "half as many clusters as raters, or bring more raters."
        )
    heldout = config.data.heldout_questions
    train, heldout_items = split_items(train_raters, heldout, config.seed)
    held = set(heldout_items.items)
    first = judgements.frame.drop_duplicates("item_id")
    questions = [
        Question(str(item), freeze_prompt(prompt), tuple(options), "heldout" if item in held else "train")
        for item, prompt, options in zip(first["item_id"], first["prompt"], first["options"], strict=True)
    ]
    labels = survey_labels(config.data.name) if config.data.source == "survey" else {q.id: q.id for q in questions}
    return RunData(judgements, train, heldout_raters, sorted(questions, key=lambda q: q.split != "train"), labels)


def render_question(question: Question) -> str:
    """The question as the policy reads it, with the offered answers; short, so that the question carries weight."""
    return f"{question.wording} {'; '.join(question.options)}?"
