from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from plural_rlhf.core import lotteries
from plural_rlhf.core.group_rules import TIE, margins
from plural_rlhf.core.lotteries import maximal_lottery, random_dictator, uniform_over_best
from reward_models.errors import JuryError
from tests.elections import (
    GOLDEN,
    ballots,
    check_many_groups,
    check_mask,
    check_symmetries,
    elections,
    maximal_lottery_by_hand,
    random_ballots,
    random_dictator_by_hand,
)


FEW = settings(max_examples=25, deadline=None)
RULES = [maximal_lottery, random_dictator]


def contested(seed, n=7, k=5, groups=40):
    """Groups with random weights, which have one maximal lottery each, and mostly no Condorcet winner."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(groups, n, k, generator=generator, dtype=torch.float64)
    return rewards, 0.1 + torch.rand(groups, k, generator=generator, dtype=torch.float64)


def test_condorcet_paradox_gives_a_third_each():
    rewards, weights = ballots({"ABC": 1, "BCA": 1, "CAB": 1})
    for rule in RULES:
        assert rule(rewards, weights).tolist() == pytest.approx([1 / 3] * 3, abs=1e-9)


def test_three_in_a_cycle_get_the_margins_of_the_duels_they_are_not_in():
    rewards, weights = ballots({"ABC": 4, "BCA": 3, "CAB": 2})  # A:B 6:3, B:C 7:2, C:A 5:4
    assert maximal_lottery(rewards, weights).tolist() == pytest.approx([5 / 9, 1 / 9, 3 / 9], abs=1e-9)
    assert random_dictator(rewards, weights).tolist() == pytest.approx([4 / 9, 3 / 9, 2 / 9])


def test_capital_of_tennessee():
    rewards, weights = ballots({"MNCK": 42, "NCKM": 26, "CKNM": 15, "KCNM": 17}, "MNCK")
    assert maximal_lottery(rewards, weights).tolist() == [0, 1, 0, 0]
    assert random_dictator(rewards, weights).tolist() == pytest.approx([0.42, 0.26, 0.15, 0.17])


@pytest.mark.parametrize("seed", list(GOLDEN))
def test_agrees_with_the_published_answers_of_pref_voting(seed):
    rewards, weights = ballots(random_ballots(seed))
    assert maximal_lottery(rewards, weights).tolist() == pytest.approx(GOLDEN[seed][3], abs=6e-5)


def test_agrees_with_trying_every_support():
    compared = drawn = 0
    for seed in range(120):
        made = random_ballots(seed, "ABCDE"[: 3 + seed % 3], kinds=3 + seed % 7)
        rewards, weights = ballots(made)
        assert random_dictator(rewards, weights).tolist() == pytest.approx(random_dictator_by_hand(made))
        if sum(weights) % 2:  # an odd jury ties in no duel, and one lottery is maximal
            lottery = maximal_lottery_by_hand(made)
            assert maximal_lottery(rewards, weights).tolist() == pytest.approx(lottery, abs=1e-6)
            compared += 1
            drawn += max(lottery) < 1
    assert compared > 40
    assert drawn > 5


def test_agrees_with_a_linear_programme():
    rewards, weights = contested(0, groups=100)
    ours = maximal_lottery(rewards, weights)
    m = margins(rewards, weights).numpy()
    drawn = 0
    for group, p in zip(m, ours.numpy(), strict=True):
        theirs = linprog(np.zeros(7), A_ub=-group.T, b_ub=np.zeros(7), A_eq=np.ones((1, 7)), b_eq=[1]).x
        assert p == pytest.approx(theirs, abs=1e-7)
        drawn += p.max() < 1
    assert drawn > 10


@FEW
@given(elections(max_responses=8))
def test_no_response_beats_it(election):
    rewards, weights = election
    p = maximal_lottery(rewards, weights)
    assert p.sum().item() == pytest.approx(1)
    assert (p >= 0).all()
    assert (p @ margins(rewards, weights) >= -1e-6).all()


@FEW
@given(elections(max_responses=5))
def test_of_several_it_is_one_inside_their_set(election):
    """Whatever some maximal lottery draws has a chance, and nothing else has."""
    rewards, weights = election
    n = len(rewards)
    m = margins(rewards, weights).numpy()
    m[abs(m) < TIE] = 0
    p = maximal_lottery(rewards, weights).numpy()
    for i in range(n):
        most = -linprog(-np.eye(n)[i], A_ub=-m.T, b_ub=np.zeros(n), A_eq=np.ones((1, n)), b_eq=[1]).fun
        assert p[i] <= most + 1e-6
        assert (p[i] > 1e-6) == (most > 1e-6)


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(election=elections(), data=st.data())
def test_anonymous_neutral_and_ordinal(rule, election, data):
    rewards, weights = election
    check_symmetries(rule, rewards, weights, data, atol=1e-4)  # among equals the solver stops a little off
    mapped = torch.cat([3 * rewards[:, :1].exp() - 5, rewards[:, 1:]], dim=1)
    assert torch.allclose(rule(mapped, weights), rule(rewards, weights), atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(election=elections(), data=st.data())
def test_a_mask_is_leaving_out(rule, election, data):
    check_mask(rule, *election, data, left_out=0.0, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(elections())
def test_what_everybody_finds_worse_is_never_drawn(rule, election):
    rewards, weights = election
    p = rule(rewards, weights)
    voting = rewards[:, torch.tensor(weights) > 0]
    for i, j in itertools.permutations(range(len(rewards)), 2):
        if (voting[j] > voting[i]).all():
            assert p[i] == 0


@pytest.mark.parametrize("rule", RULES)
def test_many_groups_are_as_each_alone(rule):
    check_many_groups(rule, functools.partial(torch.allclose, atol=1e-9))


def test_who_beats_all_others_gets_all_of_the_maximal_lottery_and_maybe_nothing_of_the_dictators():
    # Everybody's second choice beats each favourite two to one.
    rewards, weights = ballots({"ADBC": 1, "BDCA": 1, "CDAB": 1})
    assert maximal_lottery(rewards, weights).tolist() == [0, 0, 0, 1]
    assert random_dictator(rewards, weights).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("rule", RULES)
def test_near_duplicates_share_what_their_original_has(rule):
    rewards, weights = contested(1)
    p = rule(rewards, weights)
    same = rule(torch.cat([rewards, rewards[:, :1]], dim=1), weights)
    assert torch.allclose(same[:, 0], same[:, -1], atol=1e-7)
    # Clusters may also disagree on which of the two is better.
    near = torch.cat([rewards, rewards[:, :1] + 1e-9 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])], dim=1)
    for added in (same, rule(near, weights)):
        assert torch.allclose(added[:, 1:-1], p[:, 1:], atol=1e-7)
    assert (p[:, 0] > 0.01).any()


@pytest.mark.parametrize("rule", RULES)
def test_near_duplicates_gain_where_everything_ties(rule):
    assert rule(torch.zeros(2, 1), [1]).tolist() == pytest.approx([1 / 2] * 2)
    assert rule(torch.zeros(3, 1), [1]).tolist() == pytest.approx([1 / 3] * 3)


@FEW
@given(election=elections(), data=st.data())
def test_no_cluster_gains_by_lying_to_the_random_dictator(election, data):
    """However much of the top of its order it looks at, a cluster finds no more mass there after a lie."""
    rewards, weights = election
    n = len(rewards)
    lie = data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    lied = torch.cat([torch.tensor(lie, dtype=torch.float64).unsqueeze(1), rewards[:, 1:]], dim=1)
    honest, after = random_dictator(rewards, weights), random_dictator(lied, weights)
    for level in rewards[:, 0].unique():
        liked = rewards[:, 0] >= level
        assert after[liked].sum() <= honest[liked].sum() + 1e-9


def test_a_cluster_may_gain_by_lying_to_the_maximal_lottery():
    truth = maximal_lottery(*ballots({"BDAC": 2, "CBDA": 3, "ADCB": 4}))
    lie = maximal_lottery(*ballots({"BDAC": 2, "CBDA": 3, "ACBD": 4}))
    assert truth.tolist() == pytest.approx([0, 3 / 9, 1 / 9, 5 / 9])
    assert lie.tolist() == pytest.approx([5 / 9, 3 / 9, 1 / 9, 0])  # A, its favourite, in place of D, its second


def test_a_response_that_rises_may_lose_in_the_maximal_lottery():
    # "BAC" becomes "ABC": A beats B by 5 of 11, not by 3, and B against A still loses, so that C gains from both.
    before = maximal_lottery(*ballots({"ABC": 3, "BAC": 1, "BCA": 3, "CAB": 4}))
    after = maximal_lottery(*ballots({"ABC": 4, "BAC": 0, "BCA": 3, "CAB": 4}))
    assert before.tolist() == pytest.approx([3 / 9, 3 / 9, 3 / 9])  # margins 3, 3, 3 of 11
    assert after.tolist() == pytest.approx([3 / 11, 3 / 11, 5 / 11])


@FEW
@given(election=elections(), data=st.data())
def test_rising_never_hurts_with_the_random_dictator(election, data):
    rewards, weights = election
    i, k = data.draw(st.integers(0, len(rewards) - 1)), data.draw(st.integers(0, rewards.shape[1] - 1))
    raised = rewards.clone()
    raised[i, k] += data.draw(st.integers(1, 6))
    assert random_dictator(raised, weights)[i] >= random_dictator(rewards, weights)[i] - 1e-9


def test_a_lottery_that_something_beats_is_refused(monkeypatch):
    monkeypatch.setattr(lotteries, "_STEPS", 2)
    rewards, weights = contested(2)
    with pytest.raises(RuntimeError, match=r"response \d beats the computed lottery.*report"):
        maximal_lottery(rewards, weights)


def test_groups_of_one_are_refused():
    for rule in RULES:
        with pytest.raises(JuryError, match="group 0 has 1 of 3"):
            rule(torch.rand(3, 2), [1, 1], torch.tensor([False, True, False]))


def test_uniform_over_best():
    scores = torch.tensor([[0.25, 0.5, 0.5, 0.1], [1.0, 2.0, 3.0, 4.0]])
    assert uniform_over_best(scores).tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    mask = torch.tensor([True, False, True, False])
    assert uniform_over_best(scores, mask).tolist() == [[0, 0, 1, 0], [0, 0, 1, 0]]
    assert uniform_over_best(scores, tolerance=0.3)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert uniform_over_best(torch.tensor([-torch.inf, 0.0])).tolist() == [0, 1]
    with pytest.raises(JuryError, match=r"group \[1\] has no response that counts"):
        uniform_over_best(scores, torch.tensor([[True] * 4, [False] * 4]))
