"""A jury is saved as a whole, whatever happens meanwhile: `reward_models.jury.folder.save_jury`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading

import pytest
import torch

from reward_models.errors import JuryError
from reward_models.jury import folder as jury_folder
from reward_models.jury.scorer import JuryScorer
from tests.processes import run_script
from tests.saved_juries import edit, make_jury
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tokenizer, tmp_path):
    make_jury(tokenizer).save_pretrained(tmp_path)
    return tmp_path


KILLS = """
import os, sys, numpy as np, torch
from pathlib import Path
from reward_models.errors import JuryError
from reward_models.jury.scorer import JuryScorer
from tests.saved_juries import make_jury
from tests.tiny import tiny_tokenizer

tokenizer = tiny_tokenizer()
scorers = [make_jury(tokenizer, seed) for seed in (0, 1)]
rewards = [scorer.cluster_rewards(["a"], ["b"]) for scorer in scorers]
os.fsync = lambda number: None  # a process that dies loses nothing that the system holds
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "fcntl.flock", "shutil.copyfile"}

def save(folder, kill_at=None):  # in a child, which dies before its operation number `kill_at` on the folder
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = 0
    def hook(event, args):
        nonlocal done
        if event in OPERATIONS and (event == "fcntl.flock" or str(folder) in str(args[0])):
            done += 1
            if done == kill_at:
                os._exit(9)
    sys.addaudithook(hook)
    scorers[0].save_pretrained(folder)
    os._exit(0)

parent, earlier = Path(sys.argv[1]), sys.argv[2] == "earlier"
outcomes, operation = [], 0
while True:
    operation += 2 if earlier else 4
    folder = parent / str(operation)
    if earlier:
        scorers[1].save_pretrained(folder)
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "notes.txt").write_text("mine")
    status = save(folder, operation)
    try:
        loaded = JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"])
        outcome = [torch.equal(loaded, reward) for reward in rewards].index(True)
    except JuryError as error:
        outcome = "none" if not earlier and "no jury reward model" in str(error) else repr(error)
    outcomes.append(outcome)
    if operation % 8 == 0:  # the next save clears up
        assert save(folder) == 0
        assert torch.equal(JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"]), rewards[0])
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], list(folder.iterdir())
    assert (folder / "mine" / "notes.txt").read_text() == "mine"
    if status == 0:
        break
    assert status == 9
print(*outcomes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["earlier", "nothing"])
def test_a_save_that_is_killed_before_any_file_operation_leaves_the_old_jury_or_the_new(tmp_path, before):
    done = run_script(KILLS, str(tmp_path), before)
    outcomes = done.stdout.split()
    old = "1" if before == "earlier" else "none"
    assert set(outcomes) == {old, "0"}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "0")  # from one moment on it is the new one
    assert min(outcomes.count(old), outcomes.count("0")) > 3


def test_two_savers_at_once_leave_one_whole_jury_and_readers_never_see_a_mixture(tokenizer, tmp_path):
    scorers = [make_jury(tokenizer, seed) for seed in (0, 1)]
    rewards = [scorer.cluster_rewards(["a"], ["b"]) for scorer in scorers]
    scorers[0].save_pretrained(tmp_path)

    def save(scorer):
        while not enough.is_set():
            scorer.save_pretrained(tmp_path)
            enough.wait(0.1)  # so that a reader on a busy machine gets through now and then

    enough = threading.Event()
    savers = [threading.Thread(target=save, args=(scorer,)) for scorer in scorers]
    for saver in savers:
        saver.start()
    seen = 0
    try:
        while seen < 4:
            try:
                loaded = JuryScorer.from_pretrained(tmp_path).cluster_rewards(["a"], ["b"])
            except JuryError as error:
                if "another process keeps saving" not in str(error):
                    raise
                continue
            assert any(torch.equal(loaded, reward) for reward in rewards)
            seen += 1
    finally:
        enough.set()
        for saver in savers:
            saver.join()
    loaded = JuryScorer.from_pretrained(tmp_path).cluster_rewards(["a"], ["b"])
    assert any(torch.equal(loaded, reward) for reward in rewards)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", [".", "..", "../outside.txt", "/etc/hosts", "", "mine"])
def test_a_name_in_jury_json_never_leads_out_of_the_folder(tokenizer, tmp_path, name):
    folder = tmp_path / "jury"
    make_jury(tokenizer).save_pretrained(folder)
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "mine").mkdir()
    (folder / "mine" / "a.txt").write_text("mine")
    values = json.loads((folder / "jury.json").read_text())
    record = {"size": 7, "sha256": hashlib.sha256(b"outside").hexdigest()}
    edit(folder, files={**values["files"], name: record})
    with pytest.raises(JuryError, match=r"is no name of a file in the folder|lacks 'mine'"):
        JuryScorer.from_pretrained(folder)
    make_jury(tokenizer, 1).save_pretrained(folder)
    assert (tmp_path / "outside.txt").read_text() == "outside"
    assert (folder / "mine" / "a.txt").read_text() == "mine"
    JuryScorer.from_pretrained(folder)


def test_a_save_deletes_what_the_earlier_jury_was_saved_with_and_nothing_else(tokenizer, tmp_path):
    """A `jury.json` that names a file of the user's, and a file of the jury that the user has changed since."""
    make_jury(tokenizer).save_pretrained(tmp_path)
    for name in ("notes.txt", "model_of_mine.safetensors", "model-card.safetensors.txt", "extra.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "old.json").write_text("of the jury")
    record = {"size": 4, "sha256": "0" * 64}
    of_jury = {"size": 11, "sha256": hashlib.sha256(b"of the jury").hexdigest()}
    values = json.loads((tmp_path / "jury.json").read_text())
    edit(tmp_path, files={**values["files"], "notes.txt": record, "extra.json": record, "old.json": of_jury})
    make_jury(tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "old.json").exists()
    for name in ("notes.txt", "model_of_mine.safetensors", "model-card.safetensors.txt", "extra.json"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_jury_is_not_saved_where_a_file_or_a_folder_is_in_the_way(tokenizer, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "jury"):
        with pytest.raises(JuryError, match=r"a file lies there\. Give another name"):
            make_jury(tokenizer).save_pretrained(path)
    make_jury(tokenizer).save_pretrained(tmp_path / "jury")
    (tmp_path / "jury" / "tokenizer.json").unlink()
    (tmp_path / "jury" / "tokenizer.json").mkdir()
    before = sorted(os.listdir(tmp_path / "jury"))
    with pytest.raises(JuryError, match=r"'tokenizer.json' cannot be saved .* a folder lies there"):
        make_jury(tokenizer).save_pretrained(tmp_path / "jury")
    assert sorted(os.listdir(tmp_path / "jury")) == before


def test_a_full_disk_keeps_the_old_jury(tokenizer, folder, monkeypatch):
    old = make_jury(tokenizer).cluster_rewards(["a"], ["b"])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jury_folder, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        make_jury(tokenizer, 1).save_pretrained(folder)
    assert torch.equal(JuryScorer.from_pretrained(folder).cluster_rewards(["a"], ["b"]), old)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_smaller_jury_leaves_nothing_of_a_larger_one_and_spares_other_files(tokenizer, tmp_path):
    scorer = make_jury(tokenizer)
    scorer.model.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "README.md").write_text("mine")
    assert (tmp_path / "model.safetensors.index.json").exists()
    scorer.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model-*"))
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert (tmp_path / "README.md").read_text() == "mine"
    JuryScorer.from_pretrained(tmp_path)
