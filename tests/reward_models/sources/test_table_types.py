"""No type is guessed from a file: codes are text, ids keep their digits, formats do not matter."""

import gzip
import json

import pandas as pd
import pyreadstat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.sources import load_table, read_table


pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.* {message}:reward_models.errors.JudgementWarning")
    for message in ("have one judgement", "rows of .* dropped", "occurs in no cell")
]
MAP = {"kind": "choice", "columns": {"rater_id": "who", "prompt": "ask", "choice": "answer"}, "options": ["yes", "no"]}
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".sav", ".dta", ".csv.gz", ".jsonl.gz")


def write(frame, path):
    """Write a table as its owner would with pandas."""
    if path.name.endswith(".parquet"):
        frame.to_parquet(path, index=False)
    elif path.suffix == ".xlsx":
        listed = [c for c in frame if frame[c].map(lambda cell: isinstance(cell, list)).any()]
        frame.assign(**{c: frame[c].map(json.dumps) for c in listed}).to_excel(path, index=False)
    elif path.suffix in (".sav", ".dta"):
        # Both hold doubles and texts only, and an empty text for None.
        typed = pd.DataFrame({c: frame[c] if is_numeric(frame[c]) else as_texts(frame[c]) for c in frame})
        (pyreadstat.write_sav if path.suffix == ".sav" else pyreadstat.write_dta)(typed, path)
    elif ".jsonl" in path.name:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def is_numeric(cells):
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def as_texts(cells):
    return [json.dumps(cell) if isinstance(cell, list) else ("" if pd.isna(cell) else str(cell)) for cell in cells]


