"""An evaluation does not flatter: true frequencies, equal rater terms on both sides, no scored training labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError
from reward_models.evaluate import main
from reward_models.evaluation.cells import Cells
from reward_models.evaluation.command.models import measured_models
from reward_models.evaluation.comparisons import Comparison, in_words
from reward_models.evaluation.controls import FixedAnswers, marginal_log_probs
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.format_leak import FORMAT_FEATURES, _design, _verdict, fixed_options, format_leak
from reward_models.evaluation.heldout import HeldoutRecord, divide
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.metrics import nll
from reward_models.evaluation.saved_jury import score_texts
from reward_models.judgements.records import Judgements
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.raters.rater_model import KindTerms, RaterModel
from tests.tiny import tiny_causal_lm, tiny_tokenizer


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
HOW = Bootstrap(draws=20)
SCALE = ["too little", "about right", "too much"]
SHARES = {"parks": [0.6, 0.3, 0.1], "roads": [0.2, 0.5, 0.3]}


def answers(shares, raters, options=SCALE, order=None, name="r"):
    """Answers to questions of which `raters` people give the shares; the options are listed in `order`."""
    rows = []
    for question, share in shares.items():
        picks = np.repeat(np.arange(len(share)), np.rint(np.array(share) * raters).astype(int))
        listed = [options[i] for i in order or range(len(options))]
        rows += [(f"{name}{u}", question, listed, listed.index(options[pick])) for u, pick in enumerate(picks)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    return Judgements.from_frame(frame, kind="choice")


# ── answers by their frequency ──────────────────────────────────────────────────────────────────────────────────────


def test_the_marginal_of_choices_is_that_of_each_question():
    enc = answers(SHARES, 1000).encode()
    p = np.exp(marginal_log_probs(enc, enc))
    asked = np.array([enc.texts[a].prompt for a in enc.alternatives[:, 0]])
    for question, share in SHARES.items():
        np.testing.assert_allclose(p[asked == question][0], share, atol=1e-3)
    entropy = -np.mean([sum(s * np.log(s) for s in share) for share in SHARES.values()])
    assert nll(marginal_log_probs(enc, enc), enc).value == pytest.approx(entropy, abs=1e-3)
    assert nll(FixedAnswers().log_probs(enc), enc).value == pytest.approx(np.log(3))


def test_the_marginal_of_a_new_question_is_that_of_its_options_elsewhere():
    train, new = answers(SHARES, 1000).encode(), answers({"trams": [1, 1, 1]}, 1).encode()
    np.testing.assert_allclose(np.exp(marginal_log_probs(train, new))[0], [0.4, 0.4, 0.2], atol=1e-3)
    unknown = answers({"trams": [1, 1]}, 1, ["yes", "no"]).encode()
    np.testing.assert_allclose(np.exp(marginal_log_probs(train, unknown))[0], [0.5, 0.5])


def test_the_marginal_does_not_depend_on_the_order_of_options():
    train = answers(SHARES, 100).encode()
    turned = answers(SHARES, 100, order=[2, 0, 1]).encode()
    expected = np.exp(marginal_log_probs(train, train))
    np.testing.assert_allclose(np.exp(marginal_log_probs(train, turned)), expected[:, [2, 0, 1]])


class Backwards(FixedAnswers):
    """Expects of the last option what is true of the first."""

    def log_probs(self, enc, features=None):
        return super().log_probs(enc, features)[:, ::-1]


def test_the_verdict_on_choices_compares_with_their_frequencies():
    """A model that knows nothing beats a bad base, and not the frequencies; the verdict says both."""
    shares = {f"question {i}": [0.6, 0.3, 0.1] for i in range(6)}
    train, test = answers(shares, 200, name="old"), answers(shares, 200, name="new")
    labels = train.encode()
    models = {"base": Backwards(labels), "jury": FixedAnswers(), "marginal": FixedAnswers(labels)}
    result = evaluate_jury(
        models, test, train, by="item", base="base", rivals=["marginal"], model="jury", bootstrap=HOW
    )
    better, worse = result.verdict.split("; ")
    assert better.startswith("jury is better than base")
    assert worse.startswith("jury is worse than marginal")
    metrics = {row["metric"] for row in result.rows if row["method"] == "jury"}
    assert {"delta_nll_nats_vs_base", "delta_nll_nats_vs_marginal"} <= metrics


# ── length and format ───────────────────────────────────────────────────────────────────────────────────────────────


def test_fixed_options_are_not_accused_of_their_length():
    """Two camps that want opposite ends of one scale: the length of an option only names it."""
    shares = {f"question {i}": [0.5, 0.0, 0.5] for i in range(8)}
    train, test = answers(shares, 40, name="old"), answers(shares, 40, name="new")
    models = {"jury": FixedAnswers(train.encode()), "bt": FixedAnswers()}
    result = evaluate_jury(models, test, train, by="item", bootstrap=HOW)
    assert result.leak is None
    assert "ormat" not in result.verdict
    reason = next(row["skipped"] for row in result.rows if row["case"] == "format")
    assert reason == "the options are fixed: 8 of 8 questions have options that other questions offer, too"


def own_options(n_questions):
    """Questions with three options of their own each, of which the longest wins."""
    parts = []
    for i in range(n_questions):
        options = [f"option {i} and more words about it", f"option {i} b", f"option {i} c"]
        parts.append(answers({f"question {i}": [0.8, 0.1, 0.1]}, 20, options).frame)
    return Judgements.from_frame(pd.concat(parts, ignore_index=True), kind="choice").encode()


def test_options_of_their_own_are_checked_if_they_are_many():
    many = own_options(len(FORMAT_FEATURES))
    assert fixed_options(many, many) is None
    few = own_options(len(FORMAT_FEATURES) - 1)
    assert fixed_options(few, few).startswith("the options are too few: 13 questions have 26 alternatives")


def pairs(n_pairs, longer_wins, model_right, seed=0, raters=30):
    """Pairs whose longer response wins in some share, and predictions that are right in another."""
    rng = np.random.default_rng(seed)
    rows, right = [], []
    for u in range(raters):
        for i in range(n_pairs):
            a, b = (f"word {i} " * 6, f"word {i}") if i % 2 else (f"word {i}", f"word {i} " * 6)
            wins_a = (len(a) > len(b)) == (rng.random() < longer_wins)
            rows.append((f"r{seed}.{u}", f"p{i}", a.strip(), b.strip(), "a" if wins_a else "b"))
            right.append(wins_a == (rng.random() < model_right))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    p = np.where(right, 0.6, 0.4)
    return Judgements.from_frame(frame).encode(), np.log(np.stack([p, 1 - p, np.full(len(p), 1e-9)], axis=1))


def test_a_model_that_knows_less_than_format_is_told_so():
    train, _ = pairs(20, 0.7, 0.59)
    test, model = pairs(20, 0.7, 0.59, seed=1)
    base = marginal_log_probs(train, train), marginal_log_probs(train, test)
    leak = format_leak(train, test, base=base, model=model, bootstrap=HOW)
    assert leak.leak
    assert leak.verdict.startswith("leak: length and format alone predict ")
    assert leak.accuracy > 0.65
    assert "a classifier that reads no word predicts better (-0." in leak.verdict


def test_too_little_to_clear_the_data_of_a_leak_is_undecided():
    train, _ = pairs(4, 0.6, 0.5)
    test, model = pairs(4, 0.6, 0.5, seed=1, raters=3)
    base = marginal_log_probs(train, train), marginal_log_probs(train, test)
    leak = format_leak(train, test, base=base, model=model, bootstrap=HOW)
    assert not leak.leak
    assert leak.verdict.startswith("undecided whether format leaks: length and format alone predict ")


# ── rater terms on both sides, p-values and intervals ───────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved jury of one cluster with its rater terms, and votes of raters who differ in leniency."""
    path = tmp_path_factory.mktemp("jury")
    rng = np.random.default_rng(0)
    tokenizer = tiny_tokenizer()
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer, seed=1), rng.normal(size=(1, 32)), np.zeros(1), [1.0], ["everyone"]
    )
    terms = KindTerms({"thresholds": np.array([-1.0, 1.0]), "log_scale_mean": np.array([-2.0])}, {"intercept": 2.0})
    state = JuryState(rater_model=RaterModel("mixture", np.eye(1), np.zeros(1), {"rating": terms}))
    JuryScorer(model, tokenizer, state=state).save_pretrained(path / "jury")
    rows = [
        (f"r{u}", "Vote: ", f"statement {i}", int(np.searchsorted([-1, 1], lenient + rng.logistic())) - 1)
        for u, lenient in enumerate(2 * rng.normal(size=20))
        for i in range(16)
    ]
    pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"]).to_csv(path / "votes.csv", index=False)
    return path


