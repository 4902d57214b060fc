from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from plural_rlhf.core.group_rules import borda, copeland, leximin, margins, schulze
from reward_models.errors import JuryError
from tests.elections import (
    GOLDEN,
    ballots,
    best_of,
    borda_by_hand,
    check_many_groups,
    check_mask,
    check_symmetries,
    copeland_by_hand,
    elections,
    random_ballots,
    schulze_by_hand,
)


RULES = [borda, copeland, schulze, leximin]
FEW = settings(max_examples=25, deadline=None)
ORDINAL = [borda, copeland, schulze]
CAPITAL = {"MNCK": 42, "NCKM": 26, "CKNM": 15, "KCNM": 17}  # Memphis, Nashville, Chattanooga, Knoxville


def order(scores, candidates):
    return "".join(sorted(candidates, key=lambda c: -scores[candidates.index(c)]))


def condorcet_winners(rewards, weights):
    m = margins(rewards, weights)
    return {i for i in range(len(m)) if all(m[i, j] > 1e-6 for j in range(len(m)) if j != i)}


def test_capital_of_tennessee():
    rewards, weights = ballots(CAPITAL, "MNCK")
    m = margins(rewards, weights)
    assert m[1].tolist() == pytest.approx([0.16, 0, 0.36, 0.36])  # Nashville wins 58:42, 68:32 and 68:32
    assert torch.equal(m, -m.T)
    assert (borda(rewards, weights) * 300).tolist() == pytest.approx([126, 194, 173, 107])
    assert (copeland(rewards, weights) * 3).tolist() == pytest.approx([-3, 3, 1, -1])
    assert schulze(rewards, weights).tolist() == [-3, 0, -1, -2]


def test_example_of_schulzes_paper():
    """45 voters (https://doi.org/10.1007/s00355-010-0475-4): no Condorcet winner; strongest paths give E A C B D."""
    voters = {"ACBED": 5, "ADECB": 5, "BEDAC": 8, "CABED": 3, "CAEBD": 7, "CBADE": 2, "DCEBA": 7, "EBADC": 8}
    rewards, weights = ballots(voters)
    assert condorcet_winners(rewards, weights) == set()
    assert order(schulze(rewards, weights), "ABCDE") == "EACBD"


def test_condorcet_paradox_ties_everybody():
    rewards, weights = ballots({"ABC": 1, "BCA": 1, "CAB": 1})
    for rule in RULES:
        assert len(set(rule(rewards, weights).tolist())) == 1


@pytest.mark.parametrize("seed", list(GOLDEN))
def test_agrees_with_the_published_answers_of_pref_voting(seed):
    points, net_wins, winners, _ = GOLDEN[seed]
    rewards, weights = ballots(random_ballots(seed))
    assert (borda(rewards, weights) * 4 * sum(weights)).tolist() == pytest.approx(points)
    assert (copeland(rewards, weights) * 4).tolist() == pytest.approx(net_wins)
    assert best_of(schulze(rewards, weights)) == {"ABCDE".index(c) for c in winners}


@pytest.mark.parametrize("candidates", ["ABC", "ABCD", "ABCDE"])
def test_agrees_with_counting_ballot_by_ballot(candidates):
    contested = 0
    for seed in range(40):
        made = random_ballots(seed, candidates, kinds=3 + seed % 7)
        rewards, weights = ballots(made)
        n = len(rewards)
        assert (borda(rewards, weights) * (n - 1) * sum(weights)).tolist() == pytest.approx(borda_by_hand(made))
        assert (copeland(rewards, weights) * (n - 1)).tolist() == pytest.approx(copeland_by_hand(made))
        winners = schulze_by_hand(made)
        assert best_of(schulze(rewards, weights)) == winners
        contested += not condorcet_winners(rewards, weights)
    assert contested >= 4  # where there is a Condorcet winner, all three mostly agree


