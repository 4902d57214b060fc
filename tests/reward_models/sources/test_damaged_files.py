"""Damaged tables are refused by an error of ours that says what to do, whatever another library would have raised."""

from __future__ import annotations

import json
import random

import numpy as np
import pandas as pd
import pytest

from reward_models import Judgements
from reward_models.errors import JudgementError
from reward_models.sources import load_table
from reward_models.sources.column_map import load_map


ROW = {"rater_id": "ann", "item_id": "parks", "prompt": "More parks?", "options": ["yes", "no"], "choice": "yes"}


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"", "cannot be read as .parquet"),
        ("a.parquet", b"PAR1" + b"\x00" * 40 + b"PAR1", "cannot be read as .parquet"),
        ("a.jsonl", b"3\n", "line 1 is not a mapping from column to value"),
        ("a.jsonl", b"[]\n", "line 1 is not a mapping"),
        ("a.jsonl", b"null\n", "line 1 is not a mapping"),
        ("a.jsonl", b'{"a": 1}\n{"a":\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, "line 1 has brackets in brackets without end"),
        ("a.jsonl", lines({**ROW, "rater_id": "\ud83d"}).encode(), "line 1 holds half of a character"),
        ("a.jsonl", lines({**ROW, "options": [["yes"], "no"]}).encode(), "an option that is not text"),
        ("a.csv.gz", b"\x1f\x8b" + b"\x00" * 30, "cannot be read as .csv"),
        ("a.csv", "rater_id,prompt\nann,Größe\n".encode("cp1252"), "not UTF-8: byte 0xf6 in line 2.*windows-1252"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JudgementError, match=message):
        load_table(tmp_path / name)


def test_a_parquet_file_that_was_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame([ROW]).to_parquet(path)
    content = path.read_bytes()
    for size in np.linspace(0, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:size])
        with pytest.raises(JudgementError, match=r"cannot be read as \.parquet"):
            load_table(path)


def test_bytes_of_a_parquet_file_that_were_changed_raise_errors_of_ours_only(tmp_path):
    path, draw = tmp_path / "a.parquet", random.Random(0)
    pd.DataFrame([ROW]).to_parquet(path)
    content = path.read_bytes()
    for _ in range(150):
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + draw.randbytes(1) + content[at + 1 :])
        try:
            load_table(path)
        except JudgementError:
            continue


@pytest.mark.parametrize("column", ["response", "prompt", "rater_id"])
def test_a_column_of_numbers_where_texts_are_meant_is_named(column):
    rows = [{"rater_id": "ann", "prompt": "q", "response": "a", "rating": 1, column: 3.5}]
    if column == "rater_id":
        assert len(Judgements.from_dataset([*rows, rows[0] | {"rater_id": "bob", "rating": 2}])) == 2
    else:
        with pytest.raises(JudgementError, match=rf"column '{column}': 3.5 is (not text|neither text nor)"):
            Judgements.from_dataset(rows)


def test_numbers_and_characters_that_nothing_can_hold_are_faults():
    row = {"rater_id": "ann", "prompt": "q", "response": "a", "rating": 1}
    with pytest.raises(JudgementError, match="is too large for a rating"):
        Judgements.from_dataset([row, row | {"rater_id": "bob", "rating": 10**400}])
    with pytest.raises(JudgementError, match="a text holds half of a character"):
        Judgements.from_dataset([row, row | {"rater_id": "\ud83d", "rating": 2}])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"options": [["yes"], "no"]}, "options: .*is not one value"),
        ({"missing": [{}, "NA"]}, "missing: .*is not one value"),
        ({"missing": {"refused": [["NA"]]}}, "missing: refused: .*is not one value"),
        ({"levels": [[1], 2]}, "levels: .*is not one value"),
        ({"traits": {"age": []}}, "traits: age: .*is no column"),
        ({"columns": {"rater_id": None}}, "columns: rater_id: None is no column"),
        ({"columns": {"rater_id": [["a"]]}}, "columns: rater_id: .*is no column"),
    ],
)
def test_lists_in_lists_of_a_column_map_are_named(part, message):
    with pytest.raises(JudgementError, match=message):
        load_map({"columns": {"rater_id": "person"}, **part})
