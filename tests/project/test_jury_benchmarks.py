"""The jury benchmarks measure what they say: what is held out is unseen, and nothing is scored that was fitted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models.judgements.records import Judgements
from tests.benchmark_modules import FOLDER, benchmark_module
from tests.jury_training import TOKENIZER, planted
from tests.paths import EXCERPTS, NO_SHARED_DATA, SHARED_DATA
from tests.processes import run_script
from tests.tiny import tiny_bert, tiny_causal_lm


with_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NO_SHARED_DATA)


@pytest.fixture(scope="module")
def cases():
    return benchmark_module("_jury.cases")


def votes(n_raters: int = 40, n_texts: int = 30, seed: int = 0) -> Judgements:
    """Two camps that disagree about every statement, and say what they think nine times out of ten."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "rater_id": f"rater {u}",
            "prompt": "The town",
            "response": f"statement {i}",
            "rating": (1 if (u % 2) == (i % 2) else -1) * (1 if rng.random() < 0.9 else -1),
            "rater:side": "even" if u % 2 == 0 else "odd",
        }
        for u in range(n_raters)
        for i in range(n_texts)
    ]
    return Judgements.from_frame(pd.DataFrame(rows), levels=(-1, 1))


def keys(judgements: Judgements) -> set[tuple[str, str]]:
    return set(zip(judgements.frame["rater_id"], judgements.frame["item_id"], strict=True))


def texts(judgements: Judgements) -> set[str]:
    return {text.response for text in judgements.encode().texts}


def test_thinned_tables_keep_so_many_votes_a_statement_and_score_others():
    enc = votes().encode()
    train, test = benchmark_module("thinning").thinned(enc, 5, np.random.default_rng(0))
    assert (np.bincount(train.alternatives[:, 0], minlength=enc.n_texts) == 5).all()

    def votes_of(table):
        return {
            (table.rater_ids[r], table.texts[t]) for r, t in zip(table.rater, table.alternatives[:, 0], strict=True)
        }

    assert not votes_of(train) & votes_of(test)
    assert {rater for rater, _ in votes_of(test)} <= {rater for rater, _ in votes_of(train)}
    assert len(test) > 0.15 * len(enc)


def test_every_method_is_compared_with_one_reward_and_fine_tuning_with_its_start(cases, tmp_path):
    cells, report = benchmark_module("_jury.cells"), benchmark_module("_jury.report")
    case = cases.Case("town", votes(n_raters=12, n_texts=10), "response")
    rows = [np.arange(0, 60), np.arange(60, 120)]
    tests = [case.judgements.select(some) for some in rows]
    splits = [cases.Split(test, test, some, {}) for test, some in zip(tests, rows, strict=True)]
    cell = cells.Cell(case, "minilm:unseen", splits, None)
    parts = cells.Parts(tmp_path, {}, fresh=True)
    for number, test in enumerate(tests):
        halves = np.full((test.encode().n_raters, 2), 0.5)
        parts.put(cell.title, number, "reference", arrays={"memberships": halves})

    def saying(*given):
        """A method that gives the answers of each split this probability."""
        out = []
        for probability, test in zip(given, tests, strict=True):
            likes = test.frame["rating"].to_numpy() == 1
            of_like = np.where(likes, probability, 1 - probability)
            log_probs = np.log(np.column_stack([1 - of_like, of_like]))
            out.append({"arrays": {"log_probs_None": log_probs}, "seconds": 1.0, "chosen": "1"})
        return out

    cell.found |= {"joint-one": saying(0.5, 0.5), "fine-tuned-start": saying(0.5, 0.5)}
    others = ("fine-tuned", "in-context", "log-probability", "joint")
    cell.found |= {method: saying(0.8, 0.4) for method in others}
    found, _ = report.summarise(cell, None, parts, 20)
    losses = {(r["method"], r["split"]): r for r in found if r["metric"] == "delta_nll_vs_bias"}
    assert {method for method, _ in losses} == {*others, "fine-tuned-start"}
    for method in others:
        lost = [losses[method, split] for split in ("0", "1", "mean")]
        gap = math.log(0.5 / 0.8), math.log(0.5 / 0.4)
        assert [r["value"] for r in lost] == pytest.approx([*gap, sum(gap) / 2])
        assert lost[0]["base"] == "joint-one"
    (against_start,) = (
        r for r in found if r["metric"] == "delta_nll_vs_fine_tuned_start" and r["method"] == "fine-tuned"
    )
    assert against_start["value"] == pytest.approx(sum(gap) / 2)


