"""Task files for lm-evaluation-harness: as files, and where it is installed run by it, with a suite's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.suites import SuiteConfig, TaskUnavailable, load_causal_lm, run_tasks
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
    assert "process_results: !function plural_rlhf_tasks.process_results" in (tmp_path / "plural_urn.yaml").read_text()


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
