import json

import pytest

from plural_rlhf.methods.kaleidoscope import Value, ValuedSituation, ValuesError, read_valued_situations


ROW = {"situation": "lying", "vrd": "Duty", "text": "Duty to be honest", "valence": "Opposes", "explanation": "No."}


def test_the_three_published_shapes_give_the_same_row(tmp_path):
    full = tmp_path / "full.csv"
    full.write_text("situation,vrd,text,valence,explanation\nlying,Duty,Duty to be honest,Opposes,No.\n")
    valence = tmp_path / "valence.csv"
    valence.write_text("action,vrd,text,label,explanation\nlying,Duty,Duty to be honest,opposes,No.\n")
    steerable = tmp_path / "steerable.json"
    item = {
        "situation": "lying",
        "vrd": "Duty to be honest",
        "label_text": "Opposes",
        "label": "B",
        "explanation": "No.",
    }
    steerable.write_text(json.dumps([item]))
    (expected,) = read_valued_situations(full)
    assert (expected.situation, expected.value.text, expected.value.kind) == ("lying", "Duty to be honest", "Duty")
    assert (expected.valence, expected.explanation) == ("opposes", "No.")
    assert read_valued_situations(valence) == read_valued_situations(steerable) == [expected]


def test_an_empty_situation_is_refused_in_code_too():
    with pytest.raises(ValuesError, match=r"the situation is empty \(value 'Honesty'\)"):
        ValuedSituation(" \n", Value("Honesty"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": ""}, "row 2: a value has an empty text"),
        ({"situation": " "}, "row 2: the situation is empty"),
        ({"valence": "maybe"}, "row 2: the valence 'maybe' is unknown"),
        ({"vrd": "Virtue"}, "row 2: kind='Virtue' is unknown"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, words):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (ROW, {**ROW, **change})))
    with pytest.raises(ValuesError, match=words):
        read_valued_situations(path)


def test_a_file_without_values_says_which_columns_it_needs(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("situation,verdict\nlying,wrong\n")
    with pytest.raises(ValuesError, match=r"lacks a column for text: one of text, value\. It has situation, verdict"):
        read_valued_situations(path)


def test_a_row_without_a_valence_is_kept_for_relevance(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("situation,value,valence\nlying,Honesty,\n")
    assert read_valued_situations(path)[0].valence is None


def test_a_key_that_a_row_of_json_has_not_is_an_empty_cell(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW, {"situation": "lying", "text": "Honesty"}]))
    bare = read_valued_situations(path)[1]
    assert (bare.value.kind, bare.valence, bare.explanation) == ("Value", None, "")
    path.write_text(json.dumps([ROW, {"text": "Honesty"}]))
    with pytest.raises(ValuesError, match="row 2: the situation is empty"):
        read_valued_situations(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "has no row. Fix: give situations"),
        ("{", "is not JSON .*Fix: give a list of objects"),
        ("[1, 2]", "is no list of objects in JSON. Fix: give one"),
        ('{"situation": ["lying"], "text": ["Honesty"]}', "is no list of objects in JSON. Fix: give one"),
    ],
)
def test_json_that_is_no_list_of_objects_is_refused(tmp_path, content, words):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(ValuesError, match=words):
        read_valued_situations(path)
