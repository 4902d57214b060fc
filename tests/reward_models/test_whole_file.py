"""A file is written as a whole or not at all, whenever the writer dies; JSON holds what JSON can hold."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file

from reward_models import whole_file as module
from reward_models.replaced_files import replaced_files
from reward_models.whole_file import (
    json_lines,
    locked_folder,
    move_into_place,
    unfinished_folder,
    whole_file,
    whole_folder,
    whole_path,
    write_arrays,
    write_json,
    write_json_lines,
)
from tests.paths import ROOT


KILLED = """
import os, sys
from reward_models import whole_file
from reward_models.whole_file import whole_file as open_whole

path, when = sys.argv[1:]
def die(*args):
    os._exit(9)
if when == "before the rename":
    whole_file.os.replace = die
with open_whole(path) as file:
    if when == "before":
        die()
    file.write("new" * 10_000)
    file.flush()
    if when == "during":
        die()
if when == "after":
    die()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "during", "before the rename", "after"])
def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path, when):
    path = tmp_path / "results.json"
    path.write_text("old", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), when], check=False)
    assert done.returncode == 9
    assert path.read_text(encoding="utf-8") == ("new" * 10_000 if when == "after" else "old")
    # What it left is hidden, has another suffix, and does not hinder the next writer.
    assert list(tmp_path.glob("*.json")) == [path]
    write_json(path, [1])
    assert json.loads(path.read_text(encoding="utf-8")) == [1]


@pytest.mark.parametrize("when", ["before", "during", "at the rename"])
def test_an_error_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch, when):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError("disk full")

    if when == "at the rename":
        monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match="disk full"), whole_file(path) as file:  # noqa: PT012
        if when == "before":
            full()
        file.write("new")
        if when == "during":
            full()
    assert (path.read_text(encoding="utf-8"), os.listdir(tmp_path)) == ("old", ["a.txt"])


def test_the_content_is_on_the_disk_before_it_has_the_name_and_the_name_is_after(tmp_path, monkeypatch):
    calls = []
    flush, rename = os.fsync, os.replace

    def noted_flush(number):
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{number}"), tmp_path)
        calls.append(("fsync", re.sub("[0-9a-f]{12}", "X", path)))
        flush(number)

    monkeypatch.setattr(module.os, "fsync", noted_flush)
    monkeypatch.setattr(module.os, "replace", lambda *names: (calls.append("rename"), rename(*names)))
    write_json(tmp_path / "a.json", 1)
    assert calls == [("fsync", ".a.json.X.unfinished"), "rename", ("fsync", ".")]
    calls.clear()
    with whole_folder(tmp_path / "model") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_bytes(b"2")
    hidden = ".model.X.unfinished"
    assert calls == [
        *[("fsync", name) for name in (f"{hidden}/part", f"{hidden}/part/weights", hidden)],
        "rename",
        ("fsync", "."),
    ]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.json"
    path.write_text("1")
    path.chmod(0o600)
    write_json(path, 2)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("2\n", 0o600)


def test_the_longest_name_has_an_unfinished_file_too(tmp_path):
    for name in ("a" * 250 + ".json", "ä" * 125 + ".json"):
        write_json(tmp_path / name, 1)
    assert len(os.listdir(tmp_path)) == 2


FULL = OSError(errno.ENOSPC, "No space left on device")
READ_ONLY = OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("error", [FULL, READ_ONLY], ids=["full", "read-only"])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "chmod", "replace"])
def test_a_disk_that_refuses_at_any_operation_keeps_the_old_file(tmp_path, monkeypatch, error, operation):
    path = tmp_path / "a.json"
    write_json(path, "old")

    def refuse(*_, **__):
        raise error

    owner = {"open": module.Path, "write": module.json}.get(operation, module.os)
    monkeypatch.setattr(owner, "dumps" if operation == "write" else operation, refuse)
    if operation == "chmod":  # a file system without permissions is good enough
        write_json(path, "new")
    else:
        with pytest.raises(OSError, match=error.strerror):
            write_json(path, "new")
    monkeypatch.undo()
    assert json.loads(path.read_text()) == ("new" if operation == "chmod" else "old")
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_is_removed_while_it_is_written_to_raises_the_error_of_the_writer(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(FileNotFoundError), whole_file(folder / "a.txt") as file:  # noqa: PT012
        file.write("new")
        shutil.rmtree(folder)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), whole_folder(folder / "model"):  # noqa: PT012
        shutil.rmtree(folder)
        raise KeyError


def test_two_writers_of_one_folder_do_not_meet(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(OSError, match="not empty"), whole_folder(target) as late:  # noqa: PT012
        (late / "config.json").write_text("late")
        with whole_folder(target) as early:
            assert early != late
            (early / "config.json").write_text("early")
        assert (late / "config.json").read_text() == "late"  # the early one has not cleared it up
    assert (target / "config.json").read_text() == "early"
    assert os.listdir(tmp_path) == ["model"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as one, whole_file(path) as other:
        one.write("1" * 50_000)
        other.write("2" * 60_000)
    assert set(path.read_text()) == {"1"}  # the last to finish
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_is_followed_and_a_pipe_is_written_to(tmp_path):
    target = tmp_path / "there.json"
    target.write_text("old")
    link, pipe = tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"a": 1}
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"a": 1}, indent=None)
    reader.join()
    assert read == ['{"a": 1}\n']
    assert pipe.is_fifo()


