"""The command `profiles`, as a user calls it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from reward_models import planted_judgements


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "answers.jsonl"
    frame = planted_judgements("choice", num_raters=60, num_items=10).judgements.frame
    frame["choice"] = [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]
    frame.to_json(path, orient="records", lines=True)
    return path


def call(*arguments):
    return CliRunner().invoke(app, ["profiles", *map(str, arguments)])


def test_a_table_becomes_results_and_a_page(table, tmp_path, wide_terminal):
    out = tmp_path / "out"
    result = call(table, "--out", out, "--sizes", "2,4", "--splits", 1)
    assert result.exit_code == 0, result.output
    assert "2 clusters" in result.output
    results = json.loads((out / "results.json").read_text())
    assert results["name"] == "answers"
    assert {row["source"] for row in results["information"]} == {"clusters", "jury", "profile", "answers", "control"}
    page = (out / "report.html").read_text()
    assert "Who are the clusters, in words?" in page
    assert (out / "figures" / "information.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "two"], "no list of numbers"),
        (["--encoder", "http://localhost:1/v1"], "add --model NAME"),
        (["--encoder", "tabel"], "is neither table"),
        (["--model", "llama", "--encoder", "tiny"], "leave it out"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(table, tmp_path, arguments, message, wide_terminal):
    result = call(table, "--out", tmp_path / "out", *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out").exists()
