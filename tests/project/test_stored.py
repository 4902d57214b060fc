"""Folders that an earlier version saved still load, and still mean the same: juries, checkpoints, runs.

`tests/stored` holds what plural-rlhf 0.1.0 wrote, and in `expected.json` the figures that it read from it again;
`tests/stored/make.py` says how both were made. They are never generated again to make a test pass. The folders name
each other by relative paths, so every test works in a copy of them, as its working directory.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from plural_rlhf import (
    JuryReward,
    PluralDPOConfig,
    PluralDPOTrainer,
    PluralGRPOConfig,
    PluralGRPOTrainer,
    Steerer,
    load_config,
)
from plural_rlhf.cli import app
from plural_rlhf.recipe import RunFolderError, run
from plural_rlhf.report import summary_table, write_report
from plural_rlhf.report.names import Method
from reward_models import Judgements, JuryRewardConfig, JuryRewardModel, JuryRewardTrainer, JuryScorer
from reward_models.stats.verdicts import MIN_ITEMS


STORED = Path(__file__).parents[1] / "stored"
EXPECTED = json.loads((STORED / "expected.json").read_text(encoding="utf-8"))
TRAININGS = json.loads((STORED / "trainings.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-5  # float32, on another processor than it was written on
ENDS = (
    "ci_low",
    "ci_high",
)  # of intervals: since then people, and the noise floor, are drawn by other streams, and intervals are others


@pytest.fixture(autouse=True)
def stored(tmp_path, monkeypatch):
    """A copy of what is stored, as the working directory."""
    shutil.copytree(STORED, tmp_path / "stored", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.chdir(tmp_path / "stored")


def assert_alike(found: Any, expected: Any, where: str = "found") -> None:
    """The same JSON, numbers up to rounding; `found` may hold keys that were not written then."""
    if isinstance(expected, dict):
        assert set(expected) <= set(found), where
        for key, value in expected.items():
            if key in ENDS or (key == "value" and expected.get("method") == Method.FLOOR):
                if key in ENDS and expected["n"] < MIN_ITEMS:
                    # Today so few questions have no interval; a finished run keeps the one that it had.
                    assert found[key] in (None, value), f"{where}[{key!r}]"
                    continue
                # Intervals are not those of then: six questions and a dozen people have much wider ones today.
                width = expected["ci_high"] - expected["ci_low"]
                times = 2.5 if key in ENDS else 0.5
                assert found[key] == pytest.approx(value, abs=0.01 + times * width), f"{where}[{key!r}]"
            else:
                assert_alike(found[key], value, f"{where}[{key!r}]")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for n, value in enumerate(expected):
            assert_alike(found[n], value, f"{where}[{n}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE), where
    else:
        assert found == expected, where


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def quietly() -> Console:
    return Console(file=io.StringIO(), width=200)


# ── juries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder", EXPECTED["juries"])
def test_a_stored_jury_gives_the_rewards_it_gave(folder):
    """Clusters, prevalence, descriptions and rewards of each cluster are those of the day it was saved."""
    expected = EXPECTED["juries"][folder]
    jury = JuryScorer.from_pretrained(folder)
    found = {
        "cluster_names": jury.cluster_names,
        "prevalence": jury.prevalence.tolist(),
        "descriptions": jury.state.descriptions,
        "cluster_rewards": jury.cluster_rewards(expected["prompts"], expected["answers"]).tolist(),
    }
    assert_alike(found, {name: expected[name] for name in found})
    assert (jury.model.config.num_anchors if jury.model.memory is not None else 0) == expected["remembered_texts"]


@pytest.mark.parametrize("folder", ["jury", "run/jury"])
def test_a_stored_jury_is_calibrated_as_it_was(folder):
    """The common scale of its heads is read from the folder, and `JuryReward` weighs the heads on that scale."""
    expected = EXPECTED["juries"][folder]
    asked = expected["prompts"], expected["answers"]
    found = JuryScorer.from_pretrained(folder, calibrated=True).cluster_rewards(*asked).tolist()
    assert_alike(found, expected["calibrated_rewards"])
    mean = np.array(expected["calibrated_rewards"]) @ expected["prevalence"]
    assert_alike(JuryReward(folder, rule="mean", calibrated=True)(*asked), mean.tolist())


def test_the_raters_of_a_stored_jury_stand_where_they_stood():
    """Posteriors are found by the raters' ids, through salt and pseudonyms; a rater who is not there is the public."""
    expected = EXPECTED["juries"]["jury"]["remembered"]
    found = JuryScorer.from_pretrained("jury").remembered(list(expected))
    assert_alike(found.memberships.tolist(), list(expected.values()))
    assert_alike(list(expected.values())[-1], EXPECTED["juries"]["jury"]["prevalence"])