def measure(folder, *more):
    target = folder / "results.json"
    arguments = [folder / "jury", "--data", folder / "votes.csv", "--draws", 20, "--json", target, *more]
    assert main([str(argument) for argument in arguments]) == 0
    return json.loads(target.read_text())


def test_a_jury_of_one_cluster_against_itself_is_the_same(folder):
    results = measure(folder, "--base", folder / "jury")
    gain = next(row for row in results["rows"] if row["metric"] == "delta_nll_nats_vs_base jury")
    assert (gain["method"], gain["value"], gain["ci_low"], gain["ci_high"]) == ("jury", 0, 0, 0)
    assert results["meta"]["verdict"].startswith("jury and base jury predict the same")


def test_rater_terms_are_no_taste(folder):
    results = measure(folder)
    loss = {row["method"]: row["value"] for row in results["rows"] if row["metric"] == "nll_nats"}
    assert loss["jury"] < loss["one reward"] - 0.05
    assert results["meta"]["verdict"].startswith("jury and one reward, rater terms predict the same")


def test_a_jury_with_its_own_rater_terms_is_measured_with_its_variances_and_strangers(folder):
    """One that is fitted here to the labels at hand has neither: both belong to the fit of the saved jury."""
    votes = Judgements.from_frame(pd.read_csv(folder / "votes.csv"), kind="rating", levels=[-1, 0, 1])
    texts = votes.encode().texts
    scorer = JuryScorer.from_pretrained(folder / "jury")
    variance = np.arange(1.0, 1 + len(texts))[:, None]
    scorer.reward_variance = lambda asked: variance[[texts.index(text) for text in asked]]
    scorer.state = replace(scorer.state, strangers=np.array([1.0]))
    cells = Cells({"test": votes}, votes, {})
    rewards = np.zeros((len(texts), 1))
    jury, _ = measured_models(scorer, None, texts, rewards, None, cells, None)
    assert jury.placement.model is scorer.state.rater_model
    assert np.array_equal(jury.variance, variance)
    assert np.array_equal(jury.placement.strangers, [1.0])
    scorer.state = replace(scorer.state, rater_model=None)
    fitted, _ = measured_models(scorer, None, texts, rewards, None, cells, None)
    assert (fitted.variance, fitted.placement.strangers) == (None, None)


