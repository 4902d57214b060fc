"""New questions from the files that people have."""

from __future__ import annotations

import pytest

from plural_rlhf.methods.new_questions import NewQuestion, read_new_questions
from reward_models import JudgementError


def written(folder, text, name="new.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("column", ["question", "Prompt", "text", "WORDING"])
def test_the_wording_stands_in_a_column_of_any_usual_name(tmp_path, column):
    path = written(tmp_path, f"{column};options\nMore parks?;yes|no\nMore roads?;\n")
    assert read_new_questions(path) == [
        NewQuestion("new 1", "More parks?", ("yes", "no")),
        NewQuestion("new 2", "More roads?", None),
    ]


def test_a_text_file_has_a_question_a_line(tmp_path):
    path = written(tmp_path, "\ufeffMore parks?\n\nMore roads, or none?\n", "new.txt")
    assert [question.text for question in read_new_questions(path)] == ["More parks?", "More roads, or none?"]


def test_options_may_be_a_list(tmp_path):
    path = written(tmp_path, '{"id": 7, "question": "Tea?", "options": ["yes; please", "no"]}\n', "new.jsonl")
    assert read_new_questions(path) == [NewQuestion("7", "Tea?", ("yes; please", "no"))]


def test_a_separator_at_the_end_is_no_answer(tmp_path):
    [question] = read_new_questions(written(tmp_path, "question,options\nTea?,yes; no; \n"))
    assert question.options == ("yes", "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,qustion\n1,More parks?\n", "Did you mean 'question'"),
        ("id,topic\n1,More parks?\n", "none of which holds the wordings"),
        ("question,note\n,x\nMore parks?,y\n  ,z\n", r"2 of 3 questions have no wording \(rows 1, 3\)"),
        ("question\n", "holds no question"),
        ("id,question\na,Tea?\na,Milk?\n", "the id 'a' twice"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_its_cure(tmp_path, text, message):
    with pytest.raises(JudgementError, match=message) as refused:
        read_new_questions(written(tmp_path, text))
    assert "Fix: " in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"new\.csv"):
        read_new_questions(tmp_path / "new.csv")
