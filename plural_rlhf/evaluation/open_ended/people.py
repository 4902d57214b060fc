"""Measure texts of one model against what people wrote to the same questions, without a jury and without a rival.

People against people are the floor; what people wrote to another question is the baseline, the same for every model.
Knows no model.

Shapes: `R` questions, `N` texts of a question, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule, default_rule, equivalence_rule
from plural_rlhf.evaluation.open_ended.numbers import (
    Key,
    Numbers,
    PeoplePanel,
    distance_numbers,
    diversity_numbers,
    drift_numbers,
    floor_numbers,
    people_panel,
)
from plural_rlhf.evaluation.open_ended.resampled import PromptResamples, resample_prompts
from plural_rlhf.evaluation.open_ended.results import MEASURES
from plural_rlhf.evaluation.open_ended.scored import Embed, Writer
from reward_models.stats.verdicts import MIN_ITEMS


__all__ = ["MEASURED", "measure_against_people"]

DISTANCES = ("mmd_to_people", "auc_to_people", "human_classes_covered")
MEASURED = (*DISTANCES, "effective_classes", "largest_classes", "degenerate", "words")
"""Measures of `MEASURES` that need no jury."""
MOST_COVERING = 16


def measure_against_people(
    people: Mapping[str, Sequence[str]],
    texts: Mapping[str, Sequence[str]],
    embed: Embed | None = None,
    *,
    rule: str | EquivalenceRule | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """Measure how far a model's texts are from people's, how many of their answers it covers, and its diversity.

    `skill_mmd` is `1 - MMD / MMD of people's texts to the next question`: 0 for texts that are no nearer to people
    than people's answers to another question, 1 for people.

    Args:
        people: What people wrote, by question; at least four texts each.
        texts: What the model wrote, by question; as many for every question.
        embed: Turns texts into vectors; without it there are no kernel and classifier tests.
        rule: When two texts say the same; None: `default_rule`.
        draws: Resamples of questions.
        level: Level of the intervals.
        seed: Random seed.

    Returns:
        One dictionary per number, with the columns of `measure_distributions`, and the measures of each question.

    Raises:
        ValueError: The questions differ, or a question has too few texts.

    Example:
        >>> people = {q: [f"{a} {q}" for a in ("more", "fewer", "no", "no more")] for q in ("parks", "roads")}
        >>> rows, _ = measure_against_people(people, {q: [f"more {q}"] * 4 for q in people}, rule="same words")
        >>> {row["metric"]: round(row["value"], 2) for row in rows if row["metric"] != "words"}
        {'human_classes_covered': 0.38, 'effective_classes': 1.0, 'largest_classes': 1.0, 'degenerate': 0.0}
    """
    _check(people, texts)
    questions = list(people)
    vectors = _vectors(people, texts, embed)
    if rule is None:
        everything = [text for table in (people, texts) for of in table.values() for text in of]
        rule = default_rule(everything, None if embed is None else np.stack([vectors[text] for text in everything]))
    rule = equivalence_rule(rule)
    panels = {q: people_panel(q, people[q], _of(vectors, people[q]), rule, seed) for q in questions}
    k = min(min(len(of) for of in texts.values()), MOST_COVERING, *(len(of) // 2 for of in people.values()))
    following = dict(zip(questions, questions[1:] + questions[:1], strict=True))
    model, floor, other = [], [], []
    for question in questions:
        panel = panels[question]
        model.append(
            distance_numbers(panel, texts[question], _of(vectors, texts[question]), [k])[0]
            | diversity_numbers(texts[question], _of(vectors, texts[question]), rule)
            | drift_numbers(Writer("model", texts, None, None), question)  # type: ignore[arg-type]
        )
        floor.append(floor_numbers(panel, [k])[0] | _diversity_of(panel, len(texts[question])))
        elsewhere = panels[following[question]]
        other.append(distance_numbers(panel, elsewhere.texts, elsewhere.vectors, [k])[0])
    questions_drawn = resample_prompts(len(questions), draws=draws, level=level, seed=seed)
    rows = []
    mmd, of_people, of_others = (_column(numbers, "mmd_to_people") for numbers in (model, floor, other))
    if mmd is not None and of_people is not None and of_others is not None and len(questions) > 1:
        pair = np.column_stack([mmd, of_others])
        row = _row("skill_mmd", mmd, questions_drawn, "skill", "higher")
        value, low, high = questions_drawn.interval(pair, lambda means: 1 - means[..., 0] / means[..., 1])
        known = row["ci_low"] is not None
        ends = {"value": value, "ci_low": low if known else None, "ci_high": high if known else None}
        of_floor = float(1 - np.mean(of_people) / np.mean(of_others))
        rows.append(row | ends | {"headline": True, "baselines": {"floor": of_floor, "ceiling": 1.0}})
    for name in MEASURED:
        values = _column(model, name)
        if values is None:
            continue
        beside = {
            who: float(np.nanmean(column))
            for who, numbers in (("floor", floor), ("other question", other if len(questions) > 1 else []))
            if (column := _column(numbers, name)) is not None
        }
        unit, better, _ = MEASURES[name]
        direction = "none" if better == "neither" else better
        rows.append(_row(name, values, questions_drawn, unit, direction) | {"baselines": beside})
    if not any(row["headline"] for row in rows):
        rows[0]["headline"] = True
    scores = [
        {name: float(one[Key(name)]) for name in MEASURED if Key(name) in one and np.isfinite(one[Key(name)])}
        for one in model
    ]
    return rows, scores


def _check(people: Mapping[str, Sequence[str]], texts: Mapping[str, Sequence[str]]) -> None:
    if not people or set(people) != set(texts):
        raise ValueError(
            f"people answered {len(people)} questions and the model {len(texts)}, which must be the same. Fix: pass "
            "texts for the questions of people."
        )
    for question in people:
        for who, of, least in (("people", people[question], 4), ("the model", texts[question], 1)):
            if len(of) < least:
                raise ValueError(
                    f"question {question!r} has {len(of)} texts of {who}; at least {least} are needed. Fix: leave the "
                    "question out."
                )


def _vectors(
    people: Mapping[str, Sequence[str]], texts: Mapping[str, Sequence[str]], embed: Embed | None
) -> dict[str, np.ndarray]:
    if embed is None:
        return {}
    unique = list(dict.fromkeys(text for table in (people, texts) for of in table.values() for text in of))
    return dict(zip(unique, np.asarray(embed(unique), dtype=np.float64), strict=True))


def _of(vectors: Mapping[str, np.ndarray], texts: Sequence[str]) -> np.ndarray | None:
    return np.stack([vectors[text] for text in texts]) if vectors else None


def _diversity_of(panel: PeoplePanel, n: int) -> Numbers:
    """Return the diversity of as many texts of people as the model wrote; texts are in no order of meaning."""
    places = np.linspace(0, len(panel.texts) - 1, min(n, len(panel.texts))).astype(int)
    vectors = None if panel.vectors is None else panel.vectors[places]
    return diversity_numbers([panel.texts[place] for place in places], vectors, panel.rule)


def _column(numbers: Sequence[Numbers], name: str) -> np.ndarray | None:
    values = np.array([one.get(Key(name), np.nan) for one in numbers], dtype=np.float64)
    return None if not len(values) or np.isnan(values).all() else values


def _row(name: str, values: np.ndarray, questions: PromptResamples, unit: str, direction: str) -> dict[str, Any]:
    value, low, high = questions.interval(values)
    n = int((~np.isnan(values)).sum())
    known = n >= MIN_ITEMS and np.isfinite(low)
    return {
        "metric": name,
        "value": value,
        "ci_low": low if known else None,
        "ci_high": high if known else None,
        "n_items": n,
        "n_raters": 0,
        "unit": unit,
        "direction": direction,
        "kind": f"{n} questions resampled",
        "group": "all",
        "baselines": {},
        "headline": False,
    }
