"""Texts of one model against people's: people are the ceiling, people on another question the floor of skill."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.open_ended.people import measure_against_people


QUESTIONS = ("parks", "roads", "schools", "trains", "taxes", "rents")


def written(seed: int, count: int = 60) -> dict[str, list[str]]:
    """People say one of six things on each question; a text is a topic and a number that `embed` reads."""
    rng = np.random.default_rng(seed)
    return {q: [f"{q} {opinion} {rng.normal():.4f}" for opinion in rng.integers(6, size=count)] for q in QUESTIONS}


def embed(texts) -> np.ndarray:
    rows = []
    for text in texts:
        question, opinion, noise = text.split()
        vector = np.zeros(13)
        vector[QUESTIONS.index(question)] = 3
        vector[6 + int(opinion)] = 3
        vector[12] = float(noise) / 10
        rows.append(vector)
    return np.stack(rows)


def rows_of(texts, people=None, **options):
    rows, scores = measure_against_people(
        written(0) if people is None else people, texts, embed, rule="vectors of short texts", draws=400, **options
    )
    assert len(scores) == len(QUESTIONS)
    return {row["metric"]: row for row in rows}


def test_other_people_have_full_skill_and_people_on_another_question_none():
    people = written(0)
    shifted = dict(zip(QUESTIONS, [*list(written(1).values())[1:], written(1)["parks"]], strict=True))
    good, bad = rows_of(written(1)), rows_of(shifted)
    assert good["skill_mmd"]["headline"]
    assert good["skill_mmd"]["ci_low"] < 1 < good["skill_mmd"]["ci_high"] + 0.05
    assert abs(bad["skill_mmd"]["value"]) < 0.1
    assert good["auc_to_people"]["value"] == pytest.approx(0.5, abs=0.12)
    assert bad["auc_to_people"]["value"] > 0.95
    assert good["mmd_to_people"]["baselines"]["other question"] == pytest.approx(
        bad["mmd_to_people"]["value"], rel=0.15
    )
    collapsed = rows_of({q: [people[q][0]] * 30 for q in QUESTIONS})
    assert collapsed["skill_mmd"]["value"] < good["skill_mmd"]["value"] - 0.3
    assert collapsed["effective_classes"]["value"] == 1
    assert collapsed["effective_classes"]["baselines"]["floor"] > 4
    assert collapsed["human_classes_covered"]["value"] < 0.4 < good["human_classes_covered"]["value"]


def test_without_vectors_words_remain():
    rows, _ = measure_against_people(written(0), written(1), None, draws=50)
    names = {row["metric"] for row in rows}
    assert not {"skill_mmd", "mmd_to_people"} & names
    assert "human_classes_covered" in names
    assert sum(row["headline"] for row in rows) == 1


def test_few_questions_have_no_interval():
    few = {q: texts for q, texts in written(0).items() if q in QUESTIONS[:3]}
    rows, _ = measure_against_people(few, {q: written(1)[q] for q in few}, embed, rule="words", draws=50)
    assert all(row["ci_low"] is None for row in rows)


def test_bad_input():
    with pytest.raises(ValueError, match="must be the same"):
        measure_against_people(written(0), {"parks": ["x"]})
    with pytest.raises(ValueError, match="3 texts of people"):
        measure_against_people({"q": ["a", "b", "c"]}, {"q": ["a"]})
    with pytest.raises(ValueError, match="0 texts of the model"):
        measure_against_people({"q": list("abcd")}, {"q": []})
