"""Following a trade-off: scores by hand, steering that must fail, and selection against exhaustive search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from plural_rlhf.evaluation.steerable.trade_offs import (
    best_of_n,
    matching_matrix,
    neighbours,
    selection_regret,
    trade_off_report,
)
from reward_models.errors import JuryError


LINE = np.array([[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])


def test_a_small_case_by_hand():
    # The second policy is worth 0.6 under its own weights; the first would have been worth 0.75 · 0.9 + 0.25 · 0.1.
    achieved = np.array([[0.9, 0.1], [0.6, 0.6], [0.5, 0.9], [0.2, 1.0]])
    report = trade_off_report(achieved, LINE, oracle=np.array([0.9, 0.8, 0.7, 1.2]))
    assert report.matching[0].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.1])
    assert report.regret.tolist() == pytest.approx([0, 0.1, 0, 0])
    assert report.mean_regret.value == pytest.approx(0.025)
    assert report.steerable_score.value == pytest.approx((0.9 + 0.6 + 0.7 + 1.0) / 4)
    assert report.oracle_regret == pytest.approx([0, 0.2, 0, 0.2])
    assert report.matched == 3 / 4
    assert [(a.spearman.value, a.violations, a.pairs) for a in report.axes] == [(pytest.approx(1), 0, 3)] * 2
    # Changes of at most 0.5, 0.3, 0.3 over 0.25, 0.25, 0.5 of the seats.
    assert report.largest_jump == pytest.approx(2)
    assert report.jump_at == (0, 1)
    assert report.median_jump == pytest.approx(1.2)


def test_steering_the_wrong_way_is_seen():
    backwards = trade_off_report(LINE[::-1], LINE)
    assert [a.spearman.value for a in backwards.axes] == pytest.approx([-1, -1])
    assert [a.violations for a in backwards.axes] == [3, 3]
    assert backwards.matched == 1 / 4  # all are worth the same at half and half


def test_a_policy_deaf_to_its_weights():
    deaf = trade_off_report(np.full((4, 2), 0.5), LINE)
    assert deaf.matched == 1  # nobody is better under any weighting: matching alone does not show steering
    assert all(math.isnan(a.spearman.value) and a.violations == 0 for a in deaf.axes)
    assert deaf.largest_jump == 0


def test_ranks_agree_with_scipy():
    rng = np.random.default_rng(0)
    weights, achieved = rng.dirichlet(np.ones(3), size=12), rng.normal(size=(12, 3)).round(1)
    report = trade_off_report(achieved, weights)
    expected = [spearmanr(weights[:, k], achieved[:, k]).statistic for k in range(3)]
    assert [a.spearman.value for a in report.axes] == pytest.approx(expected)


def test_intervals_come_from_items_and_shrink_with_them():
    rng = np.random.default_rng(1)

    def width(n_items):
        items = LINE[:, None] + rng.normal(scale=0.3, size=(4, n_items, 2))
        found = trade_off_report(items, LINE, draws=300)
        assert found.mean_regret.low == pytest.approx(0, abs=0.05)
        assert all(-1 <= a.spearman.low <= a.spearman.value <= a.spearman.high <= 1 for a in found.axes)
        return found.steerable_score.high - found.steerable_score.low

    assert width(800) < 0.5 * width(50)  # a quarter is expected
    rows = {r["metric"]: r for r in trade_off_report(LINE, LINE).to_rows(case="x")}
    assert rows["steerable_score"]["ci_low"] is None  # no items, no interval
    assert rows["steerable_score"]["case"] == "x"


def test_intervals_hold_what_they_are_around_where_steering_fails():
    """Steered backwards every rank is turned; the regret of a policy that is nearly right is nearly 0."""
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.3, size=(4, 40, 2))
    backwards = trade_off_report(LINE[::-1][:, None] + noise, LINE, draws=100)
    for axis in backwards.axes:
        assert -1 == axis.spearman.low <= axis.spearman.value <= axis.spearman.high < 0
    right = trade_off_report(LINE[:, None] + noise, LINE, draws=100)
    assert 0 <= right.mean_regret.low <= right.mean_regret.value <= right.mean_regret.high < 0.2
    assert 0.2 < backwards.mean_regret.low < backwards.mean_regret.value < backwards.mean_regret.high


def test_neighbours_on_a_line_and_on_a_grid():
    assert neighbours(LINE).tolist() == [[0, 1], [1, 2], [2, 3]]
    shuffled = LINE[[2, 0, 3, 1]]
    assert {frozenset(p) for p in neighbours(shuffled).tolist()} == {
        frozenset({1, 3}),
        frozenset({3, 0}),
        frozenset({0, 2}),
    }
    grid = np.array([[i, j, 3 - i - j] for i in range(4) for j in range(4 - i)]) / 3
    steps = np.abs(grid[:, None] - grid[None]).sum(-1) / 2
    one_seat = {(i, j) for i in range(10) for j in range(i + 1, 10) if steps[i, j] < 0.34}
    assert set(map(tuple, neighbours(grid).tolist())) == one_seat
    assert len(one_seat) == 18
    with pytest.raises(JuryError, match="weightings 0 and 2 are the same"):
        neighbours(LINE[[0, 1, 0]])


def test_a_weighting_may_mean_another_rule():
    achieved = np.array([[2.0, -1.0], [0.5, 0.5]])
    weights = [[0.8, 0.2], [0.2, 0.8]]
    assert matching_matrix(achieved, weights) == pytest.approx(np.array([[1.4, -0.4], [0.5, 0.5]]))
    worst_off = matching_matrix(achieved, weights, "soft_minimum(temperature=0)")
    assert worst_off == pytest.approx(np.array([[-1, -1], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="'borda' scores a response among others"):
        matching_matrix(achieved, weights, "borda")


@pytest.mark.parametrize(
    ("rule", "welfare"),
    [
        ("mean", None),
        ("soft_minimum(temperature=0)", lambda row, _: min(row)),
        ("power_mean(p=2, utility=exp)", lambda row, w: sum(v * math.exp(2 * r) for v, r in zip(w, row, strict=True))),
    ],
)
def test_best_of_n_has_no_regret_and_another_rule_has(rule, welfare):
    rng = np.random.default_rng(2)
    regret = blind = 0.0
    for _ in range(50):
        rewards, weights = rng.normal(size=(9, 3)), rng.dirichlet(np.ones(3))
        regret += selection_regret(rewards, best_of_n(rewards, weights, rule), weights, welfare)
        blind += selection_regret(rewards, best_of_n(rewards, [1, 0, 0], "mean"), weights, welfare)
    assert regret == 0
    assert blind > 1


def test_exact_selection_between_two_objectives_follows_every_step():
    """And gets all that could be had; between three it may give up one objective for another."""
    rng = np.random.default_rng(3)
    slates = rng.normal(size=(40, 8, 2))
    weights = np.stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)], axis=1)
    achieved = np.stack([[slate[best_of_n(slate, w, "mean")] for slate in slates] for w in weights])
    oracle = np.array([(slates @ w).max(axis=1).mean() for w in weights])
    report = trade_off_report(achieved, weights, oracle=oracle, draws=50)
    assert [(a.violations, a.pairs) for a in report.axes] == [(0, 10), (0, 10)]
    assert [a.spearman.value for a in report.axes] == pytest.approx([1, 1])
    assert report.oracle_regret == pytest.approx(np.zeros(11), abs=1e-12)
    assert report.matched == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(JuryError, match=r"achieved \(3, 2\) and weights \(4, 2\)"):
        trade_off_report(LINE[:3], LINE)
    with pytest.raises(JuryError, match="oracle has shape"):
        trade_off_report(LINE, LINE, oracle=np.zeros(3))


def test_the_table_shows_what_was_asked_and_what_was_got():
    text = trade_off_report(LINE * 2, LINE, objectives=["town", "country"]).table()
    assert "  0.75   0.25  ->    1.50   0.50   regret 0.250" in text
    assert "spearman town" in text
