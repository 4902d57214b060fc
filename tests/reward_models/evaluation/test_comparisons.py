"""Paired comparisons: p-values keep their promise, Holm's correction is Holm's, verdicts say what intervals say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from reward_models.errors import JuryError
from reward_models.evaluation import comparisons
from reward_models.evaluation.comparisons import Comparison, compare, holm, in_words, sign_flip_p_value
from reward_models.evaluation.controls import marginal_log_probs
from reward_models.evaluation.format_leak import FORMAT_FEATURES, format_features, format_leak
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.records import Judgements


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
HOW = Bootstrap(draws=100)


def answers(n_raters, n_items, right):
    """Yes/no judgements; `right` (R, I) is 1 where the answer was yes."""
    rater, item = np.divmod(np.arange(n_raters * n_items), n_items)
    frame = pd.DataFrame({"rater_id": rater.astype(str), "prompt": "p", "response": item.astype(str)})
    frame["rating"] = np.asarray(right).ravel()
    return Judgements.from_frame(frame, kind="rating", levels=[0, 1]).encode()


def yes(p):
    return np.log(np.stack([1 - p, p], axis=-1).reshape(-1, 2))


def test_holm_against_a_worked_example():
    # Holm (1979) as in textbooks: sorted .01, .02, .03, .04 times 4, 3, 2, 1; none below the one before.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, np.nan, 0.9]), [1.0, np.nan, 1.0])
    assert holm([]).tolist() == []


def test_sign_flips_are_counted_exactly_for_few_raters():
    enc = answers(3, 1, np.ones((3, 1), dtype=int))
    # The flips of totals 3, 2, 1 add up to 6, 4, 2, 0 and their negatives, each once; the data's own sums are 4 and 6.
    assert sign_flip_p_value(np.array([3.0, 2.0, -1.0]), enc) == pytest.approx(4 / 8)
    assert sign_flip_p_value(np.array([3.0, 2.0, 1.0]), enc) == pytest.approx(2 / 8)
    assert sign_flip_p_value(np.array([0.0, 0.0, 0.0]), enc) == 1.0


def test_p_values_are_uniform_under_the_null_even_if_raters_are_clumped():
    """Each rater's twenty differences move together: a test over judgements would reject far too often."""
    rng = np.random.default_rng(0)
    enc = answers(30, 20, np.ones((30, 20), dtype=int))
    p = []
    for table in range(200):
        difference = (rng.normal(size=(30, 1)) + 0.2 * rng.normal(size=(30, 20))).ravel()
        p.append(sign_flip_p_value(difference, enc, permutations=199, seed=table))
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)
    shifted = (0.8 + rng.normal(size=(30, 1)) + 0.2 * rng.normal(size=(30, 20))).ravel()
    assert sign_flip_p_value(shifted, enc, permutations=1999) < 0.01


@pytest.fixture(scope="module")
def models():
    """Answers of 40 raters to 30 questions, and predictions that are exact, blurred, equal to these, and misled."""
    rng = np.random.default_rng(1)
    p = 1 / (1 + np.exp(-2 * rng.normal(size=(40, 30))))
    enc = answers(40, 30, (rng.random(p.shape) < p).astype(int))
    blurred = 0.5 + (p - 0.5) / 2
    return enc, {"bt": yes(blurred), "jury": yes(p), "twin": yes(blurred), "misled": yes(1 - blurred)}


def test_every_model_is_compared_with_the_base(models):
    enc, predictions = models
    found = {(c.method, c.metric): c for c in compare(predictions, enc, "bt", permutations=999)}
    assert len(found) == 6
    jury = found["jury", "delta_nll_nats"]
    by_hand = np.mean([predictions["bt"][i, y] - predictions["jury"][i, y] for i, y in enumerate(enc.label)])
    assert jury.value == pytest.approx(by_hand)
    assert jury.low < jury.value < jury.high < 0
    assert jury.outcome == "better"
    assert jury.p_value == pytest.approx(1 / 1000)
    assert jury.p_holm == pytest.approx(6 / 1000)
    assert found["jury", "delta_accuracy"].value == 0  # the same answers are the most probable ones
    twin = found["twin", "delta_nll_nats"]
    assert (twin.value, twin.low, twin.high, twin.p_value, twin.outcome) == (0, 0, 0, 1, "undecided")
    assert found["misled", "delta_nll_nats"].outcome == found["misled", "delta_accuracy"].outcome == "worse"
    assert found["misled", "delta_accuracy"].value < 0


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.31, 0.04, "undecided"), (-0.31, -0.01, "worse"), (0.0, 0.2, "better"), (-0.01, 0.3, "undecided")],
)
def test_an_interval_that_contains_zero_decides_nothing(models, low, high, outcome, monkeypatch):
    """A loss of accuracy of .15 [-.31, +.04] is no proof of being no worse."""
    enc, predictions = models
    monkeypatch.setattr(comparisons, "mean_ends", lambda *_, **__: np.array([(low + high) / 2, low, high]))
    pair = {name: predictions[name] for name in ("bt", "jury")}
    _, accuracy = compare(pair, enc, "bt", permutations=9)
    assert accuracy.outcome == outcome


