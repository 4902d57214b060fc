"""Wide files: a row per respondent and a column per question give the judgements of the long file."""

import json
import re

import numpy as np
import pandas as pd
import pyreadstat
import pytest
import yaml

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.sources import load_table, read_table
from reward_models.sources.formats.files import read_cells


pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{message}:reward_models.errors.JudgementWarning")
    for message in ("have one judgement", "rows of .* dropped", "have no wording")
]
FRAME = pd.DataFrame(
    {
        "id": ["p1", "p2", "p3", "p4"],
        "parks": [1, 2, 8, 1],
        "roads": [2, None, 1, 9],
        "party": ["red", "blue", "red", "green"],
        "region": ["north", "south", "south", "NA"],
    }
)
WORDINGS = {"parks": "More parks?", "roads": "More roads?"}
CODES = {"options": ["yes", "no"], "values": {"choice": {1: "yes", 2: "no"}}}
WIDE = {
    "kind": "choice",
    "layout": "wide",
    "columns": {"rater_id": "id"},
    "traits": {"region": "region"},
    "missing": {"don't know": [8], "refused": [9, "NA"]},
    "questions": WORDINGS,
    **CODES,
}
LONG = {
    "kind": "choice",
    "columns": {"rater_id": "id", "item_id": "question", "prompt": "wording", "choice": "answer"},
    "traits": {"region": "region"},
    "missing": {"don't know": [8], "refused": [9, "NA"]},
    "drop_empty": ["choice"],
    **CODES,
}


def save(frame, path):
    frame.to_csv(path, index=False)
    return path


def in_rows(frame, wordings=WORDINGS):
    """The same answers, a row each."""
    long = frame.melt(["id", "region"], list(wordings), "question", "answer")
    return long.assign(wording=long["question"].map(wordings))


def as_set(judgements):
    """A table without the order of its rows."""
    return judgements.frame.sort_values(["rater_id", "item_id"], ignore_index=True)


def test_long_and_wide_give_the_same_judgements_and_missing_answers(tmp_path):
    wide = read_table(save(FRAME, tmp_path / "wide.csv"), WIDE)
    long = read_table(save(in_rows(FRAME), tmp_path / "long.csv"), LONG)
    pd.testing.assert_frame_equal(as_set(wide.judgements), as_set(long.judgements))
    pd.testing.assert_frame_equal(wide.missing_counts().sort_index(axis=1), long.missing_counts().sort_index(axis=1))
    assert wide.missing_counts().loc["roads"].to_dict() == {"answered": 2, "don't know": 0, "empty": 1, "refused": 1}
    assert str(wide).splitlines() == [
        "wide.csv: 5 judgements (choice); the columns 'parks', 'roads' were read as",
        "  '1'  ->  'yes'                  3",
        "  '2'  ->  'no'                   2",
        "  ''   ->  left out               1",
        "  '8'  ->  left out (don't know)  1",
        "  '9'  ->  left out (refused)     1",
    ]


def test_order_of_rows_and_columns_does_not_matter(tmp_path):
    expected = as_set(load_table(save(FRAME, tmp_path / "a.csv"), WIDE))
    shuffled = FRAME.iloc[[2, 0, 3, 1]][["region", "roads", "party", "id", "parks"]]
    pd.testing.assert_frame_equal(as_set(load_table(save(shuffled, tmp_path / "b.csv"), WIDE)), expected)


def test_dont_know_stays_as_the_last_option(tmp_path):
    for path, mapping in ((save(FRAME, tmp_path / "w.csv"), WIDE), (save(in_rows(FRAME), tmp_path / "l.csv"), LONG)):
        judgements = load_table(path, mapping | {"keep_as_option": ["don't know"]})
        assert set(judgements.frame["options"]) == {("yes", "no", "don't know")}
        assert sorted(judgements.frame["choice"]) == [0, 0, 0, 1, 1, 2]


