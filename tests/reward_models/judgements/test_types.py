"""A frame is typed by its owner; what its types leave open is refused, and texts are compared in one Unicode form."""

import re

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.judgements.records import Judgements


pytestmark = pytest.mark.filterwarnings("ignore:.* have one judgement:reward_models.errors.JudgementWarning")
NFC, NFD = "caf\u00e9", "cafe\u0301"


def survey(choice, options=("yes", "no"), **changes):
    columns = {"rater_id": ["ann", "ann", "bob", "bob"], "prompt": ["Tea?", "Pet?"] * 2}
    columns |= {"options": options if isinstance(options, list) else [options] * 4}
    return pd.DataFrame(columns | {"choice": choice} | changes)


def test_an_integer_is_an_index_and_a_text_is_an_option():
    assert Judgements.from_frame(survey([0, 1, 1, 0])).frame["choice"].tolist() == [0, 1, 1, 0]
    assert Judgements.from_frame(survey(["1", "2", "2", "1"], ("2", "1"))).frame["choice"].tolist() == [1, 0, 0, 1]
    assert Judgements.from_frame(survey([0, 1, 1, 0], ("0", "1"))).frame["choice"].tolist() == [0, 1, 1, 0]
    assert Judgements.from_frame(survey(["1", 2, 2.0, "1"]), index=1).frame["choice"].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("choice", "options", "message"),
    [
        (
            [1, 2, 3, 1],
            ("1", "2", "3", "4"),
            "1 is an option by its text, and option '2' as an index. Values: 1 (2 times), 2, 3. Fix: state index",
        ),
        (
            [1.0, 0.0, 0.0, 1.0],
            ("yes", "no"),
            "1.0 is a float, and would be option 'no' as an index. Values: 1.0 (2 times), 0.0 (2 times). Fix: if",
        ),
        (
            [True, False, False, True],
            ("yes", "no"),
            "True is not one of the options 'yes', 'no'. Values: True (2 times), False (2 times). Fix: recode it",
        ),
        (
            ["1", "0", "0", "1"],
            ("yes", "no"),
            "'1' is not one of the options 'yes', 'no'. Values: '1' (2 times), '0' (2 times). Fix: if it counts",
        ),
    ],
)
def test_what_the_type_leaves_open_is_refused_with_the_fix(choice, options, message):
    with pytest.raises(JudgementError, match=re.escape(message)):
        Judgements.from_frame(survey(choice, options))


def test_truth_values_are_no_numbers():
    assert Judgements.from_frame(survey([True, False] * 2, ("TRUE", "FALSE"))).frame["choice"].tolist() == [0, 1, 0, 1]
    with pytest.raises(JudgementError, match="True is not a number of at least 0"):
        Judgements.from_frame(survey([0, 1, 1, 0], rater_weight=[True, True, False, True]))
    votes = pd.DataFrame({"rater_id": ["a", "b"], "prompt": "Q", "response": "x", "rating": [True, False]})
    with pytest.raises(JudgementError, match="True is text in a column of numbers"):
        Judgements.from_frame(votes)
    pairs = pd.DataFrame({"rater_id": ["a", "b"], "prompt": "Q", "response_a": "x", "response_b": "y", "choice": "a"})
    with pytest.raises(JudgementError, match="True is not 'a' or 'b'"):
        Judgements.from_frame(pairs.assign(shown_first=[True, False]))


def test_ids_that_lost_digits_as_floats_are_refused():
    ids = [float(2**60 + 1), float(2**60 + 1), 2.0, 2.0]
    with pytest.raises(
        JudgementError, match=r"is a float and has lost its last digits\. Fix: read the column as text"
    ):
        Judgements.from_frame(survey([0, 1, 1, 0], rater_id=ids))


