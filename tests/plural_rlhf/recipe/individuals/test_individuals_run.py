"""A run that steers to individuals, on a tiny model: what it compares, that it goes on, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

from plural_rlhf.policies.base_models import tiny_causal_lm
from plural_rlhf.recipe.individuals import run as run_module
from plural_rlhf.recipe.individuals.config import IndividualsRun
from plural_rlhf.recipe.individuals.run import run_individuals
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.report.individuals.results import IndividualsResults
from plural_rlhf.settings.faults import ConfigError, load_settings
from reward_models import planted_judgements
from reward_models.errors import JudgementError
from tests.paths import ROOT


def quiet(text):
    pass


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    frame = planted_judgements("choice", num_raters=60, num_items=6, strength=4.0).judgements.frame.copy()
    frame["rater:town"] = [("York", "Bath")[int(rater[1:]) % 2] for rater in frame["rater_id"]]
    path = tmp_path_factory.mktemp("table") / "answers.jsonl"
    frame.to_json(path, orient="records", lines=True)
    return path


@pytest.fixture
def settings(table, tmp_path):
    people = {"source": "table", "path": str(table), "columns": {"index": 0}}
    return {
        "model": {
            "base": "tiny",
            "cache_dir": str(tmp_path / "models"),
            "lora": {"r": 2, "target_modules": ["q_proj"]},
        },
        "people": {**people, "traits": ["town"]},
        "meta": [people],
        "train": {"meta_steps": 1, "steps": 4, "validate_every": 2, "max_length": 400, "learning_rate": 0.01},
        "evaluate": {"read": [0, 3], "first": 4, "most_targets": 2, "clusters": [1, 2]},
        "output_dir": str(tmp_path / "run"),
    }


def test_a_run_compares_predictors_and_a_second_call_does_nothing_again(settings, tmp_path, monkeypatch):
    results = run_individuals(IndividualsRun(**settings), show=quiet)
    folder = tmp_path / "run"
    assert (folder / "meta" / "adapter_model.safetensors").is_file()
    assert (folder / "tuned" / "adapter_model.safetensors").is_file()
    assert "item marginal" in (folder / "report.html").read_text(encoding="utf-8")
    assert IndividualsResults.read(folder / "results.json").to_dict() == results.to_dict()
    assert results.people == {"meta": 60, "train": 30, "tune": 12, "test": 18}
    assert {loss.n for loss in results.losses} == {36}  # two targets of each test person
    assert {(loss.predictor, loss.read) for loss in results.losses} == {
        (name, n)
        for name in ("untouched model", "model", "item marginal", "own answers", "jury", "exchanged people",
                     "model + jury")
        for n in (0, 3)
    }  # fmt: skip
    assert results.kept_step in (2, 4)
    assert len(results.training_loss["meta"]) == 1
    assert len(results.training_loss["tuned"]) == 4
    mean = {(loss.predictor, loss.read): loss.nats for loss in results.losses}
    assert mean["jury", 3] < mean["jury", 0] - 0.1  # two planted clusters
    assert mean["model", 0] != mean["untouched model", 0]
    assert mean["item marginal", 0] == mean["item marginal", 3]

    def predicted(*args, **kwargs):
        raise AssertionError("it was predicted before")

    monkeypatch.setattr(run_module, "individual_shares", predicted)
    again = run_individuals(IndividualsRun(**settings), show=quiet)
    assert (again.losses, again.gains) == (results.losses, results.gains)
    changed = {**settings, "train": {**settings["train"], "learning_rate": 0.02}}
    with pytest.raises(RunFolderError, match=r"train\.learning_rate"):
        run_individuals(IndividualsRun(**changed), show=quiet)
    weights = tmp_path / "models" / "tiny-seed0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RunFolderError, match="base model: other content"):
        run_individuals(IndividualsRun(**settings), show=quiet)
    weights = folder / "tuned" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(Exception, match="tuned"):
        run_individuals(IndividualsRun(**settings), show=quiet)


def test_what_is_kept_of_a_run_that_was_stopped_gives_the_same_numbers(settings, tmp_path, monkeypatch):
    settings |= {"meta": []}
    whole = run_individuals(
        IndividualsRun(
            **settings,
        ),
        show=quiet,
    )
    calls = []
    shares = run_module.individual_shares

    def stops(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return shares(*args, **kwargs)

    monkeypatch.setattr(run_module, "individual_shares", stops)
    second = IndividualsRun(**{**settings, "output_dir": str(tmp_path / "second")})
    with pytest.raises(KeyboardInterrupt):
        run_individuals(second, show=quiet)
    kept = len(list((tmp_path / "second" / "stages").glob("predicted-*.json")))
    assert kept == 2
    monkeypatch.setattr(run_module, "individual_shares", shares)
    again = run_individuals(second, show=quiet)
    assert [loss.nats for loss in again.losses] == [loss.nats for loss in whole.losses]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"evaluate": {"read": [0, 6], "first": 6}}, ConfigError, r"people have 6 judgements.*Fix: read at most 5"),
        ({"people": {"traits": ["twon"]}}, JudgementError, r"no trait 'twon'.*town"),
        ({"people": {"tune": 0.005}}, JudgementError, r"divided into.*0 to tune"),
        ({"train": {"max_length": 12}}, ConfigError, r"max_length = 12: the question .* tokens"),
        ({"model": {"adapter": "no/such/adapter"}}, ConfigError, r"adapter = 'no/such/adapter': there is no adapter"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_trained(settings, tmp_path, changes, error, message):
    for section, values in changes.items():
        settings[section] = {**settings[section], **values}
    with pytest.raises(error, match=message):
        run_individuals(IndividualsRun(**settings), show=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people: {name: gss_abortoin}", r"not a known survey.*gss_abortion"),
        ("people: {source: table}", r"path.*is missing"),
        ("people: {source: table, path: a.csv, year: 2018}", r"year.*source: table does not read it"),
        ("people: {tune: 0.6, test: 0.5}", "nobody to train on"),
        ("evaluate: {read: [0, 6], first: 4}", r"first=4 is below the 6"),
        ("evaluate: {demonstrations: similar}", "embedder go together"),
        ("train: {stesp: 3}", r"stesp.*steps"),
    ],
)
def test_a_run_file_names_what_is_wrong_with_it(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_settings(IndividualsRun, tmp_path / "run.yaml")


def test_the_file_in_configs_is_valid():
    run = load_settings(IndividualsRun, ROOT / "configs" / "individuals.yaml")
    assert run.evaluate.first_target == 6
    assert [table.name for table in run.meta] == ["gss_spending", "verbagg"]


def test_the_most_informative_demonstrations_are_those_of_the_jury(settings, tmp_path):
    settings |= {"meta": [], "train": {"steps": 0, "max_length": 400}}
    settings["evaluate"] |= {"demonstrations": "informative", "read": [0, 2]}
    informative = run_individuals(IndividualsRun(**settings), show=quiet)
    settings["evaluate"] |= {"demonstrations": "recent"}
    recent = run_individuals(IndividualsRun(**{**settings, "output_dir": str(tmp_path / "recent")}), show=quiet)
    nats = [{(x.predictor, x.read): x.nats for x in results.losses} for results in (informative, recent)]
    assert nats[0]["jury", 0] == nats[1]["jury", 0]
    assert nats[0]["jury", 2] != nats[1]["jury", 2]
    assert np.isclose(nats[0]["model", 0], nats[0]["untouched model", 0])  # an adapter that was not trained
    record = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert record["evaluate"]["demonstrations"] == "informative"


def test_an_adapter_of_another_base_is_refused(settings, tmp_path, monkeypatch):
    settings |= {"meta": [], "train": {"steps": 0, "max_length": 400}}
    run_individuals(IndividualsRun(**settings), show=quiet)
    adapter = tmp_path / "run" / "tuned"
    described = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps({**described, "r": 3}), encoding="utf-8")
    settings |= {"model": {**settings["model"], "adapter": str(adapter)}, "output_dir": str(tmp_path / "second")}
    with pytest.raises(ConfigError, match=r"does not go with the base model 'tiny'"):
        run_individuals(IndividualsRun(**settings), show=quiet)
    (adapter / "adapter_config.json").write_text(json.dumps(described), encoding="utf-8")
    shutil.copytree(tmp_path / "models" / "tiny-seed0", tmp_path / "third")
    tiny_causal_lm(seed=9).save_pretrained(tmp_path / "third")  # fits, and means nothing
    third = {**settings, "model": {**settings["model"], "base": str(tmp_path / "third")}}
    with pytest.raises(ConfigError, match=r"does not go with the base model .*third.* of other weights"):
        run_individuals(IndividualsRun(**third), show=quiet)
    assert not (tmp_path / "second").exists()

    class Checked(Exception):
        pass

    def stop(*args, **kwargs):
        raise Checked

    monkeypatch.setattr(run_module, "open_run_folder", stop)
    (adapter / "base_weights.json").unlink()
    told = []
    with pytest.raises(Checked):
        run_individuals(IndividualsRun(**third), show=told.append)
    assert any("does not say on which weights it was trained" in text for text in told)


@pytest.mark.parametrize("key", ["base", "adapter"])
def test_each_model_that_a_run_file_names_is_compared_by_its_content(tmp_path, key):
    (tmp_path / "adapter_config.json").write_text("{}")
    config = IndividualsRun(model={"base": "an/id", key: str(tmp_path)})
    run = run_module._Run(config, None, [], config.model.base, None, None, quiet)
    before = run.inputs("model", "train", content=[])
    (tmp_path / "adapter_config.json").write_text("{} ")
    [change] = before.changes(run.inputs("model", "train", content=[]), {})
    assert change == {"base": "base model", "adapter": "adapter to start from"}[key] + ": other content"
