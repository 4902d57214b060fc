"""The baselines do what they say, gain nothing from noise, and the shuffled table keeps everything but taste."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

from reward_models.baselines.demographics import fit_demographics
from reward_models.baselines.frequencies import fit_item_mean
from reward_models.baselines.k_models import fit_k_models
from reward_models.baselines.shuffle import shuffle_raters
from reward_models.errors import JudgementWarning, JuryError
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.records import Judgements
from reward_models.raters.predictors import Predictor, answer_log_lik
from reward_models.stats.resampling import heldout_labels


def loss(fit, enc, features=None):
    return -answer_log_lik(fit.log_probs(enc, features), enc).mean()


def groups_of_voters(n_raters=200, n_texts=40, *, apart=1.5, leniency=1.0, seed=0):
    """Votes -1 / 1 of two parties with opposite taste; ages are drawn at random. Features hold quality and taste."""
    rng = np.random.default_rng(seed)
    quality, taste = rng.normal(size=n_texts), rng.normal(size=n_texts)
    party, age = rng.choice([-1, 1], size=n_raters), rng.integers(4, size=n_raters)
    eta = quality + apart * party[:, None] * taste + leniency * rng.normal(size=(n_raters, 1))
    vote = np.where(eta + rng.logistic(size=eta.shape) > 0, 1.0, -1.0)
    u, x = np.divmod(np.arange(n_raters * n_texts), n_texts)
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{i}" for i in u],
            "prompt": "p",
            "response": [f"t{i}" for i in x],
            "rating": vote.ravel(),
            "rater:party": np.where(party[u] > 0, "green", "blue"),
            "rater:age": age[u].astype(str),
        }
    )
    features = np.stack([quality + taste, quality - taste, rng.normal(size=n_texts)], axis=1)
    return Judgements.from_frame(frame, kind="rating"), features, party


@pytest.fixture(scope="module")
def voters():
    judgements, features, party = groups_of_voters()
    enc = judgements.encode()
    held = heldout_labels(enc.rater, 0.3, np.random.default_rng(1))
    return judgements, enc.select(~held), enc.select(held), features, party


def preferences(rows):
    frame = pd.DataFrame(rows, columns=["rater_id", "response_a", "response_b", "choice"]).assign(prompt="p")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        return Judgements.from_frame(frame, kind="preference").encode()


def test_item_mean_is_the_smoothed_frequency():
    rows = [(f"r{i}", "x", "y", "a" if i < 6 else "b") for i in range(8)]
    rows += [(f"r{i}", "y", "z", "tie" if i < 1 else "a") for i in range(8)]
    enc = preferences(rows)
    fit = fit_item_mean(enc)
    assert isinstance(fit, Predictor)
    c = fit.concentration
    tie, side = 1 / 16, 15 / 32  # of the marginal, which favours neither response
    expected = np.array([(6 + c * side) / (8 + c), (2 + c * side) / (8 + c), c * tie / (8 + c)])
    assert np.exp(fit.log_probs(enc)[0]) == pytest.approx(expected)  # of r0, whose first pair is that of x and y
    turned = preferences([("new", "y", "x", "a"), ("new", "x", "q", "a")])
    unknown, known = np.exp(fit.log_probs(turned))
    assert known == pytest.approx(expected[[1, 0, 2]])  # the same pair, whichever response is called a
    assert unknown == pytest.approx([side, side, tie])  # a pair nobody judged


def test_item_mean_leaves_out_options_that_are_not_offered():
    rows = [
        ("u", "p", ["x", "y"], 0),
        ("v", "p", ["x", "y"], 1),
        ("u", "q", ["k", "l", "m"], 2),
        ("v", "q", list("klm"), 2),
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    enc = Judgements.from_frame(frame, kind="choice").encode()
    log_p = fit_item_mean(enc).log_probs(enc)
    assert np.isneginf(log_p[::2, 2]).all()  # u and v on p
    assert np.exp(log_p).sum(1) == pytest.approx(np.ones(4))
    assert (log_p[1::2].argmax(1) == 2).all()  # u and v on q


def test_shuffled_raters_keep_counts_and_lose_taste(voters):
    judgements, _, _, _, _ = voters
    enc = judgements.encode()
    shuffled = shuffle_raters(enc, seed=3)
    assert (np.bincount(shuffled.rater) == np.bincount(enc.rater)).all()
    for name in ("item", "label", "alternatives", "count"):
        assert (getattr(shuffled, name) == getattr(enc, name)).all()  # items and their answers are untouched
    before, after = (set(zip(e.rater.tolist(), e.item.tolist(), strict=True)) for e in (enc, shuffled))
    assert before == after  # everybody judged what they had judged
    assert (shuffled.rater != enc.rater).mean() > 0.9
    assert (shuffle_raters(enc, seed=3).rater == shuffled.rater).all()

    def gain(table):
        held = heldout_labels(table.rater, 0.3, np.random.default_rng(0))
        train, test = table.select(~held), table.select(held)
        return loss(fit_raters(train, "mixture", 1), test) - loss(fit_raters(train, "mixture", 2), test)

    assert gain(enc) > 0.1
    assert gain(shuffled) < 0.01


@pytest.mark.slow
def test_groups_that_matter_are_found(voters):
    judgements, train, test, _, _ = voters
    bias_only = fit_raters(train, "mixture", 1)
    party = fit_demographics(train, judgements, traits=["party"])
    assert isinstance(party, Predictor)
    assert loss(party, test) < loss(bias_only, test) - 0.1
    assert party.group_sd > 0
    both = fit_demographics(train, judgements)
    assert [trait for trait, _ in both.groups].count("age") == 4
    assert loss(both, test) == pytest.approx(loss(party, test), abs=0.02)


def test_a_random_group_gains_nothing_and_costs_nothing(voters):
    judgements, train, test, _, _ = voters
    age = fit_demographics(train, judgements, traits=["rater:age"])
    bias_only = fit_raters(train, "mixture", 1)
    assert loss(age, test) == pytest.approx(loss(bias_only, test), abs=0.003)
    nothing = dataclasses.replace(age, table=dataclasses.replace(age.table, values=age.table.values * [1, 0, 0, 0, 0]))
    assert nothing.adapt(train).log_probs(test) == pytest.approx(bias_only.log_probs(test), abs=1e-9)


@pytest.mark.slow
def test_ages_are_binned_unknown_is_no_group_and_empty_traits_are_left_out(voters):
    judgements, train, test, _, _ = voters
    frame = judgements.frame.copy()
    number = frame["rater_id"].str[1:].astype(int)
    frame["rater:years"] = (20 + number % 60).astype(str).where(number > 9, "NA").mask(number == 12, "99")
    for t in range(3):
        frame[f"rater:noise {t}"] = np.random.default_rng(t).integers(8, size=200)[number].astype(str)
    table = Judgements.from_frame(frame, kind="rating")
    fit = fit_demographics(train, table, missing={"years": [99]})
    years = [value for trait, value in fit.groups if trait == "years"]
    assert len(years) == 6
    assert not {"NA", "99"} & set(years)
    assert sum(fit.groups[g][0] == "years" for g in fit.members["r12"]) == 0
    assert fit.trait_sds["party"] > 0
    assert fit.group_sd == max(fit.trait_sds.values()) == fit.trait_sds["party"]
    # What only one of many traits tells is not drowned by the others.
    alone = fit_demographics(train, table, traits=["party"])
    assert loss(fit, test) < loss(alone, test) + 0.01


def test_a_new_rater_is_known_by_the_group_alone(voters):
    judgements, train, _, _, _ = voters
    some = train.select(train.rater < 150, drop_raters=True)
    new = train.select(train.rater >= 150, drop_raters=True)
    fit = fit_demographics(some, judgements, traits=["party"])
    stranger = dataclasses.replace(new, rater_ids=[f"unknown {name}" for name in new.rater_ids])
    population = fit_raters(some, "mixture", 1)
    assert loss(fit, stranger) == pytest.approx(loss(population, stranger), abs=0.02)  # no group: the population
    assert loss(fit, new) < loss(fit, stranger) - 0.1
    assert loss(fit.adapt(new), new) < loss(fit, new) - 0.05  # labels tell the leniency besides
    assert fit.adapt(new).groups == fit.groups


def test_two_models_with_known_assignment_are_two_separate_fits(voters):
    _, train, test, _, party = voters
    number = np.array([int(name[1:]) for name in train.rater_ids])
    assignment = (party[number] > 0).astype(int)
    fit = fit_k_models(train, 2, assignment=assignment, precision=0.3)
    for k in range(2):
        own = train.select(assignment[train.rater] == k, drop_raters=True)
        scored = test.select(assignment[test.rater] == k, drop_raters=True)
        alone = fit_k_models(own, 1, precision=0.3)
        assert fit.log_probs(scored) == pytest.approx(alone.log_probs(scored), abs=1e-3)
    together = fit_k_models(train, 1, precision=0.3)
    assert loss(fit, test) < loss(together, test) - 0.05


def test_hard_assignment_finds_planted_groups(voters):
    _, train, test, _, party = voters
    fit = fit_k_models(train, 2)
    truth = party[[int(name[1:]) for name in fit.rater_ids]] > 0
    right = (fit.assignment == truth).mean()
    assert max(right, 1 - right) > 0.95
    assert loss(fit, test) < loss(fit_k_models(train, 1), test) - 0.05
    assert fit.prevalence[0] >= fit.prevalence[1]
    adapted = fit.adapt(train)
    assert (adapted.assignment == fit.assignment).mean() > 0.98
    # Nobody known: the mixture of both by their shares.
    anyone = np.exp(dataclasses.replace(fit, rater_ids=[], assignment=fit.assignment[:0]).log_probs(test))
    each = [
        np.exp(
            dataclasses.replace(fit, rater_ids=test.rater_ids, assignment=np.full(test.n_raters, k)).log_probs(test)
        )
        for k in range(2)
    ]
    assert anyone == pytest.approx(fit.prevalence[0] * each[0] + fit.prevalence[1] * each[1])


def test_k_models_of_pairs_without_ties_know_none():
    rng = np.random.default_rng(0)
    rows = [(f"r{u}", f"t{i}", f"t{i + 1}", rng.choice(["a", "b"])) for u in range(6) for i in range(8)]
    enc = preferences(rows)
    p = np.exp(fit_k_models(enc, 2).log_probs(enc))
    assert (p[:, 2] == 0).all()
    assert p.sum(1) == pytest.approx(np.ones(len(enc)))


@pytest.mark.slow
def test_features_carry_groups_and_models_to_new_texts(voters):
    judgements, _, _, features, _ = voters
    enc = judgements.encode()
    new = enc.alternatives[:, 0] >= 28
    train, scored = enc.select(~new), enc.select(new)
    for fit in (
        fit_demographics(train, judgements, features, traits=["party"]),
        fit_k_models(train, 2, features),
    ):
        coin = np.log(2)
        assert loss(fit, scored, features) < coin - 0.1
        with pytest.raises(JuryError, match="Fix: pass features"):
            fit.log_probs(scored)
    one = fit_k_models(train, 1, features)
    assert loss(fit_k_models(train, 2, features), scored, features) < loss(one, scored, features) - 0.05


def test_what_cannot_work_is_refused(voters):
    judgements, train, _, _, _ = voters
    with pytest.raises(JuryError, match="Did you mean 'rater:party'"):
        fit_demographics(train, judgements, traits=["partie"])
    bare = Judgements("rating", judgements.frame.drop(columns=["rater:party", "rater:age"]), judgements.levels)
    with pytest.raises(JuryError, match="no trait at all"):
        fit_demographics(train, bare)
    with pytest.raises(JuryError, match="num_clusters=0"):
        fit_k_models(train, 0)
    soft = dataclasses.replace(train, kind="soft")
    for call in (shuffle_raters, fit_k_models, lambda enc: fit_demographics(enc, judgements)):
        with pytest.raises(JuryError, match=r"'soft'.*Fix: use .* rater_id"):
            call(soft)
    with pytest.raises(JuryError, match="cannot score 'choice'"):
        fit_item_mean(train).log_probs(dataclasses.replace(train, kind="choice"))
