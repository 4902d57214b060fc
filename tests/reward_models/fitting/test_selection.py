"""The number of clusters and the kind of membership: planted truths, the one-standard-error rule, too few raters."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.selection import (
    CANDIDATES,
    Compared,
    choose_membership,
    select_num_clusters,
)
from reward_models.judgements.records import Judgements
from reward_models.stats.verdicts import MIN_RATERS
from tests.planted import THRESHOLDS, ratings


QUICK = FitConfig(restarts=1, tol=1e-4)


def as_judgements(enc):
    """A rating table as users have it."""
    text = enc.alternatives[:, 0]
    frame = pd.DataFrame({"rater_id": [enc.rater_ids[u] for u in enc.rater], "prompt": "p"})
    frame["response"] = [enc.texts[t].response for t in text]
    frame["rating"] = np.asarray(enc.levels)[enc.label]
    return Judgements.from_frame(frame, kind="rating", levels=enc.levels)


def answers(n_raters, n_items, n_clusters, *, spread=1.5, seed=0):
    """Choices among three options by raters in planted clusters of equal size."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(n_clusters, n_items, 3))
    cluster = rng.integers(n_clusters, size=n_raters)
    rater, item = np.divmod(np.arange(n_raters * n_items), n_items)
    frame = pd.DataFrame({"rater_id": [f"r{u}" for u in rater], "item_id": [f"q{i}" for i in item]})
    frame["prompt"] = frame["item_id"]
    frame["options"] = [[f"{i}{a}" for a in "abc"] for i in item]
    frame["choice"] = (logits[cluster[rater], item] + rng.gumbel(size=(len(rater), 3))).argmax(1)
    return Judgements.from_frame(frame, kind="choice")


@pytest.fixture(scope="module")
def lenient():
    """60 raters of one taste who differ in leniency only.

    One such table in a dozen or two is taken for two clusters: that is what one standard error promises.
    """
    rng = np.random.default_rng(100)
    return ratings(np.tile(rng.normal(size=16), (60, 1)), intercept=1.5 * rng.normal(size=60))


class TestNumberOfClusters:
    @pytest.mark.slow
    def test_planted_two_and_planted_one(self):
        selection = select_num_clusters(answers(300, 8, 2), (1, 2, 3, 4))
        assert selection.num_clusters == 2
        assert [row["num_clusters"] for row in selection.table] == [1, 2, 3, 4]
        assert selection.table[1]["info"] > 0.1
        alone = select_num_clusters(answers(300, 8, 1), (1, 2, 3))
        assert alone.num_clusters == 1
        assert "no sign of clusters" in alone.reason

    @pytest.mark.slow
    def test_leniency_is_no_cluster(self, lenient):
        judgements = as_judgements(lenient)
        assert select_num_clusters(judgements, (1, 2), QUICK).num_clusters == 1
        # The rival, without a leniency term, takes it for two tastes.
        rival = select_num_clusters(judgements, (1, 2), dataclasses.replace(QUICK, nuisance=False))
        assert rival.num_clusters > 1

    @pytest.mark.slow
    def test_the_loss_is_that_of_raters_placed_by_their_other_labels(self, lenient):
        # The true model, leniency known, is the least loss anyone can have; a guess from the table is far worse.
        (row,) = select_num_clusters(as_judgements(lenient), (1,), QUICK).table
        share = np.bincount(lenient.label) / len(lenient.label)
        marginal = -(share * np.log(share)).sum()
        rng = np.random.default_rng(100)
        reward, leniency = rng.normal(size=16), 1.5 * rng.normal(size=60)
        eta = leniency[lenient.rater] + reward[lenient.alternatives[:, 0]]
        below = 1 / (1 + np.exp(-(np.array([-np.inf, *THRESHOLDS, np.inf]) - eta[:, None])))
        at_best = -np.log(np.diff(below)[np.arange(len(eta)), lenient.label]).mean()
        assert at_best - 0.01 < row["nll"] < at_best + 0.1 < marginal
        assert (row["info"], row["behind"], row["behind_se"]) == (0, 0, 0)

    @pytest.mark.slow
    def test_a_dozen_raters_or_one_cluster(self):
        few = select_num_clusters(answers(MIN_RATERS - 1, 10, 2), (1, 2, 3))
        assert (few.num_clusters, few.table) == (1, [])
        assert "11 raters are too few" in few.reason
        enough = select_num_clusters(answers(MIN_RATERS, 10, 1), (1, 2))
        assert len(enough.table) == 2

    def test_refusals(self):
        judgements = answers(16, 4, 1)
        with pytest.raises(JuryError, match=r"num_clusters=13 is more than the 12 raters"):
            select_num_clusters(judgements, (1, 13))
        with pytest.raises(JuryError, match=r"heldout=1.5 of 16 raters"):
            select_num_clusters(judgements, (1, 2), heldout=1.5)
        with pytest.raises(JuryError, match=r"candidates=\[\]"):
            select_num_clusters(judgements, ())
        frame = pd.DataFrame({"prompt": ["q"], "options": [["x", "y"]], "probs": [[0.8, 0.2]], "n": [10]})
        with pytest.raises(JuryError, match="kind='soft': a table of answer shares has no raters to hold out"):
            select_num_clusters(Judgements.from_frame(frame, kind="soft"), (1, 2))

    def test_texts_that_only_one_side_judged(self):
        rng = np.random.default_rng(0)
        alone = pd.DataFrame({"rater_id": np.repeat(np.arange(20), 3).astype(str), "prompt": "p"})
        alone["response"] = np.arange(60).astype(str)
        alone["rating"] = rng.integers(1, 4, size=60)
        with pytest.warns(UserWarning, match="one judgement"):
            judgements = Judgements.from_frame(alone, kind="rating")
        with pytest.raises(JuryError, match="no text was judged by both a training and a held-out rater"):
            select_num_clusters(judgements, (1, 2), QUICK)


