"""Raters described in words: whose words stand before what, for policies and for juries."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.methods.modular import answered_texts
from plural_rlhf.methods.words import described_answers, described_judgements, public_in_words, rater_words
from plural_rlhf.weights.wording import POPULATION
from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.jury.fitting.vector_jury import fit_vector_jury


TOPICS = ("trams", "parks", "roads", "shops")


def survey(number: int = 60) -> Judgements:
    """Towns say yes, villages no; of every tenth person the place is unknown."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(number):
        place = None if person % 10 == 9 else ("town", "village")[person % 2]
        yes = {"town": 0.9, "village": 0.1, None: 0.5}[place]
        rows += [
            {
                "rater_id": f"r{person:02}",
                "rater:place": place,
                "rater:age": 20 + person,
                "item_id": topic,
                "prompt": f"More {topic}?",
                "options": ["yes", "no"],
                "choice": int(rng.random() > yes),
            }
            for topic in TOPICS
        ]
    return Judgements.from_frame(pd.DataFrame(rows), kind="choice")


def test_every_answer_stands_once_after_its_raters_words():
    table = survey()
    words = rater_words(table, ["place"])
    assert set(words.values()) == {POPULATION, *(public_in_words({"place": p}) for p in ("town", "village"))}
    rows = described_answers(table, ["place"], undescribed=0.0, layouts=["line"], shuffled=False)
    found = Counter(
        (r["prompt"][0]["content"], r["prompt"][-1]["content"], r["completion"][0]["content"]) for r in rows
    )
    expected: Counter[tuple[str, str, str]] = Counter()
    for row in table.frame.to_dict("records"):
        asked = f"{row['prompt']} yes; no?"
        expected[words[row["rater_id"]], asked, row["options"][row["choice"]]] += 1
    assert found == expected


def test_without_words_the_rows_are_those_of_everybody():
    table = survey()
    plain = {"layouts": ["line"], "shuffled": False}
    rows = described_answers(table, ["place"], undescribed=1.0, **plain)
    assert {row["prompt"][0]["content"] for row in rows} == {POPULATION}

    def asked(rows: list) -> Counter:
        return Counter((r["prompt"][-1]["content"], r["completion"][0]["content"]) for r in rows)

    assert asked(rows) == asked(answered_texts(table, table.raters, **plain))


def test_raters_of_other_words_are_asked_in_every_form_too():
    """Each person has words of their own: one draw for all of the same words would be one form a person."""
    rows = described_answers(survey(), ["age"], undescribed=0.0)
    forms = Counter(row["prompt"][-1]["content"].removeprefix("More ").split("?", 1)[1] for row in rows)
    assert set(forms) == {
        " yes; no?", " no; yes?", "\n- yes\n- no\nAnswer:", "\n- no\n- yes\nAnswer:",
        " Choose one answer: yes, or no.", " Choose one answer: no, or yes.",
    }  # fmt: skip
    assert min(forms.values()) > 20  # of 240, 40 expected, standard deviation 6


def test_the_undescribed_share_is_drawn_by_the_seed():
    table = survey()
    shares = [
        np.mean([row["prompt"][0]["content"] == POPULATION for row in described_answers(table, ["age"], seed=seed)])
        for seed in (0, 1)
    ]
    assert shares == pytest.approx([0.25, 0.25], abs=0.1)
    assert described_answers(table, ["age"], seed=0) == described_answers(table, ["age"], seed=0)
    assert described_answers(table, ["age"], seed=0) != described_answers(table, ["age"], seed=1)


def test_quantities_are_groups():
    assert len(set(rater_words(survey(), ["age"]).values())) == 6


def test_a_jury_that_reads_words_tells_groups_apart_on_a_question_nobody_was_asked():
    """Vectors: the place and the topic. Words of a town and a new topic get what towns like."""
    described = described_judgements(survey(), ["place"])
    assert described.n_items == 3 * len(TOPICS)
    texts = described.encode().texts

    def vector(words: str, topic: str, response: str) -> list[float]:
        place = ("town" in words) - float("village" in words)
        return [place * (response == "yes"), float(response == "yes"), *[float(topic == t) for t in TOPICS]]

    rows = []
    for text in texts:
        (_, words), (_, asked) = text.prompt
        rows.append(vector(words, asked.removeprefix("More ").removesuffix("?"), text.response))
    jury = fit_vector_jury(described, np.array(rows), clusters=1)
    for place, least, most in (("town", 0.75, 1.0), ("village", 0.0, 0.25)):
        new = np.array([vector(place, "pools", response) for response in ("yes", "no")])
        rewards = jury.cluster_rewards(new)[:, 0]
        assert least < 1 / (1 + np.exp(rewards[1] - rewards[0])) < most


def test_a_trait_that_is_not_there_is_named():
    with pytest.raises(JudgementError, match=r"'plase' is none of them\. Did you mean 'place'"):
        described_answers(survey(), ["plase"])
    with pytest.raises(JudgementError, match="none is named"):
        described_judgements(survey(), [])
    with pytest.raises(JudgementError, match=r"undescribed=2 is no share"):
        described_answers(survey(), ["place"], undescribed=2)
