"""States of a rater: the grid, Bayes' rule, predictions and the marginal likelihood, against enumeration by hand."""

from __future__ import annotations

import dataclasses
import json
from math import comb

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import expit, logsumexp
from scipy.stats import norm

from reward_models.errors import JuryError
from reward_models.fitting import marginal
from reward_models.fitting.em import FitConfig
from reward_models.fitting.marginal import Problem
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.raters import state_grid
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import Predictor, answer_log_lik, n_answers
from reward_models.raters.rater_model import DEFAULT_NODES, KindTerms, RaterModel
from reward_models.raters.state_grid import normal_grid, simplex_lattice
from tests.planted import THRESHOLDS, encoded, pairs, ratings


CUTS = np.array([-1.0, 0.2, 1.5])
RATING = KindTerms({"thresholds": CUTS}, {"intercept": 1.2, "log_scale": 0.4})
PAIRS = KindTerms(
    {"log_tie_mean": np.array([-0.3]), "position_mean": np.array([0.2])},
    {"log_scale": 0.4, "log_tie": 0.8, "position": 0.5},
)


def line(nodes=7):
    """A factor model's codes (1, z) and their log prior."""
    z, log_weight = normal_grid(nodes)
    return np.column_stack([np.ones(nodes), z]), log_weight


CODES = {
    "mixture": (np.eye(2), np.log([0.7, 0.3])),
    "simplex": (simplex_lattice(2, 3), np.log([0.4, 0.3, 0.2, 0.1])),
    "factor": line(5),
}


def model_of(membership, **terms):
    return RaterModel(membership, *CODES[membership], terms, {"intercept": 7})


def table_of(kind, n_raters=4, n=30, n_texts=5, seed=0):
    """Random judgements: four-level ratings; pairs with ties in which what was shown first is sometimes known."""
    rng = np.random.default_rng(seed)
    rater, weight = rng.integers(n_raters, size=n), rng.integers(1, 3, size=n)
    if kind == "rating":
        text = rng.integers(n_texts, size=(n, 1))
        table = encoded(kind, (n_raters, n_texts), rater, text, rng.integers(4, size=n), levels=(1.0, 2.0, 3.0, 4.0))
    else:
        text = np.stack([rng.permutation(n_texts)[:2] for _ in range(n)])
        first = rng.integers(-1, 2, size=n)
        table = encoded(kind, (n_raters, n_texts), rater, text, rng.integers(3, size=n), shown_first=first)
    return dataclasses.replace(table, count=weight.astype(float))


def probability(enc, row, label, reward, shared, term):
    """P(label) of one row for a rater with `reward` (U,) and `term`, written out from the papers' formulas."""
    scale = np.exp(term.get("log_scale", 0.0) + shared.get("log_scale_mean", [0.0])[0])
    if enc.kind == "rating":
        eta = term.get("intercept", 0.0) + scale * reward[enc.alternatives[row, 0]]
        below = np.concatenate([[0.0], expit(shared["thresholds"] - eta), [1.0]])
        return below[label + 1] - below[label]
    a, b = scale * reward[enc.alternatives[row]]
    if enc.shown_first is not None and enc.shown_first[row] >= 0:
        push = shared["position_mean"][0] + term.get("position", 0.0)
        a += push if enc.shown_first[row] == 0 else -push
    tie = shared["log_tie_mean"][0] + term.get("log_tie", 0.0)
    weights = np.exp([a, b, tie + (a + b) / 2])
    return weights[label] / weights.sum()


def states(model):
    """(code, {kind: {term: value}}, prior) of each state, terms varying fastest."""
    grids = [normal_grid(model.nodes.get(name, DEFAULT_NODES[name])) for _, name in model.term_names]
    for code, log_prior in zip(model.codes, model.code_log_prior, strict=True):
        for point in np.ndindex(*[len(g[0]) for g in grids]):
            terms = {kind: {} for kind in model.terms}
            weight = log_prior
            for (kind, name), i, (z, log_weight) in zip(model.term_names, point, grids, strict=True):
                terms[kind][name] = model.terms[kind].sd[name] * z[i]
                weight += log_weight[i]
            yield code, terms, np.exp(weight)


