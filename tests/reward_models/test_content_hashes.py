"""Records of files notice every change, and a name never leads out of its folder."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest

from reward_models import content_hashes
from reward_models.content_hashes import arrays_hash, changed_files, file_hash, folder_records, safe_name, value_hash
from reward_models.replaced_files import read_unchanged


def test_each_change_of_a_file_is_noticed(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.bin").write_bytes(b"weights")
    (tmp_path / "b.json").write_bytes(b"{}")
    (tmp_path / ".b.json.0.unfinished").write_bytes(b"{")
    records = folder_records(tmp_path)
    assert records == {
        "b.json": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
        "part/a.bin": {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
    }
    assert changed_files(tmp_path, records) == {}
    (tmp_path / "part" / "a.bin").write_bytes(b"Weights")
    (tmp_path / "b.json").write_bytes(b"{} ")
    assert changed_files(tmp_path, records, contents=False) == {"b.json": "it has 3 bytes instead of 2"}
    (tmp_path / "b.json").unlink()
    assert changed_files(tmp_path, records) == {"b.json": "it is missing", "part/a.bin": "its SHA-256 is another"}


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "../a", "a/../../b", "./a", "a//b", "a/", "a\\..\\b", "C:a", "a\nb", 3, None],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a file in the folder"):
        safe_name(name)
    with pytest.raises(ValueError, match="is no name of a file in the folder"):
        changed_files(tmp_path, {name: {"size": 0, "sha256": ""}})


@pytest.mark.parametrize("record", [None, [], {}, {"size": 1}])
def test_a_record_without_size_or_hash_is_refused(tmp_path, record):
    with pytest.raises(ValueError, match="has no size and sha256"):
        changed_files(tmp_path, {"a": record})


def test_hashes_are_those_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert value_hash({"a": [1, "ä"], "b": None}) == value_hash({"b": None, "a": [1, "ä"]})
    assert value_hash([1]) != value_hash(["1"])


@pytest.mark.parametrize("step", ["size", "contents"])
def test_a_file_that_is_taken_away_while_it_is_compared_is_missing(tmp_path, monkeypatch, step):
    """Another process may replace it between any two looks."""
    path = tmp_path / "a.json"
    path.write_text("{}", encoding="utf-8")
    record = {"size": 2, "sha256": content_hashes.file_hash(path)}
    assert content_hashes.file_fault(path, record) is None
    if step == "size":
        monkeypatch.setattr(Path, "is_file", lambda self: True)
        path.unlink()
    else:
        real = content_hashes.file_hash
        monkeypatch.setattr(content_hashes, "file_hash", lambda file: file.unlink() or real(file))
    assert content_hashes.file_fault(path, record) == "it is missing"


def test_what_is_replaced_while_it_is_read_is_read_again():
    versions, tries = iter([1, 2, 2, 2]), []

    def load():
        tries.append(len(tries))
        if len(tries) == 1:
            raise FileNotFoundError("gone")
        return "whole"

    assert read_unchanged(load, lambda: next(versions), "the jury") == "whole"
    with pytest.raises(FileNotFoundError, match="never there"):  # nobody replaced anything: it is the user's to know
        read_unchanged(lambda: (_ for _ in ()).throw(FileNotFoundError("never there")), lambda: 1, "the jury")


def test_a_function_counts_by_its_name_in_every_process():
    def made(code):
        exec(code, names := {"__name__": "rules"})
        return names["valid"]

    first, again, other = made("def valid(x): ..."), made("def valid(x): ..."), made("def valid(x): ...")
    other.__qualname__ = "other"
    assert repr(first) != repr(again)
    assert arrays_hash([first]) == arrays_hash([again]) != arrays_hash([other])
    assert arrays_hash(partial(first, 1)) == arrays_hash(partial(again, 1)) != arrays_hash(partial(first, 2))