def test_a_small_p_beside_an_interval_with_zero_is_explained():
    undecided = Comparison("jury", "bt", "delta_nll_nats", -0.1, -0.3, 0.1, 240, 0.001, 0.001, "undecided")
    assert in_words([undecided]) == (
        "whether jury is better or worse than bt is undecided (-0.100 nats per judgement [-0.300, +0.100], p = 0.001 "
        "is about other raters on these very items, the interval about other items, too)"
    )


# ── what the jury was fitted to ─────────────────────────────────────────────────────────────────────────────────────


def test_what_a_jury_was_fitted_to_is_set_aside():
    table = answers(SHARES, 10)
    parks, roads = table.items
    ours = HeldoutRecord(["r0", "r1"], ["r2"], [parks], [roads])
    base = HeldoutRecord(["r1", "r2"], ["r0"], [parks, roads], [])
    fitted, unseen = divide(table, [ours, base])
    judgements = set(zip(fitted.frame["rater_id"], fitted.frame["item_id"], strict=True))
    assert judgements == {("r0", parks), ("r1", parks), ("r1", roads), ("r2", parks), ("r2", roads)}
    assert len(unseen) == len(table) - 5
    assert divide(table, [])[0] is None
    with pytest.raises(JudgementError, match=r"all 20 judgements .* are by raters and on items that the jury"):
        divide(table, [HeldoutRecord(table.raters, [], table.items, [])])


