"""Texts and raters in one likelihood: optima by other means, planted tastes, dense and sparse limits, bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

from reward_models.baselines.shuffle import shuffle_raters
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.choice import choose_joint
from reward_models.fitting.joint.fit import JointFit, JointTables, fit_joint
from reward_models.fitting.joint.problem import Strengths, taste_mixing
from reward_models.fitting.joint.strengths import fit_consensus
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.texts import Text
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import answer_log_lik
from reward_models.raters.rater_model import RaterModel
from reward_models.stats.answers import adjusted_rand_index
from reward_models.stats.resampling import heldout_labels
from tests.benchmark_modules import benchmark_module
from tests.planted import encoded, pairs, ratings


PLAIN = FitConfig(nuisance=False)


def two_publics(n_raters=60, n_texts=120, share=0.15, residual=0.3, seed=0):
    """Ratings of two clusters: a shared direction of the features, one that divides them, and residuals of texts."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_texts, 6))
    consensus = x[:, 0] + residual * rng.normal(size=n_texts)
    taste = 1.5 * x[:, 1]
    cluster = np.arange(n_raters) % 2
    rewards = consensus + np.where(cluster[:, None] == 0, taste, -taste)
    terms = {"intercept": rng.normal(size=n_raters), "log_scale": 0.3 * rng.normal(size=n_raters)}
    return ratings(rewards, **terms, share=share, seed=seed), x, cluster, consensus, taste


def without_texts(enc, out):
    """Judgements of texts that are not held out, and those of the texts that are."""
    held = out[enc.alternatives].any(1)
    return enc.select(~held), enc.select(held)


class TestProblem:
    def test_one_cluster_is_ridge_bradley_terry_with_residuals(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(12, 3))
        enc = pairs(np.tile(x @ [1.0, -1.0, 0.0], (10, 1)), 15)
        tables = JointTables.of(enc, x)
        s, t = 0.8, 0.4
        problem = tables.problem("mixture", 1, PLAIN).with_strengths(Strengths(np.array([s]), np.array([t])))
        params, loss = problem.maximise(problem.start(), 300, 1e-13)
        z = tables.coordinates[0]

        def penalised(theta):
            w, e = theta[: z.shape[1]], theta[z.shape[1] :]
            reward = s * z @ w + t * e
            gap = reward[enc.alternatives[:, 0]] - reward[enc.alternatives[:, 1]]
            return np.logaddexp(0, np.where(enc.label == 0, -gap, gap)).sum() + 0.5 * theta @ theta

        best = minimize(penalised, np.zeros(z.shape[1] + len(z)), method="BFGS")
        assert loss == pytest.approx(best.fun, abs=1e-6)
        np.testing.assert_allclose(params["weight"][:, 0], best.x[: z.shape[1]], atol=1e-3)

    @pytest.mark.parametrize(("membership", "size"), [("mixture", 2), ("simplex", 2), ("factor", 1)])
    def test_the_likelihood_is_the_sum_over_the_states_of_the_rater_model(self, membership, size):
        rng = np.random.default_rng(1)
        rewards = rng.normal(size=(8, 10))
        votes, compared = ratings(rewards, share=0.5), pairs(rewards, 6, log_tie=0.0)
        x = rng.normal(size=(10, 2))
        problem = JointTables.of([compared, votes], [x, x]).problem(membership, size, FitConfig())
        params = {k: v + 0.3 * rng.normal(size=v.shape) for k, v in problem.start().items()}
        tensors = {k: torch.from_numpy(v) for k, v in params.items()}
        model, joint = problem.fitted_model(params), 0.0
        for kind in problem.kinds:
            table = model.table(kind.cells, problem.rewards(tensors)).numpy()
            joint = joint + kind.counts @ table
        expected = logsumexp(joint + model.log_prior, axis=1)
        np.testing.assert_allclose(problem.log_likelihoods(tensors).numpy(), expected, rtol=1e-10)

    def test_tastes_of_clusters_sum_to_zero_and_are_alike(self):
        mixing = taste_mixing("mixture", 4)
        np.testing.assert_allclose(mixing[1:].sum(1), 0, atol=1e-12)
        np.testing.assert_allclose((mixing[1:] ** 2).sum(0), 1)  # every deviation has the variance of one taste

    def test_a_rater_of_weight_two_counts_as_two_raters(self):
        rng = np.random.default_rng(2)
        enc = ratings(rng.normal(size=(6, 8)), share=0.6)
        problem = JointTables.of(enc, rng.normal(size=(8, 2))).problem("mixture", 2, FitConfig())
        tensors = {k: torch.from_numpy(v + 0.1 * rng.normal(size=v.shape)) for k, v in problem.start().items()}
        log_lik = problem.log_likelihoods(tensors)
        heavier = dataclasses.replace(problem, rater_weight=np.array([2.0, 1, 1, 1, 1, 1]))
        assert float(problem.loss(tensors) - heavier.loss(tensors)) == pytest.approx(float(log_lik[0]))