def test_questions_may_differ(tmp_path):
    """Options, codes and missing values of one question go before those of all; exact names before patterns."""
    frame = FRAME.assign(trust_police=[1, 5, 3, 9], trust_courts=[5, 1, 3, 2])
    path = save(frame, tmp_path / "a.csv")
    parties = {"prompt": "Which party?", "options": ["red", "green", "blue"], "missing": [], "item_id": "vote"}
    frame = load_table(path, WIDE | {"questions": {**WORDINGS, "party": parties}}).frame
    assert frame["item_id"][frame["prompt"] == "Which party?"].tolist() == ["vote"] * 4
    assert frame["choice"][frame["item_id"] == "vote"].tolist() == [0, 2, 0, 1]
    rating = {"kind": "rating", "layout": "wide", "columns": {"rater_id": "id"}, "levels": [1, 2, 3, 4, 5]}
    constants = {"prompt": "How much do you trust"}
    turned = {"response": "the police", "values": {1: 5, 2: 4, 4: 2, 5: 1}}
    reading = read_table(
        path,
        rating | {"constants": constants, "missing": [9], "questions": {"trust_police": turned, "trust_*": None}},
    )
    frame = reading.judgements.frame
    assert frame["rating"][frame["item_id"] == "trust_police"].tolist() == [5, 1, 3]
    assert frame["rating"][frame["item_id"] == "trust_courts"].tolist() == [5, 1, 3, 2]
    assert reading.missing_counts()["9"].to_dict() == {"trust_police": 1, "trust_courts": 0}


def test_the_text_of_a_question_goes_before_the_constant(tmp_path):
    mapping = {key: value for key, value in WIDE.items() if key not in CODES} | {"kind": "rating", "missing": [8, 9]}
    said = {"parks": {"prompt": "We want", "response": "parks"}, "roads": "roads"}
    frame = load_table(save(FRAME, tmp_path / "a.csv"), mapping | {"constants": {"prompt": "More"}, "questions": said})
    assert set(zip(frame.frame["prompt"], frame.frame["response"], strict=True)) == {
        ("We want", "parks"),
        ("More", "roads"),
    }


def test_rows_may_be_dropped_as_a_whole(tmp_path):
    path = save(FRAME.assign(id=["p1", None, "p3", "p4"]), tmp_path / "a.csv")
    reading = read_table(path, WIDE | {"drop_empty": ["rater_id"]})
    assert reading.judgements.raters == ["p1", "p3", "p4"]
    assert reading.missing_counts().loc["roads"].to_dict() == {"answered": 2, "don't know": 0, "refused": 1}


def test_pairs_may_be_wide(tmp_path):
    frame = pd.DataFrame({"who": ["ann", "bob"], "v1": ["a", "tie"], "v2": ["b", "a"]})
    pair = {"prompt": "Plan?", "response_a": "Trams", "response_b": "Buses"}
    questions = {"v1": pair, "v2": pair | {"response_b": "Bikes"}}
    mapping = {"kind": "preference", "layout": "wide", "columns": {"rater_id": "who"}, "questions": questions}
    assert load_table(save(frame, tmp_path / "a.csv"), mapping).frame["choice"].tolist() == ["a", "b", "tie", "a"]


def test_rows_without_an_id_are_numbered_and_the_reader_says_so(tmp_path):
    path = save(FRAME, tmp_path / "a.csv")
    with pytest.warns(JudgementWarning, match=r"a\.csv: no column is rater_id; every row is a rater"):
        assert load_table(path, WIDE | {"columns": {}}).raters == ["1", "2", "3", "4"]


def test_a_wording_that_is_a_column_name_is_said(tmp_path):
    path = save(FRAME, tmp_path / "a.csv")
    with pytest.warns(JudgementWarning, match=r"2 questions have no wording.*\('parks', 'roads'\)\. State them"):
        load_table(path, WIDE | {"questions": ["parks", "roads"]})


