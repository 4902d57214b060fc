"""Shares of clusters: what a jury that sees recovers, and what one that sees nothing must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.evaluation import PolicySamples, evaluate_open_ended
from plural_rlhf.evaluation.open_ended.cells import Setup, shares_of_writers
from plural_rlhf.evaluation.open_ended.scored import Judged, Writer
from plural_rlhf.evaluation.open_ended.shares import REPLICATES, division_error, mixture_shares, read_shares


WEIGHTS = np.array([0.7, 0.3])
PROMPTS = [f"question {n}" for n in range(4)]
CAMPS = ("parks", "roads")


class Sighted:
    """Each camp likes its word much, and its own praise a little; texts without a camp please nobody."""

    cluster_names, prevalence = CAMPS, WEIGHTS
    gap = 3.0

    def cluster_rewards(self, prompts, completions):
        likes = [[self.gap * (camp in text) + 0.5 * text.count("!") for camp in CAMPS] for text in completions]
        return torch.tensor(likes)


class Blind(Sighted):
    gap = 0.0


def texts_of(counts, rng):
    """Texts by what they are about: `parks`, `roads` or `weather`, in random order, each with some praise."""
    about = rng.permutation([word for word, n in counts.items() for _ in range(n)])
    return [f"{word}{'!' * rng.integers(3)}" for word in about]


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    counts = {
        "reference": {"parks": 15, "roads": 15, "weather": 90},
        "fair": {"parks": 34, "roads": 14},
        "half": {"parks": 19, "roads": 10, "weather": 19},
        "camp": {"parks": 48},
        "bland": {"parks": 6, "roads": 6, "weather": 36},
    }
    of = {policy: {prompt: texts_of(number, rng) for prompt in PROMPTS} for policy, number in counts.items()}
    of["in turn"] = {p: texts_of({CAMPS[n in (0, 1, 2)]: 48}, rng) for n, p in enumerate(PROMPTS)}
    return {policy: PolicySamples(texts) for policy, texts in of.items()}


def measured(samples, scorer):
    return evaluate_open_ended(samples, scorer, heldout_scorer=Blind(), beta=1.0, draws=200)


@pytest.fixture(scope="module")
def results(samples):
    return measured(samples, Sighted())


def test_a_sighted_jury_recovers_planted_shares(results):
    parks = {p: results.value(p, "answer_share", jury="training", cluster="parks") for p in ("fair", "half", "camp")}
    assert parks["fair"] == pytest.approx(0.7, abs=0.08)
    assert parks["half"] == pytest.approx(0.35, abs=0.1)  # a part of what parks write is in what pi_0 writes
    assert parks["camp"] > 0.97
    nobody = {p: results.value(p, "share_for_no_cluster", jury="training") for p in ("fair", "half", "bland")}
    assert nobody["fair"] < 0.1
    assert 0.3 < nobody["half"] < 0.6
    assert nobody["bland"] > 0.95


def test_an_error_stands_between_chance_and_one_camp(results):
    fair, camp = (results.row(policy, "share_error", jury="training") for policy in ("fair", "camp"))
    assert fair.value < fair.floor < 0.35  # 48 texts for each of four prompts
    assert camp.value == pytest.approx(1.0, abs=0.05)  # roads have nothing of their .3
    assert camp.value == pytest.approx(camp.baseline, abs=0.1)


def test_camps_in_turn_are_not_proportional(results):
    """One voice per prompt is no share of the texts, though over prompts each camp has about its weight."""
    over_prompts = results.value("in turn", "answer_share", jury="training", cluster="roads")
    assert over_prompts == pytest.approx(0.75, abs=0.05)
    assert results.value("in turn", "share_error", jury="training") > 0.9


def test_a_jury_that_sees_nothing_says_so(results):
    for policy in ("fair", "camp", "in turn"):
        row = results.row(policy, "share_error", jury="heldout")
        assert row.value is None, policy
        assert "cannot tell" in row.reason, policy


def test_people_who_wrote_to_some_prompts_have_shares_over_these(samples):
    people = dict.fromkeys(PROMPTS[1:], ["parks!", "parks"] * 20)
    two = {name: samples[name] for name in ("reference", "fair")}
    results = evaluate_open_ended(two, Sighted(), people=people, beta=1.0, draws=200)
    row = results.row("people", "share_error", jury="training")
    assert row.value == pytest.approx(1.0, abs=0.05)
    assert row.n == 3


def test_texts_like_those_of_the_reference_have_no_division(results):
    for policy in ("bland", "reference"):
        row = results.row(policy, "share_error", jury="training")
        assert row.value is None, policy
        assert "of the texts are for no cluster in particular" in row.reason, policy


def test_shares_are_those_of_the_largest_likelihood():
    rng = np.random.default_rng(1)
    log_densities = rng.normal(size=(200, 2))
    shares = mixture_shares(log_densities, WEIGHTS, steps=5000)

    def log_likelihood(of):
        return np.log(np.column_stack([np.exp(log_densities), np.ones(200)]) @ of).mean()

    best = max(
        log_likelihood(np.array([a, b, 1 - a - b])) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)
    )
    assert log_likelihood(shares) >= best - 1e-9
    assert shares.sum() == pytest.approx(1.0)


def test_prompts_count_with_the_texts_that_are_for_a_cluster():
    shares = np.array([[0.4, 0.4, 0.2], [0.2, 0.0, 0.8], [0.0, 0.0, 1.0]])
    weights = np.array([0.5, 0.5])
    assert division_error(shares, weights) == pytest.approx((0.8 * 0 + 0.2 * 1) / (0.8 + 0.2))


def test_rewards_beyond_every_exponent_are_read():
    rewards = np.array([[900.0, 0.0]] * 6 + [[0.0, 900.0]] * 2)
    read = read_shares(rewards, np.zeros((10, 2)), WEIGHTS, 0.05, np.random.default_rng(0))
    assert read.shares.tolist() == pytest.approx([0.75, 0.25, 0.0])


def test_one_cluster_has_no_division(samples):
    class One(Sighted):
        cluster_names, prevalence = ("all",), np.ones(1)

        def cluster_rewards(self, prompts, completions):
            return super().cluster_rewards(prompts, completions)[:, :1]

    row = measured({"reference": samples["reference"]}, One()).row("reference", "share_error", jury="training")
    assert row.value is None
    assert row.reason == "the jury has one cluster, which has everything"


def test_chance_is_what_texts_of_the_target_show():
    rng = np.random.default_rng(0)
    errors, chance = [], []
    for _ in range(20):
        written = rng.normal(size=(4000, 2)) * [2.0, 1.0]  # rewards of what pi_0 writes
        odds = np.exp(written - np.logaddexp.reduce(written, axis=0)) @ WEIGHTS
        readings = [
            read_shares(
                written[rng.choice(4000, 32, p=odds)], written[rng.integers(4000, size=200)], WEIGHTS, 1.0, rng
            )
            for _ in range(3)
        ]
        errors.append(division_error(np.stack([reading.shares for reading in readings]), WEIGHTS))
        chance.append(division_error(np.stack([reading.fair for reading in readings], axis=1), WEIGHTS))
    assert np.mean(errors) == pytest.approx(np.mean(chance), rel=0.2)
    beyond = np.mean([error > np.quantile(fair, 0.9) for error, fair in zip(errors, chance, strict=True)])
    assert beyond <= 0.25


def test_replicates_are_drawn_where_the_error_of_shares_is_defined():
    """A target that gives a cluster nothing has no error of shares to set in proportion; its shares are still read."""
    rng = np.random.default_rng(0)
    rewards = {
        name: {"Parks?": rng.normal(size=(6, 2)), "Roads?": rng.normal(size=(6, 2))} for name in ("pi_0", "one")
    }
    texts = {prompt: [str(i) for i in range(6)] for prompt in rewards["pi_0"]}
    writers = {
        "pi_0": Writer("pi_0", texts, None, None),
        "one": Writer("one", {"Roads?": texts["Roads?"]}, None, None),
    }
    targets = {"pi_0": np.array([0.5, 0.5]), "one": np.array([1.0, 0.0])}
    judged = [Judged(jury, ["a", "b"], np.array([0.7, 0.3]), rewards, {}, "") for jury in ("training", "heldout")]
    setup = Setup(writers, list(texts), judged, {}, targets, "pi_0", None, 1.0, 0.0, 0.0, 2, [1], 0)
    found = shares_of_writers(setup)
    assert {key: list(of) for key, of in found.items()} == {
        (name, jury): list(writers[name].texts) for name in writers for jury in ("training", "heldout")
    }
    for (name, jury), of_prompts in found.items():
        weights = targets["pi_0"] if (name, jury) == ("pi_0", "training") else np.array([0.7, 0.3])
        for prompt, reading in of_prompts.items():
            assert len(reading.fair) == len(reading.one_camp) == (REPLICATES if name == "pi_0" else 0)
            again = read_shares(rewards[name][prompt], rewards["pi_0"][prompt], weights, 1.0, rng, replicates=0)
            np.testing.assert_array_equal(reading.shares, again.shares)