class TestStrengths:
    def test_linear_rewards_leave_nothing_to_residuals_and_residuals_nothing_to_features(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(150, 4))
        linear, free = x @ [1.0, 0.5, -0.5, 0.0], rng.normal(size=150)
        learnt = [
            fit_consensus(JointTables.of(ratings(np.tile(r, (40, 1))), x).problem("mixture", 1, PLAIN)).strengths
            for r in (linear, free)
        ]
        assert learnt[0].residual[0] < 0.3 < 0.8 < learnt[0].features[0] < 2.0
        assert learnt[1].features[0] < 0.5 < 0.8 < learnt[1].residual[0] < 1.3

    def test_a_second_kind_on_half_the_scale_is_seen_to_be(self):
        rng = np.random.default_rng(3)
        x = rng.normal(size=(80, 3))
        rewards = np.tile(x @ [1.0, 0.7, 0.0], (40, 1))
        tables = JointTables.of([ratings(rewards, share=0.5), pairs(rewards, 40, log_scale=np.log(0.5))], [x, x])
        params = fit_consensus(tables.problem("mixture", 1, FitConfig())).params
        assert np.exp(params["preference.log_scale_mean"][0]) == pytest.approx(0.5, abs=0.15)


class TestFit:
    def test_finds_the_clusters_and_what_they_want_of_texts_nobody_judged(self):
        enc, x, cluster, consensus, taste = two_publics()
        out = np.arange(len(x)) % 5 == 0
        train, test = without_texts(enc, out)
        jury = fit_joint(train, x, "mixture", 2)
        assert adjusted_rand_index(jury.responsibilities.argmax(1), cluster) > 0.9
        new = [Text("p", "new " + enc.texts[i].response) for i in np.flatnonzero(out)]
        rewards, _ = jury.rewards(new, x[out])
        assert np.corrcoef(rewards.mean(1), consensus[out])[0, 1] > 0.85
        assert abs(np.corrcoef(rewards[:, 0] - rewards[:, 1], taste[out])[0, 1]) > 0.95
        one = fit_joint(train, x, "mixture", 1)
        gain = answer_log_lik(jury.log_probs(test, x), test) - answer_log_lik(one.log_probs(test, x), test)
        assert gain.mean() > 0.1

    @pytest.mark.slow
    def test_few_judgements_a_text_say_more_about_new_texts_than_labels_first_and_texts_afterwards(self):
        gains = []
        for seed in range(3):
            enc, x, *_ = two_publics(seed=seed)
            train, test = without_texts(enc, np.arange(len(x)) % 5 == 0)
            jury, labels = fit_joint(train, x, "mixture", 2), fit_raters(train, "mixture", 2)
            two_steps = benchmark_module("_jury.labels_first").fit_labels_first(labels, train, x)
            log_lik = [answer_log_lik(fit.log_probs(test, x), test).mean() for fit in (jury, two_steps)]
            gains.append(log_lik[0] - log_lik[1])
        assert np.mean(gains) > 0.005

    @pytest.mark.slow
    @pytest.mark.parametrize("per_text", [3, 8, 40])
    def test_however_many_judgements_a_text_has_labels_alone_predict_its_next_ones_no_better(self, per_text):
        # Votes on texts whose features say nothing; raters differ in leniency, in scale, and in what they want.
        changes = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            taste = np.where(np.arange(60)[:, None] % 2 == 0, 1.0, -1.0) * rng.normal(size=50)
            terms = {"intercept": 0.8 * rng.normal(size=60), "log_scale": 0.5 * rng.normal(size=60)}
            enc = ratings(1.3 * rng.normal(size=50) + taste, **terms, seed=seed)
            rank = np.empty(len(enc), dtype=int)
            for text in range(50):
                rows = np.flatnonzero(enc.alternatives[:, 0] == text)
                rank[rows] = rng.permutation(len(rows))
            train, test = enc.select(rank < per_text, drop_raters=True), enc.select(rank >= 45)
            fits = fit_raters(train, "mixture", 2), fit_joint(train, rng.normal(size=(50, 8)), "mixture", 2)
            labels, joint = (-answer_log_lik(fit.log_probs(test), test).mean() for fit in fits)
            changes.append(joint - labels)
        assert np.mean(changes) < 0.003

    @pytest.mark.slow
    @pytest.mark.parametrize(("membership", "size"), [("simplex", 2), ("factor", 1)])
    def test_other_memberships_gain_as_much_from_a_divided_public(self, membership, size):
        enc, x, *_ = two_publics()
        train, test = without_texts(enc, np.arange(len(x)) % 5 == 0)
        one, jury = fit_joint(train, x, "mixture", 1), fit_joint(train, x, membership, size)
        gain = answer_log_lik(jury.log_probs(test, x), test) - answer_log_lik(one.log_probs(test, x), test)
        assert gain.mean() > 0.1

    @pytest.mark.slow
    def test_a_dense_table_gives_the_label_level_fit_whatever_the_features(self):
        rng = np.random.default_rng(4)
        rewards = np.where(np.arange(80)[:, None] % 2 == 0, 1, -1) * rng.normal(size=25) + rng.normal(size=25)
        enc = ratings(rewards)
        held = heldout_labels(enc.rater, 0.2, rng)
        train, test = enc.select(~held), enc.select(held)
        labels, joint = fit_raters(train, "mixture", 2), fit_joint(train, rng.normal(size=(25, 10)), "mixture", 2)
        known = joint.known_rewards
        matched = max(np.corrcoef(known[:, order].ravel(), labels.rewards.ravel())[0, 1] for order in ([0, 1], [1, 0]))
        assert matched > 0.99
        loss = [-answer_log_lik(fit.log_probs(test), test).mean() for fit in (labels, joint)]
        assert loss[1] < loss[0] + 0.003

    @pytest.mark.slow
    def test_a_text_nobody_judged_is_less_certain_than_one_that_many_did(self):
        enc, x, *_ = two_publics(share=0.5, residual=1.0)
        jury = fit_joint(enc, x, "mixture", 2)
        _, known = jury.rewards(enc.texts[:1], x[:1])
        _, new = jury.rewards([Text("p", "new")], x[:1])
        assert (known < new).all()
        assert known[0, 0] < 0.3 * new[0, 0]

    @pytest.mark.slow
    def test_votes_and_pairs_share_one_membership_per_rater(self):
        rng = np.random.default_rng(6)
        x = rng.normal(size=(60, 4))
        cluster = np.arange(50) % 2
        rewards = x[:, 0] + np.where(cluster[:, None] == 0, 1, -1) * x[:, 1]
        votes, compared = ratings(rewards, share=0.1, seed=6), pairs(rewards, 6, seed=6)
        agreement = [
            adjusted_rand_index(fit_joint(e, f, "mixture", 2).responsibilities.argmax(1), cluster)
            for e, f in ((votes, x), (compared, x), ([votes, compared], [x, x]))
        ]
        assert agreement[2] > max(agreement[:2]) + 0.2
        both = fit_joint([votes, compared], [x, x], "mixture", 2)
        assert both.rater_ids == votes.rater_ids
        # Adapting the same raters from the same labels is what the fit itself did.
        again = both.adapt([compared, votes])
        np.testing.assert_allclose(again.responsibilities, both.responsibilities, atol=1e-9)

    def test_what_is_predicted_follows_from_the_arrays_alone(self, tmp_path):
        enc, x, *_ = two_publics()
        train, test = without_texts(enc, np.arange(len(x)) % 5 == 0)
        jury = fit_joint(train, x, "mixture", 2)
        names = ["mixing", "weight", "bias", "new_variance", "parts", "variance"]
        np.savez(tmp_path / "jury.npz", posterior=jury.placement.posterior, **{n: getattr(jury, n) for n in names})
        stored = np.load(tmp_path / "jury.npz")
        model = RaterModel.from_dict(jury.model.to_dict())
        loaded = JointFit(
            model=model,
            placement=Placement(model, jury.rater_ids, stored["posterior"]),
            texts=jury.texts,
            strengths=jury.strengths,
            log_likelihood=jury.log_likelihood,
            stability=jury.stability,
            **{n: stored[n] for n in names},
        )
        np.testing.assert_array_equal(loaded.log_probs(test, x), jury.log_probs(test, x))


