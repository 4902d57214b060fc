"""One answer of a model against several of the first, with groups that are planted by hand."""

from __future__ import annotations

import pytest

from plural_rlhf.suites.against_first import against_first


def records(represented, n=6):
    return [{"item": f"q{i}", "represented": represented} for i in range(n)]


FOUR = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0, 0, 1, 0], "d": [0, 0, 0, 1]}
"""Each of four answers represents another group: `k` answers have k / 4 of them."""


def values(rows):
    return {row.metric: row.value for row in rows}


def test_one_answer_is_held_to_k_of_the_first_model():
    three = {"a": [1, 1], "b": [1, 1], "c": [1, 1], "d": [0, 0]}
    rows = against_first(records(three), records(FOUR), name="base", draws=50)
    assert values(rows) == pytest.approx(
        {
            "overton_score_less_1_of_first": 0.75 - 0.25,
            "overton_score_less_2_of_first": 0.75 - 0.5,
            "overton_score_less_4_of_first": 0.75 - 1.0,
            "answers_of_first_needed": 3,
        }
    )
    assert rows[0].baselines == pytest.approx({"one answer": 0.75, "1 of base": 0.25})
    assert (rows[-1].ci_low, rows[-1].ci_high, rows[-1].baselines) == (3, 3, {"drawn": 4})


def test_what_all_answers_of_the_first_model_do_not_reach_has_no_number():
    both, one = {"a": [1], "b": [1]}, {"a": [1, 1], "b": [0, 0]}
    assert "answers_of_first_needed" not in values(against_first(records(both), records(one), name="base", draws=50))
    worse = against_first(records(one), records(both), name="base", draws=50)
    assert values(worse) == {"overton_score_less_1_of_first": -0.5, "answers_of_first_needed": 1}


def test_questions_are_paired_by_name_whatever_the_order_of_questions_and_groups():
    """On q0 one answer represents all, on the others nobody; the first model the other way round on q1."""
    model = [{"item": f"q{i}", "represented": {"a": [i == 0], "b": [i == 0]}} for i in range(5)]
    first = [{"item": f"q{i}", "represented": {"b": [i == 1], "a": [False]}} for i in (4, 3, 1, 0, 2)]
    rows = against_first(model, first, name="base", draws=50)
    assert values(rows)["overton_score_less_1_of_first"] == pytest.approx(1 / 5 - 0.5 / 5)
    assert rows[0].n_items == 5
    few = against_first(model[:3], first, name="base", draws=50)
    assert (few[0].n_items, few[0].ci_low) == (3, None)


def test_without_common_questions_or_groups_there_is_no_row():
    assert against_first(records({"a": [1]}, 2), [{"item": "x", "represented": {"a": [1]}}], name="base") == []
    assert against_first(records({"a": [1]}, 2), records({"b": [1]}, 2), name="base") == []
