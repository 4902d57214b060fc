"""The judgements that a run file names: raters drawn at random, raters weighed to margins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from plural_rlhf.recipe.config import ConfigError, RunConfig, make_config
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.inputs import read_judgements
from plural_rlhf.recipe.run_folder import fingerprints
from plural_rlhf.recipe.run_folder.fingerprints import large_files_hash, model_hash
from plural_rlhf.recipe.run_folder.stage_record import StageInputs
from plural_rlhf.recipe.settings.data import DataSection
from plural_rlhf.recipe.stage_inputs import RunInputs
from plural_rlhf.report.names import Stage
from plural_rlhf.settings.base import Section
from reward_models import fit_mixture, planted_judgements
from reward_models.content_hashes import file_hash
from reward_models.errors import JudgementError, JuryError


def test_margins_of_a_run_file_weigh_its_raters(tmp_path):
    table = planted_judgements("choice", num_raters=40, num_items=6)
    number = table.judgements.frame["rater_id"].str[1:].astype(int)
    frame = table.judgements.frame.assign(**{"rater:region": np.where(table.cluster[number] == 0, "north", "south")})
    frame.to_json(tmp_path / "answers.jsonl", orient="records", lines=True)
    said: list[str] = []
    section = DataSection(
        source="table",
        path=tmp_path / "answers.jsonl",
        columns={"index": 0},
        margins={"region": {"north": 0.8, "south": 0.2}},
    )
    judgements = read_judgements(section, 0, said.append)
    enc = judgements.encode()
    assert fit_mixture(enc, 2).prevalence[0] == pytest.approx(0.8, abs=0.05)
    assert said[-1] == "sampling weights: 40 raters count as 29.4 of equal weight (Kish)"


def test_a_seed_that_a_trainer_cannot_use_is_refused():
    with pytest.raises(ConfigError, match=r"seed = 4294967296: .*4294967295"):
        make_config({"seed": 2**32}, origin="test")
    assert make_config({"seed": 2**32 - 1}, origin="test").seed == 2**32 - 1


JUDGED = planted_judgements("choice", num_raters=4, num_items=3).judgements
DATA = SimpleNamespace(
    writes_text=False,
    everything=JUDGED,
    train=JUDGED,
    heldout_raters=JUDGED,
    heldout_items=[],
    other_tables=[],
)
MODELS = {
    "policy.model": ("jury", "weights of the base model"),
    "jury.backbone": ("jury", "backbone of the jury"),
    "jury.describe": ("jury", "model that describes clusters"),
    "jury.path": ("jury", "saved jury"),
    "jury.objectives": ("jury", "objectives"),
    "evaluate.embedder": ("evaluate", "embedder"),
    "evaluate.heldout_backbone": ("evaluate", "backbone of the held-out jury"),
    "evaluate.rivals": ("evaluate", "weights of the rival mine"),
}
"""Settings that name the folder of a model, with a stage that reads it and what it is called there."""


def config_with(key: str, value: object) -> RunConfig:
    """A run file with one setting, and what that setting asks for besides."""
    section, name = key.split(".")
    prompts = {"prompts": {"path": "prompts.csv"}} if key == "jury.objectives" else {}
    return make_config({section: {name: value}, **prompts}, origin="test")


def inputs_of(config: RunConfig, stage: str, model: str = "an/id") -> StageInputs:
    inputs = RunInputs(config)
    inputs.add_content(DATA, model)
    return inputs.of(Stage(stage))


def large_file(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    return path


def change_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2**23 + 2**17)
        file.write(b"1")


@pytest.mark.parametrize("key", MODELS)
def test_one_changed_digit_in_the_middle_of_large_weights_is_another_model(tmp_path, key):
    stage, words = MODELS[key]
    weights = large_file(tmp_path / "model.safetensors")
    folder = str(tmp_path)
    values = {"jury.objectives": {"mine": {"model": folder}}, "evaluate.rivals": {"mine": folder}}
    config = config_with(key, values.get(key, folder))
    model = folder if key == "policy.model" else "an/id"
    before, quick = inputs_of(config, stage, model), model_hash(tmp_path)
    assert list(before.changes(inputs_of(config, stage, model), {})) == []
    change_the_middle(weights)
    assert model_hash(tmp_path) == quick  # it reads blocks only
    assert list(before.changes(inputs_of(config, stage, model), {})) == [f"{words}: other content"]


def test_every_setting_of_a_run_file_that_may_name_a_model_is_compared_by_its_content():
    """A new setting is one of them if it says so, or else names a file or a folder of another kind."""
    others = {"output_dir", "policy.cache_dir", "data.path", "data.columns", "data.written", "prompts.path"}

    def named(section: type[Section], prefix: str = "") -> Iterator[str]:
        for name, field in section.model_fields.items():
            if isinstance(field.default, Section):
                yield from named(type(field.default), f"{prefix}{name}.")
            elif "Path" in str(field.annotation) or re.search("Hub id|path/of", field.description or ""):
                yield f"{prefix}{name}"

    assert {*named(RunConfig)} == {*MODELS, *others}


def test_modules_of_an_embedder_checkpoints_of_a_rival_and_what_an_adapter_was_trained_on_count(tmp_path):
    base, policy, embedder = (tmp_path / name for name in ("base", "policy", "embedder"))
    for folder in (base, policy / "along" / "step-2", embedder / "1_Pooling"):
        folder.mkdir(parents=True)
    (embedder / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    (policy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    embeds, rival = config_with("evaluate.embedder", str(embedder)), config_with("evaluate.rivals", {"mine": policy})
    adapter = config_with("jury.backbone", str(policy))
    objective = config_with("jury.objectives", {"mine": {"model": str(policy)}})
    for changed, config, stage, model, words in (
        (embedder / "1_Pooling", embeds, "evaluate", "an/id", "embedder"),
        (policy / "along" / "step-2", rival, "evaluate", "an/id", "weights of the rival mine"),
        (base, adapter, "jury", "an/id", "backbone of the jury"),
        (base, objective, "jury", "an/id", "objectives"),
        (base, RunConfig(), "jury", str(policy), "model that the base model is an adapter of"),
    ):
        before = inputs_of(config, stage, model)
        with (changed / "config.json").open("a") as file:
            file.write(" ")
        assert list(before.changes(inputs_of(config, stage, model), {})) == [f"{words}: other content"]
    assert inputs_of(rival, "evaluate").content["weights of the rival mine"] is not None
    before = inputs_of(rival, "evaluate")
    (base / "config.json").write_text("{}")  # a rival goes onto the base model of the run that measures it
    assert list(before.changes(inputs_of(rival, "evaluate"), {})) == []


def test_large_weights_are_read_once_per_process_and_small_ones_need_no_second_hash(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(fingerprints, "file_hash", lambda path: read.append(path.name) or file_hash(path))
    (tmp_path / "config.json").write_text("{}")
    assert large_files_hash(tmp_path) is None
    for name in ("a.safetensors", "b.safetensors"):
        large_file(tmp_path / name)
    first = large_files_hash(tmp_path)
    assert large_files_hash(tmp_path) == first
    assert read == ["a.safetensors", "b.safetensors"]
    with (tmp_path / "b.safetensors").open("r+b") as file:
        file.write(b"1")
    assert large_files_hash(tmp_path) != first
    assert read == ["a.safetensors", "b.safetensors", "b.safetensors"]


def table_on_disk(folder, kind="choice", **size):
    frame = planted_judgements(kind, **size).judgements.frame
    frame.to_json(folder / "answers.jsonl", orient="records", lines=True)
    return {"source": "table", "path": str(folder / "answers.jsonl"), "columns": {"index": 0}}


def test_as_many_raters_as_there_are_is_all_of_them_and_fewer_are_drawn_by_the_seed(tmp_path):
    section = table_on_disk(tmp_path, num_raters=20, num_items=4)

    def raters(seed=0, **more):
        return set(read_judgements(DataSection(**section, **more), seed).raters)

    everybody = raters()
    assert len(everybody) == 20
    assert raters(max_raters=20) == raters(max_raters=21) == everybody
    drawn = raters(max_raters=19)
    assert len(drawn) == 19
    assert raters(max_raters=19) == drawn
    assert any(raters(seed=seed, max_raters=19) != drawn for seed in (1, 2, 3))


def test_half_as_many_clusters_as_training_raters_are_the_most(tmp_path):
    """20 raters, of whom 6 are held out: 14 are left, for 7 clusters."""
    section = table_on_disk(tmp_path, num_raters=20, num_items=6) | {"heldout_questions": 2}

    def read(largest: int):
        return read_data(make_config({"data": dict(section), "jury": {"clusters": [1, largest]}}, origin="test"))

    data = read(7)
    assert (data.train.n_raters, data.heldout_raters.n_raters) == (14, 6)
    assert {q.split for q in data.questions} == {"train", "heldout"}
    assert [q.id for q in data.questions] == [*data.train_items, *data.heldout_items]
    assert not set(data.train.items) & set(data.heldout_items)
    assert set(data.heldout_raters.items) == {*data.train_items, *data.heldout_items}
    with pytest.raises(JuryError, match=r"asks for 8 clusters of 14 training raters"):
        read(8)


def test_ratings_of_texts_are_read_for_policies_that_write_and_single_items_are_held_out_of_one_prompt(tmp_path):
    section = table_on_disk(tmp_path, "rating", num_raters=20, num_items=6)
    del section["columns"]
    config = make_config({"data": section | {"heldout_questions": 2}, "jury": {"clusters": [2]}}, origin="test")
    data = read_data(config)
    assert data.writes_text
    assert (data.questions, len(data.heldout_items), data.heldout_prompts) == ([], 2, set())


def test_the_quick_hash_reads_blocks_of_64_kib_and_stays_what_records_of_earlier_runs_hold(tmp_path):
    weights = tmp_path / "model.safetensors"
    size, block = 2**24 + 2**20, 2**16
    with weights.open("wb") as file:
        file.truncate(size)
    assert model_hash(tmp_path)[:16] == "3fa4e6427892cba2"

    def noticed(position: int) -> bool:
        before = model_hash(tmp_path)
        with weights.open("r+b") as file:
            file.seek(position)
            file.write(b"1")
        after = model_hash(tmp_path)
        with weights.open("r+b") as file:
            file.seek(position)
            file.write(b"\0")
        return after != before

    middle = (size - block) * 32 // 64
    places = {0: True, 2**20 - 1: True, middle - 1: False, middle: True, middle + block - 1: True, size - 1: True}
    assert {place: noticed(place) for place in places} == places


def _two_tables(tmp_path, kinds=("rating", "preference")):
    """Votes and pairs of the same raters about the same texts, as files."""
    for kind in kinds:
        frame = planted_judgements(kind, num_raters=24, num_items=10, seed=1).judgements.frame
        frame.drop(columns="item_id").to_json(tmp_path / f"{kind}.jsonl", orient="records", lines=True)
    return {
        "source": "table",
        "path": tmp_path / f"{kinds[0]}.jsonl",
        "columns": {"levels": [-1, 0, 1]},
        "tables": [{"path": tmp_path / f"{kinds[1]}.jsonl"}],
        "heldout_questions": 3,
    }


def test_further_tables_lose_the_raters_and_the_texts_that_are_held_out(tmp_path):
    data = read_data(RunConfig(data=_two_tables(tmp_path)))
    [pairs] = data.other_tables
    assert pairs.kind == "preference"
    assert set(pairs.raters) == set(data.train.raters)
    everything = data.everything.encode()
    unseen = {everything.item_alternatives[everything.item_ids.index(item), 0] for item in data.heldout_items}
    texts = {everything.texts[t] for t in unseen}
    encoded = pairs.encode()
    used = {encoded.texts[t] for t in np.unique(encoded.alternatives)}
    assert texts
    assert not used & texts
    assert len(pairs) == 7 * data.train.n_raters


def test_two_tables_of_one_kind_are_refused(tmp_path):
    section = _two_tables(tmp_path)
    section["tables"] = [{"path": section["path"], "columns": section["columns"]}]
    with pytest.raises(JudgementError, match=r"data\.tables: .*rating.*are of different kinds"):
        read_data(RunConfig(data=section))
