"""One model reads and writes the results of a run: old files load, unknown keys stay, later versions are refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from plural_rlhf.evaluation.distribution.answers import METRICS
from plural_rlhf.report import RunResults, results, results_jury, results_policies, results_survey, write_report
from plural_rlhf.report.names import METHOD_NAMES, Method, Metric, SkippedPart
from plural_rlhf.report.results import SCHEMA_VERSION, ResultsError
from plural_rlhf.report.results_base import ResultsModel
from plural_rlhf.report.results_policies import Budget, ClusterAnswers, LoggedStep, Row, TrainingResults
from tests.report_fixtures import STORED, stored_values


@pytest.mark.slow
def test_a_stored_file_loads_renders_and_is_written_as_it_was(tmp_path):
    results = RunResults.read(STORED)
    results.write(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == stored_values()
    assert RunResults.read(tmp_path / "results.json") == results
    text = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert text.count("<svg ") == 8
    assert "Nothing to show" not in text


def test_a_file_without_a_version_has_version_1_and_is_stored_with_it(tmp_path):
    values = stored_values()
    del values["schema_version"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    results = RunResults.read(path)
    assert results.schema_version == 1
    assert results.to_dict() == {"schema_version": 1, **values}


def test_a_later_version_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"results\.json.*reads up to 1\. Fix: update plural-rlhf"):
        RunResults.read(path)


def test_a_version_below_the_first_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": 0}), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"schema_version: Input should be greater than or equal to 1"):
        RunResults.read(path)


def test_a_damaged_file_is_refused_with_every_fault(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError):
        RunResults.read(path)
    path.write_text('{"rows": [', encoding="utf-8")
    with pytest.raises(ResultsError, match="file: Invalid JSON"):
        RunResults.read(path)
    values = stored_values()
    del values["rows"][3]["value"], values["data"]["n_raters"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"data\.n_raters: Field required; rows\.3\.value: Field required"):
        RunResults.read(path)


def test_unknown_keys_are_kept_at_every_depth(tmp_path):
    values = stored_values()
    values["later"] = {"a": [1]}
    values["rows"][0]["p_value"] = 0.5
    values["questions"][0]["policy"]["plural"]["all"]["entropy"] = 0.1
    assert RunResults.model_validate(values).to_dict() == values


def test_what_could_not_be_computed_is_null_on_disk_and_nan_in_memory(tmp_path):
    path = tmp_path / "results.json"
    row = Row(method="plural", split="train", cluster="all", metric="jsd_nats", value=math.nan, ci_low=math.inf)
    step = LoggedStep.model_validate({"step": 1, "loss": math.nan, "grad_norm": math.nan})
    RunResults(rows=[row], training={"plural": [step]}).write(path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert (stored["rows"][0]["value"], stored["rows"][0]["ci_low"]) == (None, None)
    assert stored["training"]["plural"] == [{"step": 1, "loss": None, "grad_norm": None}]
    read = RunResults.read(path)
    assert math.isnan(read.rows[0].value)
    assert math.isnan(read.rows[0].ci_low)
    assert read.training["plural"][0].loss is None
    answers = ClusterAnswers(human=np.array([0.25, math.nan]), jury=[0.5, None])
    assert answers.to_dict() == {"human": [0.25, None], "jury": [0.5, None]}


def test_only_what_was_set_is_written():
    budget = Budget(steps=2, scored_sequences=12, seconds=1.5)
    training = TrainingResults(history=[LoggedStep(step=1, loss=0.5)], budget=budget)
    assert training.to_dict() == {
        "history": [{"step": 1, "loss": 0.5}],
        "budget": {"steps": 2, "scored_sequences": 12, "seconds": 1.5},
    }
    assert training.parts() == {"history": training.history, "budget": budget}


def test_results_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        RunResults().rows = []


def every_field():
    modules = (results, results_jury, results_policies, results_survey)
    parts = [getattr(module, name) for module in modules for name in module.__all__]
    models = [part for part in parts if isinstance(part, type) and issubclass(part, ResultsModel)]
    return [(model.__name__, name, field) for model in models for name, field in model.model_fields.items()]


def test_every_field_is_described():
    fields = every_field()
    assert len(fields) > 100
    assert [(model, name) for model, name, field in fields if not field.description] == []


def test_what_a_file_lacks_is_nothing_and_never_a_number():
    """A default other than empty, zero or unknown would be a result that nobody measured."""
    others = {
        (model, name): field.default
        for model, name, field in every_field()
        if not field.is_required()
        and field.get_default(call_default_factory=True) not in (None, "", 0, [], {})
        and field.default == field.default  # NaN is not
    }
    assert {name: value for (model, name), value in others.items()} == {"schema_version": 1, "scope": "run"}


def test_names_are_those_of_the_evaluation_and_of_the_summary():
    assert tuple(Metric) == METRICS
    assert set(METHOD_NAMES) == set(Method)
    assert METHOD_NAMES[Method.GRPO] == SkippedPart.GRPO
    assert METHOD_NAMES[Method.MARGINAL] == SkippedPart.MARGINAL


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel does not say how much memory was used")
def test_the_peak_memory_is_what_the_kernel_says_in_gib():
    kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    meta = results.Meta.of_this_process(0, "test", "2026-01-01T00:00:00", {})
    assert meta.peak_memory_gb == pytest.approx(int(kib[1]) / 2**20, rel=0.1)