@pytest.mark.slow
@with_data
@pytest.mark.parametrize(
    ("name", "kind", "n_judgements", "n_raters", "n_texts"),
    [
        ("ukpconvarg1", "preference", 64_247, 3_780, 784),
        ("polis/vtaiwan-uberx", "rating", 41_068, 1_091, 167),
        ("polis/biodiversity", "rating", 24_395, 413, 300),
        ("pandalm", "preference", 2_517, 3, 695),
        ("polarized/campus-protests", "rating", 6_066, 309, 1_017),
        ("polarized/right-to-assemble", "rating", 7_541, 307, 1_278),
    ],
)
def test_cases_have_the_stated_shapes(cases, name, kind, n_judgements, n_raters, n_texts):
    judgements = cases.load_case(name).judgements
    found = (judgements.kind, len(judgements), judgements.n_raters, judgements.encode().n_texts)
    assert found == (kind, n_judgements, n_raters, n_texts)


@with_data
def test_no_table_of_a_split_holds_an_answer_that_is_scored(cases):
    case = cases.load_case("polarized/campus-protests")
    split = cases.make_split(case, "minilm:unseen", seed=0)
    (pairs,) = split.others
    assert 3_000 < len(pairs) < len(case.others[0])
    unseen = texts(split.test)
    assert not unseen & texts(split.train)
    assert not unseen & texts(pairs)


@pytest.mark.parametrize(
    ("name", "kind", "n_judgements", "n_raters", "n_texts"),
    [
        ("ukpconvarg1", "preference", 1_737, 504, 26),
        ("polis/15-per-hour-seattle", "rating", 1_732, 109, 44),
        ("polis/canadian-electoral-reform", "rating", 9_596, 253, 167),
        ("pandalm", "preference", 285, 3, 190),
    ],
)
def test_cases_of_the_excerpts_have_the_stated_shapes(cases, name, kind, n_judgements, n_raters, n_texts):
    judgements = cases.load_case(name, EXCERPTS).judgements
    found = (judgements.kind, len(judgements), judgements.n_raters, judgements.encode().n_texts)
    assert found == (kind, n_judgements, n_raters, n_texts)


def test_votes_are_agree_and_disagree_of_raters_with_eight(cases):
    judgements = cases.load_case("polis/15-per-hour-seattle", EXCERPTS).judgements
    assert judgements.levels == (-1, 1)
    assert judgements.frame.groupby("rater_id").size().min() >= 8
    assert not judgements.traits  # Polis' groups are made from the very votes that are to be predicted


def test_missing_data_is_said_not_guessed(cases, tmp_path):
    with pytest.raises(cases.Unavailable, match="no folder polis/"):
        cases.load_case("polis/biodiversity", tmp_path)
    with pytest.raises(cases.Unavailable, match="no votes of polis/biodiversity in"):
        cases.load_case("polis/biodiversity", EXCERPTS)


@pytest.mark.parametrize("cell", ["labels:seen", "labels:unseen", "minilm:unseen"])
def test_no_judgement_is_fitted_and_scored(cases, cell):
    case = cases.Case("toy", votes(100), "response")
    for seed in range(3):
        split = cases.make_split(case, cell, seed)
        used = [keys(split.train), keys(split.test), keys(split.placing[20]) if split.placing else set()]
        assert len(set.union(*used)) == sum(map(len, used))
        assert keys(case.judgements.select(split.test_rows)) == keys(split.test)
        assert keys(cases.make_split(case, cell, seed).test) == keys(split.test)  # the same in every run


def test_a_fifth_of_the_labels_is_scored(cases):
    split = cases.make_split(cases.Case("toy", votes(), "response"), "labels:seen", 0)
    assert split.test.frame.groupby("rater_id").size().tolist() == [6] * 40  # of 30 each


def test_unseen_raters_are_scored_on_the_same_labels_however_they_are_placed(cases):
    split = cases.make_split(cases.Case("toy", votes(100), "response"), "labels:unseen", 0)
    assert not set(split.train.raters) & set(split.test.raters)
    assert split.test.n_raters == 25
    assert sorted(split.placing) == [0, 5, 20]
    assert len(split.test) == 25 * 10  # 30 labels each, less the largest number that places
    for n, placing in split.placing.items():
        assert placing.frame.groupby("rater_id").size().tolist() == [n] * (25 if n else 0)
    assert keys(split.placing[5]) < keys(split.placing[20])