def test_uncertainty_that_clusters_share_is_not_averaged_away_in_a_blend():
    # One text of reward N(0, 4) for everybody, and a rater halfway between two clusters: P(agree) is one half, and
    # P(strongly agree) is the normal mixture of logistic probabilities, not that of half the variance.
    rng = np.random.default_rng(6)
    jury = fit_joint(ratings(rng.normal(size=(20, 10))), None, "simplex", 2, config=PLAIN)
    blend = np.flatnonzero((jury.model.codes == 0.5).all(1))
    placement = Placement(jury.model, ["r"], np.eye(jury.model.n_states)[blend])
    enc = encoded("rating", (1, 1), [0], np.array([[0]]), [0], levels=(1.0, 2.0, 3.0, 4.0, 5.0))
    enc = dataclasses.replace(enc, rater_ids=["r"])
    variance = np.array([[4.0, 0.0]]) @ (jury.mixing @ jury.model.codes.T) ** 2
    predicted = np.exp(placement.log_probs(enc, np.zeros((1, 2)), code_variance=variance))[0, -1]
    grid = np.linspace(-12, 12, 2001)
    top = jury.model.shared["thresholds"][-1]
    expected = np.trapezoid(norm.pdf(grid, scale=2.0) / (1 + np.exp(top - grid)), grid)
    assert predicted == pytest.approx(expected, abs=0.01)