def enumerate_joint(model, tables, rewards):
    """(R, S) prior times likelihood, one judgement at a time."""
    joint = []
    for code, terms, prior in states(model):
        likelihood = np.full(tables[0].n_raters, prior)
        for enc in tables:
            for row in range(len(enc)):
                p = probability(
                    enc, row, enc.label[row], rewards @ code, model.terms[enc.kind].shared, terms[enc.kind]
                )
                likelihood[enc.rater[row]] *= p ** enc.count[row]
        joint.append(likelihood)
    return np.stack(joint, axis=1)


class TestGrid:
    @pytest.mark.parametrize("nodes", [1, 3, 5, 7, 13, 15])
    def test_nodes_are_a_standard_normal(self, nodes):
        z, log_weight = normal_grid(nodes)
        weight = np.exp(log_weight)
        assert len(z) == nodes
        assert weight.sum() == pytest.approx(1)
        assert weight @ z == pytest.approx(0, abs=1e-12)
        if nodes > 1:
            exact = nodes <= 5  # Gauss-Hermite; the others are cut at three standard deviations
            assert weight @ z**2 == pytest.approx(1, abs=1e-9 if exact else 0.06)
        if nodes >= 5:
            log_normal = weight @ np.exp(0.5 * z)
            assert log_normal == pytest.approx(np.exp(0.125), rel=0.01)

    @pytest.mark.parametrize(("k", "resolution"), [(1, 5), (2, 10), (3, 6), (4, 4)])
    def test_lattice_of_blends(self, k, resolution):
        points = simplex_lattice(k, resolution)
        assert points.shape == (comb(resolution + k - 1, k - 1), k)
        assert points.sum(1) == pytest.approx(np.ones(len(points)))
        assert (points >= 0).all()
        assert len(np.unique(points.round(9), axis=0)) == len(points)
        assert np.sort(points[:k], axis=0)[::-1] == pytest.approx(np.sort(np.eye(k), axis=0)[::-1])
        assert points[:k].max(1) == pytest.approx(np.ones(k))


class TestMerging:
    @pytest.mark.parametrize("kind", ["rating", "preference", "choice"])
    def test_rows_are_merged_if_and_only_if_they_ask_and_answer_alike(self, kind):
        rng = np.random.default_rng(3)
        if kind == "choice":  # the padded menu (0, 1, -) is not the menu (0, 1, 0)
            menus = np.array([[0, 1, -1], [0, 1, 0], [2, 1, 0], [2, -1, -1]])
            enc = encoded(kind, (4, 3), rng.integers(4, size=60), menus[rng.integers(4, size=60)], np.zeros(60, int))
            enc.label[:] = rng.integers(2, size=60)
        else:
            enc = table_of(kind, n=80, n_texts=3)
        first = np.zeros(len(enc)) if enc.shown_first is None else enc.shown_first
        question = [(*row, f) for row, f in zip(enc.alternatives.tolist(), first.tolist(), strict=True)]
        answered = [(*row, label) for row, label in zip(question, enc.label.tolist(), strict=True)]
        observed = Observations.from_encoded(enc)
        for (merged, index), keys in ((observed.distinct(), answered), (observed.questions(), question)):
            index = np.asarray(index)
            assert len(merged.label) == len(set(keys)) < len(enc)
            same = index[:, None] == index[None, :]
            assert np.array_equal(same, np.array([[a == b for b in keys] for a in keys]))
            back = merged.select(torch.from_numpy(index))
            assert torch.equal(back.alternatives, observed.alternatives)
            if kind == "choice":
                assert torch.equal(back.mask, observed.mask)
            if kind == "preference":
                assert torch.equal(back.first, observed.first)
        merged, index = observed.distinct()
        assert torch.equal(merged.label[index], observed.label)

    def test_no_judgements_are_no_judgements(self):
        merged, index = Observations.from_encoded(table_of("rating").select(np.zeros(30, bool))).distinct()
        assert len(merged.label) == len(index) == 0


