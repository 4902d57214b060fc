"""Judges of representation, and how well a judge agrees with people's votes."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.overton.judges import (
    judge_validity,
    judged_groups,
    jury_judge,
    language_model_judge,
    nli_judge,
)
from plural_rlhf.evaluation.overton.score import overton_score


VIEWS = {"q": [["parks"], ["roads", "bridges"]]}


def test_an_entailment_judge_averages_the_views_of_a_group():
    judge = nli_judge(VIEWS, lambda premises, views: [float(v in p) for p, v in zip(premises, views, strict=True)])
    assert judge("q", ["parks here. roads there.", "...", "bridges and roads"]).tolist() == [[1, 0.5], [0, 0], [0, 1]]


def test_a_language_model_sees_question_views_and_answer_and_its_rating_is_read():
    requests = []

    def ask(asked):
        requests.extend(asked)
        return ["Rating: 5", "I would say 2.5 of 5", "ten", "0 or 9, then 3"]

    assert language_model_judge(ask, VIEWS)("q", ["A", "B"]) == pytest.approx(
        np.array([[5, 2.5], [np.nan, 3]]), nan_ok=True
    )
    assert "Question: q" in requests[1]
    assert "- roads\n- bridges" in requests[1]
    assert "Answer to rate: A" in requests[1]


def test_judged_groups_go_into_the_score():
    judge = lambda prompt, answers: np.array([[4.5, 3.9, np.nan]])  # noqa: E731
    judged = judged_groups(judge, "q", ["A"], {"a": 0.5, "b": 0.3, "c": 0.2}, threshold=4)
    assert judged.represented.tolist() == [[True, False, False]]
    assert overton_score({"q": judged}, weighted=True).value == 0.5
    with pytest.raises(ValueError, match="1 answers and 2 groups"):
        judged_groups(judge, "q", ["A"], {"a": 0.5, "b": 0.5}, threshold=4)


def test_a_jury_without_votes_needs_an_approval():
    with pytest.raises(ValueError, match="approval_above"):
        jury_judge(object())


def votes(truth, rng, each=4):
    answer = np.repeat(np.arange(len(truth)), each)
    return answer, (rng.random(len(answer)) < truth[answer]).astype(int)


def test_a_judge_that_knows_reaches_the_ceiling_and_one_that_guesses_reaches_0():
    rng = np.random.default_rng(0)
    truth = rng.random(300)
    answer, agrees = votes(truth, rng)
    judged = np.stack([truth, rng.permutation(truth)], axis=1)
    group = np.tile([0, 1], len(answer) // 2)
    knows, guesses = judge_validity(judged, answer, group, agrees, ["knows", "guesses"])
    assert knows.spearman == pytest.approx(knows.ceiling, abs=0.06)
    assert knows.ci_low < knows.ceiling < 0.9  # two votes an answer hide the rest
    assert guesses.ci_low < 0 < guesses.ci_high
    assert abs(guesses.auc - 0.5) < 0.06 < knows.auc - 0.5
    assert (knows.num_answers, knows.num_votes, guesses.num_votes) == (300, 600, 600)


def test_ratings_have_no_ceiling_and_few_answers_are_refused():
    [validity] = judge_validity(
        np.array([[1.0], [3.0], [5.0]]), np.array([0, 1, 2]), np.zeros(3, int), np.array([0, 1, 1]), ["all"]
    )
    assert np.isnan(validity.ceiling)
    with pytest.raises(ValueError, match="'all' voted on 2 answers"):
        judge_validity(np.zeros((3, 1)), np.array([0, 1]), np.zeros(2, int), np.array([0, 1]), ["all"])
