"""Evaluation of juries: four cases without scored labels among the placing ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError, JuryError
from reward_models.evaluation.cells import evaluation_cells
from reward_models.evaluation.clusters import Clusters
from reward_models.evaluation.controls import FixedAnswers, Strangers
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.format_leak import FormatLeak
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.report import report_sheets, rewardbench
from reward_models.judgements.records import Judgements


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
HOW = Bootstrap(draws=20)


def votes(raters, prompts, seed=0):
    """Votes of two camps, even and odd rater numbers, who want the opposite of each other nine times in ten."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"r{u}", f"prompt {p}", f"answer {p}.{a}", int((u + a) % 2 == (rng.random() < 0.1)))
        for u in raters
        for p in prompts
        for a in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    return Judgements.from_frame(frame, kind="rating", levels=[0, 1])


@dataclass(frozen=True)
class Camps:
    """Knows that answer a.0 is wanted by one camp and a.1 by the other, and places raters by their labels."""

    camp: dict[str, float]  # probability of being even

    def log_probs(self, enc, features=None):
        even = np.array([self.camp.get(rater, 0.5) for rater in enc.rater_ids])[enc.rater]
        first = np.array([text.response.endswith(".0") for text in enc.texts])[enc.alternatives[:, 0]]
        yes = np.where(first, 0.9 * even + 0.1 * (1 - even), 0.1 * even + 0.9 * (1 - even))
        return np.log(np.stack([1 - yes, yes], axis=1))

    def adapt(self, enc, features=None):
        first = np.array([text.response.endswith(".0") for text in enc.texts])[enc.alternatives[:, 0]]
        like_even = np.where(first == (enc.label == 1), 1, -1)
        totals = np.bincount(enc.rater, like_even, enc.n_raters)
        return Camps(dict(zip(enc.rater_ids, 1 / (1 + 9.0**-totals), strict=True)))

    def memberships(self, enc):
        even = np.array(list(self.adapt(enc).camp.values()))
        return np.stack([even, 1 - even], axis=1)


class Bookworm(FixedAnswers):
    """A label-level model: it does not know the prompts from 8 on."""

    def log_probs(self, enc, features=None):
        if any(int(text.prompt.split()[1]) >= 8 for text in enc.texts):
            raise JuryError("the texts were not in the fit\nand more")
        return super().log_probs(enc, features)


CAMPS = Camps({})
TRAIN = votes(range(10), range(8))


def test_cells_are_disjoint_and_say_what_is_missing():
    test = pd.concat([votes(range(10), range(8, 12)).frame, votes(range(10, 16), range(12)).frame])
    test = Judgements.from_frame(test, kind="rating", levels=[0, 1])
    cells = evaluation_cells(test, TRAIN, adapt_share=0.5)
    assert {case: len(table) for case, table in cells.scored.items()}.keys() == {
        "seen rater, unseen prompt",
        "unseen rater, seen prompt",
        "unseen rater, unseen prompt",
    }
    assert list(cells.empty) == ["seen rater, seen prompt"]
    assert len(cells.scored["seen rater, unseen prompt"]) == 80  # nobody adapts by these
    assert len(cells.adapt) == 6 * 12

    def keys(table):
        return set(zip(table.frame["rater_id"], table.frame["item_id"], strict=True))

    parts = [keys(cells.adapt), *(keys(table) for table in cells.scored.values())]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(test)
    assert set(cells.adapt.raters) == {f"r{u}" for u in range(10, 16)}
    by_item = evaluation_cells(votes(range(10, 12), range(8)), TRAIN, by="item")
    assert list(by_item.scored) == ["unseen rater, seen item"]


def test_scored_labels_may_not_be_training_labels():
    with pytest.raises(JudgementError, match=r"160 of 160 test judgements are in the training table, .* 'r0'"):
        evaluation_cells(TRAIN, TRAIN)
    shares = pd.DataFrame({"prompt": ["q"], "options": [["x", "y"]], "probs": [[0.5, 0.5]], "n": [9]})
    with pytest.raises(JudgementError, match="kind='soft'"):
        evaluation_cells(Judgements.from_frame(shares))