class TestPlacement:
    def test_bayes_by_hand(self):
        # Two clusters .7 and .3; cluster 0 prefers t0 by ln 3, cluster 1 prefers t1 by ln 4; a says t0 twice.
        rewards = np.array([[np.log(3), 0.0], [0.0, np.log(4)]])
        model = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), {"preference": KindTerms()})
        enc = encoded("preference", (2, 2), [0, 0, 1], np.array([[0, 1], [1, 0], [0, 1]]), [0, 1, 1])
        adapted = model.adapt(enc, rewards)
        likely = np.array([[0.7 * 0.75**2, 0.3 * 0.2**2], [0.7 * 0.25, 0.3 * 0.8]])
        posterior = likely / likely.sum(1, keepdims=True)
        assert adapted.memberships() == pytest.approx(posterior)
        p_a = posterior @ [0.75, 0.2]
        assert np.exp(adapted.log_probs(enc, rewards)) == pytest.approx(
            np.array([[p_a[0], 1 - p_a[0], 0], [1 - p_a[0], p_a[0], 0], [p_a[1], 1 - p_a[1], 0]])
        )

    @pytest.mark.parametrize("membership", ["mixture", "simplex", "factor"])
    @pytest.mark.parametrize("kinds", [("rating",), ("preference",), ("rating", "preference")])
    def test_posterior_and_predictions_by_enumeration(self, membership, kinds, monkeypatch):
        monkeypatch.setattr(state_grid, "CHUNK", 1500)  # several blocks of distinct judgements and of questions
        terms = {kind: {"rating": RATING, "preference": PAIRS}[kind] for kind in kinds}
        if len(kinds) == 2:
            small = KindTerms(PAIRS.shared | {"log_scale_mean": np.array([0.5])}, {"log_tie": 0.8})
            terms = {"rating": RATING, "preference": small}
        model = model_of(membership, **terms)
        rewards = np.random.default_rng(1).normal(size=(5, 2))
        tables = [table_of(kind, n=12, seed=i) for i, kind in enumerate(kinds)]
        joint = enumerate_joint(model, tables, rewards)
        posterior = joint / joint.sum(1, keepdims=True)
        adapted = model.adapt(tables, [rewards] * len(tables))
        assert adapted.posterior == pytest.approx(posterior)
        assert adapted.memberships() == pytest.approx(posterior.reshape(4, len(model.codes), -1).sum(2) @ model.codes)
        assert set(adapted.terms()) == {
            f"{kind}.{name}" if len(kinds) == 2 else name for kind in kinds for name in terms[kind].sd
        }
        name, values = next(iter(adapted.terms().items()))
        of_state = [t[kinds[0]][name.split(".")[-1]] for _, t, _ in states(model)]
        assert values == pytest.approx(posterior @ of_state)

        enc = tables[-1]
        predicted = np.exp(adapted.log_probs(enc, rewards))
        by_hand = np.array(
            [
                [
                    sum(
                        weight * probability(enc, row, answer, rewards @ code, terms[enc.kind].shared, t[enc.kind])
                        for weight, (code, t, _) in zip(posterior[enc.rater[row]], states(model), strict=True)
                    )
                    for answer in range(n_answers(enc))
                ]
                for row in range(0, len(enc), 4)
            ]
        )
        assert predicted[::4] == pytest.approx(by_hand)

    def test_strangers_are_the_population_and_labels_are_not_looked_at(self):
        model = model_of("simplex", rating=RATING)
        enc, rewards = table_of("rating"), np.random.default_rng(1).normal(size=(5, 2))
        adapted = model.adapt(enc, rewards)
        strangers = dataclasses.replace(enc, rater_ids=["x", "r1", "y", "z"])
        mixed = adapted.log_probs(strangers, rewards)
        known = enc.rater == 1
        assert mixed[known] == pytest.approx(adapted.log_probs(enc, rewards)[known])
        assert mixed[~known] == pytest.approx(model.prior_placement().log_probs(enc, rewards)[~known])
        assert np.abs(mixed - adapted.log_probs(enc, rewards))[~known].max() > 0.05
        other_labels = dataclasses.replace(enc, label=(enc.label + 1) % 4)
        assert np.array_equal(adapted.log_probs(other_labels, rewards), adapted.log_probs(enc, rewards))
        assert model.prior_placement().memberships().shape == (0, 2)
        assert np.exp(adapted.select(["nobody"])).sum() > 0
        assert adapted.select(["nobody"])[0] == pytest.approx(np.exp(model.log_prior))

    def test_a_weight_counts_as_repeated_rows(self):
        model, enc = model_of("mixture", preference=PAIRS), table_of("preference")
        rewards = np.random.default_rng(1).normal(size=(5, 2))
        rows = np.repeat(np.arange(len(enc)), enc.count.astype(int))
        repeated = dataclasses.replace(enc.select(rows), count=np.ones(len(rows)))
        assert model.adapt(enc, rewards).posterior == pytest.approx(model.adapt(repeated, rewards).posterior)

    def test_answers_sum_to_one_with_padding_and_without_ties(self):
        menus = np.array([[0, 1, 2], [3, 4, -1]])
        enc = encoded("choice", (2, 5), [0, 1, 1], menus[[0, 1, 0]], [2, 1, 0])
        rewards = np.log([[1.0, 3.0], [2.0, 2.0], [5.0, 1.0], [1.0, 4.0], [3.0, 1.0]])
        model = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"choice": KindTerms()})
        log_p = model.prior_placement().log_probs(enc, rewards)
        assert np.exp(log_p[0]) == pytest.approx(np.array([1 / 8 + 3 / 6, 2 / 8 + 2 / 6, 5 / 8 + 1 / 6]) / 2)
        assert np.exp(log_p[1, :2]) == pytest.approx(np.array([1 / 4 + 4 / 5, 3 / 4 + 1 / 5]) / 2)
        assert log_p[1, 2] == -np.inf
        assert answer_log_lik(log_p, enc) == pytest.approx(log_p[[0, 1, 2], [2, 1, 0]])

        plain = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"preference": KindTerms({}, {"log_scale": 0.3})})
        compared = dataclasses.replace(table_of("preference"), label=np.zeros(30, int))
        log_p = plain.prior_placement().log_probs(compared, rewards)
        assert (log_p[:, 2] == -np.inf).all()
        assert np.exp(log_p).sum(1) == pytest.approx(np.ones(30))

    def test_more_labels_sharpen_and_intervals_cover(self):
        rng = np.random.default_rng(0)
        scale = KindTerms({"thresholds": THRESHOLDS}, {"intercept": 1.5})
        model = RaterModel("factor", *line(15), {"rating": scale})
        rewards, z = rng.normal(size=(30, 2)), rng.normal(size=300)
        enc = ratings(rewards[:, 0] + z[:, None] * rewards[:, 1], intercept=1.5 * rng.normal(size=300))
        width = []
        for n_labels in (2, 8, 30):
            adapted = model.adapt(enc.select(enc.alternatives[:, 0] < n_labels), rewards)
            low, high = adapted.intervals(0.9)
            assert ((low[:, 1] <= z) & (z <= high[:, 1])).mean() == pytest.approx(0.9, abs=0.05)
            inner_low, inner_high = adapted.intervals(0.5)
            assert ((low <= inner_low) & (inner_high <= high)).all()
            assert ((inner_low[:, 1] <= z) & (z <= inner_high[:, 1])).mean() < 0.8
            width.append((high - low)[:, 1].mean())
            assert (low[:, 0] == 1).all()  # everybody shares the consensus
            assert (high[:, 0] == 1).all()
        assert width[0] > 1.3 * width[1] > 1.3 * 1.3 * width[2]
        assert np.corrcoef(adapted.memberships()[:, 1], z)[0, 1] > 0.9

    def test_the_interval_of_a_mixture_says_which_cluster_is_sure(self):
        model = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"preference": KindTerms()})
        adapted = Placement(model, ["sure", "open"], np.array([[0.99, 0.01], [0.8, 0.2]]))
        low, high = adapted.intervals(0.95)
        assert low.tolist() == [[1, 0], [0, 0]]
        assert high.tolist() == [[1, 0], [1, 1]]

    def test_uncertain_rewards_are_averaged_over(self):
        model = RaterModel("mixture", np.eye(1), np.zeros(1), {"rating": KindTerms({"thresholds": CUTS})})
        enc = table_of("rating", n=6)
        mean, variance = np.linspace(-2, 2, 5)[:, None], np.linspace(0.1, 1.5, 5)[:, None]
        predicted = np.exp(model.prior_placement().log_probs(enc, mean, variance))
        for row in range(len(enc)):
            text = enc.alternatives[row, 0]
            sd = np.sqrt(variance[text, 0])
            lowest = quad(lambda r, m=mean[text, 0], s=sd: expit(CUTS[0] - r) * norm.pdf(r, m, s), -12, 12)[0]
            assert predicted[row, 0] == pytest.approx(lowest, abs=2e-3)

        model = RaterModel("factor", *line(1), {"preference": KindTerms()})
        compared = dataclasses.replace(table_of("preference"), label=np.zeros(30, int)).select(np.arange(6))
        mean, variance = np.column_stack([mean, mean]), np.column_stack([variance, variance])
        predicted = np.exp(model.prior_placement().log_probs(compared, mean, variance))
        for row, (a, b) in enumerate(compared.alternatives):
            gap, sd = mean[a, 0] - mean[b, 0], np.sqrt(variance[a, 0] + variance[b, 0])
            win = quad(lambda x, g=gap, s=sd: expit(x) * norm.pdf(x, g, s), -20, 20)[0]
            assert predicted[row, 0] == pytest.approx(win, abs=5e-3)

    @pytest.mark.parametrize("variance", [0.5, 4.0, 25.0, 60.0])
    def test_rewards_of_which_hardly_anything_is_known_are_averaged_over_as_finely_as_answers_change(self, variance):
        terms = KindTerms({"log_tie_mean": np.zeros(1)})
        model = RaterModel("mixture", np.eye(1), np.zeros(1), {"preference": terms})
        enc = encoded("preference", (1, 2), [0], np.array([[0, 1]]), [0])
        predicted = np.exp(model.prior_placement().log_probs(enc, np.array([[0.5], [0.0]]), np.full((2, 1), variance)))
        sd = np.sqrt(2 * variance)
        gaps = 0.5 + sd * np.linspace(-6, 6, 601)
        known = [np.exp(model.prior_placement().log_probs(enc, np.array([[gap], [0.0]])))[0] for gap in gaps]
        weight = norm.pdf(gaps, 0.5, sd)
        assert predicted[0] == pytest.approx(weight @ known / weight.sum(), abs=8e-3)

    def test_uncertain_questions_are_predicted_alone_as_among_others(self):
        model = RaterModel("factor", *line(1), {"preference": KindTerms()})
        compared = dataclasses.replace(table_of("preference"), label=np.zeros(30, int))
        mean, variance = np.zeros((5, 2)), np.geomspace(0.1, 80, 5)[:, None] * np.ones(2)
        together = model.prior_placement().log_probs(compared, mean, variance)
        for row in range(6):
            alone = model.prior_placement().log_probs(compared.select(np.array([row])), mean, variance)
            assert alone[0] == pytest.approx(together[row], abs=1e-12)

    def test_information_is_the_squared_slope_of_what_was_said(self):
        # One cluster, no terms: the slope of log P(a beats b) by either reward is 1 - P, up to its sign.
        model = RaterModel("mixture", np.eye(1), np.zeros(1), {"preference": KindTerms()})
        rewards = np.array([[0.0], [np.log(3)], [0.0]])
        enc = encoded("preference", (1, 3), [0, 0], np.array([[0, 1], [1, 0]]), [0, 0], count=[2.0, 1.0])
        held = model.adapt(enc, rewards).information(enc, rewards)
        assert held[:, 0] == pytest.approx([2 * 0.75**2 + 0.25**2] * 2 + [0], rel=1e-3)

    def test_refusals(self):
        model = model_of("mixture", preference=KindTerms())
        with pytest.raises(JuryError, match=r"'preference' judgements and cannot adapt raters from 'rating'"):
            model.adapt(table_of("rating"), np.zeros((5, 2)))
        with pytest.raises(JuryError, match=r"rewards have shape \(5, 3\), but there are 5 texts and 2 basis"):
            model.adapt(table_of("preference"), np.zeros((5, 3)))
        n_ties = int((table_of("preference").label == 2).sum())
        with pytest.raises(JuryError, match=rf"{n_ties} of 30 judgements are ties, but the jury was fitted without"):
            model.adapt(table_of("preference"), np.zeros((5, 2)))
        five = ratings(np.zeros((2, 5)))
        with pytest.raises(JuryError, match="the ratings have 5 levels, the jury was fitted to 4"):
            model_of("mixture", rating=RATING).adapt(five, np.zeros((5, 2)))

    @pytest.mark.parametrize("membership", ["mixture", "simplex", "factor"])
    def test_round_trip_through_json(self, membership):
        model = model_of(membership, rating=RATING, preference=PAIRS)
        back = RaterModel.from_dict(json.loads(json.dumps(model.to_dict())))
        rewards, tables = np.random.default_rng(1).normal(size=(5, 2)), [table_of("rating"), table_of("preference")]
        once, twice = (m.adapt(tables, [rewards] * 2).posterior for m in (model, back))
        assert np.array_equal(once, twice)
        assert (back.kind, back.n_basis, back.term_sd) == ("rating", 2, RATING.sd)


