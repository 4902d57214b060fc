"""Label-level mixtures, and linear rewards on frozen features: planted truths and independent solutions."""

from __future__ import annotations

import dataclasses

import choix
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp, softmax

from reward_models.errors import JuryError
from reward_models.fitting import FitConfig, fit_features, fit_mixture, latent_class
from reward_models.judgements.records import Judgements
from reward_models.raters.lbfgs import minimise
from reward_models.stats.answers import adjusted_rand_index


def survey(n_raters, n_items, n_clusters, *, spread=1.5, n_options=3, answered=1.0, seed=0):
    """Planted choice judgements: (Judgements, cluster of each encoded rater, true logits (K, I, A))."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(n_clusters, n_items, n_options))
    cluster = rng.choice(
        n_clusters, p=np.arange(n_clusters, 0, -1) / (n_clusters * (n_clusters + 1) / 2), size=n_raters
    )
    rows = []
    for u in range(n_raters):
        for i in range(n_items):
            if rng.random() > answered:
                continue
            choice = int((logits[cluster[u], i] + rng.gumbel(size=n_options)).argmax())
            rows.append(
                {
                    "rater_id": f"r{u}",
                    "item_id": f"q{i}",
                    "prompt": f"question {i}",
                    "options": [f"{i}{chr(97 + a)}" for a in range(n_options)],
                    "choice": choice,
                }
            )
    judgements = Judgements.from_frame(pd.DataFrame(rows), kind="choice")
    truth = cluster[[int(r[1:]) for r in judgements.encode().rater_ids]]
    return judgements, truth, logits


def pairs(n_raters, n_texts, n_each, *, rewards, cluster=None, ties=0.0, seed=0):
    """Planted pairs about one prompt: rewards (U, K), cluster (R,); Davidson ties with propensity `ties`."""
    rng = np.random.default_rng(seed)
    cluster = np.zeros(n_raters, dtype=int) if cluster is None else cluster
    rows = []
    every_pair = np.stack(np.triu_indices(n_texts, k=1), axis=1)
    for u in range(n_raters):
        for pair in every_pair[rng.choice(len(every_pair), n_each, replace=False)]:
            a, b = rng.permutation(pair)
            d = rewards[a, cluster[u]] - rewards[b, cluster[u]]
            weights = np.array([np.exp(d / 2), np.exp(-d / 2), ties])
            choice = ["a", "b", "tie"][rng.choice(3, p=weights / weights.sum())]
            rows.append(
                {
                    "rater_id": f"r{u}",
                    "item_id": f"{min(a, b)}-{max(a, b)}",
                    "prompt": "p",
                    "response_a": f"t{a:02d}",
                    "response_b": f"t{b:02d}",
                    "choice": choice,
                }
            )
    return Judgements.from_frame(pd.DataFrame(rows), kind="preference")


def harsh_and_lenient(n_raters=70, n_texts=30, *, leniency=2.0, seed=0):
    """Ratings of two taste clusters whose raters differ far more in leniency; returns (Encoded, cluster)."""
    rng = np.random.default_rng(seed)
    taste = 2.0 * rng.normal(size=(n_texts, 2))
    cluster = rng.integers(2, size=n_raters)
    eta = leniency * rng.normal(size=(n_raters, 1)) + taste[:, cluster].T + rng.logistic(size=(n_raters, n_texts))
    rating = (eta[:, :, None] > np.array([-2.0, -0.7, 0.7, 2.0])).sum(-1)
    u, t = np.divmod(np.arange(n_raters * n_texts), n_texts)
    frame = pd.DataFrame({"rater_id": u, "response": t, "rating": rating.ravel(), "prompt": "p"})
    frame[["rater_id", "response"]] = frame[["rater_id", "response"]].astype(str)
    enc = Judgements.from_frame(frame, kind="rating").encode()
    return enc, cluster[[int(r) for r in enc.rater_ids]]


class TestChoiceMixture:
    def test_one_cluster_is_the_items_own_distribution(self):
        judgements, _, _ = survey(60, 4, 1)
        enc = judgements.encode()
        fit = fit_mixture(enc, 1, FitConfig(smoothing=0.0))
        answers = enc.answer_matrix()
        for item, texts in enumerate(enc.item_alternatives):
            counts = np.bincount(answers[:, item], minlength=3)
            assert softmax(fit.rewards[texts, 0]) == pytest.approx(counts / 60, abs=1e-6)
            assert fit.rewards[texts, 0].sum() == pytest.approx(0.0, abs=1e-9)

    def test_planted_clusters_are_recovered_in_order_of_prevalence(self):
        judgements, truth, logits = survey(500, 20, 3, spread=2.0, answered=0.8)
        enc = judgements.encode()
        fit = fit_mixture(enc, 3)
        assert adjusted_rand_index(fit.responsibilities.argmax(1), truth) >= 0.95
        assert fit.prevalence == pytest.approx(np.bincount(truth) / 500, abs=0.03)
        assert (np.diff(fit.prevalence) <= 0).all()
        assert fit.stability >= 0.95
        centred = logits - logits.mean(-1, keepdims=True)
        fitted = fit.rewards[enc.item_alternatives].transpose(2, 0, 1)
        order = [int(i[1:]) for i in enc.item_ids]
        assert np.corrcoef(fitted.ravel(), centred[:, order].ravel())[0, 1] > 0.95

    def test_objective_never_falls_and_the_likelihood_is_the_mixtures(self):
        enc = survey(200, 8, 3, spread=0.8)[0].encode()
        fit = fit_mixture(enc, 3, FitConfig(tol=1e-9))
        assert len(fit.history) > 3
        assert np.diff(fit.history).min() >= -1e-8
        log_lik = fit.judgement_log_lik(enc)
        totals = np.stack([np.bincount(enc.rater, column) for column in log_lik.T], axis=1)
        assert logsumexp(totals + np.log(fit.prevalence), axis=1).sum() == pytest.approx(fit.log_likelihood, rel=1e-4)
        assert fit.posterior(enc) == pytest.approx(fit.responsibilities, abs=1e-3)

    def test_merging_equal_raters_changes_nothing(self, monkeypatch):
        enc = survey(400, 4, 2, n_options=2)[0].encode()
        merged = fit_mixture(enc, 2, FitConfig(tol=1e-12, max_iter=2000))
        monkeypatch.setattr(latent_class, "MAX_PATTERN_CELLS", 0)
        separate = fit_mixture(enc, 2, FitConfig(tol=1e-12, max_iter=2000))
        assert merged.rewards == pytest.approx(separate.rewards, abs=1e-3)
        assert merged.log_likelihood == pytest.approx(separate.log_likelihood, abs=1e-3)

    def test_options_shared_between_items_follow_luces_axiom(self):
        rng = np.random.default_rng(1)
        strength = np.array([1.5, 0.5, -0.5, -1.5])
        menus = [[0, 1, 2], [1, 2, 3], [0, 3, 1]]
        rows, data = [], []
        for n in range(600):
            menu = menus[n % 3]
            choice = int((strength[menu] + rng.gumbel(size=3)).argmax())
            rows.append({"rater_id": f"r{n % 50}", "item_id": f"m{n % 3}", "prompt": "p"})
            rows[-1] |= {"options": [f"o{i}" for i in menu], "choice": choice, "weight": 1.0}
            data.append((menu[choice], [m for m in menu if m != menu[choice]]))
        frame = pd.DataFrame(rows)
        frame["rater_id"] = [f"r{n}" for n in range(600)]
        with pytest.warns(UserWarning, match="one judgement"):
            enc = Judgements.from_frame(frame, kind="choice").encode()
        fit = fit_mixture(enc, 1, FitConfig(smoothing=0.0))
        expected = choix.opt_top1(4, data)
        order = [int(text.response[1:]) for text in enc.texts]
        assert fit.rewards[:, 0] == pytest.approx(expected[order] - expected.mean(), abs=1e-3)

    def test_soft_shares_become_log_shares(self):
        frame = pd.DataFrame(
            {"prompt": ["q", "r"], "options": [["x", "y"], ["x", "y", "z"]], "probs": [[0.8, 0.2], [0.5, 0.3, 0.2]]}
        )
        frame["n"] = 100
        enc = Judgements.from_frame(frame, kind="soft").encode()
        fit = fit_mixture(enc, 1, FitConfig(smoothing=0.0))
        assert fit.rewards[0, 0] - fit.rewards[1, 0] == pytest.approx(np.log(4))
        assert fit.responsibilities.shape == (0, 1)


class TestPairsAndRatings:
    def test_one_cluster_is_bradley_terry(self):
        truth = np.linspace(-1, 1, 6)[:, None]
        enc = pairs(40, 6, 15, rewards=truth).encode()
        fit = fit_mixture(enc, 1, FitConfig(smoothing=0.0, nuisance=False))
        index = {text.response: i for i, text in enumerate(enc.texts)}
        data = [
            (pair[label], pair[1 - label])
            for pair, label in zip(enc.alternatives.tolist(), enc.label.tolist(), strict=True)
        ]
        expected = choix.opt_pairwise(6, data)
        assert fit.rewards[:, 0] == pytest.approx(expected - expected.mean(), abs=1e-4)
        assert np.corrcoef([fit.rewards[index[f"t{i:02d}"], 0] for i in range(6)], truth[:, 0])[0, 1] > 0.97

    def test_taste_clusters_of_pairs_with_ties(self):
        rng = np.random.default_rng(0)
        rewards = 3.0 * rng.normal(size=(10, 2))
        cluster = rng.integers(2, size=50)
        judgements = pairs(50, 10, 40, rewards=rewards, cluster=cluster, ties=0.5)
        enc = judgements.encode()
        fit = fit_mixture(enc, 2, FitConfig(restarts=2, tol=1e-5))
        truth = cluster[[int(r[1:]) for r in enc.rater_ids]]
        assert adjusted_rand_index(fit.responsibilities.argmax(1), truth) >= 0.9
        assert len(fit.history) == 2  # one objective per restart, the best first
        assert fit.history[0] >= fit.history[1]
        # Davidson: nu = P(tie) / sqrt(P(a) P(b)); planted 0.5, raters alike.
        assert fit.nuisance["log_tie_mean"][0] == pytest.approx(np.log(0.5), abs=0.25)

    def test_without_rater_terms_clusters_are_the_harsh_and_the_lenient(self):
        enc, cluster = harsh_and_lenient()
        config = FitConfig(restarts=2, tol=1e-5)
        with_terms = fit_mixture(enc, 2, config)
        without = fit_mixture(enc, 2, dataclasses.replace(config, nuisance=False))
        assert adjusted_rand_index(with_terms.responsibilities.argmax(1), cluster) >= 0.9
        assert adjusted_rand_index(without.responsibilities.argmax(1), cluster) < 0.5
        mean_rating = np.bincount(enc.rater, enc.label) / np.bincount(enc.rater)
        assert np.corrcoef(with_terms.nuisance["intercept"], mean_rating)[0, 1] > 0.9
        assert with_terms.rewards.mean(0) == pytest.approx([0, 0], abs=1e-9)  # leniency is not in the rewards

        # A new rater is adapted with a leniency too: the same raters under new names get the same memberships.
        strangers = dataclasses.replace(enc, rater_ids=[f"new {r}" for r in enc.rater_ids])
        posterior, terms = with_terms.point_estimates(strangers)
        assert posterior == pytest.approx(with_terms.responsibilities, abs=0.05)
        assert terms["intercept"] == pytest.approx(with_terms.nuisance["intercept"], abs=0.1)


class TestRefusals:
    def test_more_clusters_than_raters(self):
        enc = survey(5, 3, 1)[0].encode()
        with pytest.raises(JuryError, match=r"num_clusters=6 is more than the 5 raters.*Fix: use at most 5"):
            fit_mixture(enc, 6)
        with pytest.raises(JuryError, match="num_clusters=0: a jury has at least one cluster"):
            fit_mixture(enc, 0)

    def test_clusters_of_nobody(self):
        frame = pd.DataFrame({"prompt": ["q"], "options": [["x", "y"]], "probs": [[0.8, 0.2]], "n": [10]})
        enc = Judgements.from_frame(frame, kind="soft").encode()
        with pytest.raises(JuryError, match=r"num_clusters=2.*do not say who answered.*num_clusters=1"):
            fit_mixture(enc, 2)

    def test_unknown_text_other_kind_and_unseen_ties(self):
        judgements = pairs(10, 4, 6, rewards=np.zeros((4, 1)))
        enc = judgements.encode()
        fit = fit_mixture(enc, 1)
        tied = dataclasses.replace(enc, label=np.full_like(enc.label, 2))
        with pytest.raises(JuryError, match=r"60 of 60 judgements are ties, but the jury was fitted without ties"):
            fit.judgement_log_lik(tied)
        choices = dataclasses.replace(enc, kind="choice")
        with pytest.raises(JuryError, match="fitted to 'preference' judgements and cannot adapt raters from 'choice'"):
            fit.judgement_log_lik(choices)
        stranger = pairs(10, 6, 15, rewards=np.zeros((6, 1))).encode()
        with pytest.raises(JuryError, match=r"2 of 6 texts were not in the fit.*use fit_features"):
            fit.judgement_log_lik(stranger)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"restarts": 0}, "restarts=0"),
            ({"temperatures": (4.0, 2.0)}, r"temperatures=\(4.0, 2.0\): the last must be 1"),
            ({"dirichlet": 0.5}, "dirichlet=0.5 must be at least 1"),
        ],
    )
    def test_configurations_that_cannot_work(self, values, message):
        with pytest.raises(JuryError, match=message):
            FitConfig(**values)


def _penalty(fit):
    return fit.l2, fit.deviation_penalty, fit.main_effect_penalty


def recurring_answers(n_raters=300, n_questions=12, seed=0, taste=0.4):
    """Choices whose three answers recur; (judgements, features and logits by (question, option))."""
    rng = np.random.default_rng(seed)
    shared = np.array([1.0, 0.3, -1.3])
    logits = shared + taste * rng.normal(size=(n_questions, 3))
    rows = []
    for u in range(n_raters):
        for i in range(n_questions):
            choice = int((logits[i] + rng.gumbel(size=3)).argmax())
            rows.append({"rater_id": f"r{u}", "item_id": f"q{i}", "prompt": f"q{i}", "choice": choice})
            rows[-1]["options"] = ["low", "mid", "high"]
    features = rng.normal(size=(n_questions, 1, 60)) + 0.5 * rng.normal(size=(n_questions, 3, 60))
    features[:, :, :30] += 2 * np.tile(np.eye(3), 10)  # a language model says plainly which answer a text ends in
    return Judgements.from_frame(pd.DataFrame(rows), kind="choice"), features, logits


class TestMemoryInTheFit:
    @pytest.mark.slow
    def test_seen_questions_are_reproduced_and_unseen_ones_get_the_usual_answers(self):
        judgements, features, logits = recurring_answers(n_questions=20)
        asked = judgements.frame["item_id"].isin([f"q{i}" for i in range(12)])
        enc = Judgements.from_frame(judgements.frame[asked], kind="choice").encode()
        column = {"low": 0, "mid": 1, "high": 2}
        x = np.stack([features[int(t.prompt[1:]), column[t.response]] for t in enc.texts])
        init = fit_mixture(enc, 1)
        fit = fit_features(enc, x, 1, init=init)

        def answers(rewards):
            return softmax(rewards.reshape(-1, 3), axis=1)

        order = np.argsort([3 * int(t.prompt[1:]) + column[t.response] for t in enc.texts])
        label_level = answers(init.rewards[order, 0])
        assert np.abs(answers(fit.rewards[order, 0]) - label_level).max() < 0.05
        linear = x @ fit.weight.T + fit.bias
        assert np.abs(answers(linear[order, 0]) - label_level).max() > 0.1
        new = features[12:].reshape(-1, 60)
        assert np.abs(fit.memory.rewards(new)).max() < 0.05  # the memory leaves new texts alone
        truth = softmax(logits[12:], axis=1)

        def loss(predicted):
            return -(truth * np.log(predicted)).sum(1).mean()

        marginal = loss(np.broadcast_to(label_level.mean(0), truth.shape))
        # Nearer to the usual answers than to all answers alike; a dozen questions cannot promise more.
        assert loss(answers(new @ fit.weight[0])) < marginal + 0.25 * (np.log(3) - marginal)

    def test_memberships_and_prevalence_stay_those_of_the_labels(self):
        judgements, _, _ = survey(200, 12, 3, spread=2.0)
        enc = judgements.encode()
        init = fit_mixture(enc, 3)
        x = np.random.default_rng(0).normal(size=(36, 4))
        fit = fit_features(enc, x, 3, init=init, l2=0.1)
        assert np.array_equal(fit.prevalence, init.prevalence)
        assert fit.responsibilities == pytest.approx(init.posterior(enc))
        drifted = fit_features(enc, x, 3, init=init, l2=0.1, em_iterations=5)
        assert np.abs(drifted.prevalence - init.prevalence).max() > 0.01

    def test_fits_leave_the_number_of_threads_alone(self):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        seen = []

        def loss(values):
            seen.append(torch.get_num_threads())
            return (values["x"] - 3.0).square().sum()

        try:
            assert minimise(loss, {"x": np.zeros(2)}, max_iter=20)["x"] == pytest.approx([3.0, 3.0])
            assert set(seen) == {1}
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


class TestFeatures:
    def test_one_hot_features_without_penalty_are_bradley_terry(self):
        enc = pairs(40, 6, 15, rewards=np.linspace(-1, 1, 6)[:, None]).encode()
        fit = fit_features(enc, np.eye(6), 1, l2=0.0, init=fit_mixture(enc, 1, FitConfig(nuisance=False)))
        data = [
            (pair[label], pair[1 - label])
            for pair, label in zip(enc.alternatives.tolist(), enc.label.tolist(), strict=True)
        ]
        expected = choix.opt_pairwise(6, data)
        assert fit.rewards[:, 0] == pytest.approx(expected - expected.mean(), abs=1e-3)

    def test_heads_are_linear_in_the_raw_features_and_average_to_the_consensus(self):
        judgements, _, _ = survey(200, 12, 2)
        enc = judgements.encode()
        features = 100 + 5 * np.random.default_rng(0).normal(size=(36, 50))
        fit = fit_features(enc, features.astype(np.float32), 2, l2=0.01, em_iterations=3, memory=False)
        assert fit.memory is None
        assert fit.weight.shape == (2, 50)
        assert fit.rewards == pytest.approx(features.astype(np.float32) @ fit.weight.T + fit.bias, abs=1e-9)
        assert fit.consensus_weight == pytest.approx(fit.prevalence @ fit.weight)
        assert fit.rewards.mean(0) == pytest.approx([0, 0], abs=1e-6)

    def test_new_questions_are_predicted_per_cluster(self):
        rng = np.random.default_rng(3)
        features = rng.normal(size=(90, 40))  # 30 questions, 3 options, fewer informative directions than features
        heads = np.zeros((2, 40))
        heads[:, :3] = [[1.5, 1.0, 0.0], [1.5, -1.0, 0.5]]
        truth = (features @ heads.T).reshape(30, 3, 2)
        cluster = np.repeat([0, 0, 0, 1, 1], 60)
        rows = []
        for u, k in enumerate(cluster):
            for i in rng.choice(24, 12, replace=False):  # questions 24..29 are never asked
                choice = int((truth[i, :, k] + rng.gumbel(size=3)).argmax())
                rows.append({"rater_id": f"r{u}", "item_id": f"q{i}", "prompt": f"q{i}", "choice": choice})
                rows[-1]["options"] = [f"{i}-{a}" for a in range(3)]
        enc = Judgements.from_frame(pd.DataFrame(rows), kind="choice").encode()
        order = [3 * int(text.prompt[1:]) + int(text.response[-1]) for text in enc.texts]
        fit = fit_features(enc, features[order], 2)
        unseen = (features[72:] @ fit.weight.T).reshape(6, 3, 2)
        unseen, expected = (x - x.mean(1, keepdims=True) for x in (unseen, truth[24:]))
        for k in range(2):
            assert np.corrcoef(unseen[:, :, k].ravel(), expected[:, :, k].ravel())[0, 1] > 0.8
            assert (
                np.corrcoef(unseen[:, :, k].ravel(), expected[:, :, k].ravel())[0, 1]
                > np.corrcoef(unseen[:, :, k].ravel(), expected[:, :, 1 - k].ravel())[0, 1]
            )
        best = min(fit.cv, key=lambda line: line["nll"])
        keys = ("l2", "deviation_penalty", "main_effect_penalty")
        (chosen,) = [x for x in fit.cv if all(x[k] == v for k, v in zip(keys, _penalty(fit), strict=True))]
        assert chosen["nll"] <= best["nll"] + best["se"]
        assert chosen["l2"] >= best["l2"]
        assert best["nll"] < np.log(3) - 0.2

    def test_useless_features_lead_to_a_strong_penalty(self):
        judgements, _, _ = survey(60, 40, 1)
        enc = judgements.encode()
        fit = fit_features(enc, np.random.default_rng(0).normal(size=(120, 20)), 1)
        assert fit.l2 >= 0.1
        # Without the penalty they would have cost: worse than a uniform guess.
        assert fit.cv[-1]["l2"] < 0.001
        assert fit.cv[-1]["nll"] > np.log(3) + 0.02

    def test_ratings_use_the_bias(self):
        enc, _ = harsh_and_lenient(30, 20, leniency=0.5)
        fit = fit_features(enc, np.eye(20), 1, l2=1e-4, init=fit_mixture(enc, 1, FitConfig(restarts=1)))
        mean_rating = np.bincount(enc.alternatives[:, 0], enc.label) / 30
        assert np.corrcoef(fit.rewards[:, 0], mean_rating)[0, 1] > 0.95

    def test_soft_judgements_have_one_head(self):
        options = [["x", "y"], ["x", "y"], ["x", "y"]]
        frame = pd.DataFrame({"prompt": ["q", "r", "s"], "options": options, "probs": [[0.8, 0.2]] * 3, "n": [10] * 3})
        enc = Judgements.from_frame(frame, kind="soft").encode()
        fit = fit_features(enc, np.tile([[1.0, 0.0], [0.0, 1.0]], (3, 1)), 1, l2=0.0)
        assert fit.rewards[0, 0] - fit.rewards[1, 0] == pytest.approx(np.log(4), abs=1e-4)

    def test_refusals(self):
        enc = survey(20, 4, 1)[0].encode()
        with pytest.raises(JuryError, match=r"shape \(3, 2\), but there are 12 unique texts"):
            fit_features(enc, np.zeros((3, 2)), 1)
        broken = np.zeros((12, 2))
        broken[5] = np.nan
        with pytest.raises(JuryError, match="1 of 12 rows of features hold NaN"):
            fit_features(enc, broken, 1)
        with pytest.raises(JuryError, match="num_clusters=2, but the initial fit has 1 clusters"):
            fit_features(enc, np.ones((12, 2)), 2, init=fit_mixture(enc, 1))
        with pytest.raises(JuryError, match=r"l2=-1.0 is no strength. Fix: use a number >= 0"):
            fit_features(enc, np.ones((12, 2)), 1, l2=-1.0)
        single = enc.select(enc.item == 0)
        with pytest.raises(JuryError, match=r"there is 1 question\. Fix: pass a number"):
            fit_features(single, np.eye(12), 1)