def test_every_predictor_is_scored_in_every_case_or_says_why_not():
    train = votes(range(12), range(8))
    test = pd.concat([votes(range(12), range(8, 16)).frame, votes(range(12, 32), range(16)).frame])
    test = Judgements.from_frame(test, kind="rating", levels=[0, 1])
    encoded = train.encode()
    result = evaluate_jury(
        {"bt": FixedAnswers(encoded), "jury": CAMPS.adapt(encoded), "labels only": Bookworm(encoded)},
        test,
        train,
        clusters=Clusters(CAMPS.memberships, ["even", "odd"], np.array([0.5, 0.5])),
        bootstrap=HOW,
    )
    found = {(r["case"], r["method"], r["metric"]): r for r in result.rows}
    skipped = [(r["case"], r["method"]) for r in result.rows if r["metric"] == "all"]
    assert skipped == [
        ("seen rater, seen prompt", "all"),
        ("seen rater, unseen prompt", "labels only"),
        ("unseen rater, unseen prompt", "labels only"),
    ]
    assert found["seen rater, unseen prompt", "labels only", "all"]["skipped"] == "the texts were not in the fit"
    for case in ("seen rater, unseen prompt", "unseen rater, seen prompt", "unseen rater, unseen prompt"):
        jury, base = found[case, "jury", "accuracy"], found[case, "bt", "accuracy"]
        assert jury["value"] > 0.8 > 0.6 > base["value"]
        assert found[case, "jury", "delta_nll_nats_vs_bt"]["outcome"] == "better"
        assert found[case, "jury", "accuracy_worst_cluster"]["value"] > 0.8
        assert found[case, "jury", "regret_min"]["unit"] == "share of the vote"
    assert result.verdict.startswith("jury against bt in 3 cases: better in 3. No leak:")
    assert len(result.comparisons) == 2 * (1 + 2 + 1)
    columns = {"case", "method", "metric", "value", "ci_low", "ci_high", "n", "unit", "direction"}
    assert all(columns <= row.keys() for row in result.rows)


def test_strangers_are_the_population_and_adapting_needs_no_scored_label():
    test = votes(range(10, 30), range(6))
    result = evaluate_jury(
        {"jury": CAMPS, "bt": Strangers(CAMPS), "uniform": FixedAnswers()}, test, base="bt", bootstrap=HOW
    )
    found = {(r["method"], r["metric"]): r["value"] for r in result.rows if r["case"] == "adapted rater"}
    assert found["bt", "accuracy"] == found["uniform", "accuracy"] == 0.5
    assert found["jury", "accuracy"] > 0.8
    # Whoever they are, as a population they are the same: half of them wants either answer.
    assert found["jury", "share_calibration"] == pytest.approx(found["uniform", "share_calibration"])


def test_names_and_impossible_numbers_are_told():
    with pytest.raises(JuryError, match=r"'bt' is not among the models \(jury\)"):
        evaluate_jury({"jury": CAMPS}, votes(range(4), range(2)))
    with pytest.raises(TypeError, match="`jury=` is now `model=`"):
        evaluate_jury({"bt": CAMPS, "jury": CAMPS}, votes(range(4), range(2)), jury="jury")
    lonely = Judgements.from_frame(
        votes(range(4), range(2)).frame.drop_duplicates("response"), kind="rating", levels=[0, 1]
    )
    result = evaluate_jury({"bt": CAMPS, "jury": CAMPS}, lonely, bootstrap=HOW)
    reasons = {row["metric"]: row["skipped"] for row in result.rows if "skipped" in row}
    assert reasons["share_calibration"] == "no item was judged by two raters"
    assert reasons["accuracy_worst_10_percent"] == "no rater has five judgements"