class TestMarginalLikelihood:
    @pytest.mark.parametrize(
        ("kinds", "membership", "basis"),
        [
            (("rating",), "mixture", "linear"),
            (("preference",), "simplex", "linear"),
            (("rating",), "factor", "linear"),
            (("rating",), "simplex", "ideal_point"),
            (("rating", "preference"), "mixture", "linear"),
        ],
    )
    def test_gradient_and_value(self, kinds, membership, basis, monkeypatch):
        monkeypatch.setattr(marginal, "CHUNK", 500)  # raters in several blocks
        tables = [table_of(kind, seed=i) for i, kind in enumerate(kinds)]
        size = 1 if membership == "factor" else 2
        problem = Problem.of(tables, membership, size, basis, FitConfig()).coarse()
        start = problem.start(np.random.default_rng(0))
        rng = np.random.default_rng(1)
        point = {k: v + 0.3 * rng.normal(size=v.shape) for k, v in start.items()}
        sizes = np.cumsum([v.size for v in point.values()])[:-1]

        def tensors(theta):
            parts = zip(point.items(), np.split(theta, sizes), strict=True)
            return {k: torch.tensor(part.reshape(v.shape), requires_grad=True) for (k, v), part in parts}

        def value(theta):
            return problem.loss(tensors(theta)).item()

        def gradient(theta):
            values = tensors(theta)
            problem.loss(values).backward()
            return np.concatenate([v.grad.numpy().ravel() for v in values.values()])

        theta = np.concatenate([v.ravel() for v in point.values()])
        assert np.abs(gradient(theta)).max() > 0.1
        assert check_grad(value, gradient, theta) < 2e-4 * np.linalg.norm(gradient(theta))

        with torch.no_grad():
            free = {k: torch.from_numpy(v) for k, v in point.items()}
            rewards = problem.rewards(free).numpy()
            log_lik = float(problem._penalty(free)) - problem.loss(free).item()
        joint = enumerate_joint(problem.fitted_model(point), tables, rewards)
        assert log_lik == pytest.approx(np.log(joint.sum(1)).sum())

    def test_of_equal_raters_one_is_computed(self):
        enc = table_of("rating", n_raters=2, n=14)
        twins = dataclasses.replace(
            enc,
            rater_ids=["r0", "r1", "twin of r1"],
            **{
                name: np.concatenate([getattr(enc, name), getattr(enc, name)[enc.rater == 1]])
                for name in ("alternatives", "label", "count", "item")
            },
            rater=np.concatenate([enc.rater, np.full((enc.rater == 1).sum(), 2)]),
        )
        problem = Problem.of([twins], "mixture", 2, "linear", FitConfig())
        assert sorted(problem.counts.weight) == [1, 2]
        fit = fit_raters(twins, "mixture", 2)
        assert isinstance(fit, RaterFit)
        assert isinstance(fit, Predictor)
        assert fit.responsibilities[1] == pytest.approx(fit.responsibilities[2])
        joint = enumerate_joint(fit.model, [twins], fit.rewards)
        assert fit.log_likelihood == pytest.approx(logsumexp(np.log(joint), axis=1).sum())
        assert fit.adapt(twins).responsibilities == pytest.approx(fit.responsibilities)


def test_planted_ties_are_as_frequent_as_planted():
    # The planting itself, by hand: half the pairs of an indifferent rater who ties at nu = 2 are ties.
    enc = pairs(np.zeros((1, 3)), 4000, log_tie=np.log(2.0))
    assert np.bincount(enc.label) / 4000 == pytest.approx([0.25, 0.25, 0.5], abs=0.03)
