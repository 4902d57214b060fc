"""OvertonScores of panels worked out by hand, adjusted scores of planted effects, groups of votes."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from plural_rlhf.evaluation.overton.adjusted import adjusted_scores
from plural_rlhf.evaluation.overton.clusters import groups_from_votes
from plural_rlhf.evaluation.overton.score import QuestionRatings, overton_score, represented


GROUPS = ["left"] * 5 + ["right"] * 3 + ["rural"] * 2


def panel(*answers):
    """Ratings of answers, each given by the mean rating of left, right and rural."""
    return QuestionRatings(np.array([[a[0]] * 5 + [a[1]] * 3 + [a[2]] * 2 for a in answers], dtype=float), GROUPS)


def test_two_of_three_groups():
    question = {"q": panel((4.2, 4.0, 3.9))}
    assert overton_score(question).value == pytest.approx(2 / 3)
    assert overton_score(question, weighted=True).value == pytest.approx(0.8)
    assert overton_score(question, threshold=3.5).value == 1.0


def test_names_of_groups_and_order_of_raters_do_not_matter():
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 6, size=(3, 10)).astype(float)
    order = rng.permutation(10)
    renamed = [{"left": "z", "right": "a", "rural": "m"}[GROUPS[i]] for i in order]
    for weighted in (False, True):
        one = overton_score({"q": QuestionRatings(ratings, GROUPS)}, k=2, weighted=weighted).value
        other = overton_score({"q": QuestionRatings(ratings[:, order], renamed)}, k=2, weighted=weighted).value
        assert other == pytest.approx(one, rel=1e-12)  # groups are added up in another order


def test_equal_shares_make_the_weighted_score_the_unweighted_one():
    question = {"q": QuestionRatings([[5, 5, 1, 1, 4, 4]], ["a", "a", "b", "b", "c", "c"])}
    assert overton_score(question).value == overton_score(question, weighted=True).value == pytest.approx(2 / 3)


def test_a_set_represents_a_group_by_its_best_answer():
    question = {"q": panel((5, 1, 1), (1, 5, 1), (1, 1, 1))}
    assert overton_score(question, k=1).value == pytest.approx(2 / 9)
    assert overton_score(question, k=2).value == pytest.approx((2 + 1 + 1) / 9)
    assert overton_score(question, k=3).value == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="k=4 of 3 answers"):
        overton_score(question, k=4)


def test_a_group_that_did_not_rate_an_answer_is_not_represented_by_it():
    ratings = np.array([[5.0, np.nan], [5.0, 4.0]])
    found = represented(QuestionRatings(ratings, ["a", "b"]))
    assert found.represented.tolist() == [[True, False], [True, True]]
    assert np.isnan(found.means[0, 1])
    with pytest.raises(ValueError, match="no answer was rated"):
        QuestionRatings([[np.nan]], ["a"])


def test_the_interval_over_questions_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(150):
        chance = rng.beta(2, 2, size=30)  # questions differ in difficulty; the mean coverage is .5
        questions = {str(q): panel(*[np.where(rng.random(3) < chance[q], 5, 1)]) for q in range(30)}
        interval = overton_score(questions)
        hits += interval.low <= 0.5 <= interval.high
    assert hits / 150 > 0.9


@pytest.mark.parametrize("named", [False, True])
def test_an_interval_of_shares_ends_at_0_and_1(named):
    """All groups are represented but by the answer to one question, and none but by that one."""
    rng = np.random.default_rng(0)
    for most, odd, ends in ((5.0, (5, 1, 5), "high"), (1.0, (1, 5, 1), "low")):
        questions = {}
        for q in range(8):
            groups = np.array([odd if q == 0 else (most,) * 3], dtype=float)
            ratings = np.repeat(groups, 6, axis=1) + rng.normal(0, 0.01, (1, 18))
            raters = list(range(18)) if named else None
            questions[str(q)] = QuestionRatings(ratings, np.repeat(["left", "right", "rural"], 6), raters=raters)
        interval = overton_score(questions)
        assert interval.value == pytest.approx(1 - 1 / 24 if most == 5 else 1 / 24)
        assert 0 <= interval.low < interval.value < interval.high <= 1
        assert getattr(interval, ends) == (1 if most == 5 else 0)
        assert abs((interval.low if most == 5 else interval.high) - interval.value) > 0.05


def test_agreement_of_all_questions_is_no_certainty():
    """Of eight questions all of whose groups are represented the score is 1, and its interval as wide as Wilson's."""
    raters = list(range(18))
    groups = np.repeat(["left", "right", "rural"], 6)
    questions = {str(q): QuestionRatings(np.full((1, 18), 5.0), groups, raters=raters) for q in range(8)}
    interval = overton_score(questions)
    assert (interval.value, interval.high) == (1, 1)
    assert 0.5 < interval.low < 0.8


