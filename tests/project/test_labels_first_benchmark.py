"""The rival of the joint fit: a dense Gaussian process by hand, planted heads, and features that say nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.texts import Text
from reward_models.raters.predictors import answer_log_lik
from tests.benchmark_modules import benchmark_module
from tests.planted import pairs, ratings


labels_first = benchmark_module("_jury.labels_first")
fit_labels_first, read_linear = labels_first.fit_labels_first, labels_first.read_linear


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def small_problem(seed=0, n=25, d=3):
    rng = np.random.default_rng(seed)
    x = 5 + rng.normal(size=(n, d))
    noise = rng.uniform(0.05, 0.5, size=n)
    y = 2 + x @ np.array([1.0, -0.5, 0.0])[:d] + 0.3 * rng.normal(size=n) + np.sqrt(noise) * rng.normal(size=n)
    return x, y, noise


def dense(x, noise, s2, t2):
    """(U, U) covariance of the observations given mu."""
    return s2 * x @ x.T + np.diag(noise + t2)


class TestReadLinear:
    def test_is_the_dense_gaussian_process(self):
        x, y, noise = small_problem()
        reading = read_linear(x, y, noise)
        centred = x - x.mean(0)
        scale2 = (centred**2).sum(1).mean()  # the prior of w is in units of the features' size

        def loss(p):
            covariance = dense(centred, noise, np.exp(2 * p[0]) / scale2, np.exp(2 * p[1]))
            inverse = np.linalg.inv(covariance)
            mu = (inverse @ y).sum() / inverse.sum()
            return -multivariate_normal(np.full(len(y), mu), covariance).logpdf(y), mu

        def penalised(p):
            return loss(p)[0] + 0.5 * (((np.asarray(p) - np.log(y.std())) / 2) ** 2).sum()

        fitted = minimize(penalised, np.zeros(2))
        s2, t2 = np.exp(2 * fitted.x)
        assert reading.residual == pytest.approx(t2, rel=0.02, abs=1e-3)
        mu, weights = loss(fitted.x)[1], np.linalg.inv(dense(centred, noise, s2 / scale2, t2))
        new = np.vstack([x[:2], x.mean(0), 5 + 3 * np.random.default_rng(1).normal(size=(3, 3))])
        across = s2 / scale2 * (new - x.mean(0)) @ centred.T
        mean, variance = reading.predict(new)
        assert mean == pytest.approx(mu + across @ weights @ (y - mu), rel=0.01, abs=0.01)
        prior = s2 / scale2 * ((new - x.mean(0)) ** 2).sum(1)
        of_function = prior - np.einsum("nu,uv,nv->n", across, weights, across)
        assert variance == pytest.approx(of_function + t2, rel=0.02, abs=0.002)
        without = minimize(lambda p: penalised([-12.0, p[0]]), [0.0]).x[0]
        assert reading.gain == pytest.approx(loss([-12.0, without])[0] - loss(fitted.x)[0], abs=0.02)
        assert reading.gain > 5

    def test_more_features_than_texts_are_the_same_process(self):
        x, y, noise = small_problem(n=12)
        rng = np.random.default_rng(9)
        turn = np.linalg.qr(rng.normal(size=(40, 3)))[0].T  # the same three features, spread over forty
        few, many = read_linear(x, y, noise), read_linear(x @ turn, y, noise)
        new = 5 + rng.normal(size=(4, 3))
        for a, b in zip(few.predict(new), many.predict(new @ turn), strict=True):
            assert a == pytest.approx(b, rel=1e-3)
        # Where no text has been, the prior stays: a step off the span of the texts is uncertain, and changes no mean.
        off = np.linalg.svd(turn)[2][-1]
        mean, variance = many.predict(np.vstack([x[0] @ turn, x[0] @ turn + off]))
        assert mean[1] == pytest.approx(mean[0])
        assert variance[1] > variance[0] + 0.05

    def test_groups_carry_no_information_in_their_means(self):
        x, y, noise = small_problem(n=24)
        groups = np.repeat(np.arange(8), 3)
        shifted = y + 100 * np.random.default_rng(2).normal(size=8)[groups]
        one, two = read_linear(x, y, noise, groups), read_linear(x, shifted, noise, groups)
        assert one.weight == pytest.approx(two.weight, rel=1e-3)
        assert one.weight == pytest.approx([1, -0.5, 0], abs=0.4)
        drowned = read_linear(x, shifted, noise).weight
        assert np.abs(drowned - [1, -0.5, 0]).max() > 2 * np.abs(two.weight - [1, -0.5, 0]).max()

    @pytest.mark.parametrize("groups", [None, np.repeat(np.arange(40), 3)])
    def test_features_that_tell_nothing_fall_back_to_the_mean(self, groups):
        rng = np.random.default_rng(3)
        x, noise = rng.normal(size=(120, 10)), np.full(120, 0.1)
        y = 3 + rng.normal(size=120)
        reading = read_linear(x, y, noise, groups)
        mean, variance = reading.predict(rng.normal(size=(50, 10)))
        assert reading.gain == pytest.approx(0, abs=2)
        assert np.abs(reading.weight).max() < 0.2
        if groups is None:
            assert mean == pytest.approx(np.full(50, y.mean()), abs=0.3)
            assert np.sqrt(variance.mean()) == pytest.approx(1.0, abs=0.25)
        informed = read_linear(x, y + x[:, 0], noise, groups)
        assert informed.gain > 5
        assert informed.weight[0] == pytest.approx(1, abs=0.3)

    def test_the_residual_of_compared_texts_is_that_of_one_text(self):
        rng = np.random.default_rng(10)
        x = rng.normal(size=(400, 3))
        y = x[:, 0] + rng.normal(size=400)
        reading = read_linear(x, y, np.full(400, 1e-3), np.repeat(np.arange(200), 2))
        assert reading.residual == pytest.approx(1, rel=0.25)

    def test_predictions_are_as_sure_as_they_are_right(self):
        rng = np.random.default_rng(4)
        w, x = rng.normal(size=20), rng.normal(size=(600, 20))
        truth = x @ w + 0.5 * rng.normal(size=600)
        noise = rng.uniform(0.1, 1, size=150)
        reading = read_linear(x[:150], truth[:150] + np.sqrt(noise) * rng.normal(size=150), noise)
        mean, variance = reading.predict(x[150:])
        z = (truth[150:] - mean) / np.sqrt(variance)
        assert z.std() == pytest.approx(1, abs=0.25)
        assert correlation(mean, truth[150:]) > 0.9


@pytest.fixture(scope="module")
def planted():
    """Two clusters whose rewards are linear in six of twelve features: (features (U, D), heads (D, 2), cluster)."""
    rng = np.random.default_rng(5)
    features = 3 + rng.normal(size=(90, 12))
    heads = np.zeros((12, 2))
    heads[:4] = 0.7 * rng.normal(size=(4, 1))
    heads[:6] += 1.0 * rng.normal(size=(6, 2))
    return features, heads, rng.integers(2, size=80)


class TestFitLabelsFirst:
    def test_heads_are_recovered_and_score_unseen_texts(self, planted):
        features, heads, cluster = planted
        rewards = (features - 3) @ heads
        leniency = 1.5 * np.random.default_rng(6).normal(size=80)
        enc = ratings(rewards.T[cluster], intercept=leniency)
        train = enc.select(enc.alternatives[:, 0] < 60)
        fit = fit_raters(train, "mixture", 2, config=FitConfig(restarts=2))
        jury = fit_labels_first(fit, train, features)
        order = [fit.responsibilities.argmax(1)[cluster == k][0] for k in range(2)]
        for k in range(2):
            assert correlation(jury.weight[order[k]], heads[:, k]) > 0.9
            assert correlation(jury.weight[order[k]], heads[:, k]) > correlation(
                jury.weight[order[k]], heads[:, 1 - k]
            )
        mean, variance = jury.rewards(features)
        assert mean == pytest.approx(features @ jury.weight.T + jury.bias)
        assert (variance > 0).all()
        assert correlation(mean[60:, order], rewards[60:] - rewards[:60].mean(0)) > 0.9

        unseen = enc.select(enc.alternatives[:, 0] >= 60)
        one = fit_labels_first(fit_raters(train, "mixture", 1), train, features)
        scores = [answer_log_lik(j.log_probs(unseen, features), unseen).mean() for j in (jury, one)]
        assert scores[0] > scores[1] + 0.05
        with pytest.raises(JuryError, match="were not in the fit"):
            fit.log_probs(dataclasses.replace(unseen, texts=[Text("p", f"new {i}") for i in range(90)]))

        # New raters are adapted from judgements of texts that nobody has judged before.
        newcomers = dataclasses.replace(unseen, rater_ids=[f"new {r}" for r in unseen.rater_ids])
        adapted = jury.adapt(newcomers, features)
        assert adapted.placement.rater_ids == newcomers.rater_ids
        fitted = adapted.placement.memberships().argmax(1)
        assert max((fitted == cluster).mean(), (fitted != cluster).mean()) > 0.85
        log_p = adapted.log_probs(unseen, features)
        assert np.exp(log_p).sum(1) == pytest.approx(np.ones(len(unseen)))

    def test_pairs_with_planted_tastes_beat_a_linear_bradley_terry(self, planted):
        features, heads, cluster = planted
        rewards = 1.5 * features @ heads
        enc = pairs(rewards.T[cluster], 60, seed=1)
        known = (enc.alternatives < 60).all(1)
        train, unseen = enc.select(known), enc.select((enc.alternatives >= 60).all(1))
        fit = fit_raters(train, "mixture", 2, config=FitConfig(restarts=2))
        jury = fit_labels_first(fit, train, features)
        log_p = jury.log_probs(unseen, features)
        gap = features[enc.alternatives[:, 0]] - features[enc.alternatives[:, 1]]
        rival = LogisticRegression(C=1.0, fit_intercept=False).fit(gap[known], train.label == 0)
        by_rival = rival.predict_log_proba(gap[(enc.alternatives >= 60).all(1)])[
            np.arange(len(unseen)), (unseen.label == 0).astype(int)
        ]
        assert answer_log_lik(log_p, unseen).mean() > by_rival.mean() + 0.03
        assert (log_p[:, 2] == -np.inf).all()
        swapped = dataclasses.replace(unseen, alternatives=unseen.alternatives[:, ::-1])
        assert jury.log_probs(swapped, features)[:, :2] == pytest.approx(log_p[:, 1::-1])
        one = fit_labels_first(fit_raters(train, "mixture", 1), train, features)
        of_all = answer_log_lik(one.log_probs(unseen, features), unseen).mean()
        assert of_all == pytest.approx(by_rival.mean(), abs=0.03)  # one head for everybody is what the rival is

    @pytest.mark.slow
    def test_tastes_of_a_factor_model(self, planted):
        features, heads, _ = planted
        rng = np.random.default_rng(7)
        z = rng.normal(size=80)
        taste = heads[:, 0] - heads[:, 1]
        enc = ratings((features - 3) @ heads.mean(1) + z[:, None] * ((features - 3) @ taste))
        fit = fit_raters(enc, "factor", 1)
        jury = fit_labels_first(fit, enc, features)
        assert jury.weight.shape == (2, 12)
        assert correlation(jury.weight[0], heads.mean(1)) > 0.9
        assert abs(correlation(jury.weight[1], taste)) > 0.9

    def test_noise_for_features_leaves_everybody_the_mean(self, planted):
        features, heads, cluster = planted
        enc = ratings(((features - 3) @ heads).T[cluster])
        fit = fit_raters(enc, "mixture", 2, config=FitConfig(restarts=1))
        rng = np.random.default_rng(8)
        jury = fit_labels_first(fit, enc, rng.normal(size=(90, 12)))
        assert all(reading.gain < 2 for reading in jury.readings)
        mean, variance = jury.rewards(rng.normal(size=(50, 12)))
        assert mean.std(0).max() < 0.35 * fit.rewards.std(0).min()
        # It says that it does not know: the uncertainty is the whole spread of rewards.
        assert np.sqrt(variance.mean(0)) == pytest.approx(fit.rewards.std(0), rel=0.35)