def table(answers, who=None):
    """Raters in pairs, two questions; the answers row by row."""
    n = len(answers)
    return pd.DataFrame(
        {"who": who or [f"r{i // 2}" for i in range(n)], "ask": ["Tea?", "Pet?"] * (n // 2), "answer": answers}
    )


def chosen(judgements):
    """The texts that were chosen."""
    frame = judgements.frame
    return [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("answers", "values"),
    [
        ([1, 0, 0, 1], {1: "yes", 0: "no"}),
        (["1", "0", "0", "1", "NA", "1"], {1: "yes", 0: "no", "NA": None}),
        ([1.0, 0.0, 0.0, 1.0, None, 1.0], {"1": "yes", "0": "no", None: None}),
        ([True, False, False, True], {True: "yes", False: "no"}),
        (["TRUE", "FALSE", "false", "True"], {"TRUE": "yes", "FALSE": "no"}),
        ([True, False, False, True, None, True], {"TRUE": "yes", "false": "no", "": None}),
    ],
)
def test_codes_mean_what_the_map_says_in_every_format(tmp_path, suffix, answers, values):
    path = write(table(answers), tmp_path / f"answers{suffix}")
    judgements = load_table(path, MAP | {"values": {"choice": values}})
    assert chosen(judgements) == ["yes", "no", "no", "yes", "yes"][: len(judgements)]
    assert len(judgements) == sum(answer is not None and answer != "NA" for answer in answers)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_number_that_is_an_option_is_that_option(tmp_path, suffix):
    path = write(table([1, 2, 3, 3]), tmp_path / f"answers{suffix}")
    for options in (["1", "2", "3", "4"], [1, 2, 3, 4]):
        assert chosen(load_table(path, MAP | {"options": options})) == ["1", "2", "3", "3"]
    offered = MAP | {"columns": MAP["columns"] | {"options": "offered"}}
    del offered["options"]
    frame = table([1, 2, 3, 3]).assign(offered=pd.Series([[1, 2, 3, 4]] * 4, dtype=object))
    assert chosen(load_table(write(frame, tmp_path / f"lists{suffix}"), offered)) == ["1", "2", "3", "3"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_number_is_an_index_only_where_the_map_says_so(tmp_path, suffix):
    path = write(table([1, 0, 0, 1]), tmp_path / f"answers{suffix}")
    with pytest.raises(JudgementError, match=r"is not one of the options 'yes', 'no'\..*state index: 0 or 1"):
        load_table(path, MAP)
    assert chosen(load_table(path, MAP | {"index": 0})) == ["no", "yes", "yes", "no"]
    path = write(table([1, 2, 2, 1]), tmp_path / f"from-one{suffix}")
    assert chosen(load_table(path, MAP | {"index": 1})) == ["yes", "no", "no", "yes"]
    with pytest.raises(JudgementError, match=r"'2' is not an index into the 2 options \(0 to 1\)"):
        load_table(path, MAP | {"index": 0})
    bare = frame = table([1, 0, 0, 1]).rename(columns={"who": "rater_id", "ask": "prompt", "answer": "choice"})
    bare = write(frame.assign(options=pd.Series([["yes", "no"]] * 4, dtype=object)), tmp_path / f"bare{suffix}")
    with pytest.raises(JudgementError, match="state index: 0 or 1"):
        load_table(bare)
    assert chosen(load_table(bare, {"index": 0})) == ["no", "yes", "yes", "no"]


def test_keys_that_match_nothing_are_named_and_left_over_codes_refused(tmp_path):
    path = write(table(["1", "0", "0", "1"]), tmp_path / "answers.csv")
    with (
        pytest.warns(
            JudgementWarning,
            match=r"answers\.csv: values: choice: 'oui', 2 occurs in no cell\. The cells hold '1', '0'",
        ),
        pytest.raises(
            JudgementError, match=r"(?s)'0' is not one of .*note: values: choice: 'oui', 2 occurs in no cell"
        ),
    ):
        load_table(path, MAP | {"values": {"choice": {"oui": "yes", 1: "yes", 2: "no"}}})
    with pytest.raises(JudgementError, match="True is not text"):
        load_table(path, MAP | {"values": {"choice": {1: True, 0: False}}})
    with pytest.raises(JudgementError, match="'1' is there twice, as two spellings"):
        load_table(path, MAP | {"values": {"choice": {1: "yes", "1": "no"}}})


def test_the_reading_says_which_code_became_what_and_how_often(tmp_path):
    path = write(table(["1", "2", "2", "NA", "1.0", "2"]), tmp_path / "answers.csv")
    with pytest.warns(JudgementWarning, match="1 of 6 rows"):
        reading = read_table(path, MAP | {"values": {"choice": {1: "yes", 2: "no"}}, "missing": ["NA", 99]})
    assert str(reading).splitlines() == [
        "answers.csv: 5 judgements (choice); the column 'answer' was read as",
        "  '1'    ->  'yes'     1",
        "  '1.0'  ->  'yes'     1",
        "  '2'    ->  'no'      3",
        "  'NA'   ->  left out  1",
    ]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["007", "7", "12e4", "120e3", "1e5", "0001"], None),
        ([2**60 + 1, 2**60 + 2, 2**60 + 3, 1, 2, 3], None),
        ([7.0, 8.0, 9.0, 10.0, 11.0, 12.0], ["7", "8", "9", "10", "11", "12"]),
    ],
)
def test_ids_keep_their_digits(tmp_path, suffix, ids, expected):
    frame = table(["yes", "no"] * 6, who=[i for i in ids for _ in range(2)])
    path = write(frame, tmp_path / f"answers{suffix}")
    if suffix in (".xlsx", ".sav", ".dta") and ids[0] == 2**60 + 1:  # they hold doubles
        with pytest.raises(JudgementError, match="is a long number that a program rounded"):
            load_table(path, MAP)
        return
    assert load_table(path, MAP).raters == (expected or [str(i) for i in ids])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_long_ids_with_a_gap_stay_different_people(tmp_path, suffix):
    ids = [2**60 + 1, 2**60 + 2, None]
    path = tmp_path / f"answers{suffix}"
    if suffix == ".jsonl":
        rows = [{"who": i, "ask": ask, "answer": "yes"} for i in ids for ask in ("Tea?", "Pet?")]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        frame = table(["yes"] * 6).assign(who=pd.array([i for i in ids for _ in range(2)], dtype="Int64"))
        write(frame, path)
    with pytest.warns(JudgementWarning, match="2 of 6 rows"):
        assert load_table(path, MAP | {"drop_empty": ["rater_id"]}).raters == [str(i) for i in ids[:2]]


