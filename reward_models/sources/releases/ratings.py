"""Releases in which people rated one text at a time: one `rating` judgement per rating and person.

Every function reads the source of one release with its options and returns its rows. Its docstring states which
columns it assumes, and which end of the scale is high. Knows nothing of how files are opened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError
from reward_models.judgements.faults import is_missing
from reward_models.sources.releases.reading import Source, beside, files, read_file, records
from reward_models.sources.releases.rows import Rows, as_id, as_number, as_text, traits


__all__ = ["dices_350", "dices_990", "lewidi", "polis", "popquorn"]

_DICES = {"Yes": -1, "Unsure": 0, "No": 1}
_POPQUORN = {
    "offensiveness": "How offensive is this comment?",
    "politeness": "How polite is this e-mail?",
}
_POPQUORN_TRAITS = ("gender", "race", "age", "occupation", "education")


def dices_350(source: Source, *, question: str = "Q_overall") -> Rows:
    """Read DICES-350: is the last response of a conversation with a chatbot unsafe?

    "Yes" is -1, "Unsure" 0 and "No" 1, so that a higher rating is a safer response. The prompt is the conversation
    before the response, as text. Traits are the columns `rater_*` (gender, race, age). All raters are kept, also those
    that the authors excluded for quality.

    Args:
        source: Where to read; the limit counts rows, unless the docstring of a release says otherwise.
        question: Column of the answer: `"Q_overall"`, or one of the aggregates and single questions, e.g.
            `"Q3_bias_overall"`.
    """
    return _dices(source, "diverse_safety_adversarial_dialog_350.csv", question)


def dices_990(source: Source, *, question: str = "Q_overall") -> Rows:
    """Read DICES-990: as DICES-350, with raters of the US and India (`rater:locale`) who each rate a part.

    Args:
        source: Where to read.
        question: Column of the answer, see `dices_350`.
    """
    return _dices(source, "diverse_safety_adversarial_dialog_990.csv", question)


def _dices(source: Source, file: str, question: str) -> Rows:
    rows = Rows("rating", (-1, 0, 1))
    columns = ("rater_id", "item_id", "context", "response", question)
    for record in records(source, (file,), columns):
        names = (name for name in record if name.startswith("rater_") and name not in ("rater_id", "rater_raw_race"))
        rows.add_rating(
            as_id(record["rater_id"]),
            as_text(record["context"]),
            record["response"],
            _DICES.get(record[question]),
            item_id=as_id(record["item_id"]),
            traits=traits(record, names, "rater_"),
            missing="that are not Yes, No or Unsure",
        )
    return rows


def popquorn(source: Source, *, task: str | None = None) -> Rows:
    """Read POPQUORN: how offensive a comment or how polite an e-mail is, 1 to 5, by a sample of the US population.

    A higher rating is more offensive, or more polite. The wording of the question is ours. `user_id` may be a
    participant's id on Prolific: do not publish the table.

    Args:
        source: A `raw_data.csv` or the folder of one task.
        task: Column of the rating, `"offensiveness"` or `"politeness"`; None to use the one that the file has.
    """
    rows = Rows("rating", (1, 2, 3, 4, 5))
    for record in records(source, ("raw_data.csv",), ("instance_id", "user_id", "text", *([task] if task else ()))):
        column = task or next((name for name in _POPQUORN if name in record), None)
        if column is None:
            raise JudgementError(
                f"no column of {source.path} is one of {', '.join(_POPQUORN)}; it has "
                f"{', '.join(map(repr, record))}. Fix: pass task= the column of the rating."
            )
        rows.add_rating(
            as_id(record["user_id"]),
            _POPQUORN.get(column, f"Rate the {column} of this text."),
            record["text"],
            as_number(record[column]),
            item_id=as_id(record["instance_id"]),
            traits=traits(record, _POPQUORN_TRAITS),
        )
    return rows


def lewidi(source: Source) -> Rows:
    """Read a data set of Learning With Disagreements (SemEval 2023, LeWiDi 2025): one JSON file per split.

    All annotators are kept. `annotations` maps annotators to answers (2025) or lists them in the order of `annotators`
    (2023). Numbers are ratings over the levels that the soft labels and the answers name; words (VariErrNLI) are a
    `choice` among the soft labels, and answers that name several of them are dropped. Of a text in parts the last part
    is the response and the others the prompt; a plain text is the response to the name of the task. Test files without
    answers add no judgement. Traits come from `*_annotators_meta.json` beside the files, with or without "Ann" before
    the number.

    Args:
        source: One file, or a folder whose splits are all read; one data set at a time.
    """
    splits = [path for path in files(source, ("*.json",)) if not path.stem.endswith("_meta")]
    items = [record for path in splits for record in read_file(path, ("text",))][: source.limit]
    meta = beside(source, "*_annotators_meta.json")
    people = {str(person["id"]).removeprefix("Ann"): person for person in (read_file(meta) if meta else ())}

    answers = [(item, *answer) for item in items for answer in _lewidi_answers(item)]
    labels = list(dict.fromkeys(label for item in items for label in (item.get("soft_label") or {})))
    written = [answer for _, _, answer in answers]
    if all(as_number(value) is not None for value in labels or written):
        numbers = {as_number(value) for value in [*labels, *written]}
        rows = Rows("rating", sorted(number for number in numbers if number is not None))
    else:
        rows = Rows("choice")
    for item, rater, answer in answers:
        person = people.get(rater.removeprefix("Ann"), {})
        common: dict[str, Any] = {"rater_id": rater, "item_id": as_id(item.get("id"))}
        common |= traits(person, (name for name in person if name != "id"))
        prompt, response = _lewidi_text(item)
        if rows.kind == "rating":
            rows.add(prompt=prompt, response=response, rating=as_number(answer), **common)
        elif answer in labels:
            question = "\n".join(filter(None, (prompt, response)))
            rows.add(prompt=question, options=tuple(labels), choice=labels.index(answer), **common)
        else:
            rows.drop("that are not one of the labels")
    return rows


def _lewidi_answers(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the (annotator, answer) pairs of an item."""
    answers = item.get("annotations")
    if isinstance(answers, dict):
        pairs = list(answers.items())
    else:
        pairs = list(zip(str(item.get("annotators", "")).split(","), str(answers or "").split(","), strict=False))
    for rater, answer in pairs:
        if not is_missing(answer) and str(answer).strip():
            yield rater.strip(), str(answer).strip()


