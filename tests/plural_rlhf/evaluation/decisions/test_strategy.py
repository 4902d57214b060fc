"""Exaggeration pays under rules that weigh strength of feeling, and does nothing under those that read orders."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.decisions.strategy import exaggeration_report, misreported
from reward_models.errors import JuryError


ORDINAL = ["borda", "copeland", "schulze", "maximal_lottery", "random_dictator"]


def prompts(n=60, size=5, clusters=3, seed=0):
    rewards = np.random.default_rng(seed).normal(size=(n * size, clusters))
    return rewards, np.repeat(np.arange(n), size)


def test_a_verdict_by_hand():
    # Honest means: 0.5, 0.4. Doubled about its mean of 0.4 the second cluster tells 0 and 0.8 instead of 0.2 and 0.6.
    rewards = np.array([[0.8, 0.2], [0.2, 0.6]])
    (found,) = exaggeration_report(rewards, np.zeros(2), [0.5, 0.5], ["mean"], factors=[2], cluster=1)
    assert found.moved == 1  # told means: 0.4, 0.5
    assert found.gain.value == pytest.approx(0.4)
    assert found.others.value == pytest.approx(-0.6)
    assert np.isnan(found.gain.low)  # one prompt has no spread


@pytest.mark.parametrize("rule", ORDINAL)
def test_rules_that_read_orders_do_not_move_at_all(rule):
    rewards, group = prompts()
    for found in exaggeration_report(rewards, group, [0.5, 0.3, 0.2], [rule]):
        assert (found.moved, found.gain.value, found.others.value) == (0, 0, 0)
        assert (found.gain.low, found.gain.high) == (0, 0)


def test_under_the_mean_whoever_shouts_louder_gains_more_and_the_others_pay():
    rewards, group = prompts(n=200)
    two, five, twenty = exaggeration_report(rewards, group, [0.5, 0.3, 0.2], ["mean"], cluster=2)
    assert 0 < two.moved < five.moved < twenty.moved
    assert two.gain.low > 0
    assert two.gain.value < five.gain.value < twenty.gain.value
    assert twenty.others.high < 0
    assert twenty.gain.n_items == 200


def test_a_loud_enough_cluster_becomes_the_dictator():
    rewards, group = prompts()
    (found,) = exaggeration_report(rewards, group, [0.5, 0.3, 0.2], ["mean"], factors=[1e6], cluster=2)
    grouped = rewards.reshape(60, 5, 3)
    honest = (grouped @ [0.5, 0.3, 0.2]).argmax(1)
    best = grouped[..., 2].max(1) - grouped[np.arange(60), honest, 2]
    assert found.gain.value == pytest.approx(best.mean())
    lost = grouped[np.arange(60), grouped[..., 2].argmax(1)] - grouped[np.arange(60), honest]
    assert found.others.value == pytest.approx((lost[:, :2] @ [5 / 8, 3 / 8]).mean())


def test_extremes_move_borda_but_not_a_random_dictator():
    rewards, group = prompts(n=200)
    found = {
        e.rule: e
        for e in exaggeration_report(rewards, group, [0.4, 0.3, 0.3], ["borda", "random_dictator"], ["extremes"], 0)
    }
    assert found["borda"].moved > 0.1  # though it hardly pays: whoever calls the rest equal has no say among them
    assert found["random_dictator"].moved == 0


def test_asking_for_the_opposite_harms_oneself():
    rewards, group = prompts(n=200)
    (found,) = exaggeration_report(rewards, group, [0.4, 0.3, 0.3], ["borda"], [-1], 0)
    assert found.gain.high < 0


def test_every_cluster_in_turn_and_rows():
    rewards, group = prompts(n=4)
    found = exaggeration_report(rewards, group, [1, 1, 1], ["mean", "borda"], [2, "extremes"])
    assert [(e.rule, e.cluster, e.misreport) for e in found][:4] == [
        ("mean", 0, 2),
        ("mean", 0, "extremes"),
        ("mean", 1, 2),
        ("mean", 1, "extremes"),
    ]
    assert len(found) == 2 * 3 * 2
    rows = found[1].to_rows(case="x")
    assert [r["metric"] for r in rows] == ["moved", "gain", "others"]
    assert all(r["misreport"] == "extremes" and r["n"] == 4 for r in rows)


def test_what_is_told():
    rewards = np.array([[1.0, 0.0], [3.0, 1.0], [0.0, 4.0], [2.0, 4.5]])
    group = np.array(["x", "x", "y", "y"])
    assert misreported(rewards, group, 0, 3)[:, 0].tolist() == [-1, 5, -2, 4]
    assert misreported(rewards, group, 0, -1)[:, 0].tolist() == [3, 1, 2, 0]
    assert misreported(rewards, group, 1, "extremes")[:, 1].tolist() == [0, 4.5, 0, 4.5]
    assert misreported(rewards, group, 0, 3)[:, 1].tolist() == rewards[:, 1].tolist()


def test_wrong_questions_are_refused():
    rewards, group = prompts(n=2)
    with pytest.raises(JuryError, match="cluster=3, but the rewards have 3 columns"):
        exaggeration_report(rewards, group, [1, 1, 1], ["mean"], cluster=3)
    with pytest.raises(ValueError, match="misreport: got 'louder'"):
        misreported(rewards, group, 0, "louder")
