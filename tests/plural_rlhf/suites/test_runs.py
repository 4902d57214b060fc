"""A run folder stands for its models: the one before training, its policies as they are asked, its jury."""

from __future__ import annotations

import json

import pytest

from plural_rlhf.suites import SuiteConfig
from plural_rlhf.suites.models.runs import expand_runs


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "quickstart"
    for name in ("stages", "warm", "plural", "grpo", "jury"):
        (folder / name).mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"policy": {"model": "tiny"}}))
    (folder / "jury" / "jury.json").write_text("{}")
    (folder / "jury" / "config.json").write_text(json.dumps({"cluster_names": ["urban", "rural"]}))
    return folder


def models(*sections):
    return expand_runs(SuiteConfig(models=list(sections)).models)


def test_a_run_stands_for_its_models(run):
    found = models({"run": str(run)})
    assert [model.label for model in found] == [
        "before",
        "after warm-up (pi_ref)",
        "plural (ours)",
        "stock GRPO",
        "jury",
    ]
    assert [model.path for model in found] == [
        "tiny",
        *(str(run / name) for name in ("warm", "plural", "grpo", "jury")),
    ]
    assert [model.jury for model in found] == [None, run / "jury", run / "jury", None, None]
    assert models(str(run)) == models({"path": str(run)}) == found


def test_steered_asks_for_every_cluster_and_weights_for_a_mixture(run):
    found = {
        model.label: model for model in models({"run": str(run), "steered": True, "weights": {"urban": 2, "rural": 1}})
    }
    assert found["plural (ours), rural"].weights == {"rural": 1}
    assert found["plural (ours)"].weights == {"urban": 2, "rural": 1}
    assert found["stock GRPO"].weights == "prevalence"


def test_runs_side_by_side_share_the_model_before_training(run, tmp_path):
    other = tmp_path / "open"
    for name in ("stages", "grpo"):
        (other / name).mkdir(parents=True)
    (other / "config.json").write_text(json.dumps({"policy": {"model": "tiny"}}))
    labels = [model.label for model in models({"run": str(run)}, {"run": str(other)}, "smollm2-135m")]
    assert labels[:1] == ["before"]
    assert labels[-2:] == ["open: stock GRPO", "smollm2-135m"]
    assert labels.count("before") == 1
    assert "quickstart: plural (ours)" in labels


def test_texts_chosen_among_candidates_are_no_model_and_are_named(run):
    (run / "plural" / "rerank.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"plural \(ours\) is left out.*mode: rerank"):
        found = models({"run": str(run), "steered": True})
    assert [model.label for model in found] == ["before", "after warm-up (pi_ref)", "stock GRPO", "jury"]


def test_a_folder_without_a_run_or_without_a_policy_is_refused(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        models({"run": str(tmp_path)})
    for name in ("warm", "plural", "grpo"):
        (run / name).rmdir()
    with pytest.raises(FileNotFoundError, match="holds no policy yet"):
        models({"run": str(run)})
