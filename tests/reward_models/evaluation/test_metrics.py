"""Metrics of juries: values worked out by hand, noise taken out, and better models scoring better."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from reward_models.errors import JuryError
from reward_models.evaluation import metrics, population
from reward_models.evaluation.calibration_metrics import (
    calibration_error,
    pairwise_calibration,
    preferring_share,
    reliability_curve,
    share_calibration,
    tie_calibration,
)
from reward_models.evaluation.judgement_bootstrap import Bootstrap, average, group_means, mean_products, tail_mean
from reward_models.judgements.records import Judgements
from tests.panels_of_votes import log, votes


FEW = Bootstrap(draws=60)


def pairs(rows):
    """Pairs from (rater, prompt, a, b, choice)."""
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    return Judgements.from_frame(frame, kind="preference").encode()


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
THREE = [("u", "p", "x", "y", "a"), ("u", "p", "x", "z", "b"), ("v", "p", "x", "y", "tie")]


def test_values_of_one_number_per_judgement():
    enc = pairs(THREE)
    log_probs = log([0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.1, 0.8, 0.1])
    # Ties have no better response; equal probabilities share the credit.
    np.testing.assert_allclose(metrics.credit(log_probs, enc), [1.0, 0.5, np.nan])
    assert metrics.accuracy(log_probs, enc).value == pytest.approx(0.75)
    assert metrics.nll(log_probs, enc).value == pytest.approx(-np.log([0.5, 0.4, 0.1]).mean())
    by_hand = (0.25 + 0.09 + 0.04 + 0.16 + 0.36 + 0.04 + 0.01 + 0.64 + 0.81) / 3
    assert metrics.brier(log_probs, enc).value == pytest.approx(by_hand)
    found = metrics.accuracy(log_probs, enc)
    assert (found.n, found.counted, found.direction) == (2, "judgements", "higher")


def test_busy_raters_count_once_over_raters():
    enc = pairs([*(("u", f"p{i}", "x", "y", "a") for i in range(9)), ("v", "p0", "x", "y", "b")])
    log_probs = np.tile(log([0.9, 0.1, 0.0]), (10, 1))
    assert metrics.accuracy(log_probs, enc).value == pytest.approx(0.9)
    over_raters = metrics.accuracy(log_probs, enc, over="raters")
    assert over_raters.value == pytest.approx(0.5)
    assert (over_raters.name, over_raters.n) == ("accuracy_per_rater", 2)
    assert metrics.nll(log_probs, enc, over="raters").value == pytest.approx(-(np.log(0.9) + np.log(0.1)) / 2)


def test_what_is_ruled_out_costs_infinity():
    enc = pairs(THREE)
    found = metrics.nll(log([0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]), enc)
    assert found.value == np.inf
    assert np.isnan(found.low)


def test_weights_of_judgements_are_used():
    frame = pd.DataFrame(THREE[:2], columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    enc = Judgements.from_frame(frame.assign(count=[3.0, 1.0])).encode()
    log_probs = log([0.9, 0.1, 0], [0.9, 0.1, 0])
    assert metrics.accuracy(log_probs, enc).value == pytest.approx(0.75)


def test_calibration_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    probability = rng.beta(2, 2, size=2000)
    outcome = (rng.random(2000) < probability**1.5).astype(float)
    theirs = calibration_curve(outcome, probability, n_bins=10, strategy="quantile")
    observed, predicted = theirs
    ours = reliability_curve(probability, outcome, 10)
    np.testing.assert_allclose(ours[0], predicted)
    np.testing.assert_allclose(ours[1], observed)
    np.testing.assert_allclose(ours[2], 0.1, atol=1e-3)

    enc = votes(outcome.astype(int).reshape(40, 50))
    log_probs = np.log(np.stack([1 - probability, probability], axis=1))
    confidence, right = np.exp(log_probs).max(1), (probability > 0.5) == (outcome == 1)
    observed, predicted = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    found = calibration_error(log_probs, enc, bootstrap=FEW)
    assert found.value == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-4)
    assert metrics.brier(log_probs, enc).value == pytest.approx(2 * brier_score_loss(outcome, probability))


def test_worst_raters_are_the_tail_of_the_raters_own_means():
    assert tail_mean(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5) == pytest.approx((1 + 0.5 * 2) / 1.5)
    right = np.ones((20, 5), dtype=int)
    right[0, :4] = 0  # one rater of twenty is right once in five
    right[1, :2] = 0
    enc = votes(right)
    log_probs = np.tile(log([0.25, 0.75]), (100, 1))
    accuracy, loss = metrics.worst_raters(log_probs, enc, bootstrap=FEW)
    assert accuracy.value == pytest.approx((0.2 + 0.6) / 2)
    assert loss.value == pytest.approx(-(6 * np.log(0.25) + 4 * np.log(0.75)) / 10)
    assert (accuracy.name, accuracy.n) == ("accuracy_worst_10_percent", 20)
    nobody, _ = metrics.worst_raters(log_probs, enc, min_judgements=6, bootstrap=FEW)
    assert np.isnan(nobody.value)
    assert nobody.n == 0


def test_clusters_weigh_judgements_by_membership():
    enc = votes([[1, 1], [0, 0]])
    log_probs = np.tile(log([0.2, 0.8]), (4, 1))
    found = {m.name: m for m in metrics.by_cluster(log_probs, enc, np.array([[1, 0], [0.25, 0.75]]), ["old", "new"])}
    assert found["accuracy[old]"].value == pytest.approx(1 / 1.25)
    assert found["accuracy[new]"].value == 0.0
    assert found["accuracy_worst_cluster"].value == 0.0
    assert found["nll_nats_worst_cluster"].value == pytest.approx(-np.log(0.2))
    assert found["accuracy[old]"].n == 1
    with pytest.raises(JuryError, match=r"memberships have shape \(2, 2\).* 2 raters and 3 clusters"):
        metrics.by_cluster(log_probs, enc, np.ones((2, 2)), ["a", "b", "c"])


def test_noise_of_the_observed_share_is_taken_out():
    # Four raters, three prefer x: p = 3/4; the second rater saw the pair the other way round.
    enc = pairs(
        [("1", "p", "x", "y", "a"), ("2", "p", "y", "x", "b"), ("3", "p", "x", "y", "a"), ("4", "p", "x", "y", "b")]
    )
    share = np.array([0.5, 0.5, 0.5, 0.5])
    plain = pairwise_calibration(share, enc, corrected=False)
    assert plain.value == pytest.approx((0.5 - 0.75) ** 2)
    assert pairwise_calibration(share, enc).value == pytest.approx(0.0625 - 0.75 * 0.25 / 3)
    # Predicted in the order of the row: 0.9 for x is 0.1 for the first response of the turned row.
    turned = pairwise_calibration(np.array([0.9, 0.1, 0.9, 0.9]), enc, corrected=False)
    assert turned.value == pytest.approx((0.9 - 0.75) ** 2)
    tied = pairs([("1", "p", "x", "y", "a"), ("2", "p", "x", "y", "tie")])
    assert pairwise_calibration(np.full(2, 0.75), tied, corrected=False).value == pytest.approx(0)
    alone = pairwise_calibration(np.array([0.5]), pairs(THREE[:1]))
    assert np.isnan(alone.value)
    assert alone.n == 0


def population_of_two(seed, n_items=60, n_raters=10, sharp=3.0):
    """Pairs judged by raters of whom 70 % want the opposite of the other 30 %; ties in neither."""
    rng = np.random.default_rng(seed)
    gap = sharp * np.sign(rng.normal(size=n_items))
    rewards = np.zeros((2 * n_items, 2))
    rewards[::2, 0], rewards[::2, 1] = gap, -gap
    cluster = (rng.random((n_items, n_raters)) < 0.3).astype(int)
    wants_a = rng.random((n_items, n_raters)) < 1 / (1 + np.exp(-(rewards[::2][np.arange(n_items)[:, None], cluster])))
    rows = [
        (f"{i}-{u}", f"p{i}", "x", "y", "a" if wants_a[i, u] else "b") for i in range(n_items) for u in range(n_raters)
    ]
    return pairs(rows), rewards


def test_a_calibrated_jury_has_no_pairwise_error_and_one_averaged_reward_has():
    weights, one = np.array([0.7, 0.3]), np.ones(1)
    errors = {"smooth": [], "uncorrected": [], "hard": [], "average": [], "average, hard": []}
    how = Bootstrap(draws=1)
    for seed in range(12):
        enc, rewards = population_of_two(seed)
        mean = rewards @ weights[:, None]
        exact = preferring_share(rewards, weights, enc, smooth=True)
        errors["smooth"].append(pairwise_calibration(exact, enc, bootstrap=how).value)
        errors["uncorrected"].append(pairwise_calibration(exact, enc, corrected=False, bootstrap=how).value)
        for name, values, w, smooth in (
            ("hard", rewards, weights, False),
            ("average", mean, one, True),
            ("average, hard", mean, one, False),
        ):
            share = preferring_share(values, w, enc, smooth=smooth)
            errors[name].append(pairwise_calibration(share, enc, bootstrap=how).value)
    found = {name: np.mean(values) for name, values in errors.items()}
    assert abs(found["smooth"]) < 0.002  # 0 in expectation; its standard error is 0.0008
    assert found["uncorrected"] == pytest.approx(0.66 * 0.34 / 10, abs=0.004)  # the variance of a mean of ten
    # P(majority side) = .7 sigma(3) + .3 sigma(-3) = .681; the hard jury says .7 and one reward says 1.
    assert found["hard"] == pytest.approx((0.7 - 0.681) ** 2, abs=0.002)
    assert found["average, hard"] == pytest.approx((1 - 0.681) ** 2, abs=0.01)
    # The averaged reward is .4 * 3, sigma(1.2) = .769.
    assert found["average"] == pytest.approx((0.769 - 0.681) ** 2, abs=0.004)
    assert min(np.array(errors["average"]) - np.array(errors["smooth"])) > 0


def test_an_error_without_its_noise_may_fall_below_zero_and_so_may_its_interval():
    """Answers at random around shares that are right: zero error."""
    rng = np.random.default_rng(0)
    choices = rng.permutation(["a", "b"] * 60)
    enc = pairs([(f"r{n}", f"p{n // 4}", "x", "y", choice) for n, choice in enumerate(choices)])
    half = np.full(len(enc), 0.5)
    corrected = pairwise_calibration(half, enc, bootstrap=FEW)
    assert corrected.low < 0 < corrected.high
    assert corrected.low < corrected.value < corrected.high
    with_noise = pairwise_calibration(half, enc, corrected=False, bootstrap=FEW)
    assert with_noise.low >= 0
    assert with_noise.value > corrected.value


@pytest.mark.filterwarnings("error")
def test_the_average_of_nothing_is_unknown_and_warns_of_no_division():
    assert np.isnan(average(np.array([1.0, np.nan]), np.array([0.0, 2.0])))
    assert average(np.array([1.0, np.nan, 3.0]), np.array([0.25, 2.0, 0.25])) == 2.0


def test_tie_rates_by_rater():
    rows = [("u", f"p{i}", "x", "y", "tie" if i < 2 else "a") for i in range(4)]
    rows += [("v", f"p{i}", "x", "y", "a") for i in range(4)]
    enc = pairs(rows)
    everybody = np.tile(log([0.5, 0.25, 0.25]), (8, 1))
    found = {m.name: m.value for m in tie_calibration(everybody, enc)}
    assert found["tie_rate_predicted"] == found["tie_rate_observed"] == 0.25
    assert found["tie_rate_gap"] == 0
    # Rater u: gap -1/4, variance of the mean (1/4)/3; rater v: gap 1/4, no variance.
    assert found["tie_calibration"] == pytest.approx((1 / 16 - 1 / 12 + 1 / 16) / 2)
    with pytest.raises(JuryError, match="kind 'rating'"):
        tie_calibration(np.zeros((2, 2)), votes([[0, 1]]))


def test_agreement_counts_pairs_of_different_raters():
    enc = votes([[1, 1], [1, 0], [0, 1]])
    halves, sure = np.full((6, 2), np.log(0.5)), np.tile(log([0.1, 0.9]), (6, 1))
    found = {m.name: m.value for m in population.agreement(halves, enc)}
    assert found["agreement_observed"] == pytest.approx(1 / 3)  # one of three pairs agrees, on both statements
    assert found["agreement_predicted"] == pytest.approx(0.5)
    assert np.isnan(found["contested_spearman"])
    found = {m.name: m.value for m in population.agreement(sure, enc)}
    assert found["agreement_gap"] == pytest.approx(0.82 - 1 / 3)


def test_welfare_rules_by_hand():
    u, w = np.array([[0.9, 0.1], [0.4, 0.3]]), np.array([0.8, 0.2])
    np.testing.assert_allclose(population.welfare(u, w, "mean"), [0.74, 0.38])
    np.testing.assert_allclose(population.welfare(u, w, "nash"), np.exp(np.log(u) @ w))
    np.testing.assert_allclose(population.welfare(u, w, "min"), [0.1, 0.3])
    np.testing.assert_allclose(population.welfare(u, w, "cvar", share=0.5), [(0.2 * 0.1 + 0.3 * 0.9) / 0.5, 0.36])
    np.testing.assert_allclose(population.welfare(u, np.array([1, 0]), "min"), [0.9, 0.4])  # nobody is in cluster 2
    with pytest.raises(JuryError, match="Did you mean 'nash'"):
        population.welfare(u, w, "nahs")


def test_regret_is_the_observed_welfare_that_the_choice_loses():
    observed = np.array([[0.9, 0.1], [0.4, 0.3], [0.5, 0.5], [0.2, 0.9], [np.nan, np.nan]])
    prompt, w = np.array([0, 0, 1, 1, 2]), np.array([0.5, 0.5])
    assert population.prompt_regrets(observed, observed, prompt, w, "mean")[:2].tolist() == [0, 0]
    wrong = observed[[1, 0, 3, 2, 4]]
    np.testing.assert_allclose(population.prompt_regrets(wrong, observed, prompt, w, "mean"), [0.15, 0.05, np.nan])
    np.testing.assert_allclose(population.prompt_regrets(wrong, observed, prompt, w, "min"), [0.2, 0.3, np.nan])
    flat = np.full((5, 2), 0.5)  # knows nothing: the mean of the responses
    np.testing.assert_allclose(population.prompt_regrets(flat, observed, prompt, w, "mean"), [0.075, 0.025, np.nan])


def test_utilities_are_shrunk_shares_of_the_vote_per_cluster():
    enc = votes([[1, 0], [1, 0], [0, 0]])
    memberships = np.array([[1.0, 0], [1, 0], [0, 1]])
    observed = population.answer_shares(np.eye(2)[enc.label], enc)
    found = population.cluster_utilities(observed, enc, memberships, np.ones(6))
    overall = 2 / 6
    first = (2 + overall) / 4
    np.testing.assert_allclose(found[0], [(2 + first) / 3, (0 + first) / 2])
    np.testing.assert_allclose(found[1], [(overall / 4) / 3, (overall / 4) / 2])


@pytest.fixture(scope="module")
def simulated():
    """Votes of two clusters of 30 on 40 statements, and the log-probabilities they were drawn from."""
    rng = np.random.default_rng(3)
    cluster = np.repeat([0, 1], 30)
    logits = 1.5 * rng.normal(size=(2, 40))
    p = 1 / (1 + np.exp(-logits[cluster]))
    enc = votes((rng.random(p.shape) < p).astype(int))
    truth = np.stack([1 - p.ravel(), p.ravel()], axis=1)
    return enc, np.log(truth), np.eye(2)[cluster]


def everything(log_probs, enc, memberships):
    found = [
        metrics.nll(log_probs, enc),
        metrics.nll(log_probs, enc, over="raters"),
        metrics.accuracy(log_probs, enc),
        metrics.accuracy(log_probs, enc, over="raters"),
        metrics.brier(log_probs, enc),
        calibration_error(log_probs, enc, bootstrap=FEW),
        share_calibration(log_probs, enc, bootstrap=FEW),
        *metrics.worst_raters(log_probs, enc, bootstrap=FEW),
        *metrics.by_cluster(log_probs, enc, memberships, ["0", "1"], bootstrap=FEW),
        *population.answer_divergence(log_probs, enc, bootstrap=FEW),
        *population.agreement(log_probs, enc, bootstrap=FEW),
        *population.welfare_regret(log_probs, enc, memberships, np.array([0.5, 0.5]), bootstrap=FEW),
    ]
    return {metric.name: metric for metric in found}


def test_a_perfect_predictor_beats_the_uniform_and_the_mode_on_every_metric(simulated):
    enc, truth, memberships = simulated
    uniform = np.full_like(truth, np.log(0.5))
    frequent = np.bincount(enc.label).argmax()
    mode = np.tile(np.log(np.where(np.arange(2) == frequent, 0.999, 0.001)), (len(enc), 1))
    scores = {name: everything(lp, enc, memberships) for name, lp in (("p", truth), ("u", uniform), ("m", mode))}
    compared = 0
    for name, perfect in scores["p"].items():
        rivals = [scores[rival][name].value for rival in "um"]
        if perfect.direction == "lower" and name != "ece":
            assert perfect.value < min(rivals), name
        elif perfect.direction == "higher" and name != "contested_spearman":
            assert perfect.value > max(rivals), name
        elif perfect.direction == "zero":
            assert abs(perfect.value) < min(map(abs, rivals)), name
        else:
            continue
        compared += 1
        assert perfect.low <= perfect.value <= perfect.high, name
    assert compared >= 18
    assert scores["u"]["ece"].value < 0.05 < 0.3 < scores["m"]["ece"].value  # the uniform answer is calibrated
    assert scores["p"]["ece"].value < 0.05
    assert scores["p"]["contested_spearman"].value > 0.5


def test_an_exact_model_scores_the_floor_of_the_divergence(simulated):
    enc, truth, _ = simulated
    divergence, floor = population.answer_divergence(truth, enc, bootstrap=FEW)
    assert floor.low <= divergence.value <= floor.high
    assert floor.value > 0.0005
    uniform, uniform_floor = population.answer_divergence(np.full_like(truth, np.log(0.5)), enc, bootstrap=FEW)
    assert uniform.low > uniform_floor.high


def test_raters_who_only_tied_are_not_counted_where_accuracy_is_averaged():
    rows = [("u", f"p{i}", "x", "y", "a") for i in range(5)] + [("v", f"p{i}", "x", "y", "tie") for i in range(5)]
    rows += [("w", f"p{i}", "x", "y", "b") for i in range(4)]
    enc = pairs(rows)
    log_probs = np.tile(log([0.6, 0.3, 0.1]), (14, 1))
    found = metrics.accuracy(log_probs, enc, over="raters")
    assert (found.value, found.n) == (0.5, 2)
    assert metrics.nll(log_probs, enc, over="raters").n == 3
    accuracy, loss = metrics.worst_raters(log_probs, enc, share=1.0, bootstrap=FEW)
    assert (accuracy.value, accuracy.n) == (1.0, 1)  # w has four judgements, and v none without a tie
    assert loss.value == pytest.approx(-(np.log(0.6) + np.log(0.1)) / 2)
    assert loss.n == 2


def test_what_has_no_weight_is_not_there_even_if_it_is_infinite():
    assert average(np.array([1.0, np.inf]), np.array([1.0, 0.0])) == 1.0
    assert group_means(np.array([1.0, np.inf, 3.0]), np.zeros(3, int), 1, np.array([1.0, 0.0, 1.0])).tolist() == [2.0]
    assert tail_mean(np.array([1.0, np.inf]), np.array([1.0, 0.0]), 1.0) == 1.0


def test_means_of_products_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    rows, group, weight = rng.normal(size=(9, 2)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 3]), rng.uniform(0.5, 2, size=9)
    means, used = mean_products(rows, group, 5, weight)
    assert used.tolist() == [True, True, True, False, False]  # a pair takes two
    for g, mean in enumerate(means):
        here = np.flatnonzero(group == g)
        both = [(u, v) for u in here for v in here if u != v]
        by_hand = np.average([rows[u] @ rows[v] for u, v in both], weights=[weight[u] * weight[v] for u, v in both])
        assert mean == pytest.approx(by_hand)


def test_divergence_and_rank_correlation_agree_with_scipy(simulated):
    enc, truth, _ = simulated
    found, floor = population.answer_divergence(truth, enc, bootstrap=FEW)
    p, given = np.exp(truth), np.eye(2)[enc.label]
    items = [enc.item == i for i in range(enc.n_items)]
    each = [jensenshannon(given[here].mean(0), p[here].mean(0)) ** 2 for here in items]
    assert found.value == pytest.approx(np.mean(each))
    rng = np.random.default_rng(7)
    drawn = [
        jensenshannon(np.bincount(rng.random(here.sum()) < p[here, 1], minlength=2), p[here].mean(0)) ** 2
        for here in items
        for _ in range(200)
    ]
    assert floor.value == pytest.approx(np.mean(drawn), rel=0.1)
    assert floor.low < floor.value < floor.high
    assert floor.direction == "context"

    def agreeing(values):
        means = []
        for here in items:
            rows = values[here]
            both = (rows @ rows.T).sum() - (rows**2).sum()
            means.append(both / (len(rows) * (len(rows) - 1)))
        return np.array(means)

    observed, predicted = agreeing(given), agreeing(p)
    agree = {row.name: row for row in population.agreement(truth, enc, bootstrap=FEW)}
    assert agree["agreement_observed"].value == pytest.approx(observed.mean())
    assert agree["agreement_predicted"].value == pytest.approx(predicted.mean())
    assert agree["agreement_gap"].value == pytest.approx(predicted.mean() - observed.mean())
    assert agree["contested_spearman"].value == pytest.approx(spearmanr(predicted, observed).statistic)


def test_regret_is_over_prompts_and_knows_which_have_several_responses():
    """Two prompts of which one has one response; two clusters who want the opposite of each other."""
    frame = pd.DataFrame(
        [(f"r{u}", prompt, response, int((u < 2) == wanted)) for u in range(4) for prompt, response, wanted in
         (("p", "x", True), ("p", "y", False), ("q", "x", True))],
        columns=["rater_id", "prompt", "response", "rating"],
    )  # fmt: skip
    enc = Judgements.from_frame(frame, kind="rating", levels=[0, 1]).encode()
    memberships, weights = np.repeat(np.eye(2), 2, axis=0), np.array([0.75, 0.25])
    likes_y = np.array([text.response == "y" for text in enc.texts])[enc.alternatives[:, 0]]
    log_probs = log(*([0.1, 0.9] if y else [0.9, 0.1] for y in likes_y))  # would choose y for everybody
    found = {row.name: row for row in population.welfare_regret(log_probs, enc, memberships, weights, bootstrap=FEW)}
    observed = population.cluster_utilities(
        population.answer_shares(np.eye(2)[enc.label], enc), enc, memberships, np.ones(len(enc))
    )
    of = {(text.prompt, text.response): row for text, row in zip(enc.texts, observed, strict=True)}
    assert found["regret_mean"].value == pytest.approx((of["p", "x"] - of["p", "y"]) @ weights)
    assert found["regret_min"].value == pytest.approx(max(0, of["p", "x"].min() - of["p", "y"].min()), abs=1e-12)
    assert {row.n for row in found.values()} == {1}
    assert {(row.counted, row.unit) for row in found.values()} == {("prompts", "share of the vote")}