def test_too_few_unseen_raters_are_refused(cases):
    with pytest.raises(cases.Unavailable, match="10 unseen raters"):
        cases.make_split(cases.Case("toy", votes(40), "response"), "labels:unseen", 0)


def test_held_out_statements_are_unseen(cases):
    split = cases.make_split(cases.Case("toy", votes(), "response"), "minilm:unseen", 0)
    assert not texts(split.train) & texts(split.test)
    assert len(texts(split.test)) == 6  # a fifth of 30
    assert set(split.test.raters) <= set(split.train.raters)


def test_a_held_out_question_is_unseen_with_all_its_answers(cases):
    frame = pd.concat([votes().frame.drop(columns="item_id").assign(prompt=f"question {i}") for i in range(4)])
    frame["response"] = frame["prompt"] + ": " + frame["response"]
    case = cases.Case("toy", Judgements.from_frame(frame), "response")
    split = cases.make_split(case, "minilm:questions", 0)
    (asked,) = set(split.test.frame["prompt"])
    assert set(split.train.frame["prompt"]) == {f"question {i}" for i in range(4)} - {asked}
    assert len(split.test) == len(frame) // 4
    assert set(split.test.raters) == set(split.train.raters)
    for other, message in ((votes(), "one question"), (case.judgements, "whole questions are what")):
        unit = "response" if other is not case.judgements else "prompt"
        with pytest.raises(cases.Unavailable, match=message):
            cases.make_split(cases.Case("toy", other, unit), "minilm:questions", 0)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_held_out_arguments_never_occur_in_training_pairs(cases):
    rng = np.random.default_rng(0)
    rows = []
    for u in range(12):
        for a, b in rng.permuted(np.tile(np.arange(20), (15, 1)), axis=1)[:, :2]:
            # The same argument handed in under two topics is one argument.
            topic = f"topic {rng.integers(2)}"
            rows.append((f"r{u}", topic, f"argument {a}", f"argument {b}", rng.choice(["a", "b", "tie"])))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    judgements = Judgements.from_frame(cases._first_time(frame))
    split = cases.make_split(cases.Case("toy", judgements, "response"), "minilm:unseen", 3)
    held = texts(judgements) - texts(split.train)
    assert len(held) >= 4  # a fifth of 20, and whoever met only these
    pairs = split.test.frame[["response_a", "response_b"]]
    assert pairs.isin(held).any(axis=1).all()


def test_prompts_are_held_out_with_all_their_responses(cases):
    rows = [
        (f"r{u}", f"question {i}", ("yes", "no"), (u + i) % 2) for u in range(10) for i in range(10)
    ]  # every option has the same words in all questions
    judgements = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"]))
    split = cases.make_split(cases.Case("toy", judgements, "prompt"), "minilm:unseen", 0)
    assert split.test.n_items == 2
    assert not set(split.train.frame["prompt"]) & set(split.test.frame["prompt"])


def test_features_follow_the_texts(cases, tmp_path, monkeypatch):
    vectors = benchmark_module("_jury.text_vectors")
    monkeypatch.setattr(vectors, "minilm_vectors", lambda read, cache: np.array([[len(text)] for text in read], float))
    case = cases.Case("toy", votes(5, 12), "response")
    assert all(v == len(text.response) for text, v in vectors.text_features("minilm", case, tmp_path).items())
    asked = vectors.text_features("minilm", replace(case, unit="prompt"), tmp_path)  # the question is read too
    assert all(v == len("The town\n") + len(text.response) for text, v in asked.items())
    with pytest.raises(cases.Unavailable, match="zh"):
        vectors.text_features("minilm", replace(case, language="zh"), tmp_path)


def test_sentence_vectors_are_kept_on_disk(tmp_path, monkeypatch):
    minilm_vectors = benchmark_module("_jury.text_vectors").minilm_vectors
    texts = ["More parks, please.", "We want parks.", "Taxes are too high, and everybody knows that they are."]
    vectors = minilm_vectors(texts, tmp_path)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert np.allclose(minilm_vectors(texts[:1], tmp_path), vectors[:1], atol=1e-5)  # padding changes nothing
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_: pytest.fail("embedded twice"))
    assert np.array_equal(minilm_vectors(texts, tmp_path), vectors)


