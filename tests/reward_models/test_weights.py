"""Weights over clusters: every way to write them, and the reason where they cannot be read."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from reward_models.errors import JuryError
from reward_models.weights import named_weights, parse_weights, weights_from_text


NAMES = ["progressive", "rural", "urban"]
PREVALENCE = [0.5, 0.2, 0.3]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("prevalence", [0.5, 0.2, 0.3]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("rural", [0, 1, 0]),
        ({"progressive": 7, "rural": 5}, [7 / 12, 5 / 12, 0]),
        ([2, 1, 1], [0.5, 0.25, 0.25]),
        (np.array([0.0, 0.0, 4.0]), [0, 0, 1]),
        ("progressive=7, rural=5", [7 / 12, 5 / 12, 0]),
    ],
)
def test_every_way_to_write_weights(spec, expected):
    np.testing.assert_allclose(parse_weights(spec, NAMES, PREVALENCE), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "rurall",
            r"name 'rurall', and there is no such cluster\. Did you mean 'rural'\?.*'rural', 'urban'.*'uniform'",
        ),
        ({"urban": 1, "coastal": 2}, r"name 'coastal'.*clusters are 'progressive', 'rural', 'urban'"),
        (
            [1, 1],
            r"2 weights for 3 clusters \('progressive', 'rural', 'urban'\).*one number per cluster",
        ),
        ({"urban": -1, "rural": 2}, r"\[0\.0, 2\.0, -1\.0\].*at least 0"),
        ([0.5, float("nan"), 0.5], r"nan.*must be a number"),
        ([0, 0, 0], r"all zero, so nobody is on the jury.*positive weight"),
        ({}, r"all zero"),
        ("urban=2,rural", r"'urban=2,rural' cannot be read: 'rural' is not of the form name=share"),
        ("urban=2,urban=1", r"'urban' occurs twice\. Write a number for each cluster"),
        ("urban=,rural=1", r"the share of 'urban' is '', which is not a number"),
        ("urban=many", r"the share of 'urban' is 'many', which is not a number"),
        ("=3", r"'=3' is not of the form name=share"),
        ("urbn=3", r"name 'urbn'.*Did you mean 'urban'"),
        ("urban=-1", r"at least 0"),
    ],
)
def test_weights_that_nobody_can_carry_out_are_refused(spec, message):
    with pytest.raises(JuryError, match=message):
        parse_weights(spec, NAMES, PREVALENCE)


def test_a_name_may_hold_commas_and_signs():
    assert weights_from_text("cars, roads: yes=3, trams=.5") == {"cars, roads: yes": 3.0, "trams": 0.5}
    assert weights_from_text("prevalence") == "prevalence"
    assert weights_from_text("urban=2, ") == {"urban": 2.0}
    assert parse_weights("income=high", ["income=high", "income=low"], [0.5, 0.5]).tolist() == [1, 0]


def test_fractions_that_miss_one_are_taken_as_shares_and_it_is_said():
    with pytest.warns(UserWarning, match=r"sum to 0\.8; the shares used are 'a' 0\.25, 'b' 0\.75"):
        assert named_weights([0.2, 0.6], ["a", "b"]).tolist() == pytest.approx([0.25, 0.75])


def test_a_text_of_weights_is_read_in_linear_time():
    """The regular expression of before needed hours for a name of 50,000 spaces: this would not end."""
    for text in (" " * 50_000 + "=", "a" + " " * 50_000 + "b=1", "," * 50_000 + "=1", "=" * 50_000, "a=1," * 20_000):
        with contextlib.suppress(JuryError):
            weights_from_text(text)
    many = ",".join(f"c{i}={i}" for i in range(20_000))
    assert sum(weights_from_text(many).values()) == 20_000 * 19_999 / 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("urban=1, urban=2", "'urban' occurs twice"),
        ("urban=1,rural", "'rural' is not of the form name=share"),
        ("=1", "'=1' is not of the form"),
        ("  =1", "is not of the form"),
        ("a=1=2", "is not of the form"),
        ("a=", "the share of 'a' is '', which is not a number"),
        ("a=1,,", "',' is not of the form"),
        ("x" * 5000 + "=y", "is 'y', which is not a number"),
    ],
)
def test_a_text_that_is_no_weights_is_refused_in_a_short_message(text, message):
    with pytest.raises(JuryError, match=message) as caught:
        weights_from_text(text)
    assert len(str(caught.value)) < 600


def test_weights_whose_sum_overflows_keep_their_shares():
    assert named_weights([1e308, 1e308, 0.0], ["a", "b", "c"]).tolist() == [0.5, 0.5, 0.0]