def test_names_are_taken_as_they_are_before_they_are_patterns(tmp_path):
    frame = FRAME.rename(columns={"parks": "More [parks]?", "roads": "More [roads]?"})
    judgements = load_table(save(frame, tmp_path / "a.csv"), WIDE | {"questions": ["More [parks]?", "More*"]})
    assert set(judgements.frame["prompt"]) == {"More [parks]?", "More [roads]?"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": ["parks", "raods"]}, r"questions: 'raods' is not a column of the file\. Did you mean 'roads'"),
        ({"questions": ["p*", "q*"]}, r"questions: 'q\*' is not a column of the file"),
        ({"questions": ["parks", "region"]}, "questions: 'region' is 'rater:region', too"),
        ({"questions": []}, "questions is missing"),
        ({"questions": {"parks": True}}, "questions: parks: True is not a wording. Fix: put it in quotes"),
        ({"questions": {"parks": {"prmpt": "x"}}}, "questions: parks: 'prmpt' is not known. Did you mean 'prompt'"),
        ({"questions": {"parks": {"options": "yes"}}}, "questions: parks: options: 'yes' is not a list"),
        ({"questions": {"parks": {"values": {1: "a", "1": "b"}}}}, "questions: parks: values: '1' is there twice"),
        ({"layout": "wild"}, "layout: 'wild' is not known. Did you mean 'wide'"),
        ({"layout": "long"}, "questions: only a wide file has it. Fix: add layout: wide"),
        ({"kind": "soft"}, "kind is missing. Fix: kind: choice, or rating"),
        ({"columns": {"choice": "parks"}}, "columns: 'choice' is a column of answers"),
        (
            {"kind": "rating", "values": {}},
            "questions: parks: 'prompt' is missing; a 'rating' has prompt and response",
        ),
        ({"missing": {"refused": 9}}, "missing: refused: 9 is not a list"),
        ({"missing": {"refused": [9], "other": ["9"]}}, "missing: '9' is of two kinds"),
        ({"missing": 9}, "missing: 9 is not a list"),
    ],
)
def test_faults_of_the_map_are_named(tmp_path, change, message):
    with pytest.raises(JudgementError, match=message):
        load_table(save(FRAME, tmp_path / "a.csv"), WIDE | change)


def test_a_question_without_options_names_its_answers(tmp_path):
    mapping = {key: value for key, value in WIDE.items() if key not in CODES}
    with pytest.raises(JudgementError, match=r"questions: parks has no options.*its answers are '1', '2'"):
        load_table(save(FRAME, tmp_path / "a.csv"), mapping)


def test_an_option_that_no_code_reaches_is_shown(tmp_path):
    reading = read_table(save(FRAME, tmp_path / "a.csv"), WIDE | {"options": ["yes", "maybe", "no"]})
    assert re.search(r"\n  none  ->  'maybe' +0\n", str(reading))


# ── a wide file with the map of a long one ───────────────────────────────────────────────────────────────────────────


def pasted(path, columns):
    """The map that the message offers."""
    with pytest.raises(JudgementError, match="The file looks wide") as caught:
        load_table(path, columns)
    return yaml.safe_load(caught.value.__notes__[0])


@pytest.mark.parametrize("columns", [None, {"columns": LONG["columns"], "kind": "choice"}])
def test_the_map_to_paste_reads_the_file(tmp_path, columns):
    frame = FRAME.assign(trams=["agree", "disagree", "neither", "agree"], tolls=["agree"] * 3 + ["disagree"], age=50)
    path = save(frame, tmp_path / "a.csv")
    mapping = pasted(path, columns)
    assert mapping["columns"] == {"rater_id": "id"}
    assert mapping["traits"] == {"party": "party", "region": "region"}
    judgements = load_table(path, mapping)
    assert judgements.frame["options"].groupby(judgements.frame["item_id"]).first().to_dict() == {
        "parks": ("1", "2", "8", "9"),
        "roads": ("1", "2", "8", "9"),
        "tolls": ("agree", "disagree", "neither"),
        "trams": ("agree", "disagree", "neither"),
    }


def test_the_map_to_paste_keeps_what_was_said_of_codes(tmp_path):
    columns = {"rater_id": "id", "prompt": "q", "response": "say", "rating": "vote"}
    rating = {"columns": columns, "kind": "rating", "missing": [8, 9], "constants": {"prompt": "We need"}}
    del rating["columns"]["prompt"]
    path = save(FRAME, tmp_path / "a.csv")
    mapping = pasted(path, rating)
    judgements = load_table(path, mapping)
    assert judgements.levels == (1, 2)
    assert set(judgements.frame["prompt"]) == {"We need"}


