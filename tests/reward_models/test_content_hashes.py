"""Records of files notice every change, and a name never leads out of its folder."""

from __future__ import annotations

import hashlib

import pytest

from reward_models.content_hashes import changed_files, file_hash, folder_records, safe_name, value_hash


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
