"""The integer view of judgements, written out by hand for each kind."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text, as_messages


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")  # the tables are tiny


def test_choice_with_unequal_numbers_of_options():
    rows = [
        ("ann", "Tea or coffee?", ["tea", "coffee"], 1),
        ("bob", "Which pet?", ["cat", "dog", "none"], 2),
        ("bob", "Tea or coffee?", ["tea", "coffee"], 0),
        ("ann", "Which pet?", ["cat", "dog", "none"], 0),
    ]
    e = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])).encode()
    assert e.rater_ids == ["ann", "bob"]
    assert e.texts == [
        Text("Tea or coffee?", "tea"),
        Text("Tea or coffee?", "coffee"),
        Text("Which pet?", "cat"),
        Text("Which pet?", "dog"),
        Text("Which pet?", "none"),
    ]
    assert e.item_alternatives.tolist() == [[0, 1, -1], [2, 3, 4]]
    assert e.alternatives.tolist() == [[0, 1, -1], [2, 3, 4], [0, 1, -1], [2, 3, 4]]  # by rater, then by item
    assert e.label.tolist() == [1, 0, 0, 2]
    assert e.answer_matrix().tolist() == [[1, 0], [0, 2]]
    assert (e.n_raters, e.n_items, e.n_texts, len(e)) == (2, 2, 5, 4)
    assert e.weight.tolist() == [1, 1, 1, 1]
    assert e.shown_first is None
    assert e.probs is None


def test_preference_in_both_orders_is_one_item():
    columns = ["rater_id", "prompt", "response_a", "response_b", "choice", "shown_first"]
    rows = [
        ("ann", "p", "x", "y", "a", "a"),
        ("bob", "p", "y", "x", "a", None),
        ("ann", "q", "x", "z", "tie", "b"),
        ("bob", "q", "z", "x", "tie", 0),
    ]
    e = Judgements.from_frame(pd.DataFrame(rows, columns=columns)).encode()
    assert e.texts == [Text("p", "x"), Text("p", "y"), Text("q", "x"), Text("q", "z")]
    assert e.alternatives.tolist() == [[0, 1], [2, 3], [1, 0], [3, 2]]
    assert e.item.tolist() == [0, 1, 0, 1]
    assert e.item_alternatives.tolist() == [[0, 1], [2, 3]]
    assert e.label.tolist() == [0, 2, 0, 2]
    assert e.shown_first.tolist() == [0, 1, -1, 0]
    # bob preferred y, which the item calls b.
    assert e.answer_matrix().tolist() == [[0, 2], [1, 2]]


def test_rating_counts_levels_from_the_lowest_even_if_unused():
    rows = [("ann", "s", "x", 1), ("ann", "s", "y", -1), ("bob", "s", "x", 1), ("bob", "s", "y", -1)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    e = Judgements.from_frame(frame, levels=[-1, 0, 1]).encode()
    assert e.label.tolist() == [2, 0, 2, 0]
    assert e.alternatives.tolist() == [[0], [1], [0], [1]]
    assert e.levels == (-1.0, 0.0, 1.0)
    assert e.answer_matrix().tolist() == [[2, 0], [2, 0]]


def test_soft_has_shares_weighted_by_the_people_behind_them():
    rows = [("Tea?", ["tea", "coffee"], [0.25, 0.75], 40), ("Which pet?", ["cat", "dog", "none"], [0.2, 0.3, 0.5], 10)]
    e = Judgements.from_frame(pd.DataFrame(rows, columns=["prompt", "options", "probs", "n"])).encode()
    np.testing.assert_allclose(e.probs, [[0.25, 0.75, 0], [0.2, 0.3, 0.5]])
    assert e.weight.tolist() == [40, 10]
    assert e.rater.tolist() == [-1, -1]
    assert e.label.tolist() == [-1, -1]
    assert e.rater_ids == []
    with pytest.raises(ValueError, match="no raters, hence no answer matrix; use probs"):
        e.answer_matrix()


def test_conversational_prompts_become_hashable_and_come_back():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [(r, chat, "Hello", "Go", "a") for r in ("ann", "bob")]
    e = Judgements.from_frame(
        pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    ).encode()
    assert e.n_texts == 2
    assert e.texts[0].prompt == (("system", "Be brief."), ("user", "Hi"))
    assert as_messages(e.texts[0].prompt) == chat
    assert as_messages("Hi") == [{"role": "user", "content": "Hi"}]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), min_size=1, unique_by=lambda t: t[:2])
)
def test_decoding_gives_back_every_judgement(rows):
    rows = [*rows, (8, 0, 0), (9, 0, 1)]  # at least two raters
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{r}" for r, _, _ in rows],
            "prompt": [f"q{i}" for _, i, _ in rows],
            "options": [["no", "maybe", "yes"]] * len(rows),
            "choice": [c for _, _, c in rows],
        }
    )
    judgements = Judgements.from_frame(frame)
    e, frame = judgements.encode(), frame.iloc[judgements.encoded_rows]
    chosen = e.alternatives[np.arange(len(e)), e.label]
    assert [e.texts[t] for t in chosen] == [
        Text(p, o[c]) for p, o, c in zip(frame["prompt"], frame["options"], frame["choice"], strict=True)
    ]
    assert [e.rater_ids[r] for r in e.rater] == frame["rater_id"].tolist()
    matrix = e.answer_matrix()
    assert (matrix >= 0).sum() == len(rows)
    np.testing.assert_array_equal(matrix[e.rater, e.item], e.label)