@pytest.fixture
def recorded(folder):
    """The same folder with a record: 14 of 20 raters and 12 of 16 statements were fitted to."""
    votes = pd.read_csv(folder / "votes.csv")
    items = Judgements.from_frame(votes, kind="rating").items
    raters = [f"r{u}" for u in range(20)]
    HeldoutRecord(raters[:14], raters[14:], items[:12], items[12:]).write(folder)
    yield folder
    (folder / "heldout.json").unlink()


def test_the_command_scores_nothing_the_jury_was_fitted_to(recorded, capsys):
    results = measure(recorded, "--by", "item")
    assert results["meta"]["judgements"] == 20 * 16 - 14 * 12
    losses = [row for row in results["rows"] if row["metric"] == "nll_nats" and row["method"] == "jury"]
    scored = {row["case"]: row["n"] for row in losses}
    assert scored.keys() == {"seen rater, unseen item", "unseen rater, seen item", "unseen rater, unseen item"}
    assert scored["seen rater, unseen item"] == 14 * 4
    fitted_to = "heldout.json names 168 of 320 judgements of --data, not scored: they serve as training judgements"
    assert fitted_to in capsys.readouterr().err
    assert results["meta"]["fitted_to"] == fitted_to


def test_the_command_warns_where_it_is_not_known_what_the_jury_was_fitted_to(folder, capsys):
    measure(folder)
    printed = capsys.readouterr().err
    assert "what the jury was fitted to: not known for" in printed
    assert "the numbers are too good. Fix: give its training judgements with --train" in printed


@pytest.mark.parametrize(
    "record",
    [
        {"raters": {}},
        {"raters": {"train": "r0", "heldout": []}, "items": {"train": [], "heldout": []}},
        {"raters": {"train": [0], "heldout": [1]}, "items": {"train": [], "heldout": []}},  # no id of a table
        ["r0"],
    ],
)
def test_a_record_that_cannot_be_read_is_refused(recorded, capsys, record):
    (recorded / "heldout.json").write_text(json.dumps(record))
    assert main([str(recorded / "jury"), "--data", str(recorded / "votes.csv")]) == 2
    assert "it is not known what the jury was fitted to" in capsys.readouterr().err


ALONE = "length and format alone predict 60% of the answers, and the model 70%"


@pytest.mark.parametrize(
    ("change", "leaks", "sentence"),
    [
        (
            {"ahead": (0.05, 0.01, 0.09), "format_gain": (0.1, 0.05, 0.2)},
            True,
            "predicts better (-0.050 ",
        ),
        (
            {"explained": (0.9, 0.8, 1.0), "format_gain": (0.1, 0.05, 0.2)},
            True,
            "has 90% of what the model knows. ",
        ),
        (
            {"explained_gain": (0.6, 0.4, 0.8), "format_gain": (0.1, 0.05, 0.2), "explained": (0.3, 0.2, 0.4)},
            True,
            "explain 60% of the model's gain over the base (" + ALONE,
        ),
        (
            {"explained": (0.95, -1.0, 3.0)},
            False,
            "the model -0.020 nats per judgement [-0.090, +0.060])",
        ),
        (
            {"explained": (0.95, np.nan, np.nan), "ahead": (0.02, np.nan, np.nan)},
            False,
            "the model -0.020 nats per judgement without an interval, for which there are too few raters or items)",
        ),
        ({"accuracies": (np.nan, np.nan)}, False, "no leak: every judgement is a tie, so that length and format"),
        ({"explained": (np.nan, np.nan, np.nan), "ahead": (-0.02, -0.1, 0.0)}, False, "neither predicts better"),
        ({}, False, "format has 10% of what the model knows, and 20% of its gain over the base"),
        ({"gain": (0.1, -0.1, 0.3)}, False, f"no leak: {ALONE}; format has 10% of what the model knows"),
    ],
)
def test_what_is_said_of_a_leak_has_its_numbers_the_right_way_round(change, leaks, sentence):
    usual = {
        "accuracies": (0.6, 0.7),
        "explained": (0.1, 0.05, 0.2),
        "explained_gain": (0.2, 0.1, 0.3),
        "gain": (0.1, 0.05, 0.15),
        "format_gain": (0.02, -0.02, 0.06),
        "ahead": (0.02, -0.06, 0.09),
        "num_clusters": 2,
    }
    found, said = _verdict(**{**usual, **change})
    assert found is leaks
    assert sentence in said
    if change == {"gain": (0.1, -0.1, 0.3)}:
        assert said.endswith("of what the model knows")