def test_ids_that_a_spreadsheet_shortened_are_refused(tmp_path):
    path = write(table(["yes"] * 4, who=["1.23457E+15"] * 4), tmp_path / "answers.csv")
    with pytest.raises(JudgementError, match=r"'1\.23457E\+15' is a long number that a program rounded.*as text"):
        load_table(path, MAP)
    path = write(table(["yes"] * 4, who=[2.0**60, 2.0**60, 1.0, 1.0]), tmp_path / "answers.parquet")
    with pytest.raises(JudgementError, match="is a long number that a program rounded"):
        load_table(path, MAP)


WORDS = st.sampled_from(
    ["yes", "no", "NA", "None", "true", "TRUE", "1", "01", "1.5", "12e4", "nan", "-1", "caf\u00e9"]
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_same_table_gives_the_same_judgements_in_every_format(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("formats")
    options = data.draw(st.lists(WORDS, min_size=2, max_size=5, unique_by=lambda word: word.lower()))
    codes = data.draw(
        st.lists(st.sampled_from([*options, None]), min_size=4, max_size=12).filter(lambda c: sum(map(bool, c)) > 2)
    )
    n = len(codes)
    ids = data.draw(st.lists(st.from_regex(r"[0-9a-e]{1,20}", fullmatch=True), min_size=n, max_size=n, unique=True))
    ages = data.draw(st.lists(st.sampled_from([18, 99, None]), min_size=n, max_size=n))
    frame = pd.DataFrame({"who": ids, "ask": "Tea?", "answer": codes, "age": ages})
    mapping = MAP | {"options": options, "traits": {"age": "age"}, "drop_empty": ["choice"], "missing": [99]}
    if not any(code in ("99", 99) for code in options):
        frames = [load_table(write(frame, folder / f"t{suffix}"), mapping).frame for suffix in FORMATS]
        for other in frames[1:]:
            pd.testing.assert_frame_equal(other, frames[0])
        assert frames[0]["rater:age"].dropna().isin(["18"]).all()
        assert chosen_texts(frames[0]) == [code for code in codes if code is not None]


def chosen_texts(frame):
    return [options[choice] for options, choice in zip(frame["options"], frame["choice"], strict=True)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_ratings_are_the_same_in_every_format(tmp_path, suffix):
    frame = table([1, -1, 0.5, 1, None, 99]).assign(ask="The city needs", say=["trams", "trees"] * 3)
    columns = {"rater_id": "who", "prompt": "ask", "response": "say", "rating": "answer"}
    path = write(frame, tmp_path / f"votes{suffix}")
    judgements = load_table(path, {"columns": columns, "drop_empty": ["rating"], "missing": [99]})
    assert judgements.frame["rating"].tolist() == [1, -1, 0.5, 1]
    assert judgements.levels == (-1, 0.5, 1)
    assert load_table(write(frame[:4], path), {"columns": columns, "values": {"rating": {"1": 2}}}).levels == (
        -1,
        0.5,
        2,
    )


def test_shares_with_json_lists_in_cells(tmp_path):
    rows = pd.DataFrame({"prompt": ["Tea?"], "options": ['["yes", "no"]'], "probs": ["[0.25, 0.75]"], "n": ["40"]})
    frames = [load_table(write(rows, tmp_path / f"shares{suffix}")).frame for suffix in FORMATS]
    assert frames[0]["options"][0] == ("yes", "no")
    for other in frames[1:]:
        pd.testing.assert_frame_equal(other, frames[0])


# ── files as people have them ────────────────────────────────────────────────────────────────────────────────────────

TEXT = "who;ask;answer\nann;Tea, or not?;ja\nann;Pet?;nein\nbob;Tea, or not?;nein\nbob;Pet?;ja\n"
GERMAN = MAP | {"options": ["ja", "nein"]}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.csv.gz", "a.tsv"])
def test_separators_capitals_and_compression_are_recognised(tmp_path, separator, name):
    text = TEXT.replace(", or", "" if separator == "," else ", or").replace(";", separator)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert chosen(load_table(path, GERMAN)) == ["ja", "nein", "nein", "ja"]
    assert chosen(load_table(path, GERMAN | {"separator": separator})) == ["ja", "nein", "nein", "ja"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "windows-1252", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT.replace("Tea", "Caf\u00e9").encode(encoding))
    if encoding in ("windows-1252", "latin-1"):
        with pytest.raises(
            JudgementError, match=r"byte 0xe9 in line 2\. .*'ann;Caf\u00e9, or.* state `encoding: windows-1252`"
        ):
            load_table(path, GERMAN)
    stated = {"encoding": encoding} if encoding in ("windows-1252", "latin-1") else {}
    assert load_table(path, GERMAN | stated).frame["prompt"][0] == "Caf\u00e9, or not?"
    with pytest.raises(JudgementError, match="'utf-99' is not an encoding"):
        load_table(path, GERMAN | {"encoding": "utf-99"})


def test_row_names_of_r_and_separators_at_the_end(tmp_path):
    path = tmp_path / "a.csv"
    head, *rows = TEXT.splitlines()
    path.write_text("\n".join([head, *(f"{i};{row}" for i, row in enumerate(rows, 1))]))
    assert chosen(load_table(path, GERMAN)) == ["ja", "nein", "nein", "ja"]
    path.write_text("\n".join([head, *(f"{row};" for row in rows)]))
    assert chosen(load_table(path, GERMAN)) == ["ja", "nein", "nein", "ja"]
    path.write_text("\n".join([head, *rows, "cy;Tea?;ja;perhaps"]))
    with pytest.raises(JudgementError, match=r"row 6 has 4 fields, and the first row names 3.*needs quotes"):
        load_table(path, GERMAN)
    path.write_text("who,who,answer\n1,2,3\n")
    with pytest.raises(JudgementError, match="has the column 'who' more than once"):
        load_table(path, GERMAN)
    path.write_text("")
    with pytest.raises(JudgementError, match="it is empty"):
        load_table(path, GERMAN)


def test_decimal_commas_where_the_map_says_so(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "who;ask;say;vote;heft\nann;Q;x;1,5;1.234,5\nann;Q;y;2,5;1.234,5\nbob;Q;x;3,5;2\nbob;Q;y;\u22121,5;2\n"
    )
    columns = {"rater_id": "who", "prompt": "ask", "response": "say", "rating": "vote", "rater_weight": "heft"}
    with pytest.raises(JudgementError, match=r"'1,5' is text in a column of numbers\..* state decimal: ','"):
        load_table(path, {"columns": columns})
    frame = load_table(path, {"columns": columns, "decimal": ",", "thousands": "."}).frame
    assert frame["rating"].tolist() == [1.5, 2.5, 3.5, -1.5]
    assert frame["rater_weight"].tolist() == [1234.5, 1234.5, 2, 2]
    with pytest.raises(JudgementError, match=r"thousands: '\.' is the decimal sign too"):
        load_table(path, {"columns": columns, "thousands": "."})


def test_missing_values_are_recoded_in_answers_and_traits_but_not_in_ids(tmp_path):
    frame = table(["yes", "-1", "no", "yes", "99", "NA"], who=[99, 99, -1, -1, 3, 3]).assign(
        age=[30, 30, -1, -1, 99, 99]
    )
    path = write(frame, tmp_path / "a.csv")
    mapping = MAP | {"traits": {"age": "age"}, "missing": ["NA", -1, 99]}
    with pytest.warns(JudgementWarning, match="3 of 6 rows of a.csv dropped"):
        judgements = load_table(path, mapping)
    assert judgements.raters == ["99", "-1"]
    assert judgements.frame["rater:age"].tolist() == ["30", None, None]
    with pytest.raises(JudgementError, match="missing: 'no' is an option or a level, too"):
        load_table(path, mapping | {"missing": ["no"]})
    with pytest.warns(JudgementWarning, match="missing: 'n/a' occurs in no cell"):
        load_table(path, mapping | {"missing": ["NA", -1, 99, "n/a"]})
