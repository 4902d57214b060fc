"""Files of SPSS, Stata and Excel: labels become options, missing values are missing, cells are as they are shown."""

import datetime
import re
import sys
import zipfile

import numpy as np
import openpyxl
import pandas as pd
import pyreadstat
import pytest

from reward_models.errors import JudgementError, JudgementWarning, MissingExtraError
from reward_models.sources import load_table, read_table
from reward_models.sources.formats.files import read_cells


pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}:reward_models.errors.JudgementWarning")
    for message in ("have one judgement", "rows of .* dropped")
]
WIDE = {
    "kind": "choice",
    "layout": "wide",
    "columns": {"rater_id": "id"},
    "traits": {"region": "region"},
    "questions": ["parks", "roads"],
}
LABELS = {
    "parks": {2: "no", 1: "yes", 8: "don't know", 9: "refused"},
    "roads": {1: "agree", 2: "neither", 3: "disagree", 8: "don't know"},
    "region": {1: "north", 2: "south", 9: "refused"},
}
WORDINGS = {"parks": "More parks?", "roads": "More roads?"}


def survey():
    return pd.DataFrame(
        {
            "id": ["007", "7", "x", "y"],
            "parks": [1, 2, 8, 2],
            "roads": [3, 1, np.nan, 2],
            "region": [1, 2, 9, 2],
        }
    )


def write_labelled(path, frame=None):
    """Write the survey as SPSS or Stata would, 8 and 9 declared missing; Stata's are .d and .r."""
    frame = survey() if frame is None else frame
    if path.suffix == ".dta":
        letters = {8: "d", 9: "r"}
        labels = {
            name: {letters.get(code, code): text for code, text in codes.items()} for name, codes in LABELS.items()
        }
        for name in LABELS:
            frame[name] = frame[name].astype(object).map(lambda code: letters.get(code, code))
        missing = {name: ["d", "r"] for name in LABELS}
        pyreadstat.write_dta(
            frame, path, column_labels=WORDINGS, variable_value_labels=labels, missing_user_values=missing
        )
    else:
        missing = {name: [8, 9] for name in LABELS}
        pyreadstat.write_sav(frame, path, column_labels=WORDINGS, variable_value_labels=LABELS, missing_ranges=missing)
    return path


def answers(judgements):
    frame = judgements.frame
    texts = [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]
    return list(zip(frame["rater_id"], frame["prompt"], texts, strict=True))


@pytest.mark.parametrize("name", ["a.sav", "A.SAV", "a.zsav", "a.dta"])
def test_labels_become_options_wordings_and_missing_values(tmp_path, name):
    reading = read_table(write_labelled(tmp_path / name), WIDE)
    judgements = reading.judgements
    assert answers(judgements) == [
        ("007", "More parks?", "yes"),
        ("007", "More roads?", "disagree"),
        ("7", "More parks?", "no"),
        ("7", "More roads?", "agree"),
        ("y", "More parks?", "no"),
        ("y", "More roads?", "neither"),
    ]
    assert judgements.frame["options"][:2].tolist() == [("yes", "no"), ("agree", "neither", "disagree")]
    assert judgements.frame["rater:region"].tolist() == ["north"] * 2 + ["south"] * 4
    counts = reading.missing_counts()
    assert counts.loc["parks"].to_dict() == {"answered": 3, "don't know": 1, "empty": 0}
    assert counts.loc["roads"].to_dict() == {"answered": 3, "don't know": 0, "empty": 1}


@pytest.mark.parametrize("name", ["a.sav", "a.dta"])
def test_dont_know_is_an_answer_if_wished(tmp_path, name):
    reading = read_table(write_labelled(tmp_path / name), WIDE | {"keep_as_option": ["don't know"]})
    assert ("x", "More parks?", "don't know") in answers(reading.judgements)
    assert reading.judgements.frame["options"][0] == ("yes", "no", "don't know")
    with pytest.warns(JudgementWarning, match=r"no answer is missing as 'dont know'\. Did you mean \"don't know\""):
        read_table(tmp_path / name, WIDE | {"keep_as_option": ["dont know"]})


def test_the_map_goes_before_the_file(tmp_path):
    path = write_labelled(tmp_path / "a.sav")
    recoded = WIDE | {"values": {"choice": {"yes": "aye", 2: "nay"}}, "questions": ["parks"], "missing": ["refuse"]}
    with pytest.warns(JudgementWarning, match="missing: 'refuse' occurs in no cell"):
        judgements = load_table(path, recoded)
    assert {answer for _, _, answer in answers(judgements)} == {"aye", "nay"}
    assert judgements.frame["options"][0] == ("aye", "nay")
    ratings = {**WIDE, "kind": "rating", "constants": {"prompt": "How much?"}}
    frame = load_table(path, ratings).frame
    assert frame["rating"].tolist() == [1, 3, 2, 1, 2, 2]
    assert frame["response"].tolist() == ["More parks?", "More roads?"] * 3
    counted = load_table(
        path, WIDE | {"index": 1, "options": ["agree", "neither", "disagree"], "questions": ["roads"]}
    )
    assert [answer for _, _, answer in answers(counted)] == ["disagree", "agree", "neither"]


