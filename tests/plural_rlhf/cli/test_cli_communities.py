"""The command `communities`: from a table to a pool of adapters, one added later, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from reward_models import planted_judgements
from tests.printed import words


runner = CliRunner()
pytestmark = pytest.mark.usefixtures("wide_terminal")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    frame = planted_judgements("choice", num_raters=60, num_items=6, strength=4.0).judgements.frame.copy()
    frame["rater:town"] = [("York", "Bath")[int(rater[1:]) % 2] for rater in frame["rater_id"]]
    path = tmp_path_factory.mktemp("table") / "answers.jsonl"
    frame.to_json(path, orient="records", lines=True)
    return path


def train(table, folder, *more):
    settings = ("policy.lora={r: 2, target_modules: [q_proj]}", "sft.steps=1", "data.heldout_questions=2")
    chosen = [
        part for setting in (*settings, f"policy.cache_dir={folder.parent / 'models'}") for part in ("--set", setting)
    ]
    columns = table.with_name("columns.yaml")
    columns.write_text("index: 0", encoding="utf-8")
    command = ["communities", str(table), "--columns", str(columns), "--model", "tiny", "--out", str(folder)]
    return runner.invoke(app, [*command, "--fewest", "10", *chosen, *more])


def test_a_community_is_added_to_those_that_are_there(table, tmp_path):
    folder = tmp_path / "pool"
    done = train(table, folder, "--by", "town", "--only", "York")
    assert done.exit_code == 0, done.output
    pool = json.loads((folder / "communities.json").read_text(encoding="utf-8"))
    assert [community["name"] for community in pool["communities"]] == ["York"]
    york = folder / pool["communities"][0]["key"] / "adapter_model.safetensors"
    before = york.read_bytes()
    votes = table.with_name("votes.jsonl")
    planted_judgements("rating", num_raters=40, num_items=4).judgements.frame.to_json(
        votes, orient="records", lines=True
    )
    done = train(table, folder, "--by", "town", "--set", f"data.tables=[{{path: '{votes}'}}]")
    assert done.exit_code == 0, done.output
    assert "votes.jsonl' is left out, because one table is used here" in words(done.output)
    assert "York: trained already" in done.output
    for part in ("York", "Bath", "all, by their shares", "training questions", "held-out questions"):
        assert part in done.output, part
    assert york.read_bytes() == before
    pool = json.loads((folder / "communities.json").read_text(encoding="utf-8"))
    assert {community["name"] for community in pool["communities"]} == {"York", "Bath"}
    assert sum(community["share"] for community in pool["communities"]) == pytest.approx(1)


def test_a_community_of_too_few_or_of_no_name_is_refused_before_anything_is_trained(table, tmp_path):
    few = train(table, tmp_path / "pool", "--by", "town", "--fewest", "50")
    assert few.exit_code == 2
    assert "50" in few.output
    unknown = train(table, tmp_path / "pool", "--by", "twon")
    assert unknown.exit_code == 2
    assert "town" in unknown.output
    nobody = train(table, tmp_path / "pool", "--by", "town", "--only", "Yrok")
    assert nobody.exit_code == 2
    assert "Did you mean 'York'?" in nobody.output.replace("\n", " ")
    assert not (tmp_path / "pool").exists()