def test_shuffled_control_keeps_answers_per_item_and_breaks_taste(cases):
    judgements = votes()
    case = cases.shuffled_case(cases.Case("toy", judgements, "response"), 0)
    before, after = judgements.frame, case.judgements.frame
    assert before.groupby("item_id")["rating"].sum().to_dict() == after.groupby("item_id")["rating"].sum().to_dict()
    assert before.groupby("rater_id").size().to_dict() == after.groupby("rater_id").size().to_dict()
    traits = after.groupby("rater_id")["rater:side"].agg(["nunique", "first"])
    assert (traits["nunique"] == 1).all()
    assert traits["first"].to_dict() == before.groupby("rater_id")["rater:side"].first().to_dict()
    agree = after.pivot_table(index="rater_id", columns="item_id", values="rating").to_numpy()
    camps = np.abs(np.corrcoef(agree)[np.triu_indices(40, 1)]).mean()
    assert camps < 0.3  # of two camps it is about 0.6


@pytest.mark.slow
def test_a_fine_tuned_jury_scores_unseen_texts_and_starts_as_its_frozen_features(tmp_path):
    methods, fine_tuned = benchmark_module("_jury.methods"), benchmark_module("_jury.fine_tuned")
    judgements, _ = planted(n_raters=20, n_items=24, per_rater=14)
    known = judgements.frame["prompt"].str.extract(r"(\d+)")[0].astype(int) < 18
    train, test = judgements.select(known), judgements.select(~known)
    training = methods.Training(train, train.encode(), np.zeros((train.encode().n_texts, 1)), 0)
    losses = {}
    for name, options in (
        ("frozen", {"frozen": True}),
        ("start", {"learning_rate": 0.0}),
        ("tuned", {"learning_rate": 1e-3, "num_train_epochs": 20}),
    ):
        fit = fine_tuned.fit_trained(training, 2, load=lambda: (tiny_causal_lm(TOKENIZER), TOKENIZER), **options)
        enc = test.encode()
        losses[name] = -fit.log_probs(enc)[np.arange(len(enc)), enc.label].mean()
    # The start is fitted without the held-out texts, and the frozen fit with them.
    assert losses["start"] == pytest.approx(losses["frozen"], abs=0.05)
    assert losses["tuned"] < losses["start"]
    with pytest.raises(benchmark_module("_jury.cases").Unavailable, match="labels alone"):
        fine_tuned.fit_trained(replace(training, features=None), 2)


def test_the_model_of_a_cell_is_the_one_that_is_fine_tuned_and_an_encoder_may_be_one(tmp_path, monkeypatch):
    methods, fine_tuned = benchmark_module("_jury.methods"), benchmark_module("_jury.fine_tuned")
    judgements, _ = planted(n_raters=12, n_items=12, per_rater=8)
    enc = judgements.encode()
    encoder = tiny_bert(tmp_path)
    monkeypatch.setitem(fine_tuned.LOADERS, "minilm", lambda: encoder)
    monkeypatch.delitem(fine_tuned.LOADERS, "smollm2")
    training = methods.Training(judgements, enc, np.zeros((enc.n_texts, 1)), 0, model="minilm")
    before = {name: value.clone() for name, value in encoder[0].state_dict().items()}
    start = fine_tuned.fit_trained(training, 2, frozen=True).log_probs(enc)
    tuned = fine_tuned.fit_trained(training, 2, trained_layers=1, learning_rate=0.05).log_probs(enc)
    assert np.exp(start).sum(1) == pytest.approx(1.0)
    assert np.exp(tuned).sum(1) == pytest.approx(1.0)
    assert all((value == before[name]).all() for name, value in encoder[0].state_dict().items())  # a copy is trained


@pytest.mark.slow
def test_size_is_chosen_by_held_out_raters(cases):
    methods = benchmark_module("_jury.methods")
    judgements = votes(60, 16)
    training = methods.Training(judgements, judgements.encode(), None, 0)
    mixture = methods.METHODS["mixture"]
    assert methods.choose_size(mixture, training, (1, 2)) == 2
    assert methods.choose_size(lambda data, size: mixture(data, 3 - size), training, (1, 2)) == 1
    few = judgements.select(judgements.frame["rater_id"].isin(judgements.raters[:4]).to_numpy())
    tried = []
    training = methods.Training(few, few.encode(), None, 0)
    methods.choose_size(lambda data, size: tried.append(size) or mixture(data, 1), training, (1, 2, 3, 4))
    assert tried == [1, 2, 3]  # three raters are left when one is held out