class TestChoice:
    @pytest.mark.slow
    def test_a_divided_public_has_two_clusters_and_the_same_answers_shuffled_one(self):
        enc, x, cluster, *_ = two_publics(n_raters=48, n_texts=60, share=0.4)
        candidates = [("mixture", 1), ("mixture", 2)]  # a third, almost empty, predicts the same as two
        choice = choose_joint(enc, x, candidates, config=FitConfig(restarts=1))
        assert (choice.membership, choice.num_clusters) == ("mixture", 2)
        assert "it gains" in choice.reason
        assert adjusted_rand_index(choice.fit.responsibilities.argmax(1), cluster) > 0.9
        shuffled = choose_joint(shuffle_raters(enc, 0), x, candidates, config=FitConfig(restarts=1))
        assert shuffled.num_clusters == 1
        assert "one reward for everybody" in shuffled.reason

    def test_raters_who_judged_one_thing_each_get_one_reward_and_are_told_so(self):
        rng = np.random.default_rng(7)
        enc = ratings(rng.normal(size=(30, 10)))
        once = enc.select(np.arange(len(enc)) % 11 == 0, drop_raters=True)
        once = dataclasses.replace(once, rater=np.arange(len(once)), rater_ids=[f"u{i}" for i in range(len(once))])
        choice = choose_joint(once, rng.normal(size=(10, 3)))
        assert choice.num_clusters == 1
        assert choice.reason.startswith("undecided")
        with pytest.raises(JuryError, match="judged one thing only"):
            fit_joint(once, rng.normal(size=(10, 3)), "mixture", 2)


class TestBadInput:
    def test_features_that_are_missing_do_not_match_or_are_not_finite_are_refused(self):
        enc, x, *_ = two_publics(n_raters=10, n_texts=12, share=0.5)
        with pytest.raises(JuryError, match="unique texts"):
            fit_joint(enc, x[:-1])
        with pytest.raises(JuryError, match="NaN or infinity"):
            fit_joint(enc, np.where(np.arange(12)[:, None] == 3, np.nan, x))
        with pytest.raises(JuryError, match="2 arrays of features for 1 tables"):
            fit_joint(enc, [x, x])
        jury = fit_joint(enc, x, "mixture", 1)
        unseen = dataclasses.replace(enc, texts=[Text("p", f"new {i}") for i in range(12)])
        with pytest.raises(JuryError, match="were not in the fit"):
            jury.log_probs(unseen)
        with pytest.raises(JuryError, match="fitted to 6 features"):
            jury.log_probs(unseen, x[:, :4])

    def test_constant_features_are_the_same_as_none(self):
        enc, *_ = two_publics(n_raters=12, n_texts=12, share=0.6)
        fits = [fit_joint(enc, features, "mixture", 1) for features in (np.full((12, 3), 7.0), None)]
        np.testing.assert_allclose(*(fit.known_rewards for fit in fits), atol=1e-8)

    def test_tables_that_cannot_be_fitted_together_are_refused(self):
        enc, x, *_ = two_publics(n_raters=10, n_texts=12, share=0.5)
        with pytest.raises(JuryError, match="two tables of kind 'rating'"):
            fit_joint([enc, enc], [x, x])
        with pytest.raises(JuryError, match="empty"):
            fit_joint(enc.select(np.zeros(len(enc), bool)), x)
        with pytest.raises(JuryError, match="does not say who answered"):
            fit_joint(dataclasses.replace(enc, kind="soft"), x)

    def test_a_rater_who_agrees_with_everything_is_lenient_and_moves_no_reward_far(self):
        enc, x, *_ = two_publics(n_raters=30, n_texts=40, share=0.5)
        yes = enc.rater == 0
        with_yes = dataclasses.replace(enc, label=np.where(yes, 4, enc.label))
        jury, plain = fit_joint(with_yes, x, "mixture", 1), fit_joint(enc.select(~yes), x, "mixture", 1)
        terms = jury.placement.terms()["intercept"]
        assert terms[0] == terms.max() > 1.5
        both = [fit.rewards(enc.texts, x)[0] for fit in (jury, plain)]
        assert np.abs(both[0] - both[1]).max() < 0.4
