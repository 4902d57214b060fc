"""The judgements that a run file names: raters drawn at random, raters weighed to margins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from plural_rlhf.recipe.config import ConfigError, make_config
from plural_rlhf.recipe.config_sections import DataSection
from plural_rlhf.recipe.inputs import read_judgements
from plural_rlhf.recipe.run_folder import fingerprints
from plural_rlhf.recipe.run_folder.fingerprints import large_files_hash, model_hash
from plural_rlhf.recipe.run_folder.stage_record import StageInputs
from plural_rlhf.recipe.stage_inputs import RunInputs
from plural_rlhf.report.names import Stage
from reward_models import fit_mixture, planted_judgements
from reward_models.content_hashes import file_hash


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


def test_one_changed_digit_in_the_middle_of_large_weights_is_another_base_model(tmp_path):
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(2**24 + 1)
    judgements = planted_judgements("choice", num_raters=4, num_items=3).judgements
    data = SimpleNamespace(everything=judgements, train=judgements, heldout_raters=judgements, heldout_items=[])

    def read() -> StageInputs:
        inputs = RunInputs(make_config({}, origin="test"))
        inputs.add_content(data, str(tmp_path))
        return inputs.of(Stage.JURY)

    before, quick = read(), model_hash(tmp_path)
    with weights.open("r+b") as file:
        file.seek(2**23 + 2**17)
        file.write(b"1")
    assert model_hash(tmp_path) == quick  # it reads blocks only
    assert list(before.changes(read(), {})) == ["weights of the base model: other content"]
    of_earlier_version = {name: value for name, value in before.content.items() if name != "weights of the base model"}
    assert list(StageInputs(before.settings, of_earlier_version).changes(read(), {})) == []


def test_large_weights_are_read_once_per_process_and_small_ones_need_no_second_hash(tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(fingerprints, "file_hash", lambda path: read.append(path.name) or file_hash(path))
    (tmp_path / "config.json").write_text("{}")
    assert large_files_hash(tmp_path) is None
    for name in ("a.safetensors", "b.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**24 + 1)
    first = large_files_hash(tmp_path)
    assert large_files_hash(tmp_path) == first
    assert read == ["a.safetensors", "b.safetensors"]
    with (tmp_path / "b.safetensors").open("r+b") as file:
        file.write(b"1")
    assert large_files_hash(tmp_path) != first
    assert read == ["a.safetensors", "b.safetensors", "b.safetensors"]