def test_the_map_to_paste_of_a_labelled_file(tmp_path):
    labels = {name: {1: "yes", 2: "no", 8: "don't know"} for name in WORDINGS}
    pyreadstat.write_sav(FRAME, tmp_path / "a.sav", column_labels=WORDINGS, variable_value_labels=labels)
    mapping = pasted(tmp_path / "a.sav", None)
    assert "options" not in mapping
    assert mapping["questions"] == WORDINGS
    frame = load_table(tmp_path / "a.sav", mapping | {"missing": [9]}).frame
    assert set(frame["options"]) == {("yes", "no", "don't know")}


def test_long_files_are_not_called_wide(tmp_path):
    frame = in_rows(FRAME).assign(urban=["yes", "no"] * 4, answer=["yes", "no"] * 4)
    for columns in (None, LONG | {"columns": LONG["columns"] | {"choice": "anwser"}}):
        with pytest.raises(JudgementError, match="choice") as caught:
            load_table(save(frame, tmp_path / "a.csv"), columns)
        assert "looks wide" not in str(caught.value)


def test_missing_answers_by_cluster(tmp_path):
    """Expected counts: each rater counts by the probability of the cluster; strangers to the fit are left out."""
    reading = read_table(save(FRAME, tmp_path / "a.csv"), WIDE)
    share = np.array([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    counts = reading.missing_counts(["p1", "p2", "p3"], share)
    assert counts.loc[("roads", 1)].to_dict() == {"answered": 0.5, "don't know": 0, "empty": 0.75, "refused": 0}
    assert counts.loc[("parks", 0)].to_dict() == {"answered": 1.25, "don't know": 0.5, "empty": 0, "refused": 0}
    with pytest.raises(JudgementError, match="belong together"):
        reading.missing_counts(["p1"])


def test_json_lines_may_be_wide(tmp_path):
    rows = FRAME.astype(object).where(FRAME.notna(), None).to_dict("records")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wide = load_table(save(FRAME, tmp_path / "a.csv"), WIDE)
    pd.testing.assert_frame_equal(load_table(tmp_path / "a.jsonl", WIDE).frame, wide.frame)


QUALTRICS = [
    ["StartDate", "Status", "ResponseId", "Q1", "Q2"],
    ["Start Date", "Response Type", "Response ID", "<b>More parks?</b>\n", "More roads & paths?"],
    [f'{{"ImportId":"{name}","timeZone":"UTC"}}' for name in ("startDate", "status", "_recordId", "QID1", "QID2")],
    ["2024-01-01 10:00:00", "IP Address", "R_1", "yes", "no"],
    ["2024-01-01 10:05:00", "IP Address", "R_2", "no", "no"],
    ["2024-01-01 10:09:00", "IP Address", "R_3", "yes", "yes"],
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_an_export_of_qualtrics(tmp_path, suffix):
    """Its second row has the wordings, its third the import ids; both were read as respondents."""
    path = tmp_path / f"export{suffix}"
    frame = pd.DataFrame(QUALTRICS)
    if suffix == ".xlsx":
        frame.to_excel(path, index=False, header=False)
    else:
        frame.to_csv(path, index=False, header=False, sep="," if suffix == ".csv" else "\t")
    columns = {"kind": "choice", "layout": "wide", "columns": {"rater_id": "ResponseId"}, "questions": ["Q1", "Q2"]}
    with pytest.warns(JudgementWarning, match="is an export of Qualtrics"):
        judgements = load_table(path, columns | {"options": ["yes", "no"]})
    assert judgements.raters == ["R_1", "R_2", "R_3"]
    assert judgements.frame.drop_duplicates("item_id").set_index("item_id")["prompt"].to_dict() == {
        "Q1": "More parks?",
        "Q2": "More roads & paths?",
    }
    assert judgements.frame["choice"].tolist() == [0, 1, 1, 1, 0, 0]


def test_answers_about_import_ids_are_not_taken_for_qualtrics(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text('person,q1\na,"{""ImportId"":""x""}"\nb,no\n', encoding="utf-8")
    assert len(read_cells(path).frame) == 2