def test_adjusted_scores_find_planted_effects_and_cover():
    rng = np.random.default_rng(0)
    effects = {"good": 0.1, "middling": 0.0, "bad": -0.1}
    hits, found = 0, []
    for _ in range(60):
        difficulty = rng.normal(0.4, 0.2, size=40)
        coverage = {
            policy: {str(q): difficulty[q] + effect + rng.normal(0, 0.1) for q in range(40)}
            for policy, effect in effects.items()
        }
        scores = {score.policy: score for score in adjusted_scores(coverage)}
        hits += sum(scores[p].ci_low <= effects[p] <= scores[p].ci_high for p in effects)
        found.append([scores[p].deviation for p in effects])
    assert np.mean(found, axis=0) == pytest.approx([0.1, 0.0, -0.1], abs=0.01)
    assert 0.89 < hits / 180 <= 1
    assert scores["good"].p_holm < 0.01 < scores["middling"].p_holm


def test_adjusted_scores_do_not_punish_hard_questions():
    easy = {str(q): 0.9 for q in range(5)}
    hard = {f"h{q}": 0.1 for q in range(5)}
    unlucky = {"all": easy | hard, "hard": hard, "easy": easy}
    assert [round(score.value, 6) for score in adjusted_scores(unlucky)] == [0.5, 0.5, 0.5]


def test_adjusted_scores_refuse_what_cannot_be_compared(monkeypatch):
    with pytest.raises(ValueError, match="1 policies on 3 questions"):
        adjusted_scores({"a": {"x": 1, "y": 0, "z": 1}})
    with pytest.raises(ValueError, match="share no question"):
        adjusted_scores({"a": {"x": 1, "y": 0}, "b": {"z": 1, "w": 0}})
    usual = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("statsmodels"):
            raise ImportError(name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="plural-rlhf\\[evaluation\\]"):
        adjusted_scores({"a": {"x": 1, "y": 0, "z": 0}, "b": {"x": 1, "y": 0, "z": 1}})


@pytest.mark.parametrize("number", [2, 3])
def test_groups_of_votes_are_found_though_votes_are_missing(number):
    rng = np.random.default_rng(number)
    camp = np.repeat(np.arange(number), [60, 40, 30][:number])
    stance = rng.choice([-1.0, 1.0], size=(number, 80))
    votes = np.where(rng.random((len(camp), 80)) < 0.85, stance[camp], -stance[camp])
    votes[rng.random(votes.shape) < 0.5] = np.nan
    votes[5] = np.nan
    groups = groups_from_votes(votes, given=camp)
    assert groups.agreement > 0.9
    assert groups.group[5] == -1
    assert np.bincount(groups.group[groups.group >= 0]).tolist() == sorted(
        np.bincount(groups.group[groups.group >= 0]), reverse=True
    )
    assert groups_from_votes(votes).group.tolist() == groups.group.tolist()


def test_groups_of_votes_refuse_too_few_and_unanimous_raters():
    with pytest.raises(ValueError, match="3 raters voted, too few for 5 groups"):
        groups_from_votes([[1, 1], [1, -1], [-1, 1]])
    with pytest.raises(ValueError, match="voted alike"):
        groups_from_votes(np.ones((9, 3)))


def test_named_raters_of_all_questions_are_resampled_with_the_questions():
    """One half of the people likes every answer: which people were asked decides more than which questions."""
    rng = np.random.default_rng(0)
    named, hits = [], {"named": 0, "unnamed": 0}
    for _ in range(60):
        likes = rng.random(16) < 0.5
        ratings = [np.where(likes, 4.4, 3.6)[None] + rng.normal(0, 0.3, (1, 16)) for _ in range(20)]
        groups = ["left", "right"] * 8
        panels = {str(q): QuestionRatings(of, groups, raters=list(range(16))) for q, of in enumerate(ratings)}
        interval = overton_score(panels)
        named.append(interval)
        unnamed = overton_score({q: QuestionRatings(of.ratings, of.groups) for q, of in panels.items()})
        assert interval.value == unnamed.value
        hits["named"] += interval.low <= 0.5 <= interval.high
        hits["unnamed"] += unnamed.low <= 0.5 <= unnamed.high
    assert (named[0].n_raters, named[0].n_items) == (16, 20)
    assert hits["named"] >= 51 > 40 > hits["unnamed"]
    with pytest.raises(ValueError, match="1 different raters for 2 columns"):
        QuestionRatings([[1, 2]], ["a", "b"], raters=["r", "r"])
