"""A run of Spectrum Tuning on a tiny model: what is held out, dropped and compared, and that it goes on."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from plural_rlhf.methods.spectrum import coin_flips, template_for
from plural_rlhf.policies.base_models import adapter_base, prepare_base_model, tiny_causal_lm
from plural_rlhf.recipe import sequence_tuning
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.recipe.spectrum import run as run_module
from plural_rlhf.recipe.spectrum.config import SpectrumData, SpectrumRun
from plural_rlhf.recipe.spectrum.measure import SequenceMeasures, compare_task
from plural_rlhf.recipe.spectrum.run import run_spectrum
from plural_rlhf.recipe.spectrum.sequences import load_run_sequences
from plural_rlhf.report.spectrum.results import SpectrumResults
from plural_rlhf.settings.faults import ConfigError, load_settings
from tests.paths import ROOT


@pytest.fixture
def settings(tmp_path):
    return {
        "model": {"base": "tiny", "cache_dir": str(tmp_path / "models")},
        "data": {
            "tasks": ["coin", "wheel"],
            "heldout": ["urn"],
            "sequences": 4,
            "heldout_sequences": 5,
            "examples": 4,
        },
        "train": {"steps": 3, "max_length": 400},
        "evaluate": {"positions": [0, 2], "formats": ["auto", "plain"], "draws": 50},
        "output_dir": str(tmp_path / "run"),
    }


def quiet(text):
    pass


def test_a_run_writes_adapter_results_and_page_and_a_second_call_does_nothing_again(settings, tmp_path, monkeypatch):
    results = run_spectrum(SpectrumRun(**settings), show=quiet)
    folder = tmp_path / "run"
    assert (folder / "tuned" / "adapter_model.safetensors").is_file()
    assert "urn" in (folder / "report.html").read_text(encoding="utf-8")
    assert SpectrumResults.read(folder / "results.json").to_dict() == results.to_dict()
    assert [number.metric for number in results.numbers] == [
        "js_0", "js_geq_1", "choice_0", "choice_geq_1", "loss_geq_1",
    ]  # fmt: skip
    assert len(results.training_loss) == 3
    assert {curve.model for curve in results.curves} == {"tuned", "untouched, auto", "untouched, plain"}

    def measured(*args, **kwargs):
        raise AssertionError("it was measured before")

    monkeypatch.setattr(run_module, "measure_task", measured)
    again = run_spectrum(SpectrumRun(**settings), show=quiet)
    assert again.numbers == results.numbers
    changed = {**settings, "train": {**settings["train"], "learning_rate": 1e-3}}
    with pytest.raises(RunFolderError, match=r"train\.learning_rate"):
        run_spectrum(SpectrumRun(**changed), show=quiet)
    weights = tmp_path / "models" / "tiny-seed0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RunFolderError, match="base model: other content"):
        run_spectrum(SpectrumRun(**settings), show=quiet)


def test_a_run_that_was_stopped_in_training_ends_as_the_unbroken_one(settings, tmp_path, monkeypatch):
    unbroken = run_spectrum(SpectrumRun(**{**settings, "output_dir": str(tmp_path / "unbroken")}), show=quiet)
    often = {**settings, "checkpoints": {"every_steps": 1}}

    class Killed(Exception):
        pass

    original = sequence_tuning.TrainingFolder.train

    def train(self, trainer):
        from transformers import TrainerCallback

        class Kill(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 2:
                    raise Killed

        trainer.add_callback(Kill())
        return original(self, trainer)

    with monkeypatch.context() as patched:
        patched.setattr(sequence_tuning.TrainingFolder, "train", train)
        with pytest.raises(Killed):
            run_spectrum(SpectrumRun(**often), show=quiet)
    told = []
    resumed = run_spectrum(SpectrumRun(**often), show=told.append)
    assert any("going on from step" in text for text in told)
    assert resumed.numbers == unbroken.numbers


@pytest.mark.parametrize("lora", [None, {"target_modules": ["q_proj"]}])
def test_what_is_saved_with_the_rows_of_a_sibling_is_what_was_measured(settings, tmp_path, monkeypatch, lora):
    sibling = tiny_causal_lm(seed=5)
    with torch.no_grad():
        sibling.get_input_embeddings().weight.mul_(3)
    sibling.save_pretrained(tmp_path / "sibling")
    settings["model"] |= {"lora": lora, "sibling": str(tmp_path / "sibling")}
    settings["evaluate"]["formats"] = ["auto"]
    settings["train"]["steps"] = 1
    measured, original = [], run_module.measure_task

    def measure(model, tokenizer, sequences, *args, **kwargs):
        measured.append((sequences, original(model, tokenizer, sequences, *args, **kwargs)))
        return measured[-1][1]

    monkeypatch.setattr(run_module, "measure_task", measure)
    run_spectrum(SpectrumRun(**settings), show=quiet)
    tuned = tmp_path / "run" / "tuned"
    base = adapter_base(tuned)
    assert (base is None) == (lora is None)
    model = AutoModelForCausalLM.from_pretrained(base or tuned)
    if lora is None:
        tokenizer = AutoTokenizer.from_pretrained(tuned)
    else:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = PeftModel.from_pretrained(model, tuned)
    (_, untouched), (sequences, of_run) = measured
    as_user = original(model, tokenizer, sequences, template_for(tokenizer), positions=[0, 2], max_length=400)
    np.testing.assert_allclose(as_user.nats, of_run.nats, rtol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(prepare_base_model("tiny", settings["model"]["cache_dir"]))
    without = original(plain, tokenizer, sequences, template_for(tokenizer), positions=[0, 2], max_length=400)
    assert abs(without.nats - untouched.nats).max() > 0.01  # the rows matter


def test_examples_that_do_not_fit_are_dropped_with_a_count(settings):
    told = []
    settings["train"]["max_length"] = 120
    results = run_spectrum(SpectrumRun(**settings), show=told.append)
    [text] = [text for text in told if text.startswith("dropped")]
    count = {record.task: record.too_long for record in results.tasks}
    assert count["wheel"] > 0
    assert f"{count['wheel']} of wheel" in text
    assert "None is cut" in text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"tasks": ["coin"], "heldout": ["coin"]}, "it is in `tasks` too"),
        ({"tasks": ["urn-hidden"], "heldout": ["urn"]}, "urn-hidden share a source with a held-out task"),
        ({"tasks": [], "heldout": ["urn"]}, "nothing is left to train on"),
        ({"tasks": ["coinn"], "heldout": ["urn"]}, "Did you mean 'coin'"),
        ({"tasks": ["netflix-ratings"], "heldout": ["urn"]}, "netflix/ratings.csv"),
    ],
)
def test_tasks_that_cannot_be_used_are_refused_before_any_work(data, reason):
    with pytest.raises(ValueError, match=reason):
        load_run_sequences(SpectrumData(**data), seed=0)


def test_own_files_are_tasks_and_an_empty_one_is_named(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(s.to_dict()) for s in coin_flips(3, 4)))
    section = SpectrumData(tasks=[], files=[path], heldout=[], heldout_files=[path])
    assert load_run_sequences(section, seed=0).train["mine"] == coin_flips(3, 4)
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no sequence"):
        load_run_sequences(section, seed=0)


def test_a_tokenizer_without_the_chat_tokens_is_refused_before_any_work(settings):
    settings["model"]["template"] = "gemma"
    with pytest.raises(ValueError, match="no token '<start_of_turn>'"):
        run_spectrum(SpectrumRun(**settings), show=quiet)


def test_differences_are_paired_and_the_best_format_of_the_rival_counts():
    rng = np.random.default_rng(0)
    level = rng.normal(2, 1, size=(40, 1))  # some sequences are hard for everybody
    ours = SequenceMeasures((0,), np.hstack([level, level]), np.full((40, 1), np.nan), np.full((40, 1), np.nan))
    noise = rng.normal(0, 0.05, size=(40, 1))
    near, far = (
        SequenceMeasures((0,), np.hstack([level, level + gap + noise]), ours.js, ours.choice) for gap in (0.1, 5.0)
    )
    [number], curves = compare_task("t", coin_flips(40, 2), ours, {"far": far, "near": near}, draws=500, seed=0)
    assert (number.metric, number.format, number.verdict) == ("loss_geq_1", "near", "better")
    assert number.difference == pytest.approx(-0.1, abs=0.03)
    assert number.ci_high - number.ci_low < 0.05  # the spread of the levels cancels
    assert {curve.model for curve in curves} == {"tuned", "untouched, far", "untouched, near"}


def test_the_run_file_that_ships_is_valid_and_names_tasks_that_are_there():
    run = load_settings(SpectrumRun, ROOT / "configs" / "spectrum.yaml")
    from plural_rlhf.methods.spectrum_suite import read_catalogue

    catalogue = read_catalogue()
    train, heldout = (catalogue.choose(names) for names in (run.data.tasks, run.data.heldout))
    assert not {task.source for task in train} & {task.source for task in heldout}
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        load_settings(SpectrumRun, ROOT / "configs" / "spectrum.yaml", ["train.stesp=1"])


@pytest.mark.parametrize("key", ["base", "sibling"])
def test_each_model_that_a_run_file_names_is_compared_by_its_content(tmp_path, key):
    (tmp_path / "config.json").write_text("{}")
    config = SpectrumRun(model={"base": "an/id", key: str(tmp_path)})
    run = run_module._Run(config, None, config.model.base, None, None, quiet)
    before = run.inputs("model", "train", content=[])
    (tmp_path / "config.json").write_text("{} ")
    [change] = before.changes(run.inputs("model", "train", content=[]), {})
    assert change == {"base": "base model", "sibling": "sibling of the base model"}[key] + ": other content"
