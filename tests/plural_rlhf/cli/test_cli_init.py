"""`plural-rlhf init`: the run file it writes reads the table it was written for."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.recipe import load_config
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.draft.table import find_column_map
from plural_rlhf.recipe.settings.texts import SampledSection
from tests.paths import ROOT


def init(*arguments):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def pairs(**names):
    rows = [
        {
            names.get("rater_id", "rater_id"): f"r{rater}",
            names.get("prompt", "prompt"): f"What about the {what}?",
            names.get("response_a", "response_a"): f"More {what} for everybody in the town.",
            names.get("response_b", "response_b"): f"Fewer {what}.",
            names.get("choice", "choice"): "ab"[(rater + number) % 2],
        }
        for rater in range(40)
        for number, what in enumerate(["parks", "roads", "trams", "bins", "ponds", "pools", "trees"])
    ]
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_pairs_with_names_of_their_own_become_a_run_of_a_policy_that_writes(tmp_path):
    names = {"rater_id": "Annotator ID", "prompt": "Instruction", "response_a": "output_1", "response_b": "output_2"}
    pairs(**names, choice="winner").to_csv("my pairs.csv", index=False)
    result = init("my pairs.csv")
    assert result.exit_code == 0, result.output
    config = load_config("my pairs_run.yaml")
    data = read_data(config)
    assert (data.everything.kind, len(data.heldout_prompts), data.train.n_raters) == ("preference", 1, 28)
    assert config.data.columns["columns"] == {**names, "choice": "winner"}
    assert config.jury.clusters == [1, 2]  # 28 raters
    assert config.policy.max_new_tokens == 16  # seven words at most
    # The road that ends nearest to the target, as in the shipped files; and GRPO at a rate that does not collapse.
    shipped = [load_config(ROOT / f"configs/{name}.yaml") for name in ("open_ended", "pairs_from_table", "objectives")]
    assert {one.plural.mode for one in (config, *shipped)} == {"rerank"}
    assert {one.grpo.learning_rate for one in (config, *shipped)} == {SampledSection().learning_rate}
    text = (tmp_path / "my pairs_run.yaml").read_text()
    assert "280 judgements of 40 raters to texts about 7 prompts" in text


def test_votes_and_answers_get_the_form_of_their_kind(tmp_path):
    votes = [
        {"voter": f"r{rater}", "statement": f"Statement {n} about us.", "vote": (rater + n) % 3 - 1, "topic": "Parks?"}
        for rater in range(12)
        for n in range(6)
    ]
    pd.DataFrame(votes).to_json("votes.jsonl", orient="records", lines=True)
    assert init("votes.jsonl").exit_code == 0
    data = read_data(load_config("votes_run.yaml"))
    assert (data.everything.kind, data.everything.levels) == ("rating", (-1.0, 0.0, 1.0))
    assert (len(data.train_items), len(data.heldout_items)) == (5, 1)  # one prompt, of which texts are held out

    wide = pd.DataFrame({"id": [f"r{n}" for n in range(30)]})
    for number in range(6):
        wide[f"q{number}"] = [str((n // (number + 1)) % 2 + 1) for n in range(30)]
    wide.to_csv("survey.csv", index=False)
    result = init("survey.csv", "--output", "mine.yaml")
    assert result.exit_code == 0, result.output
    config = load_config("mine.yaml")
    data = read_data(config)
    assert (data.everything.kind, len(data.of("train")), len(data.of("heldout"))) == ("choice", 5, 1)
    assert "plural.sampled" not in (tmp_path / "mine.yaml").read_text()


def test_a_column_map_is_kept_by_its_path():
    pairs(prompt="frage").to_csv("pairs.csv", index=False)
    with open("map.yaml", "w") as file:
        names = ("rater_id", "response_a", "response_b", "choice")
        json.dump({"columns": {"prompt": "frage", **{name: name for name in names}}}, file)
    assert init("pairs.csv").exit_code != 0  # nobody knows that word
    assert init("pairs.csv", "--columns", "map.yaml").exit_code == 0
    assert load_config("pairs_run.yaml").data.columns.name == "map.yaml"
    assert read_data(load_config("pairs_run.yaml")).everything.n_items == 7


def test_what_cannot_be_used_is_refused_and_nothing_is_written_or_overwritten(tmp_path):
    pairs().to_csv("pairs.csv", index=False)
    (tmp_path / "pairs_run.yaml").write_text("name: mine\n")
    result = init("pairs.csv")
    assert result.exit_code != 0
    assert "exists already" in result.output
    assert (tmp_path / "pairs_run.yaml").read_text() == "name: mine\n"
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    result = init("notes.csv")
    assert result.exit_code != 0
    assert not (tmp_path / "notes_run.yaml").exists()


def test_the_shipped_run_file_for_pairs_reads_pairs():
    pairs().to_csv("pairs.csv", index=False)
    data = read_data(load_config(ROOT / "configs/pairs_from_table.yaml"))
    assert (data.everything.kind, data.writes_text, len(data.heldout_prompts)) == ("preference", True, 1)


def test_columns_that_have_the_names_of_one_kind_and_the_values_of_another_are_read_as_the_other(tmp_path):
    """The label is no verdict on the pair, so that the map by names for pairs fails; the one for ratings is next."""
    rows = [
        {"user": f"r{rater}", "question": "Parks?", "text_a": "x", "text_b": "y", "label": f"batch {rater % 3}"}
        | {"statement": f"Statement {n} about us.", "score": (rater + n) % 3}
        for rater in range(6)
        for n in range(4)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "votes.csv", index=False)
    judgements, column_map = find_column_map(tmp_path / "votes.csv")
    assert judgements.kind == "rating"
    names = {"rater_id": "user", "prompt": "question", "response": "statement", "rating": "score"}
    assert column_map == {"columns": names}
