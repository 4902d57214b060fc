"""A saved jury as what is evaluated: the measures are those of evaluate-jury, and what does not apply is skipped."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.suites import PseudoModel, TaskRow, run_tasks
from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.jury import JuryModel, is_jury_folder
from plural_rlhf.suites.tasks.catalogue import SUITES, make_tasks
from plural_rlhf.suites.tasks.juries.candidates import BenchmarkTask, LandscapeTask
from plural_rlhf.suites.tasks.juries.judgements import JudgementTask
from plural_rlhf.suites.tasks.protocol import TaskData
from reward_models import JudgementError, fit_jury, planted_judgements
from reward_models.evaluate import main
from reward_models.evaluation.heldout import HeldoutRecord
from tests.plural_rlhf.suites.golden_rows import check_rows


LEVELS = (-1.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def table():
    return planted_judgements("rating", num_raters=24, num_items=20).judgements


@pytest.fixture(scope="module")
def jury(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    base = prepare_base_model("tiny", folder / "models")
    fit_jury(table, base, clusters=(2,), progress=False).save_pretrained(folder / "jury")
    return folder / "jury"


def judgement_task(table, **columns):
    frame = table.frame.drop(columns="item_id").assign(**columns)
    return JudgementTask("jury-planted", "generated", "CC0", "Planted.", lambda data: frame, LEVELS)


def row(result, metric, group="all") -> TaskRow:
    return next(row for row in result.rows if (row.metric, row.group) == (metric, group))


def test_a_jury_task_has_the_numbers_of_evaluate_jury(table, jury, tmp_path):
    task, model = judgement_task(table), JuryModel("jury", jury)
    result = task.measure(task.load(TaskData()), Context(model, draws=20))
    table.frame.drop(columns="item_id").to_csv(tmp_path / "test.csv", index=False)
    out = tmp_path / "out.json"
    assert main([str(jury), "--data", str(tmp_path / "test.csv"), "--json", str(out), "--draws", "20"]) == 0
    rows = json.loads(out.read_text())["rows"]
    values = {(r["method"], r["metric"]): r["value"] for r in rows}
    for metric in ("nll_nats", "accuracy", "brier"):
        assert row(result, metric).value == pytest.approx(values["jury", metric], abs=1e-9)
        assert row(result, metric).baselines["uniform"] == pytest.approx(values["uniform", metric], abs=1e-9)
    for name in model.scorer.cluster_names:
        assert row(result, "nll_nats", name).value == pytest.approx(values["jury", f"nll_nats[{name}]"], abs=1e-9)
    assert [r.metric for r in result.rows if r.headline] == ["nll_nats"]
    counts = [r["n"] for r in result.records]
    for score, metric in (("nats", "nll_nats"), ("right", "accuracy")):
        mean = np.average([r["scores"][score] for r in result.records], weights=counts)
        assert mean == pytest.approx(row(result, metric).value)
    assert row(result, "nll_nats").value < row(result, "nll_nats").baselines["one reward, rater terms"]


def test_what_the_jury_was_fitted_to_is_not_measured(table, jury):
    task = judgement_task(table)
    known = task._table(task.load(TaskData()))
    HeldoutRecord(known.raters[:12], known.raters[12:], known.items, []).write(jury.parent)
    try:
        result = task.measure(task.load(TaskData()), Context(JuryModel("jury", jury), draws=20))
        assert {record["item"] for record in result.records} == set(known.raters[12:])
    finally:
        (jury.parent / "heldout.json").unlink()


def test_max_items_selects_raters_with_all_their_judgements(table):
    task = judgement_task(table)
    some = task.load(TaskData(max_items=5))
    assert len(some) == 5
    assert all(len(item.rows) == 20 for item in some)


def test_other_models_and_other_tasks_are_skipped_with_the_reason(table, jury):
    found = run_tasks(
        [JuryModel("jury", jury), PseudoModel("uniform")], [judgement_task(table), *make_tasks(["coin"])], draws=20
    )
    assert {(one.model, one.task) for one in found.findings} == {("jury", "jury-planted"), ("uniform", "coin")}
    assert [(one.model, one.task, one.reason) for one in found.skipped] == [
        ("jury", "coin", "a model of the kind 'jury' cannot give probabilities of options")
    ]
    assert all(name.startswith("jury-") for name in SUITES["jury"])


def test_the_landscape_of_opposed_clusters_has_no_answer_for_all(jury, tmp_path):
    model = JuryModel("jury", jury)
    model.cluster_rewards = lambda texts: np.array(
        [[3.0, -3.0] if "parks" in t.response else [-3.0, 3.0] for t in texts]
    )
    (tmp_path / "polarized").mkdir()
    for topic in ("campus-protests", "right-to-assemble"):
        answers = pd.DataFrame(
            {"question_id": f"{topic}-1", "question": f"{topic}?", "text": ["parks", "roads", "", "parks"]}
        )
        answers.to_parquet(tmp_path / "polarized" / f"{topic}-answers.parquet")
    task = LandscapeTask()
    result = task.measure(task.load(TaskData(tmp_path)), Context(model))
    assert row(result, "one_answer_share").value == 0
    assert row(result, "favourites_differ").value == 1
    assert row(result, "compromise_worst_regret").value == 6
    check_rows("landscape", result)
    assert len(result.records) == 2


def test_a_benchmark_of_reward_models_is_scored_by_subset_and_cluster(jury, tmp_path):
    model = JuryModel("jury", jury)
    model.cluster_rewards = lambda texts: np.array(
        [[1.0, -1.0] if t.response == "good" else [0.0, 0.0] for t in texts]
    )
    items = [
        {"id": str(i), "subset": "math" if i < 6 else "code", "prompt": f"{i}?", "chosen": "good", "rejected": "bad"}
        for i in range(10)
    ]
    (tmp_path / "rewardbench").mkdir()
    pd.DataFrame(items).to_parquet(tmp_path / "rewardbench" / "test.parquet")
    task = BenchmarkTask("rewardbench")
    result = task.measure(task.load(TaskData(tmp_path)), Context(model))
    first, second = model.scorer.cluster_names
    check_rows("reward_bench", result)
    assert row(result, "accuracy", f"math, {first}").value == 1
    assert row(result, "accuracy", f"math, {second}").value == 0
    weighted = float(model.scorer.prevalence @ [1, -1] > 0)
    assert row(result, "accuracy").value == row(result, "accuracy", "code").value == weighted
    assert len(task.load(TaskData(tmp_path, max_items=5))) == 5


def test_a_jury_folder_is_known_by_its_files(jury, tmp_path):
    assert is_jury_folder(jury)
    assert not is_jury_folder(tmp_path)
    assert JuryModel("a", jury).identity == JuryModel("b", jury).identity


def test_pairs_with_an_empty_answer_are_left_out_and_a_damaged_table_is_refused_before_any_model_is_asked(tmp_path):
    rows = [
        {"rater_id": rater, "instruction": f"Say {i}.", "input": "", "response_a": a, "response_b": b, "choice": "a"}
        for rater in ("ann", "bob")
        for i, (a, b) in enumerate([("one", "two"), ("", "two"), ("one", "one"), ("one", None), ("three", "four")])
    ]
    (tmp_path / "pandalm").mkdir()
    path = tmp_path / "pandalm" / "preferences.parquet"
    pd.DataFrame(rows).to_parquet(path)
    [task] = make_tasks(["jury-pandalm"])
    assert [len(item.rows) for item in task.load(TaskData(tmp_path))] == [2, 2]
    pd.DataFrame(rows).assign(choice="neither").to_parquet(path)
    with pytest.raises(JudgementError, match="neither"):
        task.load(TaskData(tmp_path))
