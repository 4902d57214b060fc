"""Verdicts of juries: by hand for three responses and three clusters, and by searching the whole simplex."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from plural_rlhf.core.rules import Rule
from plural_rlhf.evaluation.decisions.flips import flipping_weights, nearest_flip, pivotal_clusters
from plural_rlhf.evaluation.decisions.verdicts import flipped, seat_intervals, verdict
from plural_rlhf.weights.jury import Jury, sample_seats
from reward_models.errors import JuryError


NAMES = ["progressive", "rural", "urban"]
# Everybody's favourite is another response; the second is nobody's worst.
REWARDS = np.array([[3.0, 0.0, 0.5], [1.0, 2.0, 1.0], [0.0, 0.5, 3.0]])
SIMPLEX = np.array([(a, b, 60 - a - b) for a, b in itertools.product(range(61), repeat=2) if a + b <= 60]) / 60


def test_a_verdict_by_hand():
    # Equal weights: 3.5, 4, 3.5 (thirds).
    assert verdict(REWARDS, [1, 1, 1]).tolist() == [0, 1, 0]
    assert verdict(REWARDS, Jury({"progressive": 7, "urban": 5}), cluster_names=NAMES).tolist() == [1, 0, 0]
    assert verdict(REWARDS, [1, 0, 1], "power_mean(p=-inf, utility=exp)").tolist() == [0, 1, 0]
    level = REWARDS.copy()
    level[0, 2] = 0.0  # with nobody rural the first and the last are then equals
    assert verdict(level, [1, 0, 1]).tolist() == [0.5, 0, 0.5]


def test_one_response_wins_whatever_the_rule():
    assert verdict([[1.0, 2.0]], [1, 1], "borda").tolist() == [1.0]


def test_two_juries_disagree_where_their_winners_differ():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(150), 4)
    rewards = rng.normal(size=(600, 3))
    order = rng.permutation(600)
    a, b = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    result = flipped(rewards[order], group[order], a, b)
    winners = [(rewards @ w).reshape(150, 4).argmax(axis=1) for w in (a, b)]
    differ = winners[0] != winners[1]
    np.testing.assert_array_equal(result.changed, differ)
    assert result.prompts.tolist() == list(range(150))
    assert result.value == pytest.approx(differ.mean())
    spread = 1.96 * math.sqrt(result.value * (1 - result.value) / 150)  # the binomial's own interval
    assert result.low == pytest.approx(result.value - spread, abs=0.015)
    assert result.high == pytest.approx(result.value + spread, abs=0.015)
    same = flipped(rewards, group, a, [5, 3, 2])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_an_equal_that_drops_out_is_half_a_flip():
    rewards = [[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]
    result = flipped(rewards, ["x", "x", "alone"], [1, 1], [2, 1])
    assert result.changed.tolist() == [0.5]
    assert result.prompts.tolist() == ["x"]
    with pytest.raises(JuryError, match="none of 3 prompts has two responses"):
        flipped(rewards, ["x", "y", "z"], [1, 1], [2, 1])


def test_drawn_juries_decide_by_the_binomial():
    # Of two opposed clusters the one with more seats wins; 5 seats at 60 %: P(at least 3).
    p = sum(math.comb(5, n) * 0.6**n * 0.4 ** (5 - n) for n in (3, 4, 5))
    result = seat_intervals([[1.0, 0.0], [0.0, 1.0]], ["q", "q"], [3, 2], n_seats=5, draws=20_000, seed=2)
    assert result.win_probability == pytest.approx([p, 1 - p], abs=0.01)
    assert result.flipped == pytest.approx(1 - p, abs=0.01)
    assert result.changed == pytest.approx([1 - p], abs=0.01)
    assert (result.low, result.high) == (0, 1)
    assert result.winner.tolist() == [0]
    # The winner's score is the first cluster's share of seats: 1 to 5 of 5 but for tails of 1 % and 7.8 %.
    assert (result.score_low[0], result.score_high[0]) == pytest.approx((0.2, 1.0))


def test_more_seats_flip_less_and_agreement_never():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 3)
    rewards = rng.normal(size=(120, 3))
    few, many = (seat_intervals(rewards, group, [5, 3, 2], n_seats=n, draws=100) for n in (4, 400))
    assert many.flipped < 0.3 * few.flipped
    assert few.low <= few.flipped <= few.high
    assert (few.score_high - few.score_low > many.score_high - many.score_low).all()
    np.testing.assert_allclose(np.bincount(group, few.win_probability), 1)
    agreed = seat_intervals(np.repeat(rewards[:, :1], 3, axis=1), group, [5, 3, 2])
    assert (agreed.flipped, agreed.high) == (0, 0)
    np.testing.assert_array_equal(
        agreed.winner, [rows[rewards[rows, 0].argmax()] for rows in np.split(np.arange(120), 40)]
    )


def test_the_same_seed_draws_the_same_juries_as_the_jury_itself():
    jury = Jury({"progressive": 5, "rural": 4, "urban": 3})
    seats = jury.sample(n_seats=7, draws=50, seed=4, cluster_names=NAMES)
    wins = np.mean([verdict(REWARDS, row) for row in seats], axis=0)
    result = seat_intervals(REWARDS, [0, 0, 0], jury, n_seats=7, draws=50, seed=4, cluster_names=NAMES)
    np.testing.assert_allclose(result.win_probability, wins)


@pytest.mark.parametrize("rule", ["mean", "min", "borda", "leximin"])
def test_ends_of_the_winners_score_are_those_of_its_scores_under_each_drawn_jury(rule):
    """Of three responses to one prompt, and of one alone, which no rule within a group can score."""
    rewards, group = np.vstack([REWARDS, [[0.5, -1.0, 2.0]]]), ["x", "x", "x", "y"]
    result = seat_intervals(rewards, group, [5, 4, 3], rule, n_seats=7, draws=60, seed=4, level=0.8)
    seats = sample_seats(np.array([5, 4, 3]) / 12, 7, 60, 4) / 7
    parsed = Rule.parse(rule)
    for prompt, rows in enumerate(([0, 1, 2], [3])):
        if len(rows) == 1 and parsed.within_group:
            assert np.isnan([result.score_low[prompt], result.score_high[prompt]]).all()
            continue
        scores = [
            float(parsed.scores(torch.from_numpy(rewards[rows])[None], torch.from_numpy(row)[None])[0, position])
            for row in seats
            for position in [rows.index(result.winner[prompt])]
        ]
        expected = np.quantile(scores, [0.1, 0.9])
        np.testing.assert_allclose([result.score_low[prompt], result.score_high[prompt]], expected, atol=1e-12)


def test_who_is_pivotal():
    # The second leads by 4 of 4; without the rural 3.5, 2, 3; without the others .5, 5, 4 and 3, 5, 1.
    assert pivotal_clusters(REWARDS, [1, 2, 1], cluster_names=NAMES) == ["rural"]
    assert pivotal_clusters(REWARDS, [1, 0, 0]) == ["0"]
    assert pivotal_clusters(np.ones((2, 3)), [1, 1, 1]) == []
    # Each of two opposed equals keeps the verdict even.
    assert pivotal_clusters([[1.0, 0.0], [0.0, 1.0]], [1, 1]) == ["0", "1"]


def test_flipping_weights_by_hand():
    flips = {(f.cluster, f.direction): f for f in flipping_weights(REWARDS, [1, 1, 1], cluster_names=NAMES)}
    # Progressive share t, the rest halved: 3t + (1 - t) / 4 against t + 3 (1 - t) / 2 are level at t = 5/13.
    more = flips["progressive", "more"]
    assert (more.share_needed, more.winner, more.share) == (pytest.approx(5 / 13), 0, pytest.approx(1 / 3))
    # With few of them the last wins: t + 3 (1 - t) / 2 against 3.5 (1 - t) / 2, level at t = 1/5.
    less = flips["progressive", "less"]
    assert (less.share_needed, less.winner) == (pytest.approx(1 / 5), 2)
    # The rural lose: 3.5 (1 - t) / 2 against (1 - t) + 2 t, level at t = 3/11.
    rural = flips["rural", "less"]
    assert (rural.share_needed, rural.winner) == (pytest.approx(3 / 11), 0)
    assert (flips["rural", "more"].share_needed, flips["rural", "more"].winner) == (None, None)


@pytest.mark.parametrize("rule", ["mean", "soft_minimum(temperature=0.5)", "power_mean(p=-2)"])
def test_flipping_weights_by_trying_all_shares(rule):
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(6):
        rewards, w = rng.normal(size=(3, 3)), rng.dirichlet([2, 2, 2])
        present = verdict(rewards, w, rule).argmax()
        for flip in flipping_weights(rewards, w, rule):
            k = int(flip.cluster)
            end = 1.0 if flip.direction == "more" else 0.0
            shares = np.linspace(w[k], end, 2001)
            juries = np.outer((1 - shares) / (1 - w[k]), w)
            juries[:, k] = shares
            scores = Rule.parse(rule).scores(torch.from_numpy(rewards).expand(2001, 3, 3), torch.from_numpy(juries))
            tried = scores.argmax(dim=-1).numpy() != present
            assert tried.any() == (flip.share_needed is not None)
            if flip.share_needed is not None:
                found += 1
                first = shares[int(np.argmax(tried))]
                assert 0 <= abs(first - w[k]) - abs(flip.share_needed - w[k]) + 1e-9 <= abs(end - w[k]) / 2000 + 2e-9
    assert found > 3


def test_the_first_of_several_turns_is_found():
    # A response that one cluster likes more pays for the disagreement, and then no longer: it wins, loses, wins.
    rewards, rule = np.array([[0.5, 1.5], [0.4, 0.4]]), "variance_penalised(penalty=3)"
    shares = np.linspace(0, 1, 501)
    ahead = np.array([verdict(rewards, [1 - t, t], rule).argmax() for t in shares])
    assert (ahead[0], ahead[-1], ahead.max()) == (0, 0, 1)  # halving from both ends would say never
    first = shares[int(np.argmax(ahead == 1))]
    more = flipping_weights(rewards, [1, 0], rule)[2]
    assert (more.cluster, more.direction, more.winner) == ("1", "more", 1)
    assert first - 1 / 500 <= more.share_needed <= first
    back = flipping_weights(rewards, [1 - more.share_needed - 0.05, more.share_needed + 0.05], rule)
    assert [f.winner for f in back] == [0, 0, 0, 0]


def test_a_cluster_that_sits_alone_has_nobody_to_give_to():
    alone = [f for f in flipping_weights(REWARDS, [1, 0, 0]) if f.cluster == "0"]
    assert [f.share_needed for f in alone] == [None, None]


def test_the_nearest_flip_by_hand():
    # Equal weights lead by 1/6 over either rival; moving from rural to progressive gains 2 + 2 a unit: 1/24.
    nearest = nearest_flip(REWARDS, [1, 1, 1], cluster_names=NAMES)
    assert nearest.total_variation == pytest.approx(1 / 24)
    moved = {0: "progressive", 2: "urban"}[nearest.winner]
    assert nearest.weights["rural"] == pytest.approx(1 / 3 - 1 / 24)
    assert nearest.weights[moved] == pytest.approx(1 / 3 + 1 / 24)


def test_the_nearest_flip_by_searching_the_simplex():
    rng = np.random.default_rng(5)
    for _ in range(30):
        rewards, w = rng.normal(size=(4, 3)), SIMPLEX[rng.integers(len(SIMPLEX))]
        winner = (rewards @ w).argmax()
        distance = np.abs(SIMPLEX - w).sum(axis=1) / 2
        other = (SIMPLEX @ rewards.T).argmax(axis=1) != winner
        nearest = nearest_flip(rewards, w)
        if not other.any():
            assert (
                nearest is None
                or nearest.total_variation > 1 - 2 / 60
                or distance.max() < nearest.total_variation + 2 / 60
            )
            continue
        assert nearest.total_variation <= distance[other].min() + 1e-9
        assert nearest.total_variation >= distance[other].min() - 2 / 60
        v = np.array(list(nearest.weights.values()))
        assert v @ rewards[nearest.winner] == pytest.approx((rewards @ v).max())
        assert v @ rewards[winner] == pytest.approx((rewards @ v).max())


def test_a_response_that_all_prefer_cannot_be_flipped():
    rewards = np.array([[2.0, 2.0], [1.0, 1.9]])
    assert nearest_flip(rewards, [1, 1]) is None
    assert [f.winner for f in flipping_weights(rewards, [1, 1])] == [None] * 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(JuryError, match="'rurall'"):
        verdict(REWARDS, {"rurall": 1}, cluster_names=NAMES)
    with pytest.raises(JuryError, match="3 columns, but there are 2 clusters"):
        verdict(REWARDS, [1, 1], cluster_names=["a", "b"])
    with pytest.raises(JuryError, match=r"shape \(3,\)"):
        verdict([1.0, 2.0, 3.0], [1, 1, 1])
    with pytest.raises(JuryError, match=r"group \(2,\)"):
        flipped(REWARDS, [0, 0], [1, 1, 1], [1, 1, 2])
    with pytest.raises(JuryError, match="nan"):
        nearest_flip([[float("nan"), 1.0], [0.0, 1.0]], [1, 1])
    with pytest.raises(JuryError, match="n_seats is 0"):
        seat_intervals(REWARDS, [0, 0, 0], [1, 1, 1], n_seats=0)
    with pytest.raises(ValueError, match="'meen'"):
        verdict(REWARDS, [1, 1, 1], "meen")


def test_a_random_dictator_gives_each_favourite_the_weight_of_its_friends():
    # Each response is one cluster's favourite.
    assert verdict(REWARDS, [0.5, 0.3, 0.2], "random_dictator") == pytest.approx([0.5, 0.3, 0.2])
    moved = flipped(REWARDS, [0, 0, 0], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4], "random_dictator")
    assert moved.changed == pytest.approx([0.3])  # total variation of the weights
    flips = {(f.cluster, f.direction): f for f in flipping_weights(REWARDS, [0.5, 0.3, 0.2], "random_dictator")}
    # The first keeps 5/8 of what the last leaves: level at t = 5/13.
    assert (flips["2", "more"].share_needed, flips["2", "more"].winner) == (pytest.approx(5 / 13), 2)


def test_a_cycle_of_three_equals_is_drawn_by_lot():
    cycle = np.array([[2.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]])
    assert verdict(cycle, [1, 1, 1], "maximal_lottery") == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert verdict(cycle, [3, 1, 1], "maximal_lottery") == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize("expected", [[0.4, 0.6], [0.6, 0.4]])
def test_the_winner_is_that_of_the_expected_jury_whoever_is_drawn(expected):
    # Juries of one seat: each drawn jury is one cluster, and each cluster wants another response.
    seats = seat_intervals([[1.0, 0.0], [0.0, 1.0]], ["q", "q"], expected, n_seats=1, draws=50)
    assert seats.winner.tolist() == [int(np.argmax(expected))]
    assert 0 < seats.win_probability.min() < 0.5
