"""The commands `suite list|show|build` and `spectrum`: what they print and write, and how they refuse."""

import json

from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.methods.spectrum import read_sequences


runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "240"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.replace("│", " ").split())


def test_the_list_can_be_narrowed_and_written(tmp_path):
    text = call("suite", "list", "--kind", "individual", "--split", "test", "--json", str(tmp_path / "list.json"))
    rows = json.loads((tmp_path / "list.json").read_text())
    assert {row["task"] for row in rows} >= {"flight", "wvs-individual", "habermas-individual"}
    assert {row["kind"] for row in rows} == {"individual"}
    assert f"{len(rows)} tasks of" in text
    assert "Did you mean 'group'" in call("suite", "list", "--kind", "groups", code=2)


def test_show_tells_source_licence_download_and_the_first_sequence():
    coin = call("suite", "show", "coin")
    assert "Apache-2.0" in coin
    assert '"examples":' in coin
    netflix = call("suite", "show", "netflix-ratings", "--data", "nowhere")
    for part in ("netflix_individual_ratings", "kaggle", "netflix/ratings.csv", "here: no"):
        assert part in netflix
    assert "Did you mean 'coin'" in call("suite", "show", "coinn", code=2)


def test_build_writes_files_that_the_run_reads(tmp_path):
    out = tmp_path / "suite"
    text = call("suite", "build", str(out), "--tasks", "coin", "--tasks", "netflix-ratings", "--sequences", "3")
    assert "1 tasks, 3 sequences written" in text
    assert "not built: task netflix-ratings" in text
    assert len(read_sequences(out / "train" / "coin.jsonl")) == 3
    run = tmp_path / "run.yaml"
    settings = {
        "model": {"base": "tiny", "cache_dir": str(tmp_path / "models")},
        "data": {"tasks": [], "files": [str(out / "train" / "coin.jsonl")], "heldout": ["wheel"]},
        "train": {"steps": 1},
        "evaluate": {"positions": [0], "formats": ["auto"], "draws": 50},
        "output_dir": str(tmp_path / "run"),
    }
    settings["data"] |= {"heldout_sequences": 5, "examples": 3}
    run.write_text(json.dumps(settings))
    assert "report.html" in call("spectrum", str(run))
    assert "unknown key" in call("spectrum", str(run), "--set", "train.stesp=2", code=2)


def test_the_help_tells_the_two_kinds_of_suites_apart():
    text = call("suite", "--help")
    assert "Not the suites of `plural-rlhf evaluate" in text or "Not the suites of plural-rlhf evaluate" in text
    assert "spectrum configs/spectrum.yaml" in call("spectrum", "--help")
