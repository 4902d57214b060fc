"""The commands through the real recipe: what they print, what they write, and that a second command goes on."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from plural_rlhf.report.names import METHOD_NAMES, Method, Split
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.tables import format_nats
from reward_models.stats.verdicts import MIN_ITEMS
from tests.real_run import command


FOR_TEXTS = (Method.RLOO, Method.BEST_OF_N, Method.PROMPTING, Method.MIXED)
"""Rivals of policies that write text only."""


def words(text: str) -> str:
    """Printed text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())


def test_run_prints_a_line_per_method_with_the_numbers_of_results_json(real_run):
    rows = {(r.method, r.split): r for r in real_run.results.rows if (r.cluster, r.metric) == ("all", "jsd_nats")}
    lines = {line.split("│")[1].strip(): line for line in real_run.printed["run"].splitlines() if line.startswith("│")}
    methods = {method: name for method, name in METHOD_NAMES.items() if method not in FOR_TEXTS}
    assert list(lines) == list(methods.values())
    for method, name in methods.items():
        for split in Split:
            row = rows[method, split]  # the four held-out questions are too few for an interval
            assert f" {format_nats(row.value)} {'[' if row.n >= MIN_ITEMS else ''}" in lines[name]
    assert rows[Method.JURY, Split.HELDOUT].n < MIN_ITEMS <= rows[Method.JURY, Split.TRAIN].n
    assert "100.0 % / 100.0 %" in lines[METHOD_NAMES[Method.JURY]].replace("\N{NO-BREAK SPACE}", " ")
    assert real_run.printed["run"].rstrip().endswith(f"Report: {real_run.folder.resolve() / 'report.html'}")


def test_fit_jury_prints_the_clusters_and_leaves_a_jury_without_policies(real_run):
    printed = words(real_run.printed["fit-jury"])
    alone = real_run.run_file.parent / "jury_alone"
    for cluster in real_run.results.clusters:
        assert cluster.name in printed
        assert f"{100 * cluster.prevalence:.1f}" in printed
    assert printed.endswith(f"Output: {alone.resolve()}")
    assert sorted(path.name for path in (alone / "stages").iterdir()) == ["jury.json"]
    assert not (alone / "results.json").exists()
    assert (alone / "jury" / "model.safetensors").read_bytes() == (
        real_run.folder / "jury" / "model.safetensors"
    ).read_bytes()


def test_the_record_says_which_command_made_it(real_run):
    assert real_run.results.meta.command.startswith("plural-rlhf run")
    assert real_run.results.name == "published"
    assert set(real_run.results.meta.seconds) == {"jury", "warm", "plural", "grpo", "evaluate"}


def test_evaluate_goes_on_in_the_folder_of_a_run_and_finds_the_same(real_run, tmp_path):
    """Without its last stage a run is measured again; nothing is trained, and every number is the same."""
    shutil.copytree(real_run.folder, tmp_path / "run")
    for name in ("stages/evaluate.json", "results.json", "report.html", "report.md"):
        (tmp_path / "run" / name).unlink()
    adapters = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/adapter_model.safetensors")}
    assert len(adapters) == 3
    printed = command("evaluate", real_run.run_file, "--output", tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in adapters} == adapters
    for stage in ("jury", "warm", "plural", "grpo"):
        assert f"{stage}: found in" in printed
    again = RunResults.read(tmp_path / "run" / "results.json")
    for part in ("rows", "questions", "steering", "rules", "skipped", "clusters", "headroom", "groupings"):
        assert getattr(again, part) == getattr(real_run.results, part), part
    assert METHOD_NAMES[Method.PLURAL] in printed
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_without_grpo_the_table_the_file_and_the_pages_say_so(real_run, tmp_path):
    """The other settings are those of the run; only the comparison is left out."""
    settings = yaml.safe_load(real_run.run_file.read_text(encoding="utf-8"))
    settings["grpo"]["steps"] = 0
    run_file = tmp_path / "run.yaml"
    run_file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    printed = command("run", run_file, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert {"what": "stock GRPO", "reason": "grpo.steps is 0"} in results["skipped"]
    assert {row["method"] for row in results["rows"]} == {str(m) for m in Method} - {"grpo", *FOR_TEXTS}
    for where in (results["training"], results["budgets"], results["meta"]["seconds"]):
        assert "grpo" not in where
    assert "stock GRPO" not in [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")]
    for page in ("report.html", "report.md"):
        text = (tmp_path / "run" / page).read_text(encoding="utf-8")
        assert "stock GRPO was not run because grpo.steps is 0." in text
    kept = [r for r in real_run.results.to_dict()["rows"] if r["method"] != "grpo"]
    assert [r["value"] for r in results["rows"]] == pytest.approx([r["value"] for r in kept], abs=1e-6)


def test_train_stops_before_the_evaluation(real_run, tmp_path):
    shutil.copytree(real_run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "plural")
    for name in ("stages/evaluate.json", "stages/plural.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    printed = command("train", real_run.run_file, "--output", tmp_path / "run")
    assert "grpo: found in" in printed
    assert "plural: found in" not in printed
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "stages" / "evaluate.json").exists()
    trained, before = (
        folder / "plural" / "adapter_model.safetensors" for folder in (tmp_path / "run", real_run.folder)
    )
    assert trained.read_bytes() == before.read_bytes()
