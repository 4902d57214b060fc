"""The commands `fit-values` and `values`: from a table to what values say, through the saved judge."""

from __future__ import annotations

import csv
import json
import math

import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.methods.kaleidoscope import planted_valued_situations
from tests.printed import words


runner = CliRunner()


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["situation", "vrd", "text", "valence"])
        writer.writerows([r.situation, r.value.kind, r.value.text, r.valence] for r in planted_valued_situations())
    done = runner.invoke(app, ["fit-values", str(folder / "rows.csv"), "--out", str(folder / "judge")])
    assert done.exit_code == 0, done.output
    printed = words(done.output)
    accuracy = {name: float(printed.split(name)[1].split()[0]) for name in ("most frequent", "judge")}
    assert accuracy["most frequent"] == pytest.approx(1 / 3, abs=0.01)
    assert accuracy["judge"] > 0.9
    return folder / "judge"


def test_what_values_say_of_situations_in_a_file(judge, tmp_path):
    (tmp_path / "acts.txt").write_text("stealing money, giving tools\n\ngiving tools [now]\n")
    (tmp_path / "values.txt").write_text("Honesty\nGenerosity\n")
    command = ["values", str(tmp_path / "acts.txt"), "--judge", str(judge), "--values", str(tmp_path / "values.txt")]
    done = runner.invoke(app, [*command, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "giving tools [now]" in words(done.output)
    both, one = json.loads((tmp_path / "out.json").read_text())
    assert {v["text"]: v["supports"] > v["opposes"] for v in both["values"]} == {"Honesty": False, "Generosity": True}
    assert [v["text"] for v in one["values"]] == ["Generosity"]
    assert one["ambiguity"] < 0.2 < both["ambiguity"] < math.log(3)
    nothing = runner.invoke(app, [*command, "--threshold", "1"])
    assert "no value matters" in words(nothing.output)


def test_what_cannot_be_used_is_refused_before_any_work(judge, tmp_path):
    done = runner.invoke(app, ["values", "stealing", "--judge", str(judge)])
    assert done.exit_code == 2
    assert "a fitted judge names no values itself" in words(done.output)
    (tmp_path / "rows.csv").write_text("situation,text\nlying,Honesty\n")
    done = runner.invoke(app, ["fit-values", str(tmp_path / "rows.csv"), "--out", str(judge)])
    assert "is not empty" in words(done.output)
    done = runner.invoke(app, ["values", "stealing", "--judge", str(tmp_path), "--values", str(tmp_path / "rows.csv")])
    assert "no Kaleido checkpoint at" in words(done.output)