def test_a_stored_jury_places_new_raters_as_it_did():
    """Rater model and temperatures are read from the folder: the same labels give the same memberships."""
    expected = EXPECTED["juries"]["jury"]
    jury = JuryScorer.from_pretrained("jury")
    assert_alike(jury.state.temperature.tolist(), expected["temperature"])
    placed = jury.adapt(Judgements.from_frame(pd.DataFrame(expected["adapted"]["judgements"])))
    found = dict(zip(placed.rater_ids, placed.memberships.tolist(), strict=True))
    assert_alike(found, expected["adapted"]["memberships"])


@pytest.mark.parametrize("folder", EXPECTED["juries"])
def test_transformers_opens_a_stored_jury(folder):
    """The type of model that its configuration names is known to transformers, as for TRL's `reward_funcs`."""
    assert type(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)) is JuryRewardModel


def test_an_exported_reward_model_gives_the_logits_it_gave():
    """A scalar export is a plain classifier of transformers and says which weights it speaks for."""
    expected = EXPECTED["scalar"]
    model = AutoModelForSequenceClassification.from_pretrained("scalar").eval()
    tokenizer = AutoTokenizer.from_pretrained("scalar")
    batch = tokenizer(expected["texts"], padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert_alike(model(**batch).logits[:, 0].tolist(), expected["logits"])
    assert_alike(model.config.jury_export["weights"], expected["weights"])
    assert_alike(model.config.jury_export["dropped_constant"], expected["constant"])


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────


def jury_trainer(folder: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> JuryRewardTrainer:
    judgements = Judgements.from_frame(pd.DataFrame(rows))
    return JuryRewardTrainer("base", JuryRewardConfig(folder, **settings), judgements)


def grpo_trainer(folder: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> PluralGRPOTrainer:
    tokenizer, args = AutoTokenizer.from_pretrained("base"), PluralGRPOConfig(folder, **settings)
    if not args.exact:
        return PluralGRPOTrainer("base", "jury", args, Dataset.from_list(rows), processing_class=tokenizer)
    jury = JuryScorer.from_pretrained("jury", calibrated=True)
    return PluralGRPOTrainer(
        "base", jury, args, Dataset.from_list(rows), processing_class=tokenizer, peft_config=adapter()
    )


def dpo_trainer(folder: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> PluralDPOTrainer:
    args = PluralDPOConfig(folder, **settings)
    return PluralDPOTrainer(
        "base",
        None,
        args,
        Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained("base"),
        scorer="jury" if args.robust else None,
        peft_config=adapter(),
    )


def adapter() -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def resumed(name: str) -> Any:
    """The training of a stored checkpoint, at its end."""
    build = {"jury": jury_trainer, "grpo": grpo_trainer, "exact": grpo_trainer, "dpo": dpo_trainer}
    trainer = build[name.split("_")[0]]("resumed", **TRAININGS[name])
    trainer.train(resume_from_checkpoint=name)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_goes_on_from_a_stored_checkpoint(name):
    """Resumed from the middle it takes the steps that it took then: same losses, metrics and state at the end.

    Which needs all that the folder holds: optimizer and random numbers, offsets, duals, memberships, completions in
    use and remembered, and that the jury is recognised as the one of the run.
    """
    expected, steps = EXPECTED["trainings"][name], TRAININGS[name]["settings"]["max_steps"]
    history = [row for row in resumed(name).state.log_history if "loss" in row]
    assert len(history) == steps
    assert_alike([row["loss"] for row in history], expected["losses"], "losses")
    assert_alike({metric: value for row in history for metric, value in row.items()}, expected["last"], "last")
    if expected["state"]:
        assert_alike(read_json(f"resumed/checkpoint-{steps}/plural_state.json"), expected["state"], "state")


@pytest.mark.slow
def test_a_resumed_jury_ends_as_the_stored_one():
    """`jury_finetuned` is what the training of `jury_checkpoint` left at its end, without a break."""
    resumed("jury_checkpoint").save_model("again")
    old, new = (JuryScorer.from_pretrained(folder) for folder in ("jury_finetuned", "again"))
    torch.testing.assert_close(new.model.state_dict(), old.model.state_dict(), atol=TOLERANCE, rtol=TOLERANCE)
    assert_alike(new.prevalence.tolist(), old.prevalence.tolist())
    assert_alike(new.state.rater_model.to_dict(), old.state.rater_model.to_dict())
    assert new.state.fitted_on == old.state.fitted_on


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


AS_IT_WAS = [
    "policy.layouts=[line]",
    "policy.shuffle_answers=false",
    "plural.learning_rate=0.001",
    "rehearsal.weight=0.0",
]
"""What the stored run did by default, and what is done otherwise now."""


@pytest.mark.slow
def test_a_finished_run_is_kept_as_it_is():
    """Where all stages are complete nothing is fitted, trained or evaluated again, and the results are the same."""
    old, before = read_json("run/results.json"), contents("run")
    settings = read_json("run/config.json")
    results = run(load_config("run.yaml", AS_IT_WAS), console=quietly())
    assert_headline(results.to_dict(), "run")
    del old["meta"]  # says when and where it ran
    assert_alike(read_json("run/results.json"), old)
    assert_alike(read_json("run/config.json"), settings)
    after, rewritten = contents("run"), {"run/config.json", "run/results.json", "run/report.md"}
    # The record of a stage holds the seconds that it took, and would not be the same twice.
    assert [path for path in before if path not in rewritten and after[path] != before[path]] == []


def assert_headline(results: dict[str, Any], name: str) -> None:
    """Clusters, the rows of the population, picks of the rules and what was left out are as they were reported."""
    expected = EXPECTED["runs"][name]
    columns = ("stage", "split", "metric", "value", "ci_low", "ci_high")
    found = {
        "clusters": [cluster["name"] for cluster in results["clusters"]],
        "rows": [[row[column] for column in columns] for row in results["rows"] if row["cluster"] == "all"],
        "picks": {effect["rule"]: effect["picks"] for effect in results["rules"]},
        "skipped": results["skipped"],
        "warmup": [row["loss"] for row in results["training"]["warm"]],
        "questions": len(results["questions"]),
    }
    assert_alike(found, expected, name)


def test_a_stored_run_is_evaluated_again_to_the_same_numbers(monkeypatch):
    """`plural-rlhf evaluate` on the stored jury and adapters finds what the run had found."""
    old = read_json("run/results.json")
    Path("run/results.json").unlink()
    Path("run/stages/evaluate.json").unlink()
    monkeypatch.setenv("COLUMNS", "160")
    sets = [argument for setting in AS_IT_WAS for argument in ("--set", setting)]
    done = CliRunner().invoke(app, ["evaluate", "run.yaml", *sets])
    assert done.exit_code == 0, done.output
    assert "plural (ours)" in done.output
    new = read_json("run/results.json")
    measured = {(row["method"], row["metric"]) for row in old["rows"]}  # later versions measure more
    new["rows"] = [row for row in new["rows"] if (row["method"], row["metric"]) in measured]
    for part in ("questions", "steering", "rules", "rows"):
        assert_alike(new[part], old[part], part)


def test_a_stored_run_that_was_stopped_goes_on():
    """Without its last policies it trains them from the stored warm-up and jury, with the losses it had."""
    old = {stage: read_json(f"run/stages/{stage}.json")["result"]["history"] for stage in ("plural", "grpo")}
    for stage in old:
        shutil.rmtree(Path("run", stage))
        Path("run", "stages", f"{stage}.json").unlink()
    results = run(load_config("run.yaml", AS_IT_WAS), until="train", console=quietly())
    for stage, history in old.items():
        assert Path("run", stage, "adapter_model.safetensors").is_file()
        found = [row.loss for row in results.training[stage]]
        assert_alike(found, [row["loss"] for row in history], stage)


def test_a_stored_run_is_not_taken_for_one_with_other_settings():
    """Its configuration is read and compared: another one is refused, and nothing is touched."""
    before = contents("run")
    with pytest.raises(RunFolderError, match=r"plural\.steps: 3 there, 4 here"):
        run(load_config("run.yaml", [*AS_IT_WAS, "plural.steps=4"]), console=quietly())
    assert contents("run") == before


def test_a_stored_run_does_not_go_on_by_defaults_that_its_version_did_not_have():
    """It put questions in one way, in one order, at another rate: each is named, where it is not asked for again."""
    before = contents("run")
    for missing in range(len(AS_IT_WAS)):
        key, _, value = AS_IT_WAS[missing].partition("=")
        there = {"false": "False", "[line]": "['line']"}.get(value, value)
        with pytest.raises(RunFolderError, match=rf"{re.escape(key)}: {re.escape(there)} there"):
            run(load_config("run.yaml", AS_IT_WAS[:missing] + AS_IT_WAS[missing + 1 :]), console=quietly())
    assert contents("run") == before


def test_the_policy_of_a_stored_run_answers_as_it_did():
    """Its adapter finds the base model, and weights over the stored clusters steer it to the same probabilities."""
    expected = EXPECTED["steering"]
    steerer = Steerer.from_pretrained("run/plural", "run/jury", device="cpu")
    found = steerer.answer_probabilities(expected["prompt"], expected["support"], expected["juries"])
    assert_alike(np.log(found).tolist(), expected["log_probabilities"])


@pytest.mark.parametrize("folder", ["run/warm", "run/plural", "run/grpo", "exact_checkpoint", "dpo_checkpoint"])
def test_a_stored_adapter_finds_its_base_model(folder):
    """It loads by itself, through the relative path that it names, and is an adapter that does something."""
    policy = AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload().state_dict()
    base = AutoModelForCausalLM.from_pretrained("base").state_dict()
    assert any(not torch.equal(policy[name], value) for name, value in base.items())


@pytest.mark.slow
def test_a_report_of_stored_results_has_every_number_it_had():
    """Rendered anew from `results.json`, the report may say things differently, but says all that it said."""
    write_report(read_json("run/results.json"), Path("again"))
    old, new = (
        set(re.findall(r"\d+(?:\.\d+)?", Path(folder, "report.md").read_text(encoding="utf-8")))
        for folder in ("run", "again")
    )
    assert len(old) > 100
    assert sorted(old - new) == []
    page = Path("again", "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3


@pytest.mark.slow
def test_a_report_of_stored_results_says_what_was_left_out():
    """Of a run without the comparison, the reason is in the report and its row is not in the summary."""
    results = read_json("run_without_grpo/results.json")
    assert_headline(results, "run_without_grpo")
    write_report(results, Path("again"))
    assert "grpo.steps is 0" in Path("again", "report.md").read_text(encoding="utf-8")
    for name, compared in (("run_without_grpo", False), ("run", True)):
        console = quietly()
        console.print(summary_table(read_json(f"{name}/results.json")))
        assert ("stock GRPO" in console.file.getvalue()) is compared
        assert "plural (ours)" in console.file.getvalue()
