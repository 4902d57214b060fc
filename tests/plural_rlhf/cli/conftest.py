"""Tables on disk for the tests of commands."""

from __future__ import annotations

import csv

import pytest

from tests.computed_once import common_parts_of_runs  # noqa: F401


QUESTIONS = ["parks", "roads", "pools", "trams"]


@pytest.fixture
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def votes(tmp_path):
    """Two camps of raters who answer four questions oppositely, as the column map of the shipped example expects."""
    lines = ["person,question_id,question,answer,region"]
    for person in range(40):
        for number, question in enumerate(QUESTIONS):
            answer = "no answer" if person == 39 and number == 3 else ["yes", "no"][(person + number) % 2]
            lines.append(f"p{person},{question},Should the city build more {question}?,{answer},{'ns'[person % 2]}")
    path = tmp_path / "answers.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def ratings(tmp_path):
    """Six raters' votes on two statements, in a CSV whose columns have our names."""
    path = tmp_path / "ratings.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rater_id", "prompt", "response", "rating"])
        for rater in range(6):
            writer.writerows(
                [f"r{rater}", "Say yes or no.", text, (rater + n) % 2] for n, text in enumerate(("a", "b"))
            )
    return path
