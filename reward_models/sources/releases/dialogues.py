"""Releases of collective dialogues: people answer open questions, vote on the answers of others, and compare them.

The docstring of each function states which columns it assumes. Knows nothing of how files are opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError
from reward_models.sources.releases.reading import Record, Source, files, read_below
from reward_models.sources.releases.rows import Rows, as_id, as_text, check_choice, traits


__all__ = ["polarized_issues"]

_VOTES = {"Agree": 1, "Disagree": -1}
_PAIRS = {
    "Thought A": "a",
    "Thought B": "b",
    "I agree with both": "tie",
    "I disagree with both": "tie",
    "These are similar": "tie",
}
_UNANSWERED = "--"
_POLLS = "Total Screener Polls"


def polarized_issues(source: Source, *, kind: str = "rating", topic: str | None = None) -> Rows:
    """Read the polarized issues: what samples of the US public wrote, and what they think of each other's words.

    Prompts are the questions, responses what people wrote. Reads `*_verbatim_map.csv`, with `*_binary.csv` (`rating`:
    agree 1, disagree -1) or `*_preference.csv` (`preference`: both, neither and similar answers are ties, "I'm not
    sure" is dropped), and `*_participants.csv` for the traits: the answers to the polls before the dialogue, in the
    questions' own words; of a question with several answers each is a trait, yes or no. The two kinds have the same
    raters and texts, so they can be fitted together.

    Args:
        source: A folder with one or more topics; the limit counts votes of each topic.
        kind: `"rating"` or `"preference"`.
        topic: The folder of one topic, e.g. `"Campus protests"`; None for all.
    """
    check_choice("kind", kind, ("rating", "preference"))
    folders = {path.parent.name: path for path in files(source, ("*_verbatim_map.csv",))}
    if topic is not None:
        check_choice("topic", topic, list(folders))
        folders = {topic: folders[topic]}
    rows = Rows("rating", (-1, 1)) if kind == "rating" else Rows("preference")
    for verbatim in folders.values():
        answers = {
            as_id(record["Thought ID"]): (as_text(record["Question Text"]), as_text(record["Thought Text"]))
            for record in read_below(verbatim, ("Question Text", "Thought ID", "Thought Text"))
        }
        people = _people(_part(verbatim, "participants"))
        judged = _ratings if kind == "rating" else _preferences
        for number, judgement in enumerate(
            judged(rows, _part(verbatim, {"rating": "binary"}.get(kind, kind)), answers)
        ):
            if number == source.limit:
                break
            rows.add(**judgement, **people.get(judgement["rater_id"], {}))
    return rows


def _part(verbatim: Path, part: str) -> Path:
    path = verbatim.with_name(verbatim.name.replace("verbatim_map", part))
    if not path.exists():
        raise JudgementError(f"{path} is missing. Fix: keep it beside {verbatim.name}, as it was published.")
    return path


Answers = Mapping[str | None, tuple[str | None, str | None]]
"""Question and text of each answer, by id."""


def _ratings(rows: Rows, path: Path, answers: Answers) -> Iterator[dict[str, Any]]:
    for record in read_below(path, ("Participant ID", "Thought ID", "Vote")):
        question, text = answers.get(as_id(record["Thought ID"]), (None, None))
        if record["Vote"] not in _VOTES:
            rows.drop("that are neither Agree nor Disagree")
            continue
        yield {
            "rater_id": as_id(record["Participant ID"]),
            "prompt": question,
            "response": text,
            "rating": _VOTES[record["Vote"]],
        }


def _preferences(rows: Rows, path: Path, answers: Answers) -> Iterator[dict[str, Any]]:
    for record in read_below(path, ("Participant ID", "Thought A ID", "Thought B ID", "Vote")):
        (question, a), (_, b) = (answers.get(as_id(record[f"Thought {side} ID"]), (None, None)) for side in ("A", "B"))
        if record["Vote"] not in _PAIRS:
            rows.drop("by people who were not sure")
            continue
        yield {
            "rater_id": as_id(record["Participant ID"]),
            "prompt": question,
            "response_a": a,
            "response_b": b,
            "choice": _PAIRS[record["Vote"]],
        }


def _people(path: Path) -> dict[str | None, dict[str, str | None]]:
    """Return the traits of each participant: the answers to the polls before the dialogue."""
    preamble: dict[str, str] = {}
    people: dict[str | None, dict[str, str | None]] = {}
    questions: dict[str, list[str]] = {}
    for record in read_below(path, ("Participant Id",), preamble):
        if not people:
            questions = _polls(list(record), int(preamble.get(_POLLS) or 0))
        people[as_id(record["Participant Id"])] = _traits(record, questions)
    return people


def _polls(columns: list[str], count: int) -> dict[str, list[str]]:
    """Return the columns of each of the `count` polls, which follow the ids.

    A poll with several answers has a column for each, "question - answer".
    """
    polls = columns[columns.index("Sample Provider Id") + 1 :] if "Sample Provider Id" in columns else []
    questions: dict[str, list[str]] = {}
    for name in polls:
        question, separator, _ = name.rpartition(" - ")
        key = question if separator and sum(other.startswith(f"{question} - ") for other in polls) > 1 else name
        if key not in questions and len(questions) == count:
            break
        questions.setdefault(key, []).append(name)
    return questions


def _traits(record: Record, questions: Mapping[str, list[str]]) -> dict[str, str | None]:
    """Return the traits of a participant, None for a question that was not answered."""
    values: dict[str, Any] = {}
    for columns in questions.values():
        given = {name: None if record[name] in (None, _UNANSWERED) else record[name] for name in columns}
        if len(columns) > 1 and any(given.values()):
            given = {name: "yes" if value else "no" for name, value in given.items()}
        values |= given
    return traits(values, values)
