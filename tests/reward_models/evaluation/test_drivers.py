"""Named features: known effects are found with the others held fixed, and chance is not."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.errors import JuryError
from reward_models.evaluation.style.drivers import reward_drivers
from reward_models.evaluation.style.text_features import STYLE_FEATURES, content_words, style_features
from reward_models.judgements.texts import Text


WORDS = ["police", "campus", "speech", "safety", "money", "students", "protest", "freedom", "parents", "teachers"]


def texts(count=300, prompts=6, seed=0):
    """Responses with lists, questions, first person and content words drawn at random; lists are longer."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        body = " ".join(rng.choice(WORDS, size=rng.integers(3, 25)))
        if rng.random() < 0.4:
            body += "\n- " + "\n- ".join(rng.choice(WORDS, size=6))
        body += "?" * rng.integers(0, 3) + (" I think so" if rng.random() < 0.3 else "")
        out.append(Text(f"question {i % prompts}", f"{body} {i}"))
    return out


def feature(given, name):
    column = style_features([text.response for text in given])[:, list(STYLE_FEATURES).index(name)]
    return (column - column.mean()) / column.std()


def test_what_each_cluster_rewards_and_where_they_disagree():
    given, rng = texts(), np.random.default_rng(1)
    lists, marks = feature(given, "list items"), feature(given, "question marks")
    rewards = np.stack([0.5 * lists, 0.5 * lists - 0.8 * marks], axis=1) + 0.5 * rng.normal(size=(300, 2))
    rewards += np.array([10.0 * int(text.prompt[-1]) for text in given])[:, None]  # prompts differ in level
    found = reward_drivers(given, rewards, ["calm", "sure"])
    got = {(d.what, d.feature): d for d in found.drivers}
    assert {key for key, d in got.items() if d.significant} == {
        ("calm", "list items"),
        ("sure", "list items"),
        ("sure", "question marks"),
        ("calm minus sure", "question marks"),
    }
    assert got["calm", "list items"].low < 0.5 < got["calm", "list items"].high
    assert got["sure", "question marks"].value == pytest.approx(-0.8, abs=0.15)
    assert got["calm", "length"].p_holm == 1.0  # lists are long; length itself is not rewarded
    sentences = found.sentences()
    assert sentences[0].startswith("calm: rewards list items (+0.")
    assert "compared with sure, calm rewards more question marks (+0." in sentences[2]
    assert "question marks" in found.sheets()[0].markdown()
    assert 0.3 < found.explained["sure"] < 0.9


def test_length_alone_would_be_taken_for_lists_without_controls():
    given = texts()
    length, lists = feature(given, "length"), feature(given, "list items")
    assert np.corrcoef(length, lists)[0, 1] > 0.3
    rewards = length[:, None] + 0.3 * np.random.default_rng(2).normal(size=(300, 1))
    found = {d.feature: d for d in reward_drivers(given, rewards, ["all"]).drivers}
    assert found["length"].significant
    assert not found["list items"].significant


def test_chance_is_called_chance():
    """Of twenty juries of noise hardly any gets a star, though 5 % of all plain p-values are below .05."""
    given, stars, small = texts(), 0, []
    for seed in range(20):
        found = reward_drivers(given, np.random.default_rng(seed).normal(size=(300, 2)), ["a", "b"])
        clusters = [d for d in found.drivers if not d.contrast]
        stars += any(d.significant for d in clusters)
        small += [d.p_value < 0.05 for d in clusters]
    assert stars <= 3
    assert 0.02 < np.mean(small) < 0.09
    assert "no feature is told from chance" in found.sentences()[0]


def test_content_words_are_frequent_and_no_form_words():
    words = content_words([text.response for text in texts()], most=20)
    assert set(words) <= set(WORDS)
    assert content_words(["Because they would march", "they should"], most=5, share=(0.0, 1.0)) == ["march"]


def test_too_few_texts_are_refused():
    with pytest.raises(JuryError, match="are too few for"):
        reward_drivers(texts(20), np.zeros((20, 1)), ["a"])