def test_two_unicode_forms_are_one_rater_one_item_one_option_and_one_trait():
    table = survey(
        [NFC, "no", NFD, "no"],
        rater_id=[NFC, NFD, "bob", "bob"],
        prompt=[f"A {NFC}?", "Pet?", f"A {NFD}?", "Pet?"],
        options=[(NFD, "no"), (NFC, "no")] * 2,
        **{"rater:town": [NFC, NFD, "x", "x"]},
    )
    judgements = Judgements.from_frame(table)
    enc = judgements.encode()
    assert (judgements.raters, judgements.n_items, enc.n_texts) == ([NFC, "bob"], 2, 4)
    assert judgements.frame["choice"].tolist() == [0, 1, 0, 1]
    assert judgements.frame["rater:town"].tolist() == [NFC, NFC, "x", "x"]
    chats = [[{"role": "user", "content": text}] for text in (f"A {NFC}?", "Pet?", f"A {NFD}?", "Pet?")]
    assert Judgements.from_frame(survey([0, 1, 1, 0], prompt=chats)).n_items == 2
    pair = {"rater_id": "ann", "prompt": "Q", "choice": "a"}
    rows = [
        pair | {"response_a": NFC, "response_b": "x"},
        pair | {"rater_id": "bob", "response_a": NFD, "response_b": "x"},
    ]
    assert Judgements.from_dataset(rows).encode().n_texts == 2
    before = {"role": "user", "content": NFC}, {"role": "user", "content": NFD}
    answers = [{"role": "assistant", "content": text} for text in "ab"]
    chat = {"chosen": [before[0], answers[0]], "rejected": [before[1], answers[1]]}
    assert Judgements.from_dataset([chat]).frame["prompt"][0] == [before[0]]


def test_a_pair_of_a_response_with_itself_is_refused():
    pairs = {"rater_id": ["a", "b"], "prompt": "Q", "response_a": [NFC, "x"], "response_b": [NFD, "y"], "choice": "a"}
    with pytest.raises(
        JudgementError, match=r"row 0, column 'response_b': 'caf.' is the same text as response_a\. Fix: drop"
    ):
        Judgements.from_frame(pd.DataFrame(pairs))


# ── duplicates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def repeated():
    """Ann answers the first question three times: yes, no, yes."""
    table = survey([0, 1, 1, 0])
    return pd.concat([table, table.iloc[[0, 0]].assign(choice=[1, 0])], ignore_index=True)


@pytest.mark.parametrize(
    ("duplicates", "choices"), [("first", [0, 1, 1, 0]), ("last", [1, 1, 0, 0]), ("drop", [1, 1, 0])]
)
def test_duplicates_are_kept_as_asked(duplicates, choices):
    with pytest.warns(
        JudgementWarning, match="1 times a rater judged an item more than once, and 1 times in different"
    ):
        judgements = Judgements.from_frame(repeated(), duplicates=duplicates)
    assert judgements.frame["choice"].tolist() == choices
    assert judgements.frame.index.tolist() == list(range(len(choices)))


def test_duplicates_are_refused_with_the_way_on():
    with pytest.raises(
        JudgementError, match=r"already in row 0\. Fix: keep one of the two with duplicates='first' or 'last'"
    ):
        Judgements.from_frame(repeated())
    with pytest.raises(JudgementError, match=r"duplicates='lst' is not known\. Did you mean 'last'"):
        Judgements.from_frame(repeated(), duplicates="lst")


def test_a_pair_judged_the_same_way_in_both_orders_does_not_contradict_itself():
    pairs = pd.DataFrame(
        {"rater_id": "ann", "prompt": "Q", "response_a": ["x", "y"], "response_b": ["y", "x"], "choice": ["a", "b"]}
    )
    with pytest.warns(JudgementWarning, match="1 times a rater .*, and 0 times in different ways; the first is kept"):
        assert len(Judgements.from_frame(pairs, duplicates="first")) == 1


def test_raters_with_contradicting_traits_may_be_ids_that_restart():
    table = survey([0, 1, 1, 0], **{"rater:age": ["30", "50", "20", "20"]})
    with pytest.warns(
        JudgementWarning, match=r"'rater:age': 1 raters have more.*ids restart.*rater_id: \[sample, id\]"
    ):
        Judgements.from_frame(table)


@pytest.mark.parametrize("index", [2, True, "0"])
def test_index_is_0_or_1_and_for_choices(index):
    with pytest.raises(JudgementError, match=r"index=.* is not the number of the first option"):
        Judgements.from_frame(survey([0, 1, 1, 0]), index=index)
    ratings = pd.DataFrame({"rater_id": ["a", "b"], "prompt": "Q", "response": "x", "rating": np.arange(2)})
    with pytest.raises(JudgementError, match="index=0 is set for a 'rating' table"):
        Judgements.from_frame(ratings, index=0)


def test_a_missing_column_is_told_how_to_be_had():
    with pytest.raises(JudgementError, match=r"rater_id.*add a column that says who judged"):
        Judgements.from_dataset([{"prompt": "p", "response_a": "a", "response_b": "b", "choice": "a"}])
    with pytest.raises(JudgementError, match=r"response_b.*add or rename it") as caught:
        Judgements.from_dataset(
            [{"rater_id": "r", "prompt": "p", "response_a": "a", "choice": "a"}], kind="preference"
        )
    assert "who judged" not in str(caught.value)
