"""Disagreement without rater ids: where people split, and rewards in the proportions in which people hold them."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from reward_models.baselines.ensemble import fit_calibrated_ensemble
from reward_models.baselines.mean_variance import fit_mean_variance
from reward_models.baselines.pair_counts import PairCounts
from reward_models.errors import JudgementWarning, JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.raters.predictors import Predictor, answer_log_lik


TEXTS, DIMENSIONS = 60, 6


def pairs(rows, **columns):
    frame = pd.DataFrame(rows, columns=["rater_id", "item_id", "response_a", "response_b", "choice"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        return Judgements.from_frame(frame.assign(prompt="p", **columns), kind="preference").encode()


def two_camps(share=0.7, n_pairs=500, raters=10, seed=0):
    """Ten people judge each pair, seven by one direction of the features, three by another."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(TEXTS, DIMENSIONS))
    first, second = np.linalg.qr(rng.normal(size=(DIMENSIONS, 2)))[0].T
    rows = []
    for item in range(n_pairs):
        a, b = rng.choice(TEXTS, size=2, replace=False)
        for rater in range(raters):
            head = first if rater < share * raters else second
            better = (features[a] - features[b]) @ head > 0
            rows.append((f"r{rater}", f"q{item}", f"t{a}", f"t{b}", "a" if better else "b"))
    enc = pairs(rows)
    return enc, features[[int(text.response[1:]) for text in enc.texts]], np.stack([first, second])


@pytest.fixture(scope="module")
def camps():
    enc, features, heads = two_camps()
    cut = enc.item < 400
    return _rows(enc, cut), _rows(enc, ~cut), features, heads


def _rows(enc: Encoded, keep: np.ndarray) -> Encoded:
    return dataclasses.replace(
        enc,
        **{name: getattr(enc, name)[keep] for name in ("rater", "item", "alternatives", "label", "count")},
    )


def calibration_error(predicted, enc):
    """Mean squared difference from the share of people for a, over items."""
    share = np.bincount(enc.item, enc.label == 0) / np.maximum(np.bincount(enc.item), 1)
    return float(np.mean((predicted - share[enc.item]) ** 2))


def test_pairs_are_counted_whichever_response_is_called_a():
    enc = pairs([("u", "q", "x", "y", "a"), ("v", "q", "y", "x", "a"), ("w", "q", "y", "x", "tie")], count=[1, 2, 4])
    counted = PairCounts.of(enc)
    assert counted.counts.tolist() == [[1, 2, 4]]
    assert counted.share().tolist() == [3 / 7]


def test_shares_of_three_options_become_three_pairs():
    frame = pd.DataFrame({"prompt": ["p"], "options": [["x", "y", "z"]], "probs": [[0.5, 0.3, 0.2]], "n": [10]})
    counted = PairCounts.of(Judgements.from_frame(frame, kind="soft").encode())
    assert counted.counts[:, :2].round(9).tolist() == [[5, 3], [5, 2], [3, 2]]


def test_the_ensemble_has_the_camps_in_their_proportions(camps):
    train, _, features, heads = camps
    fit = fit_calibrated_ensemble(train, features)
    assert isinstance(fit, Predictor)
    assert fit.prevalence[:2] == pytest.approx([0.7, 0.3], abs=0.04)
    fitted = fit.weight[:2] / np.linalg.norm(fit.weight[:2], axis=1, keepdims=True)
    assert (np.abs(np.diag(fitted @ heads.T)) > 0.98).all()
    assert fit.weight.shape == (len(fit.prevalence), DIMENSIONS)
    assert features @ fit.weight.T + fit.bias == pytest.approx(fit.table.values)


def test_the_ensemble_is_calibrated_on_new_pairs_as_no_single_reward_can_be(camps):
    train, new, features, heads = camps
    fit = fit_calibrated_ensemble(train, features)
    ensemble = calibration_error(fit.preferring(new, features), new)
    single = fit_calibrated_ensemble(train, features, num_heads=1)
    difference = features[new.alternatives[:, 0]] - features[new.alternatives[:, 1]]
    rivals = {
        "its votes": calibration_error(single.preferring(new, features), new),
        "its probabilities": calibration_error(single.preferring(new, features, smooth=True), new),
        "the majority itself": calibration_error((difference @ heads[0] > 0).astype(float), new),
    }
    assert ensemble < 0.01
    assert min(rivals.values()) > 0.02, rivals
    assert fit.calibration[0] > 0.03 > 0.01 > fit.calibration[-1]


def test_the_ensemble_needs_no_features_and_no_raters():
    enc, _, _ = two_camps(n_pairs=150)
    fit = fit_calibrated_ensemble(enc, num_heads=2, restarts=2)
    assert fit.weight is None
    assert fit.calibration[-1] < 0.2 * fit.calibration[0]
    renamed = dataclasses.replace(enc, rater=np.zeros_like(enc.rater), rater_ids=["everybody"])
    assert (fit_calibrated_ensemble(renamed, num_heads=2, restarts=2).prevalence == fit.prevalence).all()
    with pytest.raises(JuryError, match="knows the texts of the fit only"):
        fit.log_probs(dataclasses.replace(enc, texts=[text._replace(prompt="new") for text in enc.texts]))


