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
from reward_models.fitting import FitConfig, fit_mixture, latent_class
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

    @pytest.mark.slow
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
        with pytest.raises(JuryError, match=r"2 of 6 texts were not in the fit.*fit_jury"):
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


class TestThreads:
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
