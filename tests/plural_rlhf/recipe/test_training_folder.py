"""When a training of a run is saved, what is kept, and what it goes on from: `plural_rlhf.recipe.checkpoints`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from plural_rlhf.recipe import checkpoints
from plural_rlhf.recipe.checkpoints import WHOLE_FILE, Best, TrainingFolder, _SaveOften
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.settings.sections import CheckpointSection
from reward_models.content_hashes import folder_records
from reward_models.whole_file import write_json


NOW = 1000.0


class Adapter:
    def __init__(self, text: str = "weights") -> None:
        self.text = text

    def save_pretrained(self, folder) -> None:
        Path(folder, "adapter_model.safetensors").write_text(self.text)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=NOW)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock.now)
    return clock


def saver(**section) -> _SaveOften:
    return _SaveOften(CheckpointSection(**section), Interruption(lambda _: None), lambda: 12.5, None)


def step_end(callback: _SaveOften, step: int, last: int = 100) -> tuple[bool, bool]:
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=last), control)
    return control.should_save, control.should_training_stop


def save(callback: _SaveOften, folder: Path, step: int) -> None:
    (folder / f"checkpoint-{step}").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(str(step))
    callback.on_save(SimpleNamespace(output_dir=str(folder)), SimpleNamespace(global_step=step), None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_due_by_time_by_steps_and_never_after_the_last_step(clock):
    by_time = saver(every_minutes=2)
    assert step_end(by_time, 1) == (False, False)
    clock.now = NOW + 119.9
    assert step_end(by_time, 2) == (False, False)
    clock.now = NOW + 120
    assert step_end(by_time, 3) == (True, False)
    assert step_end(by_time, 100) == (False, False)  # the policy itself is saved then
    by_steps = saver(every_minutes=1000, every_steps=3)
    assert [step for step in range(1, 10) if step_end(by_steps, step)[0]] == [3, 6, 9]


@pytest.mark.parametrize(("last", "number", "steps"), [(10, 4, {2, 4, 6, 8}), (3, 4, {1, 2}), (10, 0, set())])
def test_adapters_are_left_on_the_way_after_equal_numbers_of_steps(tmp_path, last, number, steps):
    """After none, and at the end, there is pi_0 and the policy itself."""
    training = TrainingFolder(tmp_path / "policy", tmp_path / "kept", show=lambda _: None)
    training.along = number
    for step in (1, 2):  # of a training that is begun anew
        (tmp_path / "kept" / "along" / f"step-{step}").mkdir(parents=True)
    savers = []
    trainer = SimpleNamespace(
        args=SimpleNamespace(max_steps=last), add_callback=savers.append, train=lambda resume_from_checkpoint: None
    )
    training.train(trainer)
    assert savers[-1].along == steps
    assert list((tmp_path / "kept" / "along").iterdir()) == []


def test_the_time_counts_from_the_last_save(clock, tmp_path):
    callback = saver(every_minutes=2)
    clock.now = NOW + 130
    save(callback, tmp_path, 1)
    clock.now = NOW + 240
    assert step_end(callback, 2) == (False, False)
    clock.now = NOW + 250
    assert step_end(callback, 3) == (True, False)


def test_a_signal_makes_a_checkpoint_and_ends_the_training(clock):
    callback = saver(every_minutes=1000)
    callback.interruption.requested = signal.SIGTERM
    assert step_end(callback, 1) == (True, True)
    assert step_end(callback, 100) == (False, False)


@pytest.mark.parametrize(("keep", "left"), [(1, [10]), (2, [9, 10])])
def test_the_newest_are_kept_in_the_order_of_their_steps(clock, tmp_path, keep, left):
    callback = saver(keep=keep)
    for step in (2, 9, 10):
        save(callback, tmp_path, step)
    assert names(tmp_path) == sorted(f"checkpoint-{step}" for step in left)
    note = json.loads((tmp_path / "checkpoint-10" / WHOLE_FILE).read_text())
    assert note["seconds"] == 12.5
    assert list(note["files"]) == ["trainer_state.json"]
    assert note["best"] is None


@pytest.mark.parametrize(("keep", "left"), [(1, ["best-3", "checkpoint-4"]), (2, ["best-1", "best-3"])])
def test_the_best_policy_is_the_first_with_the_smallest_loss(clock, tmp_path, keep, left):
    callback = saver(keep=keep)
    args = SimpleNamespace(output_dir=str(tmp_path))
    for step, loss in enumerate((0.5, 0.7, 0.4, 0.4), start=1):
        state, metrics = SimpleNamespace(global_step=step), {"eval_loss": loss}
        callback.on_evaluate(args, state, None, metrics=metrics, model=Adapter(f"of step {step}"))
        save(callback, tmp_path, step)
    assert (callback.best.step, callback.best.loss) == (3, 0.4)
    assert (tmp_path / "best-3" / "adapter_model.safetensors").read_text() == "of step 3"
    assert set(left) <= set(names(tmp_path))
    assert ("best-1" in names(tmp_path)) is (keep == 2)


def whole(folder: Path, step: int, best: dict | None = None) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    records = folder_records(checkpoint)
    write_json(checkpoint / WHOLE_FILE, {"files": records, "seconds": 30.0 + step, "best": best})
    return checkpoint


def test_the_newest_whole_checkpoint_is_gone_on_from_and_brings_its_seconds_and_its_best(tmp_path):
    said: list[str] = []
    (tmp_path / "best-2").mkdir()
    (tmp_path / "best-2" / "adapter_model.safetensors").write_text("weights")
    best = {"step": 2, "loss": 0.25, "files": dict(folder_records(tmp_path / "best-2"))}
    whole(tmp_path, 9)
    whole(tmp_path, 10, best)
    damaged = whole(tmp_path, 11)
    (damaged / "trainer_state.json").write_text("[]")
    (tmp_path / "checkpoint-x").mkdir()
    training = TrainingFolder(tmp_path / "policy", tmp_path, show=said.append)
    assert training.newest() == tmp_path / "checkpoint-10"
    assert (training.seconds_before, training.best) == (40.0, Best(2, 0.25, best["files"]))
    assert said == ["checkpoint-11 was not written to its end, or is damaged: deleted"]
    assert not damaged.exists()

    (tmp_path / "best-2" / "adapter_model.safetensors").write_text("others")  # the checkpoint needs it
    training = TrainingFolder(tmp_path / "policy", tmp_path, show=said.append)
    assert training.newest() == tmp_path / "checkpoint-9"
    assert (training.seconds_before, training.best) == (39.0, None)


def test_saving_the_policy_replaces_what_an_interrupted_run_left(tmp_path):
    training = TrainingFolder(tmp_path / "policy", tmp_path / "checkpoints")
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "left_over.json").write_text("{}")
    training.save(Adapter(), SimpleNamespace(save_pretrained=lambda folder: Path(folder, "tokenizer.json").touch()))
    assert names(tmp_path / "policy") == ["adapter_model.safetensors", "tokenizer.json"]
