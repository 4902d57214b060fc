"""The folder of a run: usable after a kill at any moment, for one run at a time, believed only if whole."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.run_folder.disk import explain_disk_faults
from plural_rlhf.recipe.run_folder.errors import RunFolderError, RunWriteError
from plural_rlhf.recipe.run_folder.folder import open_run_folder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.stage_inputs import RunInputs, default_settings
from plural_rlhf.report.names import Stage
from reward_models.content_hashes import folder_records
from tests.benchmark_modules import benchmark_module


injection = benchmark_module("_faults.injection")


def make(folder: Path, *, overwrite: bool = False, seed: int = 0) -> None:
    """A run of one stage, which leaves a policy; refused if there is one of another seed."""
    inputs = StageInputs({"seed": seed})
    with open_run_folder(folder, {"seed": seed}, {"warm": inputs}, overwrite=overwrite) as run:
        if run.record("warm") is None:
            checkpoint = run.begin("warm", inputs) / "checkpoint-1"
            checkpoint.mkdir(exist_ok=True)
            (checkpoint / "optimizer.pt").write_text("momentum")
            (folder / "warm").mkdir(exist_ok=True)
            (folder / "warm" / "adapter_model.safetensors").write_text(f"weights of seed {seed}")
            files = {f"warm/{name}": record for name, record in folder_records(folder / "warm").items()}
            run.finish("warm", StageRecord({"loss": 0.25}, 1.0, inputs, files))
        run.check_stage("warm", inputs, ["warm"])


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_at_any_file_operation_leaves_a_folder_that_can_be_used(tmp_path, overwrite):
    def prepared(name: str) -> Path:
        if overwrite:
            make(tmp_path / name, seed=1)
        return tmp_path / name

    counted = prepared("counted")
    operations = injection.count_operations(counted, lambda: make(counted, overwrite=overwrite))
    assert operations > 10
    for number in range(1, operations + 1):
        folder = prepared(f"killed-{number}")

        def killed(folder: Path = folder, number: int = number) -> None:
            injection.at_operation(folder, number, injection.die)
            make(folder, overwrite=overwrite)

        assert injection.in_child(killed).status == -signal.SIGKILL
        make(folder, overwrite=overwrite)  # the same command again
        assert (folder / "warm" / "adapter_model.safetensors").read_text() == "weights of seed 0"
        assert not (folder / "checkpoints").exists()


def test_a_second_run_is_told_who_is_at_work_and_a_dead_one_is_in_nobodys_way(tmp_path):
    def hold() -> None:
        with open_run_folder(tmp_path / "run", {}):
            time.sleep(60)

    holder = injection.start_child(hold)
    until = time.monotonic() + 20
    while not (tmp_path / "run" / ".lock-holder.json").exists() and time.monotonic() < until:
        time.sleep(0.01)
    name = rf"another run is at work.*process {holder[0]} on {socket.gethostname()}.*--output"
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match=name), open_run_folder(tmp_path / "run", {}, overwrite=overwrite):
            pass
    os.kill(holder[0], signal.SIGKILL)
    injection.wait_for(holder)
    with open_run_folder(tmp_path / "run", {}) as run:
        assert run.path == tmp_path / "run"


def test_of_two_runs_at_once_one_is_let_in(tmp_path):
    def enter(folder: Path, start: float) -> bool:
        while time.time() < start:
            pass
        with open_run_folder(folder, {}):
            time.sleep(0.3)
        return True

    for turn in range(5):
        start = time.time() + 0.1
        children = [injection.start_child(lambda n=turn, s=start: enter(tmp_path / str(n), s)) for _ in range(2)]
        ended = [injection.wait_for(child) for child in children]
        assert sorted(child.status for child in ended) == [0, 1]
        (refused,) = [child.error for child in ended if child.error is not None]
        assert isinstance(refused, RunFolderError)


def test_every_damage_to_a_record_or_to_what_a_stage_left_is_refused_with_the_fix(tmp_path):
    folder = tmp_path / "run"
    make(folder)
    record, policy = folder / "stages" / "warm.json", folder / "warm" / "adapter_model.safetensors"
    whole = record.read_text()
    digits = [n for n, letter in enumerate(whole) if letter.isdigit()]
    damaged = [whole[:n] + str((int(whole[n]) + 1) % 10) + whole[n + 1 :] for n in digits[:: len(digits) // 20]]
    for text in (*damaged, "", "[]", "{}", whole[: len(whole) // 2], whole.replace("sha256", "sha", 1), "\x00"):
        record.write_text(text)
        with pytest.raises(RunFolderError, match=r"stage warm.*damaged.*stages/warm\.json.*--overwrite"):
            make(folder)
    record.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match="damaged"):
        make(folder)
    record.write_text(whole)
    make(folder)
    for content in ("weights of seed 1", "weights", ""):
        policy.write_text(content)
        with pytest.raises(RunFolderError, match=r"output of the stage warm.*adapter_model\.safetensors"):
            make(folder)
    policy.unlink()
    with pytest.raises(RunFolderError, match=r"adapter_model\.safetensors: it is missing.*delete stages/warm\.json"):
        make(folder)
    record.unlink()  # the fix
    make(folder)


def test_a_training_that_has_begun_is_not_gone_on_with_under_other_settings(tmp_path):
    inputs = {"plural": StageInputs({"plural.steps": 60})}
    with open_run_folder(tmp_path / "run", {}, inputs) as run:
        run.begin("plural", inputs["plural"])
    changed = {"plural": StageInputs({"plural.steps": 80})}
    with (
        pytest.raises(RunFolderError, match=r"plural\.steps: 60 there, 80 here.*kept of plural.*--overwrite"),
        open_run_folder(tmp_path / "run", {}, changed),
    ):
        pass


def test_a_setting_that_is_new_since_the_run_counts_as_its_default(tmp_path):
    """Of records with inputs, and of those of an earlier version, whose settings are in config.json."""
    config = RunConfig()
    defaults, today = default_settings(), RunInputs(config).of_every_stage()
    plain = config.model_dump(mode="json")
    before = StageInputs({key: value for key, value in today["jury"].settings.items() if key != "jury.l2"})
    del plain["jury"]["l2"]
    other = RunInputs(RunConfig(jury={"l2": 0.5})).of_every_stage()
    for name, inputs in (("now", before), ("earlier", None)):
        with open_run_folder(tmp_path / name, plain) as run:
            run.finish("jury", StageRecord({}, 1.0, inputs))
        with pytest.raises(RunFolderError, match=r"jury\.l2: 'auto' there, 0\.5 here"):
            open_run_folder(tmp_path / name, plain, other, defaults).__enter__()
        with open_run_folder(tmp_path / name, config.model_dump(mode="json"), today, defaults):
            pass


def test_a_stage_depends_on_its_own_settings_only():
    changed = {
        "name": {"name": "other"},
        "policy.cache_dir": {"policy": {"cache_dir": "elsewhere"}},
        "checkpoints": {"checkpoints": {"keep": 3}},
        "grpo.beta": {"grpo": {"beta": 0.1}},
        "evaluate.draws": {"evaluate": {"draws": 50}},
        "seed": {"seed": 1},
        "juries": {"juries": {"council": {"urban": 1}}},
    }
    affected = {
        key: [
            stage.value
            for stage in Stage
            if list(RunInputs(RunConfig()).of(stage).changes(RunInputs(RunConfig(**values)).of(stage), {}))
        ]
        for key, values in changed.items()
    }
    assert affected == {
        "name": [],
        "policy.cache_dir": [],
        "checkpoints": [],
        "grpo.beta": ["grpo"],
        "evaluate.draws": ["evaluate"],
        "seed": [stage.value for stage in Stage],
        "juries": ["plural", "evaluate"],
    }


def test_a_damaged_configuration_of_an_earlier_version_is_an_own_error(tmp_path):
    inputs = RunInputs(RunConfig()).of_every_stage()
    with open_run_folder(tmp_path / "run", {"seed": 0}) as run:
        run.finish("jury", StageRecord({}, 1.0))
    for text in ("", "{", "[]"):
        (tmp_path / "run" / "config.json").write_text(text)
        with pytest.raises(RunFolderError, match=r"config\.json.*damaged"):
            open_run_folder(tmp_path / "run", {"seed": 0}, inputs).__enter__()
    with open_run_folder(tmp_path / "run", {"seed": 0}, inputs, overwrite=True) as run:
        assert run.record("jury") is None
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 0}


@pytest.mark.parametrize("numbers", [1, 10, 1000, 100_000])
def test_a_disk_that_is_full_while_torch_writes_is_a_fault_of_the_disk(tmp_path, numbers):
    """What torch raises depends on how much of the file was written; it never says that the disk is full."""
    with (
        pytest.raises(RunWriteError, match=r"a file could not be written .* Kept: jury\. Fix: make room"),
        explain_disk_faults(tmp_path, lambda: "Kept: jury."),
    ):
        torch.save(torch.zeros(numbers), "/dev/full")


def test_what_is_no_fault_of_the_disk_keeps_its_error(tmp_path):
    with pytest.raises(FileNotFoundError), explain_disk_faults(tmp_path, str):
        (tmp_path / "absent").read_text()
    with pytest.raises(ValueError, match="no such rule"), explain_disk_faults(tmp_path, str):
        raise ValueError("no such rule")
    with (
        pytest.raises(RunWriteError, match=r"disk is full.*Kept: jury"),
        explain_disk_faults(tmp_path, lambda: "Kept: jury."),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stage_that_was_kept_is_compared_with_what_it_would_read_now(tmp_path):
    """Also what is known only when the stages before it are there; a record of an earlier version says nothing."""
    with open_run_folder(tmp_path, {"seed": 0}) as run:
        for stage, inputs in (("warm", StageInputs({"seed": 0}, {"judgements": "a"})), ("grpo", None)):
            run.finish(stage, StageRecord({}, 1.0, inputs, None if inputs is None else {}))
        run.check_stage("warm", StageInputs({"seed": 0}, {"judgements": "a"}), [])
        with pytest.raises(RunFolderError, match="judgements: other content"):
            run.check_stage("warm", StageInputs({"seed": 0}, {"judgements": "b"}), [])
        run.check_stage("grpo", StageInputs({"seed": 0}, {"judgements": "b"}), [])


def test_what_an_earlier_version_did_not_note_is_said_and_loses_nothing(tmp_path):
    before, now = (StageInputs({"seed": 0}, {"judgements": "a", **more}) for more in ({}, {"embedder": "b"}))
    said: list[str] = []
    with open_run_folder(tmp_path, {"seed": 0}) as run:
        (run.begin("warm", before, said.append) / "step.txt").write_text("5")
        assert said == []
        kept = run.begin("warm", now, said.append) / "step.txt"
        assert kept.read_text() == "5"
        [line] = said
        assert "warm: goes on from what is kept" in line
        assert line.endswith("unknown: embedder")
        run.begin("warm", now, said.append)
        assert len(said) == 1  # from here on it is noted
        for other in ({"judgements": "a", "embedder": "c"}, {"judgements": "a"}):
            kept.write_text("5")
            run.begin("warm", StageInputs({"seed": 0}, other), said.append)
            assert not kept.exists()
            run.begin("warm", now, said.append)
