"""What the people of a community answered or preferred, for its adapter to imitate, and what policies are asked.

Knows the table of judgements; knows nothing of models and of training.

Shapes: `A` options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plural_rlhf.policies.layouts import OFFERED, Layout, with_options
from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import as_messages, prompt_wording
from reward_models.seeds import seeded_rng


__all__ = ["AskedQuestion", "answered_texts", "asked_questions"]


def answered_texts(
    judgements: Judgements,
    raters: Sequence[str],
    *,
    layouts: Sequence[Layout] = OFFERED,
    shuffled: bool = True,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a row per answer of some raters: the conversation, and what it is answered with.

    Of a choice it is the option; of a pair the better response (ties give none); of ratings the responses that a rater
    rated above the mean of the rater's own.

    Args:
        judgements: A table with raters.
        raters: Whose answers.
        layouts: How offered answers are shown; each row draws one. A policy imitates well where it is asked so.
        shuffled: Whether they are shown in random order; else a policy learns their places.
        seed: Random seed of both.

    Returns:
        Rows with `prompt` and `completion`, lists of messages, as supervised training reads them.

    Raises:
        JudgementError: These raters preferred nothing.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=4, num_items=3).judgements
        >>> rows = answered_texts(judgements, judgements.raters[:2], layouts=["line"], shuffled=False)
        >>> len(rows), rows[0]["prompt"][0]["content"]
        (6, 'Question 1? answer A; answer B; answer C?')
    """
    wanted = set(raters)
    enc = judgements.select(judgements.frame["rater_id"].isin(wanted).to_numpy()).encode()
    label, texts = enc.label, enc.texts
    if enc.kind == "rating":
        values = np.array(enc.levels)[label]
        means = np.bincount(enc.rater, values, enc.n_raters) / np.bincount(enc.rater, minlength=enc.n_raters)
        rows, columns = np.flatnonzero(values > means[enc.rater]), np.zeros_like(label)
    else:
        columns = label
        rows = np.flatnonzero(label < (2 if enc.kind == "preference" else enc.alternatives.shape[1]))
    if not len(rows):
        raise JudgementError(
            f"of {len(wanted)} raters none preferred a response, so there is nothing to imitate. Fix: give judgements "
            "in which they did."
        )
    answers = []
    rng = seeded_rng(seed, "how answered questions are shown")
    for row in rows.tolist():
        text = texts[enc.alternatives[row, columns[row]]]
        messages = as_messages(text.prompt)
        if enc.kind == "choice":
            options = [texts[i].response for i in enc.alternatives[row] if i >= 0]
            layout = layouts[int(rng.integers(len(layouts)))]
            shown = [options[i] for i in rng.permutation(len(options))] if shuffled else options
            messages = _asked(prompt_wording(text.prompt), shown, layout)
        answers.append({"prompt": messages, "completion": [{"role": "assistant", "content": text.response}]})
    return answers


@dataclass(frozen=True)
class AskedQuestion:
    """A question with offered answers, as policies are asked it.

    Attributes:
        item: Its item id.
        messages: The conversation that a policy reads, options included.
        options: The offered answers, `A`.

    Example:
        >>> AskedQuestion("parks", [{"role": "user", "content": "More parks? yes; no?"}], ("yes", "no")).options[0]
        'yes'
    """

    item: str
    messages: list[dict[str, str]]
    options: tuple[str, ...]


def asked_questions(judgements: Judgements) -> list[AskedQuestion]:
    """Return the questions of a `choice` table, in the order of `Judgements.encode`.

    Raises:
        JudgementError: Judgements of another kind.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=6, num_items=2).judgements
        >>> [question.messages[0]["content"] for question in asked_questions(judgements)]
        ['Question 1? answer A; answer B; answer C?', 'Question 2? answer A; answer B; answer C?']
    """
    if judgements.kind != "choice":
        raise JudgementError(
            f"the judgements are of kind {judgements.kind!r}, and answers are compared of questions with offered "
            "answers (kind choice). Fix: compare texts with plural_rlhf.evaluation.evaluate_open_ended."
        )
    enc = judgements.encode()
    questions = []
    for item, alternatives in zip(enc.item_ids, enc.item_alternatives, strict=True):
        texts = [enc.texts[i] for i in alternatives if i >= 0]
        options = tuple(text.response for text in texts)
        questions.append(AskedQuestion(item, _asked(prompt_wording(texts[0].prompt), options), options))
    return questions


def _asked(wording: str, options: Sequence[str], layout: Layout = "line") -> list[dict[str, str]]:
    return [{"role": "user", "content": with_options(wording, options, layout)}]