def _lewidi_text(item: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the prompt and the response of an item."""
    text = item["text"]
    if not isinstance(text, dict):
        return as_text(item.get("annotation task") or item.get("task")) or "Annotate this text.", as_text(text)
    *before, last = [(name, as_text(part)) for name, part in text.items()]
    shown = [part if len(before) == 1 else f"{name}: {part}" for name, part in before if part]
    return as_text("\n".join(map(str, shown))), last[1]


def polis(source: Source, *, topic: str | None = None) -> Rows:
    """Read a Polis export: agree (1), pass (0) and disagree (-1) votes on the statements of a conversation.

    In `participants-votes.csv`, which is read here, 1 is agree and -1 is disagree (in a raw export of Polis' data base
    the signs are reversed). The texts come from `comments.csv` beside it; statements that moderators removed are kept.
    Polis' opinion group becomes the trait `rater:polis_group`. A folder may hold several conversations; people and
    statements are named `<folder>/<number>`.

    Args:
        source: Where to read; the limit counts participants of each conversation.
        topic: The prompt that every statement answers; None for the topic in `summary.csv`, or else the folder's name.
    """
    rows = Rows("rating", (-1, 0, 1))
    for path in files(source, ("participants-votes.csv", "participant-votes.csv")):
        conversation = path.resolve().parent.name
        comments = path.parent / "comments.csv"
        if not comments.exists():
            raise JudgementError(
                f"{comments} is missing, so the statements have no text. Fix: keep it beside {path.name}, as in the "
                "export."
            )
        texts = {
            as_id(comment["comment-id"]): as_text(comment["comment-body"])
            for comment in read_file(comments, ("comment-id", "comment-body"))
        }
        prompt = topic or _polis_topic(path.parent) or conversation
        for number, person in enumerate(read_file(path, ("participant", "group-id"))):
            if number == source.limit:
                break
            rater = f"{conversation}/{as_id(person['participant'])}"
            group = traits({"polis_group": person["group-id"]}, ("polis_group",))
            for statement, vote in person.items():
                if vote is None or not statement.isdigit():
                    continue
                if not texts.get(statement):
                    rows.drop("on statements without a text")
                    continue
                item, text, rating = f"{conversation}/{statement}", texts[statement], as_number(vote)
                rows.add_rating(rater, prompt, text, rating, item_id=item, traits=group, missing="outside the scale")
    return rows


def _polis_topic(folder: Path) -> str | None:
    """Return the topic in `summary.csv`, which has a name and a value per line."""
    path = folder / "summary.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return next((as_text(row[1]) for row in csv.reader(lines) if row[:1] == ["topic"] and len(row) > 1), None)