def test_a_long_labelled_file(tmp_path):
    frame = pd.DataFrame({"id": [1, 1, 2, 2], "ask": ["Tea?", "Milk?"] * 2, "answer": [1, 2, 2, 8]})
    labels = {"answer": {1: "yes", 2: "no", 8: "don't know"}}
    pyreadstat.write_sav(frame, tmp_path / "a.sav", variable_value_labels=labels, missing_ranges={"answer": [8]})
    columns = {"rater_id": "id", "prompt": "ask", "choice": "answer"}
    reading = read_table(tmp_path / "a.sav", {"columns": columns})
    assert answers(reading.judgements) == [("1", "Tea?", "yes"), ("1", "Milk?", "no"), ("2", "Tea?", "no")]
    assert str(reading).splitlines()[1:] == [
        "  '1'  ->  'yes'                  1",
        "  '2'  ->  'no'                   2",
        "  '8'  ->  left out (don't know)  1",
    ]
    kept = load_table(tmp_path / "a.sav", {"columns": columns, "keep_as_option": ["don't know"]})
    assert answers(kept)[3] == ("2", "Milk?", "don't know")
    assert kept.frame["options"][0] == ("yes", "no", "don't know")


def test_a_code_without_a_label_is_refused(tmp_path):
    frame = survey().assign(parks=[1, 2, 3, 2])
    path = write_labelled(tmp_path / "a.sav", frame)
    with pytest.raises(JudgementError, match=r"'3' is not one of the options 'yes', 'no'"):
        load_table(path, WIDE)
    assert len(load_table(path, WIDE | {"questions": {"parks": {"missing": [3]}, "roads": None}})) == 6