def test_an_unfinished_path_is_given_to_writers_of_their_own(tmp_path):
    path = tmp_path / "numbers.npy"
    with whole_path(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, np.arange(3))
    assert np.load(path).tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError), whole_path(path):
        pass  # nothing was written, so nothing is replaced
    assert np.load(path).tolist() == [0, 1, 2]
    (tmp_path / "new").write_text("x")
    move_into_place(tmp_path / "new", path)
    assert (path.read_text(), os.listdir(tmp_path)) == ("x", ["numbers.npy"])


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    (tmp_path / ".model.0123456789ab.unfinished").mkdir()
    (tmp_path / ".model.0123456789ab.unfinished" / "of-a-killed-writer").write_text("x")
    with pytest.raises(KeyError), whole_folder(tmp_path / "model") as folder:  # noqa: PT012
        (folder / "config.json").write_text("{}")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with whole_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
    assert os.listdir(tmp_path / "model") == ["config.json"]


def test_json_holds_plain_numbers_and_null(tmp_path):
    path = tmp_path / "new" / "x.json"
    value = {
        "array": np.array([[1.0, np.nan]]),
        "scalars": (np.float32(0.5), np.int64(3), np.bool_(True), np.float64("inf")),
        "path": tmp_path,
        3: "clé",
    }
    write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "array": [[1.0, None]],
        "scalars": [0.5, 3, True, None],
        "path": str(tmp_path),
        "3": "clé",
    }
    assert "clé" in text
    assert text.endswith("}\n")
    assert os.listdir(path.parent) == ["x.json"]


def test_a_state_keeps_what_is_not_finite(tmp_path):
    write_json(tmp_path / "x.json", {"best": np.array([-np.inf, 0.1]), "mean": math.nan}, exact=True, indent=None)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    state = json.loads(text)
    assert state["best"] == [-math.inf, 0.1]
    assert math.isnan(state["mean"])
    assert text.count("\n") == 1


def test_what_json_cannot_hold_touches_no_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "x.json", {"a": object()})
    assert (tmp_path / "x.json").read_text() == "1\n"


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_with_every_element_in_its_place(tmp_path, order):
    array = np.asarray(np.arange(12.0).reshape(4, 3), order=order)
    write_arrays(tmp_path / "a.safetensors", {"a": array, "part": array[::2, 1:]}, {"what": "a test"})
    back = load_file(tmp_path / "a.safetensors")
    assert (back["a"] == array).all()
    assert (back["part"] == array[::2, 1:]).all()


def test_nothing_but_write_arrays_writes_safetensors_of_numpy():
    files = [path for package in ("reward_models", "plural_rlhf") for path in (ROOT / package).rglob("*.py")]
    writers = [path.name for path in files if "safetensors.numpy import save_file" in path.read_text("utf-8")]
    assert writers == ["whole_file.py"]


def in_a_thread(work):
    """Run work that may wait for ever; returns the errors that it raised, or None if it still waits."""
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    return None if thread.is_alive() else errors


@pytest.mark.parametrize("outer", [whole_folder, unfinished_folder, locked_folder])
@pytest.mark.parametrize("inner", [locked_folder, lambda folder: replaced_files(folder, "jury.json")])
def test_a_writer_does_not_wait_for_its_own_lock(tmp_path, outer, inner):
    def work():
        folder = tmp_path / "model"
        if outer is locked_folder:
            folder.mkdir()
        with outer(folder) as unfinished:
            for _ in range(2):  # the end of the inner block does not end the outer one's lock
                with inner(unfinished or folder) as files:
                    if files is not None:
                        (files / "jury.json").write_text('{"files": {}}', encoding="utf-8")
                assert module._locked(unfinished or folder) is None

    assert in_a_thread(work) == []
    assert not module._held


def test_another_thread_waits_for_a_folder_and_a_forked_process_does_too(tmp_path):
    order = []

    def second():
        with locked_folder(tmp_path):
            order.append("second")

    with locked_folder(tmp_path):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    with locked_folder(tmp_path):
        forked = {place: (os.getpid() + 1, who) for place, (_, who) in module._held.items()}
        assert module._is_held(tmp_path)
        module._held.update(forked)
        assert not module._is_held(tmp_path)


def test_lines_of_json_end_at_line_feeds_only(tmp_path):
    """What a model or a person writes may hold other characters that Python takes for the end of a line."""
    path = tmp_path / "texts.jsonl"
    records = [{"text": f"a{mark}b"} for mark in ("\u2028", "\u2029", "\x85", "\n", "\r\n")]
    write_json_lines(path, records)
    assert [json.loads(line) for _, line in json_lines(path)] == records
    path.write_text("\ufeff" + '{"n": 1}\n\n  \n{"n": 2}', encoding="utf-8")
    assert [(number, json.loads(line)) for number, line in json_lines(path)] == [(1, {"n": 1}), (4, {"n": 2})]