def test_results_of_other_settings_are_not_mixed_in(tmp_path):
    cells = benchmark_module("_jury.cells")
    parts = cells.Parts(tmp_path, {"seed": 0}, fresh=False)
    parts.put("a/b:c", 0, "bt", arrays={"log_probs_None": np.zeros((2, 2))}, seconds=1.5)
    found = cells.Parts(tmp_path, {"seed": 0}, fresh=False).get("a/b:c", 0, "bt")
    assert found["seconds"] == 1.5
    assert found["arrays"]["log_probs_None"].shape == (2, 2)
    assert cells.Parts(tmp_path, {"seed": 1}, fresh=False).get("a/b:c", 0, "bt") is None
    assert cells.Parts(tmp_path, {"seed": 0}, fresh=True).get("a/b:c", 0, "bt") is None


def test_interval_of_a_median_is_made_of_order_statistics():
    cost = benchmark_module("jury_cost")
    # Of 15 values the 4th and the 12th enclose the median with 96.5 %: 1 - 2 P(Binomial(15, 1/2) <= 3).
    assert cost.median_interval([float(x) for x in range(15, 0, -1)]) == (8.0, 4.0, 12.0)
    assert cost.median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def launch(script: str, file: Path, *arguments: str) -> list[dict[str, Any]]:
    run_script(FOLDER / script, "--json", str(file), *arguments)
    return json.loads(file.read_text())["rows"]


@pytest.mark.slow
def test_cost_of_eight_heads(tmp_path):
    rows = launch("jury_cost.py", tmp_path / "cost.json", "--smoke")
    values = {(r["method"], r["metric"]): r["value"] for r in rows}
    # Seconds on a busy machine mean nothing; the ratios that the benchmark asks for are measured by hand.
    ratios = [values["jury-k8", metric] for metric in ("ratio_to_single_head", "ratio_to_k_models")]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert {m for m, metric in values if metric == "texts_per_second"} == {"one head", "jury-k8", "8 models"}


@pytest.mark.slow
def test_quality_writes_tidy_rows_and_goes_on_where_it_was(tmp_path):
    file = tmp_path / "quality.json"
    rows = launch("jury_quality.py", file, "--smoke", "--data", str(EXCERPTS))
    for row in rows:
        assert {"case", "method", "metric", "value", "ci_low", "ci_high", "n", "unit"} <= set(row)
        assert math.isfinite(row["value"])
        if row["ci_low"] is not None:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    case = "polis/15-per-hour-seattle:labels:seen"
    found = {(r["method"], r["metric"]): r for r in rows if r["case"] == case}
    delta = found["mixture", "delta_nll_vs_bt"]
    assert delta["value"] == pytest.approx(found["mixture", "nll"]["value"] - found["bt", "nll"]["value"], abs=1e-6)
    assert delta["unseen"] == "labels"
    assert {r["n_labels"] for r in rows if r["unseen"] == "raters"} == {0, 5, 20}
    again = launch(
        "jury_quality.py", file, "--smoke", "--data", str(EXCERPTS)
    )  # nothing is fitted: even the seconds are the kept ones
    assert again == rows


@pytest.mark.slow
def test_layers_that_are_not_trained_are_run_once_and_change_nothing():
    layers = benchmark_module("_jury.layers")
    model = tiny_causal_lm(TOKENIZER, num_hidden_layers=4).base_model.eval()
    upper = layers.upper_layers(model, 1)
    assert len(upper.layers) == 1
    assert len(model.layers) == 4
    for texts in (["yes", "Is it about right?"], ["Is it about right?", "I think so, and so do you."]):
        batch = TOKENIZER(texts, padding=True, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            expected, states = (one(**batch).last_hidden_state for one in (model, upper))
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(states[real], expected[real])
    assert len(upper.embed_tokens._states) == 3
    with torch.no_grad():
        upper.layers[0].mlp.up_proj.weight.zero_()
    assert model.layers[3].mlp.up_proj.weight.abs().sum() > 0
