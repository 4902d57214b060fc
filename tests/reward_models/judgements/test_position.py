"""Pairs in which the place of a response explains every answer, so that nothing is learnt of the texts."""

from __future__ import annotations

import pandas as pd
import pytest

from reward_models import Judgements


def shown(choices, first):
    answers = enumerate(zip(choices, first, strict=True))
    rows = [(f"r{i % 4}", f"Which {i // 4}?", "Tea.", "Coffee.", choice, side) for i, (choice, side) in answers]
    columns = ["rater_id", "prompt", "response_a", "response_b", "choice", "shown_first"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("choices", "first", "place"),
    [
        (["a"] * 12, ["a"] * 12, "first"),
        (["a", "b"] * 6, ["a", "b"] * 6, "first"),
        (["a", "b"] * 6, ["b", "a"] * 6, "second"),
        (["a", "tie", "a"] * 5, ["a", "b", "a"] * 5, "first"),
        (["a"] * 11 + ["b"], ["a"] * 12, None),
        (["a"] * 12, ["a"] * 11 + [None], None),
        (["a"] * 8, ["a"] * 8, None),
    ],
)
def test_a_place_that_explains_all_answers_is_said(choices, first, place, recwarn):
    Judgements.from_frame(shown(choices, first))
    said = [str(w.message) for w in recwarn if "'shown_first'" in str(w.message)]
    assert len(said) == (place is not None)
    assert all(f"prefers the response that was shown {place}, so that its place explains" in text for text in said)
