"""Label-level fits: independent solutions for one cluster, planted raters for the rest, and rivals that must fail."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import choix
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from reward_models.errors import JuryError
from reward_models.fitting import rater_fit
from reward_models.fitting.em import FitConfig
from reward_models.fitting.rater_fit import fit_raters
from reward_models.raters.predictors import answer_log_lik
from reward_models.stats.answers import adjusted_rand_index
from tests.planted import encoded, pairs, ratings


PLAIN = FitConfig(nuisance=False)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def assigned(fit):
    return fit.responsibilities.argmax(1)


@pytest.fixture(scope="module")
def biased():
    """Three tastes among 150 raters who also differ in leniency, scale, readiness to tie and to prefer the first."""
    rng = np.random.default_rng(0)
    cluster, taste = rng.integers(3, size=150), 1.8 * rng.normal(size=(40, 3))
    habits = {
        "intercept": 1.5 * rng.normal(size=150),
        "log_scale": 0.3 * rng.normal(size=150),
        "log_tie": -0.5 + rng.normal(size=150),
        "position": 0.4 + 0.5 * rng.normal(size=150),
    }
    return cluster, taste, habits


@pytest.fixture(scope="module")
def jury(biased):
    """Ratings of the three tastes and the jury fitted to them."""
    cluster, taste, habits = biased
    enc = ratings(taste.T[cluster], intercept=habits["intercept"], log_scale=habits["log_scale"])
    return enc, fit_raters(enc, "mixture", 3)


class TestOneCluster:
    def test_pairs_are_bradley_terry(self):
        truth = np.linspace(-1, 1, 6)
        enc = pairs(np.tile(truth, (40, 1)), 15)
        data = [(p[y], p[1 - y]) for p, y in zip(enc.alternatives.tolist(), enc.label.tolist(), strict=True)]
        expected = choix.opt_pairwise(6, data)
        fit = fit_raters(enc, "mixture", 1, config=dataclasses.replace(PLAIN, smoothing=0.0))
        assert fit.rewards[:, 0] == pytest.approx(expected - expected.mean(), abs=1e-3)
        by_hand = np.log(expit([expected[a] - expected[b] for a, b in data])).sum()
        assert fit.log_likelihood == pytest.approx(by_hand, abs=1e-2)
        # The default shrinks a little, but keeps the order.
        shrunk = fit_raters(enc, "mixture", 1, config=PLAIN).rewards[:, 0]
        assert 0.9 < shrunk.std() / fit.rewards.std() < 1
        assert correlation(shrunk, expected) > 0.999

    def test_ratings_are_proportional_odds(self):
        rng = np.random.default_rng(1)
        enc = ratings(np.tile(rng.normal(size=6), (60, 1)))
        fit = fit_raters(enc, "mixture", 1, config=dataclasses.replace(PLAIN, smoothing=1e-6))

        def loss(theta):
            cuts = np.cumsum(np.concatenate([theta[:1], np.exp(theta[1:4])]))
            reward = np.concatenate([theta[4:], -theta[4:].sum(keepdims=True)])[enc.alternatives[:, 0]]
            edges = np.concatenate([[-np.inf], cuts, [np.inf]])
            return -np.log(expit(edges[enc.label + 1] - reward) - expit(edges[enc.label] - reward)).sum()

        fitted = minimize(loss, np.zeros(9), method="BFGS")
        reward = np.concatenate([fitted.x[4:], [-fitted.x[4:].sum()]])
        assert fit.log_likelihood == pytest.approx(-fitted.fun, abs=0.01)
        # Rewards and thresholds are known up to a common shift.
        assert fit.rewards[:, 0] - fit.rewards.mean() == pytest.approx(reward, abs=0.01)
        cuts = np.cumsum(np.concatenate([fitted.x[:1], np.exp(fitted.x[1:4])]))
        assert fit.nuisance["thresholds"] - fit.rewards.mean() == pytest.approx(cuts, abs=0.01)

    @pytest.mark.parametrize("nuisance", [True, False])
    def test_ratings_of_different_prompts_are_on_one_scale(self, nuisance):
        truth = np.linspace(-2, 2, 6)
        enc = ratings(np.tile(truth, (60, 1)))
        apart = dataclasses.replace(enc, texts=[text._replace(prompt=text.response) for text in enc.texts])
        config = FitConfig(nuisance=nuisance)
        fit, together = (fit_raters(x, "mixture", 1, config=config) for x in (apart, enc))
        assert correlation(fit.rewards, truth) > 0.95
        assert fit.rewards == pytest.approx(together.rewards)
        # Of pairs only differences within a prompt mean anything.
        several = pairs(np.tile(truth, (60, 1)), 10)
        half = [text._replace(prompt="pq"[i >= 3]) for i, text in enumerate(several.texts)]
        several = several.select(np.ptp(several.alternatives // 3, axis=1) == 0)
        of_two = fit_raters(dataclasses.replace(several, texts=half), "mixture", 1, config=config).rewards[:, 0]
        assert [of_two[:3].mean(), of_two[3:].mean()] == pytest.approx([0, 0], abs=1e-9)

    def test_the_spread_of_raters_and_rewards_is_learnt(self):
        # Empirical Bayes: two populations, one four times as diverse as the other, around rewards of different spread.
        for leniency, spread in ((0.5, 1.5), (2.0, 0.5)):
            rng = np.random.default_rng(2)
            rewards = spread * rng.normal(size=80)
            enc = ratings(np.tile(rewards, (150, 1)), intercept=leniency * rng.normal(size=150), share=0.8)
            fit = fit_raters(enc, "mixture", 1)
            assert fit.model.term_sd["intercept"] == pytest.approx(leniency, rel=0.2)
            assert fit.reward_sd[0] == pytest.approx(rewards.std(), rel=0.25)
            assert correlation(fit.rewards, rewards) > 0.9


class TestPlantedClusters:
    def test_ratings_of_biased_raters(self, biased, jury):
        (cluster, _, habits), (enc, fit) = biased, jury
        assert adjusted_rand_index(assigned(fit), cluster) >= 0.95
        assert fit.prevalence == pytest.approx(np.sort(np.bincount(cluster) / 150)[::-1], abs=0.04)
        assert (np.diff(fit.prevalence) <= 0).all()
        assert correlation(fit.nuisance["intercept"], habits["intercept"]) >= 0.9
        assert correlation(fit.nuisance["log_scale"], habits["log_scale"]) >= 0.5  # a few labels tell little of it
        assert np.average(fit.rewards, axis=0, weights=np.bincount(enc.alternatives[:, 0])) == pytest.approx(
            np.zeros(3), abs=1e-9
        )
        # The rival without rater terms sorts raters by leniency.
        rival = fit_raters(enc, "mixture", 3, config=PLAIN)
        assert adjusted_rand_index(assigned(rival), cluster) < 0.6
        strict, lenient = np.quantile(habits["intercept"], [0.25, 0.75])
        ends = (habits["intercept"] < strict) | (habits["intercept"] > lenient)
        by_leniency = adjusted_rand_index(assigned(rival)[ends], (habits["intercept"] > 0)[ends])
        assert by_leniency > adjusted_rand_index(assigned(fit)[ends], (habits["intercept"] > 0)[ends]) + 0.1

    @pytest.mark.slow
    def test_pairs_of_biased_raters_with_ties(self, biased):
        cluster, taste, habits = biased
        terms = {name: habits[name] for name in ("log_scale", "log_tie", "position")}
        enc = pairs(taste.T[cluster], 80, **terms)
        fit = fit_raters(enc, "mixture", 3, config=FitConfig(restarts=2, tol=1e-5))
        assert adjusted_rand_index(assigned(fit), cluster) >= 0.95
        fitted = fit.nuisance
        tie = fitted["log_tie"] + fitted["log_tie_mean"]
        assert correlation(tie, habits["log_tie"]) >= 0.9
        assert tie.mean() == pytest.approx(habits["log_tie"].mean(), abs=0.3)
        assert correlation(fitted["position"], habits["position"]) >= 0.7
        assert fitted["position_mean"][0] == pytest.approx(0.4, abs=0.2)
        order = [assigned(fit)[cluster == k][0] for k in range(3)]
        assert correlation(fit.rewards[:, order], taste - taste.mean(0)) > 0.95

    def test_history_and_stability(self, jury):
        _, fit = jury
        assert len(fit.history) == 3
        assert fit.history == sorted(fit.history, reverse=True)
        assert 0.5 < fit.stability <= 1
        noise = fit_raters(ratings(np.zeros((100, 20)), seed=1), "mixture", 3)
        assert noise.stability < fit.stability

    def test_a_sample_of_raters_gives_the_same_jury(self, jury, monkeypatch):
        enc, whole = jury
        monkeypatch.setattr(rater_fit, "SAMPLE_RATERS", 75)
        monkeypatch.setattr(rater_fit, "SAMPLE_JUDGEMENTS", 1)
        sampled = fit_raters(enc, "mixture", 3)
        assert len(sampled.rater_ids) == 150
        assert adjusted_rand_index(assigned(sampled), assigned(whole)) > 0.9
        assert correlation(sampled.rewards, whole.rewards) > 0.98
        assert sampled.log_likelihood == pytest.approx(whole.log_likelihood, rel=0.01)


class TestPlantedBlends:
    @pytest.mark.slow
    def test_simplex_of_two(self):
        rng = np.random.default_rng(3)
        weight = rng.random(150)
        prototypes = 2.5 * rng.normal(size=(60, 2))
        enc = ratings(np.column_stack([weight, 1 - weight]) @ prototypes.T, intercept=1.5 * rng.normal(size=150))
        fit = fit_raters(enc, "simplex", 2)
        fitted = fit.responsibilities
        assert fitted.sum(1) == pytest.approx(np.ones(150))
        assert abs(correlation(fitted[:, 0], weight)) >= 0.9
        # Hard clusters explain people in the middle worse.
        assert fit.log_likelihood > fit_raters(enc, "mixture", 2).log_likelihood + 10

    def test_simplex_of_three(self):
        rng = np.random.default_rng(2)
        weight = rng.dirichlet([0.6] * 3, size=150)
        enc = pairs(weight @ (2.5 * rng.normal(size=(20, 3))).T, 60)
        fit = fit_raters(enc, "simplex", 3, config=FitConfig(restarts=2))
        best = max(correlation(fit.responsibilities[:, p], weight) for p in map(list, permutations(range(3))))
        assert best >= 0.9

    @pytest.mark.slow
    def test_factor_of_one(self):
        rng = np.random.default_rng(4)
        z, consensus, taste = rng.normal(size=150), rng.normal(size=40), 0.8 * rng.normal(size=40)
        rewards = consensus + z[:, None] * taste
        fit = fit_raters(ratings(rewards, intercept=1.5 * rng.normal(size=150)), "factor", 1)
        assert (fit.num_clusters, fit.rewards.shape) == (1, (40, 2))
        sign = np.sign(correlation(fit.rewards[:, 1], taste))
        assert correlation(sign * fit.responsibilities[:, 1], z) >= 0.9
        assert correlation(fit.rewards[:, 0], consensus) >= 0.9
        assert sign * correlation(fit.rewards[:, 1], taste) >= 0.9
        assert fit.reward_sd == pytest.approx((consensus.std(), taste.std()), rel=0.35)
        low, high = fit.placement.intervals(0.9)
        inside = (low[:, 1] <= sign * z) & (sign * z <= high[:, 1])
        assert inside.mean() > 0.8
        # Nothing to find: the taste of a rater is shrunk to nothing.
        none = fit_raters(ratings(np.tile(consensus, (150, 1))), "factor", 1)
        assert none.reward_sd[1] < 0.4 * fit.reward_sd[1]

    def test_factor_of_two_spans_the_planted_plane(self):
        rng = np.random.default_rng(5)
        z, taste = rng.normal(size=(150, 2)), 1.2 * rng.normal(size=(30, 2))
        fit = fit_raters(ratings(rng.normal(size=30) + z @ taste.T), "factor", 2, config=FitConfig(tol=1e-5))
        # Axes are free to rotate; each planted taste is a combination of the fitted ones.
        design = fit.responsibilities
        for column in z.T:
            fitted = design @ np.linalg.lstsq(design, column, rcond=None)[0]
            assert correlation(fitted, column) >= 0.9

    def test_ideal_points(self):
        rng = np.random.default_rng(6)
        point, prototype = rng.normal(size=(40, 3)), 1.5 * rng.normal(size=(3, 3))
        cluster = rng.integers(3, size=150)
        taste = -((point[:, None] - prototype) ** 2).sum(-1)
        enc = pairs(taste.T[cluster], 24)
        fit = fit_raters(enc, "mixture", 3, basis="ideal_point")
        assert adjusted_rand_index(assigned(fit), cluster) >= 0.95
        order = [assigned(fit)[cluster == k][0] for k in range(3)]
        asked = pairs(taste.T[cluster], 40, seed=9)
        linear = fit_raters(enc, "mixture", 3)
        scores = {name: answer_log_lik(f.log_probs(asked), asked).mean() for name, f in (("i", fit), ("l", linear))}
        assert scores["i"] > scores["l"] - 0.02
        assert correlation(fit.rewards[:, order], taste - taste.mean(0)) > 0.9
        assert fit.reward_sd == ()


class TestTwoTables:
    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, biased):
        cluster, taste, habits = biased
        taste = taste - taste.mean(0)
        few = ratings(taste.T[cluster], intercept=habits["intercept"], share=0.3, seed=3)
        return cluster, few, pairs(2 * taste.T[cluster], 10, seed=4)

    @pytest.mark.slow
    def test_a_joint_fit_places_raters_better_than_either_table(self, tables):
        cluster, votes, compared = tables
        both = fit_raters([votes, compared], "mixture", 3)
        alone = [adjusted_rand_index(assigned(fit_raters(enc, "mixture", 3)), cluster) for enc in (votes, compared)]
        joint = adjusted_rand_index(assigned(both), cluster)
        assert joint > max(alone) + 0.02
        assert joint > 0.9
        assert (both.kind, set(both.model.terms)) == ("rating", {"rating", "preference"})
        assert set(both.placement.terms()) == {"rating.intercept", "rating.log_scale", "preference.log_scale"}

        # Placed anew by both tables they are where the fit put them; by one table they are less sure.
        rewards = [both.known_rewards(enc) for enc in (votes, compared)]
        again = both.model.adapt([votes, compared], rewards)
        assert again.memberships() == pytest.approx(both.responsibilities)
        one = both.model.adapt(votes, rewards[0])
        assert one.memberships().max(1).mean() < again.memberships().max(1).mean()
        for enc in (votes, compared):
            log_p = again.log_probs(enc, both.known_rewards(enc))
            assert np.exp(log_p).sum(1) == pytest.approx(np.ones(len(enc)))

    def test_raters_and_texts_are_matched_by_name(self):
        rng = np.random.default_rng(1)
        rewards = np.tile(rng.normal(size=8), (30, 1))
        votes, compared = ratings(rewards), pairs(rewards[:, ::-1], 20)
        turned = dataclasses.replace(
            compared, texts=compared.texts[::-1], rater_ids=[f"r{i}" for i in range(20)] + [f"n{i}" for i in range(10)]
        )
        fit = fit_raters([votes, turned], "mixture", 1)
        assert fit.rater_ids == [f"r{i}" for i in range(30)] + [f"n{i}" for i in range(10)]
        assert fit.texts == votes.texts
        assert correlation(fit.rewards[:, 0], rewards[0]) > 0.95

    def test_the_scale_of_the_second_table_is_learnt(self):
        rng = np.random.default_rng(7)
        rewards = np.tile(1.5 * rng.normal(size=20), (300, 1))
        for factor in (1.0, 2.0):
            fit = fit_raters([ratings(rewards), pairs(factor * rewards, 20)], "mixture", 1)
            scale = fit.model.terms["preference"].shared["log_scale_mean"][0]
            assert scale == pytest.approx(np.log(factor), abs=0.25)

    def test_two_tables_of_one_kind(self, tables):
        _, votes, _ = tables
        with pytest.raises(JuryError, match=r"two tables of kind 'rating'.*concatenate"):
            fit_raters([votes, votes], "mixture", 2)


class TestPlacing:
    def test_placed_is_bayes_with_the_fitted_rewards(self, biased, jury):
        (cluster, _, habits), (enc, _) = biased, jury
        train = enc.select(enc.rater < 100, drop_raters=True)
        fit = fit_raters(train, "mixture", 3)
        assert fit.adapt(train).responsibilities == pytest.approx(fit.responsibilities)
        new = enc.select(enc.rater >= 100, drop_raters=True)
        seen, asked = new.select(new.alternatives[:, 0] < 25), new.select(new.alternatives[:, 0] >= 25)
        adapted = fit.adapt(seen)
        assert adapted.rater_ids == [f"r{i}" for i in range(100, 150)]  # the training raters are forgotten
        order = {k: assigned(fit)[cluster[:100] == k][0] for k in range(3)}
        assert (adapted.responsibilities.argmax(1) == [order[k] for k in cluster[100:]]).mean() > 0.9
        before, after = (answer_log_lik(f.log_probs(asked), asked).mean() for f in (fit, adapted))
        assert after > before + 0.2
        responsibilities, terms = fit.point_estimates(seen)
        assert responsibilities == pytest.approx(adapted.responsibilities)
        assert correlation(terms["intercept"], habits["intercept"][100:]) > 0.9

        # With the rater known, a point estimate of the terms and the average over them say nearly the same.
        point = fit.judgement_log_lik(train)[np.arange(len(train)), assigned(fit)[train.rater]]
        assert point.mean() == pytest.approx(answer_log_lik(fit.log_probs(train), train).mean(), abs=0.03)

    def test_texts_it_does_not_know(self):
        enc = pairs(np.tile(np.arange(4.0), (10, 1)), 6)
        fit = fit_raters(enc, "mixture", 1)
        more = pairs(np.zeros((10, 6)), 15)
        with pytest.raises(JuryError, match=r"2 of 6 texts were not in the fit, the first: .*t4.*fit_jury"):
            fit.log_probs(more)
        # A text that is listed but not judged does no harm.
        listed = more.select((more.alternatives < 4).all(1))
        assert fit.known_rewards(listed)[4:] == pytest.approx(0)
        assert np.isfinite(fit.log_probs(listed)[:, :2]).all()

    def test_choices_with_shared_options_and_a_habit_of_answering_first(self):
        # Everybody is indifferent; some take the first of three options, some the last. That is not a taste.
        rng = np.random.default_rng(8)
        habit = rng.choice([-1.5, 1.5], size=60)
        rater = np.repeat(np.arange(60), 30)
        menu = rng.permuted(np.tile(np.arange(6), (len(rater), 1)), axis=1)[:, :3]
        liking = habit[rater, None] * np.array([-1.0, 0.0, 1.0])
        label = (liking + rng.gumbel(size=menu.shape)).argmax(1)
        enc = encoded("choice", (60, 6), rater, menu, label)
        fit = fit_raters(enc, "mixture", 1, config=FitConfig(style=True))
        assert correlation(fit.nuisance["place"], habit) > 0.9
        assert np.abs(fit.rewards).max() < 0.4
        plain = fit_raters(enc, "mixture", 1)
        assert fit.log_likelihood > plain.log_likelihood + 100


class TestRefusals:
    @pytest.mark.parametrize(
        ("membership", "num_clusters", "basis", "message"),
        [
            ("mixture", 0, "linear", "num_clusters=0: a jury has at least one cluster"),
            ("mixture", 5, "linear", r"num_clusters=5 is more than the 4 raters in the table. Fix: use at most 4"),
            ("factor", 4, "linear", "affordable up to rank 3. Fix: a lower rank"),
            ("factor", 1, "ideal_point", "basis='ideal_point' needs raters that are blends of prototypes"),
        ],
    )
    def test_what_cannot_work(self, membership, num_clusters, basis, message):
        with pytest.raises(JuryError, match=message):
            fit_raters(ratings(np.zeros((4, 3))), membership, num_clusters, basis=basis)


@pytest.mark.parametrize(
    ("membership", "hint"),
    [(2, r"membership=2 is none of .* given by its name: num_clusters=2"), ("mixtur", r"Did you mean 'mixture'\?")],
)
def test_an_unknown_membership_is_refused_at_once(membership, hint):
    with pytest.raises(JuryError, match=hint):
        fit_raters(pairs(np.zeros((4, 3)), 3), membership)
