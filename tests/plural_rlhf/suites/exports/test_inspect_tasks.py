"""Tasks for inspect-ai: refusals always, and one evaluation with its mock model where it is installed."""

from __future__ import annotations

import pytest

from plural_rlhf.suites.exports.inspect_tasks import inspect_task, stated_scores


def test_stated_percentages_are_measured_as_in_a_suite():
    assert stated_scores("yes: 100\nno: 0", ["yes", "no"], [0.5, 0.5])["jsd_nats"] == pytest.approx(0.215762, abs=1e-6)
    assert stated_scores("", ["yes", "no"], [1.0, 0.0])["jsd_nats"] == pytest.approx(0.215762, abs=1e-6)


def test_a_task_without_offered_answers_is_refused():
    with pytest.raises(ValueError, match="'random-number' has no offered answers"):
        inspect_task("random-number")


@pytest.mark.slow
def test_inspect_runs_a_task_and_finds_the_measures(tmp_path):
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    task = inspect_task("coin", max_items=3)
    answers = ["heads: 50\ntails: 50", "no idea", "heads: 10\ntails: 90"]
    outputs = [ModelOutput.from_content("mockllm/model", answer) for answer in answers]
    for output in outputs:
        output.usage = ModelUsage()  # else the mock counts tokens with a file from the net
    model = get_model("mockllm/model", custom_outputs=outputs)
    [log] = inspect_ai.eval(task, model=model, log_dir=str(tmp_path), display="none", max_connections=1)
    assert log.status == "success"
    scores = {score.name: score.metrics["mean"].value for score in log.results.scores}
    assert scores["valid"] == pytest.approx(2 / 3)
    assert 0 <= scores["jsd_nats"] < 0.7
    assert len(log.samples) == 3
    assert all("Of 100 people" in sample.input for sample in log.samples)
