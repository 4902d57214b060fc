"""Weights over clusters: what a user may write, and that the words of a weighting say exactly which one it is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from plural_rlhf.weights.sampler import sample_weights
from plural_rlhf.weights.wording import POPULATION, describe_weights, steer_prompt, whole_parts
from reward_models.weights import parse_weights


NAMES = ["progressive", "rural", "urban"]
PREVALENCE = [0.5, 0.2, 0.3]


def read_back(text: str) -> np.ndarray:
    """The weights that a description states, by a second method: a regular expression."""
    spec = {name: float(share) for share, name in re.findall(r"(\d+)% (\w+)", text)}
    alone = re.fullmatch(r"Answer as a member of this public: (\w+)\.", text)
    return parse_weights(spec or alone[1], NAMES, PREVALENCE)


def test_the_words_say_which_weights():
    draws = sample_weights(200, PREVALENCE, np.random.default_rng(0), concentration=0.5)
    for weights in [*draws, *np.eye(3)]:
        text = describe_weights(weights, NAMES)
        np.testing.assert_allclose(read_back(text), weights, atol=1e-12)
        assert text == describe_weights(weights.copy(), NAMES)


def test_the_words_depend_on_nothing_but_the_weights():
    by_seats = parse_weights({"rural": 3, "urban": 1}, NAMES, PREVALENCE)
    by_share = parse_weights({"urban": 0.25, "rural": 0.75}, NAMES, PREVALENCE)
    text = "Answer as a member of this public: 75% rural, 25% urban."
    assert describe_weights(by_seats, NAMES) == describe_weights(by_share, NAMES) == text
    assert describe_weights(PREVALENCE, NAMES, PREVALENCE) == POPULATION
    assert describe_weights([0.5, 0.21, 0.29], NAMES, PREVALENCE) != POPULATION
    assert (
        describe_weights(PREVALENCE, NAMES)
        == "Answer as a member of this public: 50% progressive, 30% urban, 20% rural."
    )


@pytest.mark.parametrize(
    ("weights", "parts", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3], 100, [34, 33, 33]),
        ([1 / 6, 1 / 6, 2 / 3], 100, [17, 17, 66]),  # all three lose two thirds: the first two get it back
        ([7 / 12, 5 / 12], 100, [58, 42]),
        ([0.29, 0.71], 100, [29, 71]),  # 0.29 * 100 is a little below 29 in floating point
        ([0.004, 0.996], 100, [0, 100]),
        ([0.07, 0.93], 20, [1, 19]),
        ([1.0], 20, [20]),
    ],
)
def test_rounded_weights_sum_to_all(weights, parts, expected):
    assert whole_parts(weights, parts).tolist() == expected
    assert whole_parts([weights, weights], parts).tolist() == [expected, expected]


def test_percents_in_words_sum_to_a_hundred():
    thirds = describe_weights([1 / 3, 1 / 3, 1 / 3], NAMES)
    assert thirds == "Answer as a member of this public: 34% progressive, 33% rural, 33% urban."
    for weights in np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3], size=200):
        percents = [int(p) for p in re.findall(r"(\d+)%", describe_weights(weights, NAMES))]
        assert sum(percents) in (100, 0)  # none are said of a cluster alone


def test_drawn_weights_are_whole_percents_on_the_simplex():
    draws = sample_weights(500, PREVALENCE, np.random.default_rng(3))
    assert draws.shape == (500, 3)
    assert (draws >= 0).all()
    np.testing.assert_allclose(draws.sum(axis=1), 1)
    np.testing.assert_allclose(draws * 100, np.round(draws * 100), atol=1e-9)
    # Dirichlet(1, 1, 1) has mean 1/3 and variance 1/18 in each coordinate; flooring moves either by less than .01.
    np.testing.assert_allclose(draws.mean(axis=0), 1 / 3, atol=0.04)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 18, atol=0.012)
    np.testing.assert_array_equal(draws, sample_weights(500, PREVALENCE, np.random.default_rng(3)))


def test_steering_text_goes_into_the_system_message():
    user = {"role": "user", "content": "Which?"}
    assert steer_prompt("Which?", "As B.") == "As B.\nWhich?"
    assert steer_prompt([user], "As B.") == [{"role": "system", "content": "As B."}, user]
    polite = [{"role": "system", "content": "Be short."}, user]
    assert steer_prompt(polite, "As B.") == [{"role": "system", "content": "Be short.\nAs B."}, user]
    assert polite[0]["content"] == "Be short."