def test_the_one_standard_error_rule_by_hand():
    # Four held-out raters of 10 judgements: K=2 is .2 behind K=3 for one of them only, K=1 for all of them.
    losses = np.array([[14.0, 12.0, 10.0], [14.0, 10.0, 10.0], [14.0, 10.0, 10.0], [14.0, 10.0, 10.0]])
    weight = np.full(4, 10.0)
    draws = np.random.default_rng(0).multinomial(4, np.full(4, 0.25), size=4000)
    candidates = [("mixture", k) for k in (1, 2, 3)]
    compared = Compared(candidates, losses, weight, (draws @ losses) / (draws @ weight)[:, None], 40.0)
    one, two, three = compared.rows(candidates)
    assert [row["nll"] for row in (one, two, three)] == pytest.approx([1.4, 1.05, 1.0])
    assert [row["info"] for row in (one, two, three)] == pytest.approx([0, 0.35, 0.4])
    assert (three["behind"], three["behind_se"]) == (0, 0)
    # The bootstrap of a mean of (.2, 0, 0, 0) has a standard error of .2 sqrt(3/16) / 2.
    assert two["behind"] == pytest.approx(0.05)
    assert two["behind_se"] == pytest.approx(0.2 * np.sqrt(3 / 16) / 2, rel=0.05)
    assert (one["behind"], one["behind_se"]) == (pytest.approx(0.4), pytest.approx(0, abs=1e-12))
    assert two["behind"] > two["behind_se"]  # not simple enough: K=3 it is


class TestMembership:
    @pytest.mark.slow
    def test_leniency_and_shuffled_raters_are_one_cluster(self, lenient):
        choice = choose_membership(lenient, [("mixture", 2), ("simplex", 2), ("factor", 1)], QUICK)
        assert (choice.membership, choice.num_clusters) == ("mixture", 1)
        assert "no sign of taste" in choice.reason
        assert [(row["membership"], row["num_clusters"]) for row in choice.table] == [
            ("mixture", 1),
            ("mixture", 2),
            ("simplex", 2),
            ("factor", 1),
        ]

    @pytest.mark.slow
    def test_tastes_are_found_and_gone_when_raters_are_shuffled(self):
        rng = np.random.default_rng(1)
        cluster, taste = rng.integers(2, size=48), 1.5 * rng.normal(size=(16, 2))
        enc = ratings(taste.T[cluster])
        candidates = [("mixture", 2), ("factor", 1)]
        found = choose_membership(enc, candidates, QUICK)
        assert (found.membership, found.num_clusters) == ("mixture", 2)
        assert found.table[0]["behind"] > 3 * found.table[0]["behind_se"]
        # Shuffle the labels of a text among its raters.
        label = enc.label.copy()
        for text in range(16):
            rows = np.flatnonzero(enc.alternatives[:, 0] == text)
            label[rows] = label[rng.permutation(rows)]
        shuffled = choose_membership(dataclasses.replace(enc, label=label), candidates, QUICK)
        assert (shuffled.membership, shuffled.num_clusters) == ("mixture", 1)

    @pytest.mark.slow
    def test_a_planted_line_of_tastes_is_a_factor(self):
        rng = np.random.default_rng(2)
        rewards = rng.normal(size=24) + rng.normal(size=(60, 1)) * rng.normal(size=24)
        choice = choose_membership(ratings(rewards), [("mixture", 2), ("factor", 1)], QUICK)
        assert (choice.membership, choice.num_clusters) == ("factor", 1)
        assert choice.table[2]["nll"] < choice.table[1]["nll"] < choice.table[0]["nll"]
        assert "factor of 1 has the lowest held-out loss" in choice.reason

    @pytest.mark.slow
    def test_candidates_beyond_the_raters_are_left_out(self):
        rng = np.random.default_rng(3)
        enc = ratings(np.tile(rng.normal(size=8), (16, 1)))
        choice = choose_membership(enc, CANDIDATES, QUICK, heldout=0.5)
        # Eight raters to train on: at most two per four of them.
        compared = [(row["membership"], row["num_clusters"]) for row in choice.table]
        assert compared == [c for c in CANDIDATES if c[1] <= 2]
        assert compared[0] == ("mixture", 1)

        few = choose_membership(ratings(np.zeros((11, 8))), CANDIDATES, QUICK)
        assert (few.membership, few.num_clusters, few.table) == ("mixture", 1, [])
        assert "too few" in few.reason
