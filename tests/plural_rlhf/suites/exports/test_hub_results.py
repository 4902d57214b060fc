"""Files for the Hub: read back by huggingface_hub itself."""

from __future__ import annotations

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub._eval_results import parse_eval_result_entries

from plural_rlhf.report.suite.results import MetricResult, SuiteResults
from plural_rlhf.suites.exports.hub_results import write_hub_results
from plural_rlhf.suites.exports.lm_eval_results import lm_eval_results


def test_the_hub_reads_what_is_written(tmp_path):
    row = MetricResult(metric="skill_uniform", value=0.4, headline=True, n_items=7)
    task = {"title": "Opinions.", "shape": "distribution", "licence": "CC BY 4.0", "n": 7}
    results = SuiteResults(
        models=[
            {"name": "my/model", "kind": "causal-lm", "identity": "1"},
            {"name": "gold", "kind": "pseudo", "identity": "2"},
        ],
        data=[
            {"id": "opinions", "source": "https://huggingface.co/datasets/somebody/opinions", **task},
            {"id": "urn", "source": "generated", **task},
        ],
        results={name: {"opinions": [row], "urn": [row]} for name in ("my/model", "gold")},
    )
    write_hub_results(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["my_model"]
    written = yaml.safe_load((tmp_path / "my_model" / ".eval_results" / "somebody--opinions.yaml").read_text())
    [entry] = parse_eval_result_entries(written)
    assert (entry.dataset_id, entry.task_id) == ("somebody/opinions", "opinions")
    assert (entry.value, entry.notes) == (0.4, "skill_uniform, 7 items")
    index = yaml.safe_load((tmp_path / "my_model" / "model-index.yaml").read_text())
    card = ModelCardData(**index)
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in card.eval_results] == [
        ("opinions", "skill_uniform", 0.4),
        ("urn", "skill_uniform", 0.4),
    ]


def test_models_whose_names_differ_in_signs_or_case_have_files_of_their_own(tmp_path):
    names = ["open: a", "open; a", "Open: A", "b"]
    results = SuiteResults(
        models=[{"name": name, "kind": "causal-lm", "identity": name} for name in names],
        results={name: {"urn": [MetricResult(metric="jsd_nats", value=0.1)]} for name in names},
    )
    files = lm_eval_results(results)
    assert [file["model_name"] for file in files.values()] == names
    assert len({name.casefold() for name in files}) == 4
    assert "b" in files
    write_hub_results(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    kept = {path.name: yaml.safe_load((path / "model-index.yaml").read_text()) for path in tmp_path.iterdir()}
    assert sorted(content["model-index"][0]["name"] for content in kept.values()) == sorted(names)
