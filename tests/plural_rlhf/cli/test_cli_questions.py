"""The command `predict-questions`, as a user calls it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from reward_models import planted_judgements


@pytest.fixture
def folder(tmp_path, monkeypatch):
    frame = planted_judgements("choice", num_raters=60, num_items=10).judgements.frame
    frame["choice"] = [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]
    frame["rater:side"] = ["left" if int(rater[1:]) % 2 else "right" for rater in frame["rater_id"]]
    frame.to_json(tmp_path / "answers.jsonl", orient="records", lines=True)
    (tmp_path / "new.txt").write_text("Question 11?\nQuestion 12?\n", encoding="utf-8")
    monkeypatch.setattr(
        "plural_rlhf.evaluation.open_ended.embedder.text_embedder",
        lambda path: lambda texts: [[float(len(text)), float(hash_of(text))] for text in texts],
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hash_of(text):
    return sum(map(ord, text)) % 7


def call(*arguments):
    return CliRunner().invoke(app, ["predict-questions", *map(str, arguments)])


def test_the_verdict_comes_first_and_then_the_shares(folder, wide_terminal):
    result = call("answers.jsonl", "new.txt", "--embedder", "any", "--by", "side")
    assert result.exit_code == 0, result.output
    out = folder / "runs" / "answers-questions"
    results = json.loads((out / "results.json").read_text())
    lines = result.output.splitlines()
    verdict = next(n for n, line in enumerate(lines) if line.startswith("On the 10 known questions"))
    assert verdict < next(n for n, line in enumerate(lines) if "Question 11?" in line)
    assert {record["group"] for record in results["predicted"]} == {"everybody", "left", "right"}
    assert (out / "shares.csv").read_text().count("\n") == 1 + 2 * 3 * 3
    assert "Does wording tell anything here?" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["answers.jsonl", "none.csv"], "none.csv"),
        (["none.csv", "new.txt"], "none.csv"),
        (["answers.jsonl", "new.txt", "--by", "sde"], "Did you mean 'side'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(folder, arguments, message, wide_terminal):
    result = call(*arguments, "--embedder", "any")
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert not (folder / "runs").exists()
