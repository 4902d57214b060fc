"""A table of distributions with its baselines, skill and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.evaluation.distribution.baselines import global_marginals, marginals, modes, noise_floors, uniforms
from plural_rlhf.evaluation.distribution.items import DistributionItem, counted_item
from plural_rlhf.evaluation.distribution.measure import measure_distributions
from reward_models.stats.answers import js_divergence


def panel_items(raters: int = 60, count: int = 12, seed: int = 0) -> list[DistributionItem]:
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.ones(4), size=count)
    answers = np.stack([rng.choice(4, size=raters, p=p) for p in truth], axis=1)
    return [
        counted_item(f"q{i}", "?", "abcd", np.bincount(a, minlength=4), answers=a, ordinal=True)
        for i, a in enumerate(answers.T)
    ]


def country_items() -> list[DistributionItem]:
    return [
        counted_item(f"{q}-{c}", "?", ("yes", "no"), counts, group=c, question=q)
        for q, of_question in {"p": [(6, 4), (8, 2), (2, 8)], "q": [(5, 5), (1, 9), (3, 7)]}.items()
        for c, counts in zip("xyz", of_question, strict=True)
    ]


@pytest.mark.parametrize("items", [panel_items(), country_items()], ids=["raters", "groups"])
def test_pseudo_models_rank_correctly(items):
    shares = {"gold": [i.people for i in items], "uniform": uniforms(items), "mode": modes(items)}
    skill = {name: measure_distributions(items, s).row("skill_uniform")["value"] for name, s in shares.items()}
    assert skill["gold"] == 1
    assert skill["uniform"] == 0
    assert skill["mode"] < 0
    marginal = measure_distributions(items, marginals(items))
    assert marginal.row("skill_marginal")["value"] == pytest.approx(0)


def test_marginals_leave_the_item_out_and_stay_within_the_question():
    of_p = marginals(country_items())[:3]
    np.testing.assert_allclose(np.stack(of_p)[:, 0], [0.5, 0.4, 0.7])
    np.testing.assert_allclose(global_marginals(country_items())[0][0], (0.6 + 0.8 + 0.2 + 0.5 + 0.1 + 0.3) / 6)
    lonely = [counted_item("a", "?", "ab", [1, 1]), counted_item("b", "?", "cd", [1, 1])]
    assert marginals(lonely) is None
    assert global_marginals(lonely) is None
    with_others = marginals([*country_items(), lonely[0]])
    np.testing.assert_allclose(with_others[-1], [0.5, 0.5])


def test_skill_is_a_ratio_of_means_and_not_a_mean_of_ratios():
    items = [counted_item("p", "?", "ab", [6, 4]), counted_item("q", "?", "ab", [1, 9])]
    shares = [np.array([0.5, 0.5]), np.array([0.2, 0.8])]
    model = [js_divergence(i.people, s) for i, s in zip(items, shares, strict=True)]
    uniform = [js_divergence(i.people, np.array([0.5, 0.5])) for i in items]
    row = measure_distributions(items, shares).row("skill_uniform")
    assert row["value"] == pytest.approx(1 - sum(model) / sum(uniform))
    assert row["ci_low"] is None  # two items


def test_a_model_at_the_floor_has_a_floor_skill_of_one():
    """Answers of a second sample of the same people: no model that does not know the first one can do better."""
    rng = np.random.default_rng(1)
    truth = rng.dirichlet(np.ones(3), size=400)
    items = [counted_item(f"q{i}", "?", "abc", rng.multinomial(20, p)) for i, p in enumerate(truth)]
    row = measure_distributions(items, list(truth)).row("skill_floor")
    assert row["value"] == pytest.approx(1, abs=0.02)
    assert measure_distributions(items, list(truth)).row("skill_uniform")["value"] < 0.95


def test_floors_are_those_of_the_number_of_people():
    items = [counted_item("p", "?", "ab", [50, 50]), DistributionItem("q", "?", ("a", "b"), np.array([0.5, 0.5]))]
    floors = noise_floors(items, draws=4000)
    assert floors["jsd_nats"][0] == pytest.approx(1 / 800, rel=0.1)
    assert floors["jsd_nats"][1] == 0
    assert floors["total_variation"][0] == pytest.approx(np.sqrt(2 / np.pi) / 20, rel=0.05)
    assert noise_floors(items[1:]) is None


def test_blocks_are_resampled_as_one():
    """Ten copies of each of eight questions are no more evidence than the eight."""
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 30, size=(8, 2))
    once = [counted_item(f"q{i}", "?", "ab", c) for i, c in enumerate(counts)]
    copies = [counted_item(f"q{i}-{k}", "?", "ab", c, block=f"q{i}") for i, c in enumerate(counts) for k in range(10)]
    apart = [counted_item(f"q{i}-{k}", "?", "ab", c) for i, c in enumerate(counts) for k in range(10)]
    width = {}
    for name, items in {"once": once, "copies": copies, "apart": apart}.items():
        row = measure_distributions(items, uniforms(items)).row("jsd_nats")
        width[name] = row["ci_high"] - row["ci_low"]
    assert width["copies"] == pytest.approx(width["once"])
    assert width["apart"] < 0.5 * width["once"]


def test_raters_known_means_raters_resampled():
    row = measure_distributions(panel_items(), uniforms(panel_items())).row("jsd_nats")
    assert (row["n_raters"], row["kind"]) == (60, "raters and items resampled")
    items = [i.__class__(**{**i.__dict__, "answers": None}) for i in panel_items()]
    without = measure_distributions(items, uniforms(items)).row("jsd_nats")
    assert (without["n_raters"], without["kind"]) == (0, "12 items resampled")


def test_debiased_divergence_of_the_true_shares_is_zero():
    """With 12 raters a perfect model still measures (A - 1) / (8 · 12) nats; the corrected number does not."""
    rng = np.random.default_rng(4)
    answers = rng.integers(4, size=(30, 60))
    items = [
        counted_item(f"q{i}", "?", "abcd", np.bincount(a, minlength=4), answers=a) for i, a in enumerate(answers.T)
    ]
    measured = measure_distributions(items, uniforms(items))
    assert measured.row("jsd_nats")["value"] == pytest.approx(3 / 240, rel=0.25)
    row = measured.row("jsd_debiased_nats")
    assert row["ci_low"] < 0 < row["ci_high"]
    assert abs(row["value"]) < 0.002


def test_worst_group_is_named():
    items = [
        counted_item(f"{g}{i}", "?", "ab", [9, 1] if g == "near" else [1, 9], group=g)
        for g in ("near", "far")
        for i in range(6)
    ]
    measured = measure_distributions(items, [np.array([0.9, 0.1])] * 12)
    worst = next(row for row in measured.rows if row["metric"] == "skill_worst_group")
    assert worst["group"] == "far"
    assert worst["value"] < measured.row("skill_uniform", "near")["value"]


@pytest.mark.parametrize(
    ("options", "shares", "match"),
    [
        (("a", "b"), [0.7, 0.7], "sum to 1.4"),
        (("a", "b"), [1.2, -0.2], "at least 0"),
        (("a", "a"), [0.5, 0.5], "all different"),
        (("a", " "), [0.5, 0.5], "none empty"),
        (("a",), [1.0], "at least two"),
        (("a", "b"), [float("nan"), 1.0], "at least 0"),
    ],
)
def test_bad_items(options, shares, match):
    with pytest.raises(ValueError, match=match):
        DistributionItem("q", "?", options, np.array(shares))


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="0 items"):
        measure_distributions([], [])


def test_sensitivity_is_averaged_where_there_is_any():
    items = country_items()
    moved = np.array([0.2, 0.4, np.nan, np.nan, np.nan, np.nan])
    measured = measure_distributions(items, uniforms(items), sensitivity={"order_sensitivity": moved})
    row = measured.row("order_sensitivity")
    assert (row["value"], row["n_items"], row["direction"]) == (pytest.approx(0.3), 2, "lower")
    none = measure_distributions(items, uniforms(items), sensitivity={"order_sensitivity": np.full(6, np.nan)})
    assert not [row for row in none.rows if row["metric"] == "order_sensitivity"]


@pytest.mark.parametrize(
    "shares", [[0.5, 0.5, 0.0], [0.5], [0.5, 0.4], [1.0, 0.5], [1.2, -0.2], [[0.5, 0.5]], [60.0, 40.0]]
)
def test_shares_of_a_model_are_a_distribution_over_the_options(shares):
    """Counts and percentages have distances, too, and these mean nothing."""
    items = country_items()[:2]
    with pytest.raises(ValueError, match=r"item 'p.*': the model's shares of 2 options are .* which sum to 1"):
        measure_distributions(items, [np.array([0.5, 0.5]), np.array(shares)])


def test_rounded_shares_and_those_of_a_model_that_gave_no_answer_are_measured():
    measured = measure_distributions(country_items()[:2], [np.array([0.3334, 0.6667]), np.array([np.nan, np.nan])])
    assert np.isfinite(measured.scores[0]["jsd_nats"])
    assert "jsd_nats" not in measured.scores[1]
    assert measured.row("jsd_nats")["n_items"] == 1
