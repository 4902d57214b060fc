"""A training resumes from the last whole checkpoint, and says which later ones it leaves out and why."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from reward_models.trainer.whole_checkpoints import FILES, checkpoint_fault, checkpoint_files, resumed_checkpoint
from tests.jury_training import make_trainer, planted


LAST = "state.json"


def checkpoint(parent, step: int):
    folder = parent / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(100))
    (folder / "part").mkdir()
    (folder / "part" / "memory.pt").write_text("abc")
    (folder / LAST).write_text(json.dumps({"step": step, FILES: checkpoint_files(folder, LAST)}))
    return folder


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / LAST).unlink(), "no state.json, which is written last"),
        (lambda folder: (folder / "part" / "memory.pt").unlink(), "file part/memory.pt .* it is missing"),
        (
            lambda folder: (folder / "weights.bin").write_bytes(bytes(99)),
            "file weights.bin .* 99 bytes instead of 100",
        ),
        (lambda folder: (folder / "part" / "memory.pt").write_text("abd"), "memory.pt .* its SHA-256 is another"),
        (lambda folder: (folder / LAST).write_text('{"st'), "state.json is damaged"),
        (lambda folder: (folder / LAST).write_text("[1]"), "state.json is damaged"),
        (lambda folder: (folder / LAST).write_text('{"files": {"../x": {"size": 1, "sha256": null}}}'), "damaged"),
        (lambda folder: (folder / LAST).write_text('{"files": {"x": 3}}'), "damaged"),
    ],
)
def test_what_is_damaged_is_left_out_aloud_or_refused_by_name(tmp_path, damage, fault):
    for step in (9, 10):
        assert checkpoint_fault(checkpoint(tmp_path, step), LAST) is None
    fault_of = lambda folder: checkpoint_fault(folder, LAST)  # noqa: E731
    assert resumed_checkpoint(True, str(tmp_path), fault_of).name == "checkpoint-10"
    damage(tmp_path / "checkpoint-10")
    with pytest.warns(UserWarning, match=f"checkpoint-10' is left out: .*{fault}.*resumes from '.*checkpoint-9'"):
        assert resumed_checkpoint(True, str(tmp_path), fault_of).name == "checkpoint-9"
    with pytest.raises(ValueError, match=f"checkpoint-10' cannot be resumed from: .*{fault}.*from '.*checkpoint-9'"):
        resumed_checkpoint(str(tmp_path / "checkpoint-10"), str(tmp_path), fault_of)
    shutil.rmtree(tmp_path / "checkpoint-9")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole.*start again"):
        resumed_checkpoint(True, str(tmp_path), fault_of)


def test_a_changed_byte_of_large_weights_is_noticed_and_a_list_that_knows_sizes_alone_is_still_read(tmp_path):
    folder = checkpoint(tmp_path, 1)
    with (folder / "weights.bin").open("r+b") as file:
        file.truncate(64 * 2**20 + 1)  # takes no space on the disk
    records = checkpoint_files(folder, LAST)
    (folder / LAST).write_text(json.dumps({FILES: records}))
    assert checkpoint_fault(folder, LAST) is None
    with (folder / "weights.bin").open("r+b") as file:
        file.seek(40 * 2**20)
        file.write(b"1")
    assert "weights.bin is not as it was written: its SHA-256 is another" in checkpoint_fault(folder, LAST)
    records["weights.bin"]["sha256"] = None  # an earlier version
    (folder / LAST).write_text(json.dumps({FILES: records}))
    assert checkpoint_fault(folder, LAST) is None


def test_where_there_is_no_checkpoint_trainer_itself_has_the_word(tmp_path):
    fault_of = lambda folder: "never asked"  # noqa: E731
    (tmp_path / "checkpoints").mkdir()
    for resume in (None, False, True, tmp_path / "absent"):
        assert resumed_checkpoint(resume, str(tmp_path), fault_of) is None


def test_a_jury_training_resumes_from_its_last_whole_checkpoint(tmp_path):
    data = planted(n_raters=6, per_rater=4, n_items=8)[0]
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "num_clusters": 2, "save_total_limit": 3}
    whole = make_trainer(data, tmp_path, **settings)
    whole.train()
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"cut")  # a damaged file
    (tmp_path / "checkpoint-2" / "checkpoint_files.json").unlink()
    (tmp_path / "checkpoint-2" / "trainer_state.json").unlink()  # cut short
    resumed = make_trainer(data, tmp_path, **settings)
    with pytest.warns(UserWarning, match="checkpoint-3' is left out: its file optimizer.pt"):
        resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    np.testing.assert_array_equal(resumed.memberships.log_lik, whole.memberships.log_lik)
    (tmp_path / "checkpoint-3" / "jury_state.safetensors").unlink()
    (tmp_path / "checkpoint-2" / "checkpoint_files.json").unlink(missing_ok=True)
    (tmp_path / "checkpoint-1" / "checkpoint_files.json").unlink()  # as an older version left it
    again = make_trainer(data, tmp_path, **settings)
    with pytest.warns(UserWarning, match="checkpoint-3' is left out: it has no jury_state.safetensors"):
        again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3
