"""The files, maps and outputs of docs/how_to_files.md are what the page says."""

import re

import pytest
import yaml

from reward_models.sources import read_table
from reward_models.sources.formats.files import SUFFIXES
from tests.paths import ROOT


PAGE = (ROOT / "docs" / "how_to_files.md").read_text(encoding="utf-8")
FILES = {
    name: re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n") + "\n"
    for name, block in re.findall(r"^`([\w.]+)`[^\n]*:\n\n((?: {4}.*\n|\n(?= {4}))+)", PAGE, re.MULTILINE)
}
COMMANDS = re.findall(r"^ {4}plural-rlhf headroom (\S+) --columns (\S+)$", PAGE, re.MULTILINE)
OUTPUTS = {
    name: re.sub(r"^ {4}", "", block, flags=re.MULTILINE).rstrip("\n")
    for block, name in re.findall(r"^((?: {4}(\w+\.csv): [\d,]+ judgements.*\n)(?: {4}.*\n)*)", PAGE, re.MULTILINE)
}
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_map_and_file_of_the_page_is_used():
    assert {name for command in COMMANDS for name in command} == set(FILES)
    assert len(FILES) >= 10


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
@pytest.mark.parametrize(("table", "columns"), COMMANDS)
def test_tables_are_read_as_the_page_says(folder, table, columns):
    reading = read_table(table, columns)
    shown = table != "survey.csv" or columns == "survey.yaml"
    if shown:
        assert str(reading) == OUTPUTS[table]


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_a_statement_may_be_turned_round_and_kinds_of_missing_answers_kept(folder):
    frame = read_table("survey.csv", "trust.yaml").judgements.frame
    assert frame["rating"][frame["response"] == "the police"].tolist() == [2, 5, 4]
    reading = read_table("survey.csv", "kinds.yaml")
    assert reading.judgements.frame["options"][0] == ("yes", "no", "refused")
    assert reading.missing_counts().loc["roads"].to_dict() == {"answered": 4}
    mapping = yaml.safe_load(FILES["kinds.yaml"]) | {"keep_as_option": [], "questions": ["trust_police", "roads"]}
    mapping["values"]["choice"] |= {4: "yes", 5: "yes", 8: "yes"}
    assert read_table("survey.csv", mapping).missing_counts()["not asked"].to_dict() == {"trust_police": 1, "roads": 0}


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
@pytest.mark.parametrize("code", PYTHON)
def test_the_code_of_the_page_runs(folder, code):
    exec(compile(code, "docs/how_to_files.md", "exec"), {})


def test_every_file_type_is_on_the_page():
    assert [suffix for suffix in SUFFIXES if f"`{suffix}`" not in PAGE and suffix != ".xlsm"] == []