@FEW
@given(elections())
def test_borda_is_the_ranking_of_bradley_terry_on_pooled_judgements(election):
    rewards, weights = election
    share = ((1 + margins(rewards, weights)) / 2).fill_diagonal_(0.5)
    assume(bool((share > 0).all() and (share < 1).all()))  # else a score runs away to infinity

    def loss(u):
        u = torch.tensor(u, requires_grad=True)
        value = -(share * torch.nn.functional.logsigmoid(u[:, None] - u[None])).sum() + u.mean() ** 2
        value.backward()
        return value.item(), u.grad.numpy()

    fitted = minimize(loss, [0.0] * len(rewards), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    scores = borda(rewards, weights)
    for i in range(len(rewards)):
        for j in range(i):
            if abs(scores[i] - scores[j]) > 1e-6:
                assert (scores[i] > scores[j]) == (fitted[i] > fitted[j])


@FEW
@given(elections())
def test_leximin_compares_the_sorted_rewards_of_as_many_members_as_votes(election):
    rewards, weights = election
    members = [sorted(r for r, w in zip(row.tolist(), weights, strict=True) for _ in range(w)) for row in rewards]
    distinct = sorted({tuple(m) for m in members})
    assert leximin(rewards, weights).tolist() == [distinct.index(tuple(m)) for m in members]


def test_leximin_hears_the_share_that_is_badly_off_then_the_next():
    rewards = torch.tensor([[0.0, 9.0, 9.0], [0.0, 0.0, 9.0], [9.0, 0.0, 1.0], [9.0, 0.0, 2.0]])
    # At 0: 20 % with A, 50 % with B, 30 % with C and with D; D then gives the next half more than C.
    assert leximin(rewards, [0.2, 0.3, 0.5]).tolist() == [3, 0, 1, 2]
    assert leximin(rewards, [0.2, 0.3, 0.0]).tolist() == [2, 0, 1, 1]  # without the third, C and D are the same


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(election=elections(), data=st.data())
def test_anonymous_and_neutral(rule, election, data):
    rewards, weights = election
    check_symmetries(rule, rewards, weights, data)
    with_silent = torch.cat([rewards, torch.randn(len(rewards), 1, dtype=torch.float64)], dim=1)
    assert torch.allclose(rule(with_silent, [*weights, 0]), rule(rewards, weights))


@pytest.mark.parametrize("rule", ORDINAL)
@FEW
@given(election=elections(), scale=st.floats(0.1, 10))
def test_any_increasing_map_of_a_head_changes_nothing(rule, election, scale):
    rewards, weights = election
    mapped = rewards.clone()
    mapped[:, 0] = (scale * rewards[:, 0]).exp() - 5
    assert torch.equal(rule(mapped, weights), rule(rewards, weights))


def test_leximin_needs_one_scale():
    rewards = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert best_of(leximin(rewards, [1, 1])) == {1}
    assert best_of(leximin(rewards * torch.tensor([10.0, 1.0]), [1, 1])) == {0}


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(election=elections(), data=st.data())
def test_a_mask_is_leaving_out(rule, election, data):
    check_mask(rule, *election, data, left_out=-torch.inf)


@pytest.mark.parametrize("rule", RULES)
def test_many_groups_are_as_each_alone(rule):
    rewards = check_many_groups(rule, torch.equal)
    assert torch.allclose(rule(rewards[1], [1, 2, 3]), rule(rewards[1], torch.tensor([1.0, 2.0, 3.0]).expand(300, 3)))
    assert rule(rewards[:0], [1, 1, 1]).shape == (0, 300, 16)


@pytest.mark.parametrize("rule", [copeland, schulze])
@FEW
@given(elections())
def test_who_beats_all_others_is_first(rule, election):
    winners = condorcet_winners(*election)
    assume(winners)
    assert best_of(rule(*election)) == winners


@pytest.mark.parametrize(("rule", "first"), [(borda, "B"), (leximin, "B")])
def test_who_beats_all_others_may_lose(rule, first):
    rewards, weights = ballots({"ABC": 3, "BCA": 2})
    assert condorcet_winners(rewards, weights) == {0}
    assert best_of(rule(rewards, weights)) == {"ABC".index(first)}


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(election=elections(), data=st.data())
def test_rising_never_hurts(rule, election, data):
    rewards, weights = election
    before = best_of(rule(rewards, weights))
    winner = data.draw(st.sampled_from(sorted(before)))
    raised = rewards.clone()
    raised[winner, data.draw(st.integers(0, rewards.shape[1] - 1))] += data.draw(st.integers(1, 6))
    after = best_of(rule(raised, weights))
    assert winner in after
    assert after <= before


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(elections())
def test_what_everybody_finds_worse_is_not_first(rule, election):
    rewards, weights = election
    voting = rewards[:, torch.tensor(weights) > 0]
    for i in best_of(rule(rewards, weights)):
        assert not any((voting[j] > voting[i]).all() for j in range(len(rewards)))


@pytest.mark.parametrize("rule", [schulze, leximin])
@FEW
@given(election=elections(max_responses=5), data=st.data())
def test_near_duplicates_change_nothing_among_the_others(rule, election, data):
    rewards, weights = election
    n, k = rewards.shape
    original = data.draw(st.integers(0, n - 1))
    # Levels are whole numbers: nobody puts anything between the two, and clusters differ on which is better.
    shift = torch.tensor(data.draw(st.lists(st.sampled_from([-0.25, 0.0, 0.25]), min_size=k, max_size=k)))
    rewards = rewards + 0.5 * torch.arange(n)[:, None] / n  # and no response ties with the original
    added = torch.cat([rewards, rewards[original : original + 1] + shift / n])
    before, after = best_of(rule(rewards, weights)), best_of(rule(added, weights))
    assert {original if i == n else i for i in after} == before


def test_near_duplicates_of_a_beaten_response_lift_borda_and_copeland():
    # A beats B and C with three of four votes; B gets 1/4 and 1, until there are three of C for it to beat.
    rewards, weights = ballots({"ABC": 3, "BCA": 1})
    crowded = torch.cat([rewards, rewards[2:] + 0.1, rewards[2:] - 0.1])
    assert best_of(borda(rewards, weights)) == {0}
    assert best_of(borda(crowded, weights)) == {1}
    assert best_of(schulze(crowded, weights)) == {0}
    # A beats B, B beats C, C beats A: a tie of three, until B has two of C to beat.
    rewards, weights = ballots({"ABC": 1, "BCA": 1, "CAB": 1})
    crowded = torch.cat([rewards, rewards[2:] - 0.1])
    assert best_of(copeland(crowded, weights)) == {1, 2}
    assert best_of(schulze(crowded, weights)) == {0, 1, 2}


@FEW
@given(election=elections(max_responses=5))
def test_weighing_duplicates_by_their_number_gives_borda_without_them(election):
    rewards, weights = election
    n = len(rewards)
    tripled = torch.cat([rewards, rewards[:1], rewards[:1]])
    counts = torch.tensor([1 / 3] + [1.0] * (n - 1) + [1 / 3, 1 / 3])
    with_duplicates = borda(tripled, weights, alternative_weights=counts)
    assert torch.allclose(with_duplicates[1:n], borda(rewards, weights)[1:])


@pytest.mark.parametrize(
    ("rule", "others", "votes", "truth", "lie", "winners"),
    [
        (borda, {"CADB": 4, "ABDC": 4}, 3, "CABD", "CBDA", "AC"),
        (copeland, {"DBCA": 3, "ACBD": 1}, 2, "CDAB", "CABD", "DC"),
        (schulze, {"BACD": 3, "ADCB": 4}, 3, "DBCA", "BDAC", "AB"),
    ],
)
def test_truth_is_not_always_best(rule, others, votes, truth, lie, winners):
    honest = best_of(rule(*ballots({**others, truth: votes})))
    lied = best_of(rule(*ballots({**others, lie: votes})))
    assert [honest, lied] == [{"ABCD".index(w)} for w in winners]
    assert truth.index(winners[1]) < truth.index(winners[0])


def test_leximin_hears_who_exaggerates():
    rewards = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert best_of(leximin(rewards, [1, 1])) == {1}
    rewards[1, 1] = -50.0  # the second cluster, which wants the first response
    assert best_of(leximin(rewards, [1, 1])) == {0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_that_differ_by_rounding_tie(dtype):
    rewards = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    weights = torch.tensor([0.1, 0.2, 0.3], dtype=dtype)
    assert margins(rewards, weights)[0, 1] != 0
    assert copeland(rewards, weights).tolist() == [0, 0]
    assert schulze(rewards, weights).tolist() == [0, 0]
    assert leximin(rewards, weights).tolist() == [0, 0]


def test_refusals_say_why():
    rewards = torch.rand(3, 4, 2)
    with pytest.raises(JuryError, match=r"group 0 has 1 of 1 responses.*pointwise rule"):
        copeland(rewards[:, :1], [1, 1])
    mask = torch.tensor([[True] * 4, [False, True, False, False], [True] * 4])
    with pytest.raises(JuryError, match="group 1 has 1 of 4"):
        margins(rewards, [1, 1], mask)
    with pytest.raises(JuryError, match="no axis for the responses"):
        borda(rewards, torch.ones(3, 4, 2))
    with pytest.raises(JuryError, match="has 2 clusters"):
        schulze(rewards, [1, 1, 1])
    with pytest.raises(JuryError, match="shape \\(2,\\)"):
        leximin(rewards[0, 0], [1, 1])
    with pytest.raises(JuryError, match="leave response 0 no opponent"):
        borda(rewards, [1, 1], alternative_weights=torch.tensor([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(JuryError, match="numbers of at least 0"):
        borda(rewards, [1, 1], alternative_weights=torch.tensor([1.0, -1.0, 1.0, 1.0]))