def test_rewardbench_counts_preferred_responses_that_score_higher():
    rows = [
        ("u", "p", "x", "y", "a"),
        ("u", "q", "x", "y", "b"),
        ("v", "p", "x", "y", "tie"),
        ("v", "q", "x", "y", "a"),
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    enc = Judgements.from_frame(frame).encode()
    rewards = np.array([2.0, 1.0, 0.5, 0.5])  # right about p, undecided about q
    subsets = {"all": np.ones(4, bool), "p": enc.item == 0, "nothing": np.zeros(4, bool)}
    found = rewardbench(rewards, enc, "m", None, subsets, np.array([[1.0, 0], [0, 1]]), ["first", "second"])
    assert found == {
        "model": "m",
        "model_type": "Seq. Classifier",
        "chat_template": None,
        "all": pytest.approx(2 / 3),
        "p": 1.0,
        "raters: first": 0.75,
        "raters: second": 0.5,
    }


def test_fitted_rater_terms_recover_scale_and_ties():
    """The rewards are half as large as the raters mean them, and one pair in six or so is a tie."""
    import torch

    from reward_models.evaluation.saved_jury import fit_rater_model
    from reward_models.raters.likelihoods import davidson_log_lik

    rng = np.random.default_rng(0)
    n_raters, n_pairs = 40, 60
    gap = rng.normal(size=n_pairs)
    logits = [
        davidson_log_lik(torch.tensor(2 * gap), torch.zeros(n_pairs), torch.tensor(y), 0.0, -1.0) for y in range(3)
    ]
    p = torch.stack(logits, -1).exp().numpy()
    answer = (rng.random((n_raters, n_pairs, 1)) > p.cumsum(-1)[None]).sum(-1)
    rows = [
        (f"r{u}", f"p{i}", "x", "y", ["a", "b", "tie"][answer[u, i]]) for u in range(n_raters) for i in range(n_pairs)
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    enc = Judgements.from_frame(frame).encode()
    rewards = np.zeros((enc.n_texts, 1))
    rewards[enc.item_alternatives[:, 0], 0] = gap
    plain = fit_rater_model(enc, rewards, np.ones(1), rater_terms=False)
    assert plain.term_sd == {}
    assert np.exp(plain.shared["log_scale_mean"][0]) == pytest.approx(2, rel=0.1)
    assert plain.shared["log_tie_mean"][0] == pytest.approx(-1, abs=0.15)
    varied = fit_rater_model(enc, rewards, np.ones(1))
    assert set(varied.term_sd) == {"log_scale", "log_tie"}
    assert varied.term_sd["log_tie"] < 0.5  # raters do not differ here; its usual spread is 1


@pytest.mark.parametrize(("most", "read"), [(100, 96), (224, 224), (5, 16)])
def test_rater_terms_are_fitted_to_whole_raters_of_a_large_table(monkeypatch, most, read):
    """Fourteen raters with 16 votes each: as many raters as the bound lets in, at least one."""
    from reward_models.evaluation import saved_jury

    seen = []
    original = saved_jury.Observations.from_encoded
    monkeypatch.setattr(saved_jury, "MAX_JUDGEMENTS", most)
    monkeypatch.setattr(saved_jury.Observations, "from_encoded", lambda enc: (seen.append(enc), original(enc))[1])
    enc = votes(range(14), range(8)).encode()
    saved_jury.fit_rater_model(enc, np.zeros((enc.n_texts, 1)), np.ones(1), rater_terms=False)
    assert len(seen[0]) == read
    assert set(np.bincount(seen[0].rater)) == {16}


def test_level_and_draws_of_the_bootstrap_are_those_of_every_interval():
    train, test = votes(range(14), range(8)), votes(range(14, 34), range(8), seed=1)
    models = {"bt": FixedAnswers(train.encode()), "jury": CAMPS}
    clusters = Clusters(CAMPS.memberships, ["even", "odd"], np.array([0.5, 0.5]))
    wide, narrow = (
        evaluate_jury(models, test, train, clusters=clusters, bootstrap=Bootstrap(draws=100, level=level))
        for level in (0.95, 0.5)
    )
    compared = 0
    for a, b in zip(wide.rows, narrow.rows, strict=True):
        assert (a["case"], a["method"], a["metric"], a["value"]) == (b["case"], b["method"], b["metric"], b["value"])
        if a["ci_low"] is not None and a["ci_high"] - a["ci_low"] > 1e-9:
            assert b["ci_high"] - b["ci_low"] < 0.75 * (a["ci_high"] - a["ci_low"]), a["metric"]
            compared += 1
    assert compared > 30
    assert {c.level for c in narrow.comparisons} == {0.5}
    heads = [next(s for s in report_sheets(result) if getattr(s, "title", "") == "Against the base").columns[3]
             for result in (wide, narrow)]  # fmt: skip
    assert heads == ["difference, 95 % interval", "difference, 50 % interval"]


def test_the_check_of_the_format_is_made_on_the_largest_case_with_the_base_as_it_knows_the_labels(monkeypatch):
    seen = {}

    def leak(train, test, **options):
        seen.update(options, train=train, test=test)
        return FormatLeak({}, 0.5, (0.3, 0.2, 0.4), (0.1, 0.0, 0.2), [], False, "no leak: by hand")

    monkeypatch.setattr("reward_models.evaluation.evaluate_jury.format_leak", leak)
    monkeypatch.setattr("reward_models.evaluation.evaluate_jury.fixed_options", lambda *_: None)
    clusters = Clusters(CAMPS.memberships, ["even", "odd"], np.array([0.5, 0.5]))
    train = votes(range(10), range(8))
    test = pd.concat([votes(range(10), range(8, 10)).frame, votes(range(10, 20), range(10)).frame])
    test = Judgements.from_frame(test, kind="rating", levels=[0, 1])
    labels = train.encode()
    models = {"bt": CAMPS.adapt(labels), "jury": FixedAnswers(labels)}
    result = evaluate_jury(models, test, train, clusters=clusters, bootstrap=HOW)
    sizes = {row["case"]: row["n"] for row in result.rows if row["metric"] == "nll_nats"}
    largest = max(sizes.values())
    assert len(seen["test"]) == largest > 1.5 * sorted(sizes.values())[1]
    assert seen["train"].rater_ids == labels.rater_ids
    of_train, of_test = seen["base"]
    np.testing.assert_array_equal(of_train, models["bt"].log_probs(labels))  # as it knows the raters it was fitted to
    assert of_test.shape == seen["model"].shape == (largest, 2)
    np.testing.assert_array_equal(seen["model"], models["jury"].log_probs(seen["test"]))
    np.testing.assert_array_equal(seen["memberships"][0], CAMPS.memberships(labels))
    assert seen["memberships"][1].shape == (10, 2)
    assert seen["bootstrap"] == HOW
    assert result.verdict.endswith(". No leak: by hand.")
    rows = {row["metric"]: row for row in result.rows if row["case"] == "format"}
    assert {name: (row["value"], row["ci_low"], row["ci_high"]) for name, row in rows.items()} == {
        "format_explained": (0.3, 0.2, 0.4),
        "format_explained_gain": (0.1, 0.0, 0.2),
    }
    one = {"n": 1, "counted": "classifiers", "unit": "share", "direction": "context", "method": "jury"}
    assert all(row.items() >= one.items() for row in rows.values())

    # Nobody says what the models were fitted to: the labels that they adapt by are there to learn format from.
    evaluate_jury({"bt": CAMPS, "jury": FixedAnswers(labels)}, test, bootstrap=HOW)
    np.testing.assert_array_equal(seen["base"][0], CAMPS.adapt(seen["train"]).log_probs(seen["train"]))
    assert not np.allclose(seen["base"][0], np.log(0.5))
    assert seen["memberships"] is None


def pairs_of(choice, n=6):
    rows = [(f"r{u}", f"p{i}", "x", "y", choice) for u in range(4) for i in range(2 * n)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    return Judgements.from_frame(frame)


@pytest.mark.parametrize("choice", ["tie", "a"])
def test_the_reason_of_a_missing_number_is_its_own(choice):
    """Nobody is in the second cluster, and where all is a tie nobody can be predicted rightly or wrongly."""
    everybody = Clusters(lambda table: np.tile([1.0, 0.0], (table.n_raters, 1)), ["all", "none"], np.array([1.0, 0.0]))
    models = {"bt": FixedAnswers(), "jury": FixedAnswers()}
    result = evaluate_jury(models, pairs_of(choice), clusters=everybody, bootstrap=HOW)
    found = {r["metric"]: r["skipped"] for r in result.rows if "skipped" in r and r["method"] == "jury"}
    assert found["nll_nats[none]"] == "no judgement by a rater of this cluster"
    assert found["accuracy[none]"] == "no judgement without a tie by a rater of this cluster"
    ties = {
        "accuracy": "no judgement without a tie",
        "accuracy_per_rater": "no judgement without a tie",
        "accuracy[all]": "no judgement without a tie by a rater of this cluster",
        "accuracy_worst_cluster": "no judgement without a tie",
        "accuracy_worst_10_percent": "no rater has five judgements, one of them without a tie",
        "ece": "no judgement without a tie",
    }
    assert {name: found.get(name) for name in ties} == (ties if choice == "tie" else dict.fromkeys(ties))
    assert "nll_nats" not in found


def test_tables_of_two_kinds_are_refused():
    with pytest.raises(JudgementError, match=r"train holds 'preference' judgements and test 'rating'\. Fix: use one"):
        evaluation_cells(TRAIN, pairs_of("a"))