def test_a_model_that_rules_out_an_answer_is_not_comparable(models):
    enc, predictions = models
    certain = np.where(predictions["bt"] > np.log(0.5), 0.0, -np.inf)
    loss, accuracy = compare({"bt": predictions["bt"], "certain": certain}, enc, "bt")
    assert loss.outcome == "not comparable"
    assert np.isnan([loss.value, loss.p_value, loss.p_holm]).all()
    assert accuracy.outcome == "undecided"
    assert accuracy.p_holm == accuracy.p_value  # a family of one
    assert in_words([loss]).startswith("certain cannot be compared with bt")


def test_an_unknown_base_is_refused(models):
    enc, predictions = models
    with pytest.raises(JuryError, match=r"base='bse' .*Did you mean 'base'"):
        compare({"base": predictions["bt"]}, enc, "bse")


def comparison(method, low, high, outcome):
    return Comparison(method, "bt", "delta_nll_nats", (low + high) / 2, low, high, 100, 0.5, 0.5, outcome)


def test_verdicts_in_words():
    better, same = comparison("jury", -0.03, -0.01, "better"), comparison("jury", -0.01, 0.01, "undecided")
    worse = comparison("jury", 0.01, 0.02, "worse")
    assert in_words([better]) == "jury is better than bt (-0.020 nats per judgement [-0.030, -0.010])"
    assert in_words([same]).startswith("whether jury is better or worse than bt is undecided (+0.000")
    assert in_words([better, same, better]) == "jury against bt in 3 cases: better in 2, undecided in 1"
    assert in_words([worse, better]) == "jury against bt in 2 cases: better in 1, worse in 1"
    assert in_words([]) == "nothing was compared"


WORDS = ["river", "stone", "lamp", "winter", "garden", "copper", "window", "paper", "music", "harbour"]