def test_the_marginal_of_a_new_question_is_counted_where_answers_are_few():
    """Three of four say yes: with half a judgement for each of two options, 3.5 and 1.5 of 5."""
    train = answers({"parks": [0.75, 0.25]}, 4, ["yes", "no"]).encode()
    new = answers({"trams": [1, 1]}, 1, ["yes", "no"]).encode()
    np.testing.assert_allclose(np.exp(marginal_log_probs(train, new))[0], [0.7, 0.3])


def test_every_option_has_its_own_features_the_first_one_too():
    """A classifier by length must see the first text of a table as it sees the others."""
    enc = answers({"parks": [0.5, 0.3, 0.2]}, 10).encode()
    features = np.arange(1.0, enc.n_texts + 1)[:, None]
    np.testing.assert_array_equal(_design(enc, features)[0], features[enc.alternatives[0]])
    assert (_design(enc, features) > 0).all()


def test_scores_of_no_texts_are_an_empty_table_with_a_column_per_cluster():
    model = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), [1.0, -1.0], [0.5, 0.5])
    assert score_texts(JuryScorer(model, tiny_tokenizer()), [], progress=False).shape == (0, 2)


def test_questions_with_fewer_options_do_not_lend_their_padding_any_probability():
    rows = [
        ("u", "tea?", ["yes", "no"], 0),
        ("v", "tea?", ["yes", "no"], 1),
        ("v", "when?", ["now", "later", "no"], 2),
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    enc = Judgements.from_frame(frame, kind="choice").encode()
    p = np.exp(marginal_log_probs(enc, enc))
    # "yes" was chosen once of two times, "no" twice of three: one judgement for both is shared out by these rates.
    rate = np.array([(1 + 0.5) / (2 + 1), (2 + 0.5) / (3 + 1)])
    np.testing.assert_allclose(p[0], [*((1 + rate / rate.sum()) / 3), 0.0])
    # "now" and "later" were chosen never of one time; of three options 1.5 judgements are shared out.
    rate = np.array([0.5 / 2.5, 0.5 / 2.5, 2.5 / 4.5])
    np.testing.assert_allclose(p[2], (np.array([0, 0, 1]) + 1.5 * rate / rate.sum()) / 2.5)


@pytest.mark.parametrize("kind", ["rating", "choice"])
def test_the_command_compares_choices_with_their_frequencies_and_other_kinds_not(
    folder, tmp_path, monkeypatch, capsys, kind
):
    """Of other kinds the marginal knows no question, and to beat it says nothing."""
    seen = {}

    def stop(*args, **options):
        seen.update(options)
        raise JudgementError("stopped")

    monkeypatch.setattr("reward_models.evaluation.command.measured.evaluate_jury", stop)
    table = folder / "votes.csv"
    if kind == "choice":
        options = '["yes", "no"]'
        rows = [(f"r{u}", f"{i}?", options, "yes" if (u + i) % 2 else "no") for u in range(6) for i in range(4)]
        table = tmp_path / "choices.csv"
        pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"]).to_csv(table, index=False)
    assert main([str(folder / "jury"), "--data", str(table), "--draws", "20"]) == 2
    assert "error: stopped" in capsys.readouterr().err
    assert seen["rivals"] == (["marginal"] if kind == "choice" else [])