def test_mean_variance_by_hand():
    """One pair, 84 of 100 for a: with both spreads at 1 the means differ by about sqrt(2)."""
    rows = [(f"r{i}", "q", "x", "y", "a" if i < 84 else "b") for i in range(100)]
    enc = pairs(rows)
    fit = fit_mean_variance(enc)
    mean, sd = fit.utilities(enc)
    assert mean[0] - mean[1] == pytest.approx(np.sqrt(2), abs=0.1)
    assert sd == pytest.approx([1, 1], abs=0.05)
    difference = (mean[0] - mean[1]) / np.hypot(*sd)
    assert np.exp(fit.log_probs(enc)[0]) == pytest.approx([norm.cdf(difference), norm.cdf(-difference), 0])
    assert fit.lower_quantile(enc, q=0.01) == pytest.approx(mean - 2.3263 * sd, abs=1e-3)
    assert fit.epsilon is None


def contested(seed=0):
    """Half of the texts are loved by half of the people and hated by the rest; the others are liked alike by all."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=TEXTS)
    split = np.arange(TEXTS) < TEXTS // 2
    rows = []
    for item in range(1500):
        a, b = rng.choice(TEXTS, size=2, replace=False)
        for rater in range(6):
            utility = quality + np.where(split, 3.0 * rng.choice([-1, 1], size=TEXTS), 0.0)
            u = utility[a] - utility[b] + 0.5 * rng.normal()
            rows.append((f"r{rater}", f"q{item}", f"t{a}", f"t{b}", "tie" if abs(u) < 0.2 else "a" if u > 0 else "b"))
    enc = pairs(rows)
    number = np.array([int(text.response[1:]) for text in enc.texts])
    features = np.stack([split[number].astype(float), quality[number]], axis=1)
    return enc, np.concatenate([features, 0.1 * rng.normal(size=(TEXTS, 3))], axis=1), split[number]


@pytest.mark.parametrize("with_features", [True, False])
def test_utility_varies_most_where_people_split(with_features):
    enc, features, split = contested()
    inputs = features if with_features else None
    fit = fit_mean_variance(enc, inputs)
    _, sd = fit.utilities(enc, inputs)
    assert sd[split].mean() > 1.8 * sd[~split].mean()
    assert np.median(sd[split]) > np.quantile(sd[~split], 0.9)
    quantile = fit.lower_quantile(enc, inputs)
    assert quantile[split].mean() < quantile[~split].mean() - 1  # a risk-averse policy keeps away
    assert 0 < fit.r2 < 0.6
    ties = np.exp(fit.log_probs(enc, inputs)[:, 2])
    assert ties.mean() == pytest.approx((enc.label == 2).mean(), abs=0.01)


def test_agreement_leaves_no_hidden_context():
    rng = np.random.default_rng(1)
    quality = 2 * rng.normal(size=20)
    rows = []
    for item in range(400):
        a, b = rng.choice(20, size=2, replace=False)
        rows += [(f"r{i}", f"q{item}", f"t{a}", f"t{b}", "a" if quality[a] > quality[b] else "b") for i in range(3)]
    agreed = fit_mean_variance(pairs(rows)).r2
    contested_r2 = fit_mean_variance(contested()[0]).r2
    assert agreed > 0.8 > 0.6 > contested_r2


def test_published_shares_are_predicted():
    rng = np.random.default_rng(0)
    utility = rng.normal(size=8)
    rows = []
    for _ in range(40):
        chosen = rng.choice(8, size=3, replace=False)
        best = (utility[chosen] + rng.normal(size=(4000, 3))).argmax(1)
        rows.append(("p", [f"t{x}" for x in chosen], np.bincount(best, minlength=3) / 4000, 50))
    frame = pd.DataFrame(rows, columns=["prompt", "options", "probs", "n"])
    enc = Judgements.from_frame(frame, kind="soft").encode()
    for fit in (fit_mean_variance(enc), fit_calibrated_ensemble(enc, num_heads=2)):
        p = np.exp(fit.log_probs(enc))
        assert p.sum(1) == pytest.approx(np.ones(len(enc)))
        assert np.abs(p - enc.probs).mean() < 0.5 * np.abs(1 / 3 - enc.probs).mean()
        assert fit.adapt(enc) is fit
    wide = np.exp(fit_mean_variance(enc).log_probs(enc))
    assert np.abs(wide - enc.probs).mean() < 0.05


def test_both_beat_the_coin_on_new_pairs_and_know_new_texts_by_features(camps):
    train, new, features, _ = camps
    renamed = dataclasses.replace(new, texts=[text._replace(response=f"new {text.response}") for text in new.texts])
    for fit in (fit_mean_variance(train, features), fit_calibrated_ensemble(train, features)):
        known, unknown = fit.log_probs(new, features), fit.log_probs(renamed, features)
        assert unknown == pytest.approx(known, abs=1e-8)
        assert -answer_log_lik(known, new).mean() < np.log(2) - 0.1


def test_ratings_and_bad_quantiles_are_refused(camps):
    ratings = pd.DataFrame(
        {"rater_id": ["u", "v"], "prompt": ["p", "p"], "response": ["x", "x"], "rating": [1.0, 2.0]}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        enc = Judgements.from_frame(ratings, kind="rating").encode()
    for fit in (fit_mean_variance, fit_calibrated_ensemble):
        with pytest.raises(JuryError, match="turn the ratings of each rater into pairs"):
            fit(enc)
    with pytest.raises(JuryError, match=r"q=1\.5"):
        fit_mean_variance(camps[0]).lower_quantile(camps[0], q=1.5)
    with pytest.raises(JuryError, match="num_heads=0"):
        fit_calibrated_ensemble(camps[0], num_heads=0)