def debate(seed, *, n_pairs=120, n_raters=40, each=12, listed=False, length_taste=False):
    """Judged pairs of random texts and what each side is worth to each rater's cluster.

    `listed`: the response that a clean jury would prefer less is rendered as a Python list. `length_taste`: half of
    the raters want the longer text and half the shorter; otherwise worth has nothing to do with the form.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 40, size=(n_pairs, 2))
    texts = np.array([[" ".join(rng.choice(WORDS, size=n)) for n in pair] for pair in lengths], dtype=object)
    worth = 2.0 * rng.normal(size=(2, n_pairs, 2))
    if length_taste:
        worth = 2.5 * np.array([1, -1])[:, None, None] * np.log(lengths)
    if listed:
        worth[1] = worth[0]
        for i, loser in enumerate(worth[0].argmin(1)):
            texts[i, loser] = str([texts[i, loser], "and more"])
        worth = worth * 4
    cluster = np.arange(n_raters) % 2
    rater = np.repeat(np.arange(n_raters), each)
    pair = np.concatenate([rng.choice(n_pairs, each, replace=False) for _ in range(n_raters)])
    gap = worth[cluster[rater], pair, 0] - worth[cluster[rater], pair, 1]
    wants_a = rng.random(len(gap)) < 1 / (1 + np.exp(-gap))
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{u}" for u in rater],
            "prompt": [f"p{i}" for i in pair],
            "response_a": texts[pair, 0],
            "response_b": texts[pair, 1],
            "choice": np.where(wants_a, "a", "b"),
        }
    )
    mean = worth.mean(0)

    def predict(gap):
        p = np.clip(1 / (1 + np.exp(-gap)), 1e-6, 1 - 1e-6)
        return np.log(np.stack([p, 1 - p, np.full(len(p), 1e-300)], axis=1))

    members = np.eye(2)[cluster]
    judgements = Judgements.from_frame(frame, kind="preference")
    gaps = (values[judgements.encoded_rows] for values in (gap, mean[pair, 0] - mean[pair, 1]))
    return judgements.encode(), *map(predict, gaps), members


def leak_of(memberships=False, **options):
    train, _, base_train, members = debate(0, **options)
    test, jury, base, members_test = debate(1, **options)
    both = (members, members_test) if memberships else None
    return format_leak(train, test, base=(base_train, base), model=jury, memberships=both, bootstrap=HOW)


def test_a_side_rendered_as_a_list_is_found():
    found = leak_of(listed=True)
    assert found.leak
    assert found.verdict.startswith("leak: length and format alone predict")
    assert found.accuracy > 0.9
    assert found.explained[0] > 0.75
    assert {"begins with a bracket", "ends in a bracket", "brackets", "quotes"} & {n for n, _ in found.strongest[:3]}


def test_clean_data_are_not_accused():
    found = leak_of(memberships=True)
    assert not found.leak
    assert found.verdict.startswith("no leak")
    assert found.accuracy < 0.6
    assert found.explained[0] < 0.1
    assert found.nll["model"] < found.nll["base"] < found.nll["marginal"] + 0.1


def test_clusters_that_only_like_long_or_short_texts_are_seen_through():
    found = leak_of(memberships=True, length_taste=True)
    assert found.leak
    assert found.verdict.startswith("format: ")
    assert found.explained_gain[0] > 0.7
    blind = leak_of(memberships=False, length_taste=True)
    assert not blind.leak  # one taste for all cannot explain what the jury gains from telling raters apart


def test_format_is_all_that_the_features_see():
    first, second = format_features(["Yes, that is true.", "Not, that is drue."])
    np.testing.assert_allclose(first, second)
    listed = dict(zip(FORMAT_FEATURES, format_features(["['a', 'b']"])[0], strict=True))
    assert listed["begins with a bracket"] == listed["ends in a bracket"] == 1
    assert listed["brackets"] == pytest.approx(np.log(3))
    assert listed["quotes"] == pytest.approx(np.log(5))


def test_the_marginal_knows_levels_and_ties_but_no_sides():
    rows = [("u", "p", "x", "y", "a"), ("u", "q", "x", "y", "a"), ("v", "p", "x", "y", "tie")]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    enc = Judgements.from_frame(frame).encode()
    np.testing.assert_allclose(np.exp(marginal_log_probs(enc, enc))[0], np.array([1.5, 1.5, 1.5]) / 4.5)
    votes = answers(2, 2, [[1, 1], [1, 0]])
    np.testing.assert_allclose(np.exp(marginal_log_probs(votes, votes))[0], [1.5 / 5, 3.5 / 5])


def test_a_row_has_the_unit_and_the_direction_of_its_metric():
    loss = Comparison("jury", "bt", "delta_nll_nats", -0.1, -0.2, -0.05, 240, 0.01, 0.02, "better")
    share = replace(loss, metric="delta_accuracy")
    assert (loss.row("c")["unit"], loss.row("c")["direction"]) == ("nats", "lower")
    assert (share.row("c")["unit"], share.row("c")["direction"]) == ("share", "higher")
    row = share.row("new rater")
    assert [row[name] for name in ("case", "method", "metric")] == ["new rater", "jury", "delta_accuracy_vs_bt"]
    assert [row[name] for name in ("value", "ci_low", "ci_high", "n", "p_value", "p_holm", "outcome")] == [
        -0.1, -0.2, -0.05, 240, 0.01, 0.02, "better"
    ]  # fmt: skip


def test_what_is_detectable_knows_the_coverage_of_its_interval(models):
    """Half of an interval is z(level) standard errors; z(level) + z(.8) of them would be seen four times in five."""
    enc, predictions = models
    pair = {name: predictions[name] for name in ("bt", "jury")}
    error = {}
    for level in (0.95, 0.5):
        found = compare(pair, enc, "bt", level=level, permutations=9)[0]
        assert found.level == level
        error[level] = found.detectable / (norm.ppf((1 + level) / 2) + norm.ppf(0.8))
        assert (found.high - found.low) / 2 == pytest.approx(error[level] * norm.ppf((1 + level) / 2), rel=0.1)
    assert error[0.5] == pytest.approx(error[0.95], rel=0.1)  # the interval is that of t


def test_a_p_value_at_five_percent_is_not_small():
    undecided = Comparison("jury", "bt", "delta_nll_nats", -0.1, -0.3, 0.1, 240, 0.05, 0.05, "undecided")
    assert "p = " not in in_words([undecided])
    assert "p = 0.049 is about" in in_words([replace(undecided, p_holm=0.049)])
    assert "p = " not in in_words([replace(undecided, p_holm=0.001, low=np.nan, high=np.nan)])
