"""Too few raters or items are undecided everywhere, by one rule; an interval around 0 is no evidence of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models import (
    FitConfig,
    choose_membership,
    headroom,
    planted_judgements,
    predictive_information,
    select_num_clusters,
)
from reward_models.analysis.headroom import _verdict
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.stats.answers import Interval
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.verdicts import MIN_ITEMS, MIN_RATERS, outcome, rules_out_gain


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
QUICK = FitConfig(restarts=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["choice", "rating"])
@pytest.mark.parametrize("seed", range(4))
def test_three_raters_are_undecided_in_every_verdict(kind, seed):
    few = planted_judgements(kind, num_raters=3, num_items=12, num_clusters=2, seed=seed).judgements
    ladder = headroom(few, max_clusters=2)
    assert ladder.verdict.startswith("undecided: 3 raters are too few")
    assert all(np.isnan([rung["low"], rung["high"]]).all() for rung in ladder.rungs)
    selection = select_num_clusters(few, (1, 2, 3))
    assert selection.num_clusters == 1
    assert selection.reason.startswith("undecided: 3 raters are too few")
    choice = choose_membership(few)
    assert (choice.membership, choice.num_clusters) == ("mixture", 1)
    assert choice.reason.startswith("K=1 is the only candidate") or "undecided" in choice.reason
    report = predictive_information(few, 1, seeds=1)
    assert np.isnan(report.clusters["low"])


@pytest.mark.parametrize(("n_raters", "n_items"), [(MIN_RATERS - 1, 40), (40, MIN_ITEMS - 1)])
def test_no_interval_and_no_decision_below_the_stated_sizes(n_raters, n_items):
    # Every difference is the same, so that any resample excludes 0.
    judgements = planted_judgements("rating", num_raters=n_raters, num_items=n_items).judgements
    enc = judgements.encode()
    gains = np.full((len(enc), 1), 0.3)
    (interval,) = two_way_intervals(gains, enc.rater, enc.item)
    assert interval.value == pytest.approx(0.3)
    assert np.isnan([interval.low, interval.high]).all()
    (estimate,) = Bootstrap(draws=10).estimate(lambda draw: float(draw.weight @ gains[:, 0] / draw.weight.sum()), enc)
    assert estimate[0] == pytest.approx(0.3)
    assert np.isnan(estimate[1:]).all()

    class Guess:
        def __init__(self, right):
            self.right = right

        def log_probs(self, enc, features=None):
            p = np.full((len(enc), 3), (1 - self.right) / 2)
            p[np.arange(len(enc)), enc.label] = self.right
            return np.log(p)

        def adapt(self, enc, features=None):
            return self

    evaluation = evaluate_jury({"better": Guess(0.8), "bt": Guess(0.4)}, judgements, bootstrap=Bootstrap(draws=20))
    assert {comparison.outcome for comparison in evaluation.comparisons} == {"undecided"}
    assert "is undecided" in evaluation.verdict
    assert "too few raters or items" in evaluation.verdict


def test_an_interval_around_zero_is_no_evidence_of_nothing():
    def interval(value, low, high):
        return Interval(value, low, high, 60, 12)

    zero = interval(0.0, -0.01, 0.01)
    wide = _verdict("mixture K=2", interval(0.1, -0.2, 1.06), zero, interval(0.1, -0.2, 1.06), "choice")
    assert wide.startswith("undecided: mixture K=2 gains +0.100 nats [-0.200, +1.060]")
    narrow = _verdict("mixture K=2", interval(0.0, -0.02, 0.015), zero, interval(0.0, -0.02, 0.015), "choice")
    assert narrow.startswith("no taste signal: plain Bradley-Terry is enough")
    strong = _verdict("mixture K=2", interval(0.1, 0.05, 0.15), zero, interval(0.1, 0.05, 0.15), "choice")
    assert strong.startswith("taste signal")
    # The same rule in the words of the comparison of models.
    assert (outcome(-0.2, 1.06), outcome(0.05, 0.15), outcome(-0.3, -0.1)) == ("undecided", "better", "worse")
    assert not rules_out_gain(1.06)


@pytest.mark.slow
def test_one_candidate_is_taken_as_given_and_nothing_is_said_about_other_numbers():
    judgements = planted_judgements("choice", num_raters=60, num_items=12, num_clusters=2).judgements
    for number in (1, 2, 3):
        selection = select_num_clusters(judgements, (number,), QUICK)
        assert selection.num_clusters == number
        assert selection.reason.startswith(f"K={number} is the only candidate, so no other number of clusters")
        assert "no sign of clusters" not in selection.reason
    # Also where the raters are too few to compare: 2 was asked for, and 2 it is.
    few = planted_judgements("choice", num_raters=8, num_items=12, num_clusters=2).judgements
    assert select_num_clusters(few, (2,), QUICK).num_clusters == 2
    assert "8 raters are too few" in select_num_clusters(few, (2,), QUICK).reason
    assert select_num_clusters(few, (2, 3), QUICK).num_clusters == 2


@pytest.mark.slow
def test_a_selection_says_whether_its_gain_is_decided():
    same = planted_judgements("choice", num_raters=60, num_items=12, num_clusters=1).judgements
    assert "no sign of clusters" in select_num_clusters(same, (1, 2), QUICK).reason
    tables = [planted_judgements("choice", num_raters=60, num_clusters=1, seed=seed).judgements for seed in range(4)]
    reasons = [select_num_clusters(table, (2,), QUICK).reason for table in tables]
    assert not any("over one reward" in reason for reason in reasons)
    assert sum("it predicts worse than one reward" in reason for reason in reasons) >= 2
    two = planted_judgements("choice", num_raters=60, num_items=12, num_clusters=2).judgements
    assert "over one reward for everybody" in select_num_clusters(two, (1, 2), QUICK).reason
    # Few items: the clusters are chosen, and nobody claims more than these items show.
    narrow = planted_judgements("choice", num_raters=60, num_items=4, num_clusters=2).judgements
    assert "undecided: 4 items are too few" in select_num_clusters(narrow, (1, 2), QUICK).reason
