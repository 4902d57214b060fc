"""What people answered to known questions: by scale of answers, by weights, by group."""

from __future__ import annotations

import pandas as pd
import pytest

from plural_rlhf.methods.new_questions import known_questions
from reward_models import JudgementError, Judgements


def table(rows, **columns):
    names = ["rater_id", "item_id", "prompt", "options", "choice"]
    return Judgements.from_frame(pd.DataFrame(rows, columns=names).assign(**columns), kind="choice")


def asked(options, choices, item="tea", prompt="Do you like tea?"):
    return [(f"r{n}", item, prompt, list(options), choice) for n, choice in enumerate(choices)]


def test_questions_with_the_same_answers_in_another_order_are_of_one_scale():
    rows = asked(["yes", "no"], [0, 0, 0, 1]) + asked(["No", "Yes"], [0, 0, 0, 1], "milk", "Do you like milk?")
    rows += asked(["often", "never"], [0, 0, 1, 1], "cake", "How often do you eat cake?")
    by_answer = {known.options: known for known in known_questions(table(rows), fewest=4)}
    assert set(by_answer) == {("often", "never"), ("No", "Yes")}
    known = by_answer["No", "Yes"]
    shares = dict(zip(known.ids, known.shares.tolist(), strict=True))
    assert shares == {"milk": [0.75, 0.25], "tea": [0.25, 0.75]}


def test_people_count_by_their_sampling_weights():
    rows = asked(["yes", "no"], [0, 1, 1, 1])
    [known] = known_questions(table(rows, rater_weight=[3.0, 1.0, 1.0, 1.0]), fewest=1)
    assert known.shares.round(6).tolist() == [[0.5, 0.5]]
    assert known.people.tolist() == [4.0]


def test_a_group_counts_alone_and_questions_with_few_of_its_answers_are_left_out():
    rows = asked(["yes", "no"], [0, 0, 1, 1]) + asked(["yes", "no"], [0, 1], "milk", "Do you like milk?")
    [known] = known_questions(table(rows), ["r0", "r1", "r2"], fewest=3)
    assert known.ids == ["tea"]
    assert known.shares.round(3).tolist() == [[0.667, 0.333]]


def test_published_shares_are_known_questions_too():
    frame = pd.DataFrame({"prompt": ["Tea?", "Milk?"], "options": [["yes", "no"]] * 2, "probs": [[0.2, 0.8], [1, 0]]})
    judgements = Judgements.from_frame(frame, kind="soft")
    [known] = known_questions(judgements)
    assert sorted(known.shares.tolist()) == [[0.2, 0.8], [1.0, 0.0]]
    with pytest.raises(JudgementError, match="without people"):
        known_questions(judgements, ["r0"])
    [some] = known_questions(Judgements.from_frame(frame.assign(n=[500, 4]), kind="soft"))
    assert some.texts == ["Tea?"]  # a share of four people is none


def test_levels_of_ratings_are_answers():
    rows = [(f"r{n}", "How much do you trust", who, level) for who in ("courts", "police") for n, level in
            enumerate((1, 1, 2, 3) if who == "courts" else (3, 3, 3, 2))]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    [known] = known_questions(Judgements.from_frame(frame, kind="rating"), fewest=1)
    assert known.options == ("1", "2", "3")
    assert dict(zip(known.texts, known.shares.tolist(), strict=True)) == {
        "courts": [0.5, 0.25, 0.25],
        "police": [0.0, 0.25, 0.75],
    }
    frame.loc[frame["response"] == "police", "prompt"] = "How often do you call"
    [other] = known_questions(Judgements.from_frame(frame, kind="rating"), fewest=1)
    assert set(other.texts) == {"How much do you trust courts", "How often do you call police"}


def test_the_same_wording_in_two_years_is_one_block():
    rows = asked(["yes", "no"], [0, 1], "tea 2020") + asked(["yes", "no"], [0, 0], "tea 2024", "Do you like TEA?")
    rows += asked(["yes", "no"], [0, 0], "milk", "Do you like milk?")
    [known] = known_questions(table(rows), fewest=1)
    by_id = dict(zip(known.ids, known.blocks.tolist(), strict=True))
    assert by_id["tea 2020"] == by_id["tea 2024"] != by_id["milk"]


def test_columns_without_wording_and_other_kinds_are_refused():
    with pytest.raises(JudgementError, match=r"1 of 1 questions have no wording but .*'q1'.*Fix"):
        known_questions(table(asked(["yes", "no"], [0, 1], "q1", "q1")))
    pairs = pd.DataFrame(
        {"rater_id": ["a"], "prompt": ["Hi"], "response_a": ["x"], "response_b": ["y"], "choice": ["a"]}
    )
    with pytest.raises(JudgementError, match="'preference' judgements"):
        known_questions(Judgements.from_frame(pairs, kind="preference"))
