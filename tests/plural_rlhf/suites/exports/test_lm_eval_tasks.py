"""Task files for lm-evaluation-harness: as files, and where it is installed run by it, with a suite's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.report.suite.results import MetricResult, SuiteResults
from plural_rlhf.suites import SuiteConfig, TaskUnavailable, load_causal_lm, run_tasks
from plural_rlhf.suites.exports.lm_eval_results import lm_eval_results
from plural_rlhf.suites.exports.lm_eval_tasks import harness_questions, process_results, write_lm_eval_tasks
from plural_rlhf.suites.tasks.catalogue import make_tasks


def test_every_question_is_that_of_the_suite(tmp_path):
    config = SuiteConfig(tasks=["urn", "coin", "random-number"], max_items=4)
    assert write_lm_eval_tasks(config, tmp_path) == {"urn": 4, "coin": 4}
    records = harness_questions(tmp_path / "plural_urn.jsonl")["test"].to_list()
    [loaded], _ = SuiteConfig(tasks=["urn"], max_items=4).load_tasks()
    assert [record["item"] for record in records] == [item.name for item in loaded.items]
    for record, item in zip(records, loaded.items, strict=True):
        assert [answer.removesuffix("\n") for answer in record["answers"]] == list(item.options)
        assert record["people"] == pytest.approx(list(item.people / np.sum(item.people)))
        assert record["mode"] == int(np.argmax(item.people))
    text = (tmp_path / "plural_urn.yaml").read_text()
    assert "process_results: !function plural_rlhf_tasks.process_results" in text
    settings = yaml.safe_load(text.replace("!function ", ""))
    better = {one["metric"]: one["higher_is_better"] for one in settings["metric_list"]}
    assert better == {"jsd_nats": False, "total_variation": False, "coverage": True, "uniform_jsd_nats": False}
    assert set(process_results(records[0], [(-1.0, False)] * len(records[0]["people"]))) == set(better)
    assert {one["aggregation"] for one in settings["metric_list"]} == {"mean"}
    named = ("doc_to_text", "doc_to_choice", "doc_to_target", "target_delimiter", "output_type", "test_split")
    assert [settings[key] for key in named] == ["prompt", "answers", "mode", " ", "multiple_choice", "test"]
    assert yaml.safe_load((tmp_path / "plural_rlhf.yaml").read_text()) == {
        "group": "plural_rlhf", "task": ["plural_urn", "plural_coin"],
    }  # fmt: skip


def test_results_have_errors_where_there_is_an_interval_also_one_that_ends_at_0():
    rows = [
        MetricResult(metric="skill", value=-0.5, ci_low=-1.96, ci_high=0.0, direction="higher"),
        MetricResult(metric="jsd_nats", value=0.0, ci_low=0.0, ci_high=0.0, direction="lower"),
        MetricResult(metric="entropy_gap", value=0.1, direction="zero"),
        MetricResult(metric="jsd_nats", value=0.7, group="north"),
    ]
    data = [{"id": "urn", "title": "x", "shape": "distribution", "source": "x", "licence": "x", "n": 7}]
    models = [
        {"name": "my model/1", "kind": "causal-lm", "identity": "1"},
        {"name": "gold", "kind": "pseudo", "identity": "2"},
    ]
    results = SuiteResults(
        models=models, data=data, results={"my model/1": {"urn": rows}, "gold": {"urn": rows}}, config={"seed": 3}
    )
    files = lm_eval_results(results)
    assert list(files) == ["my_model_1"]  # pseudo-models mark a scale, and are no models
    file = files["my_model_1"]
    numbers = file["results"]["urn"]
    assert numbers["skill_stderr,none"] == pytest.approx(0.5)
    assert (numbers["jsd_nats,none"], numbers["jsd_nats_stderr,none"]) == (0, 0)
    assert (numbers["entropy_gap,none"], numbers["entropy_gap_stderr,none"]) == (0.1, "N/A")
    assert file["higher_is_better"] == {"urn": {"skill": True, "jsd_nats": False}}
    assert file["n-samples"] == {"urn": {"original": 7, "effective": 7}}
    assert (file["n-shot"], file["config"]["random_seed"]) == ({"urn": 0}, 3)


def test_measures_are_of_shares_among_the_answers():
    doc = {"people": [0.5, 0.5]}
    assert process_results(doc, [(-800.0, False), (-800.0, False)])["jsd_nats"] == pytest.approx(0, abs=1e-12)
    one_sided = process_results(doc, [(0.0, True), (-np.inf, False)])
    assert one_sided["total_variation"] == pytest.approx(0.5)
    assert one_sided["coverage"] == 1


def test_a_suite_without_offered_answers_has_no_task_file(tmp_path):
    with pytest.raises(TaskUnavailable, match="no task of random-number has offered answers"):
        write_lm_eval_tasks(SuiteConfig(tasks=["random-number"]), tmp_path / "files")
    assert not (tmp_path / "files").exists()


@pytest.mark.slow
def test_the_harness_finds_the_numbers_of_the_suite(tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    config = SuiteConfig(tasks=["urn"], max_items=6)
    write_lm_eval_tasks(config, tmp_path / "files")
    folder = str(prepare_base_model("tiny", tmp_path / "models"))
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=folder, device="cpu", dtype="float32"),
        tasks=["plural_urn"],
        task_manager=TaskManager(include_path=str(tmp_path / "files"), include_defaults=False),
    )
    ours = run_tasks([load_causal_lm(folder, chat=False)], make_tasks(["urn"]), max_items=6)
    rows = {row.metric: row for row in ours.findings[0].result.rows}
    numbers = found["results"]["plural_urn"]
    assert numbers["jsd_nats,none"] == pytest.approx(rows["jsd_nats"].value, abs=1e-5)
    assert numbers["total_variation,none"] == pytest.approx(rows["total_variation"].value, abs=1e-5)
    assert numbers["coverage,none"] == pytest.approx(rows["coverage"].value, rel=1e-3)
    assert numbers["uniform_jsd_nats,none"] == pytest.approx(rows["jsd_nats"].baselines["uniform"], abs=1e-9)
    assert json.dumps(numbers)
