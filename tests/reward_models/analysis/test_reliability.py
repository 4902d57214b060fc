"""Agreement, repetition and answering styles, on tables whose raters are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models import Judgements, krippendorff_alpha, planted_judgements, reliability
from reward_models.analysis.reliability import rater_styles, retest


def table(answers, options=("no", "maybe", "yes"), names=None):
    """Choices of (R, I) raters and items."""
    rows = [
        {"rater_id": f"r{u}", "item_id": f"q{i}", "prompt": (names or {}).get(i, f"Question {i}?"),
         "options": list(options), "choice": int(answer)}
        for u, row in enumerate(answers)
        for i, answer in enumerate(row)
        if answer >= 0
    ]  # fmt: skip
    return Judgements.from_frame(pd.DataFrame(rows), kind="choice").encode()


def test_straight_lines_are_counted_beside_what_chance_gives():
    rng = np.random.default_rng(0)
    answers = rng.integers(3, size=(100, 6))
    answers[:10] = answers[:10, :1]
    found = reliability(table(answers))
    assert found.straight_liners == pytest.approx(0.1, abs=0.011)
    assert found.expected_straight_liners < 0.01
    agree = np.full((50, 6), 2)
    agree[::10, 0] = 0  # nearly everybody says yes to everything: no sign of careless answers
    found = reliability(table(agree))
    assert found.straight_liners == pytest.approx(0.9)
    assert found.expected_straight_liners == pytest.approx(0.9, abs=1e-9)


def test_acquiescence_is_a_tendency_that_lasts():
    rng = np.random.default_rng(1)
    lean = rng.normal(size=200)
    answers = np.clip(np.round(1 + lean[:, None] + 0.7 * rng.normal(size=(200, 12))), 0, 2)
    found = reliability(table(answers))
    estimated = {style.rater_id: style.acquiescence for style in found.styles}
    assert np.corrcoef([estimated[f"r{u}"] for u in range(200)], lean)[0, 1] > 0.9
    assert found.habit > 0.85
    chance = [reliability(table(rng.integers(3, size=(200, 12)))).habit for _ in range(8)]
    assert abs(np.mean(chance)) < 0.2


def test_raters_with_few_answers_and_questions_with_other_options_are_not_judged():
    answers = np.zeros((3, 6), dtype=int)
    answers[2, 4:] = -1
    assert [style.rater_id for style in rater_styles(table(answers))] == ["r0", "r1"]
    assert rater_styles(planted_judgements("preference", num_raters=5, num_items=6).judgements.encode()) == []


def test_repeated_judgements_are_compared_and_chance_is_taken_off():
    """Of 40 raters 30 repeat a yes/no answer; half say yes each time, so that chance alone gives .5."""
    first = np.repeat([0, 1], 20)
    second = np.where(np.arange(40) % 4 == 0, 1 - first, first)
    other = np.tile([0, 1], 20)
    enc = table(np.stack([first, second, other], axis=1), ("no", "yes"), names={0: "Parks?", 1: "Parks?"})
    found = retest(enc)
    assert (found.n_pairs, found.n_raters) == (40, 40)
    assert found.agreement == pytest.approx(0.75)
    assert found.kappa == pytest.approx(0.5)
    assert found.low < 0.75 < found.high
    assert retest(table(np.stack([first, other], axis=1), ("no", "yes"))) is None


def test_alpha_is_that_of_the_answers_with_an_interval_over_items():
    enc = planted_judgements("rating", num_raters=40, num_items=10).judgements.encode()
    found = reliability(enc)
    assert found.alpha == krippendorff_alpha(enc.answer_matrix(), "ordinal", missing=-1)
    assert found.alpha_low < found.alpha < found.alpha_high
    few = planted_judgements("rating", num_raters=40, num_items=4).judgements.encode()
    assert np.isnan(reliability(few).alpha_low)