@pytest.mark.parametrize(
    ("suffix", "package"), [(".sav", "pyreadstat"), (".dta", "pyreadstat"), (".xlsx", "openpyxl")]
)
def test_a_missing_extra_is_named_with_its_command(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(MissingExtraError, match=rf"'{package}', which is not installed.*\"plural-rlhf\[files\]\""):
        load_table(path, WIDE)


# ── Excel ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LONG = {"columns": {"rater_id": "who", "prompt": "ask", "choice": "answer"}, "options": ["yes", "no"]}
HEAD = ["who", "ask", "answer", "age", "seen"]
ROWS = [
    ["007", "Tea?", "yes", 30, datetime.date(2024, 5, 1)],
    ["007", "Milk?", "no", 30, datetime.date(2024, 5, 1)],
    [7, "Tea?", "no", None, None],
    [7, "Milk?", "yes", "#N/A", None],
]


def write_excel(path, rows=ROWS, sheets=None):
    book = openpyxl.Workbook()
    for title, table in ({"data": [HEAD, *rows]} if sheets is None else sheets).items():
        sheet = book.create_sheet(title)
        for row in table:
            sheet.append(row)
    book.remove(book.worksheets[0])
    book.save(path)
    return book


def test_excel_cells_are_as_they_are_shown(tmp_path):
    path = tmp_path / "a.xlsx"
    book = write_excel(path, [*ROWS, [None] * 5, [12, "Tea?", "yes", 1.5, None]])
    for row in (4, 5):
        book.worksheets[0].cell(row, 1).number_format = "0000"
    book.save(path)
    with pytest.warns(JudgementWarning, match=r"a\.xlsx, sheet 'data': 1 cells hold an error.* \(#N/A: 1\)"):
        judgements = load_table(path, LONG | {"traits": {"age": "age", "seen": "seen"}})
    assert judgements.frame["rater_id"].tolist() == ["007", "007", "0007", "0007", "12"]
    assert judgements.frame["rater:age"].tolist() == ["30", "30", None, None, "1.5"]
    assert judgements.frame["rater:seen"].tolist()[::2] == ["2024-05-01", None, None]
    assert [choice for _, _, choice in answers(judgements)] == ["yes", "no", "no", "yes", "yes"]


def test_answers_and_ids_that_excel_made_dates_of_are_named(tmp_path):
    path = tmp_path / "a.xlsx"
    date = datetime.datetime(2024, 4, 3)
    write_excel(path, [*ROWS[:3], [7, "Milk?", date, None, None]])
    with pytest.raises(JudgementError, match=r"choice: Excel made a date of an answer \('2024-04-03'\).*in Excel"):
        load_table(path, LONG)
    assert answers(load_table(path, LONG | {"values": {"choice": {"2024-04-03": "yes"}}}))[3][2] == "yes"
    write_excel(path, [*ROWS[:3], [date, "Milk?", "yes", None, None]])
    with pytest.raises(JudgementError, match=r"'rater_id': Excel made a date of an id \('2024-04-03'\)"):
        load_table(path, LONG)
    wide = {"kind": "choice", "layout": "wide", "columns": {"rater_id": "who"}, "options": ["1-2", "3-4"]}
    write_excel(path, sheets={"a": [["who", "q1"], ["ann", "1-2"], ["bob", date]]})
    with pytest.raises(JudgementError, match=r"questions: q1: Excel made a date of an answer"):
        load_table(path, wide | {"questions": {"q1": "How many?"}})


def test_an_error_in_an_answer_is_no_answer(tmp_path):
    path = tmp_path / "a.xlsx"
    write_excel(path, [*ROWS[:3], [7, "Milk?", "#REF!", None, None]])
    with (
        pytest.warns(JudgementWarning, match="#REF!"),
        pytest.raises(JudgementError, match="row 3, column 'choice': nan is not an answer"),
    ):
        load_table(path, LONG)
    with pytest.warns(JudgementWarning, match="#REF!"):
        assert len(load_table(path, LONG | {"drop_empty": ["choice"]})) == 3


def test_sheets(tmp_path):
    path = tmp_path / "a.xlsx"
    write_excel(path, sheets={"code book": [["text"], ["1 = yes"]], "data": [HEAD, *ROWS[:3]], "empty": []})
    with pytest.raises(JudgementError, match=r"several sheets: 'code book' \(1 rows\), 'data' \(3 rows\)"):
        load_table(path, LONG)
    for sheet in ("data", 2):
        assert len(load_table(path, LONG | {"sheet": sheet})) == 3
    with pytest.raises(JudgementError, match=r"no sheet 'dat'\. Did you mean 'data'"):
        load_table(path, LONG | {"sheet": "dat"})
    with pytest.raises(JudgementError, match="the sheet 'empty' is empty"):
        load_table(path, LONG | {"sheet": "empty"})
    (tmp_path / "a.csv").write_text("who,ask\n")
    with pytest.raises(JudgementError, match=r"'a\.csv' has no sheets"):
        load_table(tmp_path / "a.csv", LONG | {"sheet": "data"})


def test_columns_without_a_name_and_twice(tmp_path):
    path = tmp_path / "a.xlsx"
    write_excel(path, sheets={"a": [[None, "a"], ["x", 1]]})
    assert read_cells(path).frame.to_dict("list") == {"Unnamed: 0": ["x"], "a": ["1"]}
    write_excel(path, sheets={"a": [["a", "a "], ["x", 1]]})
    with pytest.raises(JudgementError, match="has the column 'a' more than once"):
        read_cells(path)


FORMULA = '=IF(B2="yes",1,"")'


def with_formulas(path, result):
    """A sheet whose answers are formulas with this stored result, as its XML; programs that cannot calculate: ""."""
    book = openpyxl.Workbook()
    rows = [("person", "said", "q1"), ("a", "yes", FORMULA), ("b", "no", FORMULA), ("c", "yes", FORMULA)]
    for row in rows:
        book.active.append(row)
    book.save(path)
    with zipfile.ZipFile(path) as parts:
        contents = {name: parts.read(name) for name in parts.namelist()}
    sheet = contents["xl/worksheets/sheet1.xml"]
    written = re.compile(rb'<c r="(C\d)"><f>(.*?)</f><v ?/?>(</v>)?</c>')
    assert len(written.findall(sheet)) == 3
    if result:
        sheet = written.sub(result, sheet)
    with zipfile.ZipFile(path, "w") as parts:
        for name, content in (contents | {"xl/worksheets/sheet1.xml": sheet}).items():
            parts.writestr(name, content)
    return path


def test_formulas_without_their_results_are_refused(tmp_path):
    """They were read as empty cells: answers that nobody had left out."""
    with pytest.raises(JudgementError, match=r"3 cells hold a formula whose result was not saved \(C2, C3, C4\)"):
        read_cells(with_formulas(tmp_path / "a.xlsx", None))


def test_formulas_with_their_results_are_read(tmp_path):
    path = with_formulas(tmp_path / "a.xlsx", rb'<c r="\1"><f>\2</f><v>1</v></c>')
    assert read_cells(path).frame["q1"].tolist() == ["1", "1", "1"]
    path = with_formulas(tmp_path / "b.xlsx", rb'<c r="\1" t="str"><f>\2</f><v></v></c>')
    assert read_cells(path).frame["person"].tolist() == ["a", "b", "c"]  # the result is an empty text
