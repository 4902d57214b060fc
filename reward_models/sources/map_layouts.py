"""What is wrong in a column map with the layout of the file, and with the keys that belong to one layout only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_models.errors import did_you_mean
from reward_models.judgements.spelling import code_text
from reward_models.sources.layouts import LAYOUTS
from reward_models.sources.wide import QUESTION_KEYS


__all__ = ["faulty_layout", "faulty_values"]


def faulty_layout(mapping: Mapping[str, Any]) -> list[str]:
    """Return sentences on what is wrong with the layout and the keys that belong to it.

    Example:
        >>> faulty_layout({"layout": "wild"})
        ["layout: 'wild' is not known. Did you mean 'wide'? Fix: one of long, wide, ranking, best_worst."]
    """
    layout = mapping.get("layout", "long")
    if layout not in LAYOUTS:
        hint = did_you_mean(layout, LAYOUTS)
        return [f"layout: {layout!r} is not known.{hint} Fix: one of {', '.join(LAYOUTS)}."]
    problems = [
        f"{key}: only a {of} file has it. Fix: add layout: {of}."
        for key, of in (("questions", "wide"), ("ranks", "ranking"), ("unranked", "ranking"))
        if key in mapping and layout != of
    ]
    special = {"wide": _faulty_wide, "ranking": _faulty_ranking, "best_worst": _faulty_best_worst}
    return problems or (special[layout](mapping) if layout in special else [])


def _faulty_ranking(mapping: Mapping[str, Any]) -> list[str]:
    ranks, problems = mapping.get("ranks"), []
    if not isinstance(ranks, list | Mapping) or len(ranks) < 2:
        problems.append(
            f"ranks: {ranks!r} is not at least two columns. Fix: ranks: {{COLUMN OF RANKS: TEXT, ...}}, or a list of "
            "columns that hold texts, the best first."
        )
    if mapping.get("kind") not in (None, "preference", "choice"):
        problems.append(f"kind: rankings become pairs or choices, not {mapping['kind']!r}. Fix: preference or choice.")
    if mapping.get("unranked", "last") != "last":
        problems.append(f"unranked: {mapping['unranked']!r} is not known. Fix: last, or leave it out.")
    return problems


def _faulty_best_worst(mapping: Mapping[str, Any]) -> list[str]:
    problems = [
        f"columns: {end!r} is missing. Fix: add the column with the {end} text."
        for end in ("best", "worst")
        if end not in mapping.get("columns", {})
    ]
    if "options" not in mapping.get("columns", {}) and not isinstance(mapping.get("options"), list):
        problems.append("options is missing. Fix: under columns, the list of columns with the texts that were shown.")
    if mapping.get("kind") not in (None, "preference"):
        problems.append(f"kind: best-worst choices become pairs, not {mapping['kind']!r}. Fix: preference.")
    return problems


def _faulty_wide(mapping: Mapping[str, Any]) -> list[str]:
    questions, problems = mapping.get("questions"), []
    if not questions or not isinstance(questions, str | list | Mapping):
        return ["questions is missing. Fix: list the columns, e.g. questions: [q1, q2] or {q1: THE QUESTION}."]
    if mapping.get("kind") not in ("choice", "rating", "preference"):
        problems.append("kind is missing. Fix: kind: choice, or rating, or preference.")
    problems += [
        f"columns: {name!r} is a column of answers. Fix: remove it; the answers are in the columns under questions."
        for name in ("choice", "rating", "options", "item_id")
        if name in mapping.get("columns", {})
    ]
    for column, entry in questions.items() if isinstance(questions, Mapping) else ():
        if isinstance(entry, str) or entry is None:
            continue
        if not isinstance(entry, Mapping):
            problems.append(f"questions: {column}: {entry!r} is not a wording. Fix: put it in quotes.")
            continue
        problems += [
            f"questions: {column}: {key!r} is not known.{did_you_mean(key, QUESTION_KEYS)} Fix: one of "
            f"{', '.join(QUESTION_KEYS)}."
            for key in entry
            if key not in QUESTION_KEYS
        ]
        if "values" in entry:
            problems += faulty_values(f"questions: {column}: values", entry["values"])
        problems += [
            f"questions: {column}: {key}: {entry[key]!r} is not a list. Fix: put it in brackets."
            for key in ("options", "missing")
            if key in entry and not isinstance(entry[key], (list, tuple, *([Mapping] if key == "missing" else [])))
        ]
    return problems


def faulty_values(place: str, recode: Any) -> list[str]:
    """Return sentences on what is wrong with a mapping from codes to new values.

    Example:
        >>> faulty_values("values: choice", {1: "yes", "1": "no"})
        ["values: choice: '1' is there twice, as two spellings. Fix: keep one of them."]
    """
    if not isinstance(recode, Mapping):
        return [f"{place}: {recode!r} is not a mapping. Fix: write 'value of the file: new value'."]
    problems = []
    codes: dict[str, Any] = {}
    for key, value in recode.items():
        if codes.setdefault(code_text(key), value) != value:
            problems.append(f"{place}: {key!r} is there twice, as two spellings. Fix: keep one of them.")
    return problems
