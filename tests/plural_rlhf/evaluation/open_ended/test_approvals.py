"""Approvals, shares, wins and gains, against counts by hand and a fitted jury of votes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from plural_rlhf.evaluation import (
    answer_shares,
    bridging,
    degeneracy,
    layout,
    match_clusters,
    perplexity,
    reference_log_z,
    share_of_gain_kept,
    vote_approval,
    win_rate,
)
from plural_rlhf.evaluation.open_ended.drift import word_count
from reward_models.raters.rater_model import KindTerms


def scorer_of(thresholds, sd, scale=0.0, temperature=None):
    terms = KindTerms({"thresholds": np.array(thresholds), "log_scale_mean": np.array([scale])}, {"intercept": sd})
    return SimpleNamespace(
        state=SimpleNamespace(rater_model=SimpleNamespace(terms={"rating": terms}), temperature=temperature)
    )


def test_approval_of_votes_integrates_over_leniency():
    approval = vote_approval(scorer_of([-2.0, 0.5], 1.4, scale=math.log(2.0), temperature=4.0))
    for reward in (-1.0, 0.3, 5.0):  # agree is the level above the upper of two thresholds
        expected, _ = quad(lambda a, r=reward: norm.pdf(a, scale=1.4) / (1 + np.exp(-(r * 0.5 - 0.5 + a))), -12, 12)
        assert approval(np.array([reward]))[0] == pytest.approx(expected, abs=2e-3)


def test_approval_above_the_middle_of_a_scale():
    assert vote_approval(scorer_of([-1.0, 0.0, 1.0, 2.0], 0.0))(np.array([1.0]))[0] == pytest.approx(
        0.5
    )  # 4 or 5 of 5
    assert vote_approval(scorer_of([-1.0, 0.0, 1.0], 0.0))(np.array([0.0]))[0] == pytest.approx(0.5)  # 3 or 4 of 4
    assert vote_approval(SimpleNamespace()) is None
    pairs = SimpleNamespace(state=SimpleNamespace(rater_model=SimpleNamespace(terms={"preference": KindTerms()})))
    assert vote_approval(pairs) is None


def test_shares_of_samples_of_the_mixture_are_the_weights():
    rng = np.random.default_rng(0)
    rewards, weights, beta = rng.normal(size=(4000, 2)) * [1.0, 0.5], np.array([0.8, 0.2]), 0.7
    log_z = reference_log_z(rewards, beta)
    density = (weights * np.exp(rewards / beta - log_z)).sum(axis=1)
    shares = answer_shares(rewards, weights, log_z, beta)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.average(shares, axis=0, weights=density) == pytest.approx(weights)
    moved = rewards + np.array([5.0, -3.0])
    shifted = answer_shares(moved, weights, reference_log_z(moved, beta), beta)
    assert np.allclose(shares, shifted)  # a constant that a cluster adds changes nothing


def test_win_rates_of_both_sides_add_up_to_one():
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 4, size=(9, 3)).astype(float), rng.integers(0, 4, size=(5, 3)).astype(float)
    wins, ties = win_rate(ours, theirs)
    losses, same = win_rate(theirs, ours)
    assert np.allclose(wins + losses, 1)
    assert np.allclose(ties, same)
    assert (ties > 0).all()
    assert np.allclose(win_rate(ours, theirs, tie_margin=9.0)[1], 1)
    assert np.allclose(win_rate(ours, ours)[0], 0.5)


def test_clusters_of_two_juries_are_matched_by_what_they_want():
    rng = np.random.default_rng(2)
    rewards = rng.normal(size=(60, 3))
    others = np.column_stack([rewards[:, 2], rewards[:, 0]]) * 3 + rng.normal(size=(60, 2)) * 0.2 + 7
    assert match_clusters(rewards, others) == [1, None, 0]
    assert match_clusters(rewards[:, :1], -rewards[:, :1]) == [None]
    assert match_clusters(np.zeros((1, 2)), np.zeros((1, 2))) == [None, None]


def test_bridging_needs_every_cluster_and_gains_a_gain():
    assert bridging(np.array([[0.9, 0.5], [0.6, 0.51]])).tolist() == [False, True]
    assert share_of_gain_kept(0.5, -0.1) == pytest.approx(-0.2)
    assert math.isnan(share_of_gain_kept(0.0, 0.1))


@pytest.mark.parametrize(
    ("text", "ended", "kind"),
    [
        ("", None, "empty"),
        ("\u200b \n", True, "empty"),
        ("I think so. I think so. I think so. I think so.", True, "repetitive"),
        ("ha ha ha ha ha ha ha", False, "repetitive"),
        ("Parks are good because", False, "truncated"),
        ("Parks are good because", None, None),
        ("No.", True, None),
        ("公园很好", True, None),
    ],
)
def test_degenerate_texts(text, ended, kind):
    assert degeneracy(text, ended) == kind


def test_layout_and_length():
    assert layout("1. parks\n2. roads") == {"several_lines": True, "markdown": True}
    assert layout("It is 3.5 - no more\n") == {"several_lines": False, "markdown": False}
    assert layout("**Parks**")["markdown"]
    assert word_count("") == 0
    assert perplexity([-2.0, -4.0], [2, 1]) == pytest.approx(math.exp(2.0))
    assert math.isnan(perplexity([], []))
