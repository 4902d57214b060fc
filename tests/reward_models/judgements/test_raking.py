"""Raked raters add up to the population, at the least cost, and contradictions are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from reward_models.errors import JudgementError
from reward_models.judgements.raking import rake, rater_traits
from reward_models.judgements.records import Judgements


AGE = {"young": 0.3, "middle": 0.45, "old": 0.25}
PARTY = {"left": 0.5, "right": 0.5}


@pytest.fixture
def crowd() -> pd.DataFrame:
    """Sixty raters: too young, too far left, and the two go together."""
    rng = np.random.default_rng(0)
    age = rng.choice(list(AGE), size=60, p=[0.6, 0.25, 0.15])
    party = np.where(rng.random(60) < np.where(age == "young", 0.8, 0.5), "left", "right")
    return pd.DataFrame({"age": age, "party": party})


def shares(values, weights) -> dict[str, float]:
    return (pd.Series(weights).groupby(np.asarray(values)).sum() / np.sum(weights)).to_dict()


def test_margins_are_met(crowd):
    raking = rake(crowd, {"age": AGE, "party": PARTY})
    assert shares(crowd["age"], raking.weights) == pytest.approx(AGE, abs=2e-6)
    assert shares(crowd["party"], raking.weights) == pytest.approx(PARTY, abs=2e-6)
    assert raking.weights.mean() == pytest.approx(1)
    assert raking.worst_gap <= 1e-6


def test_the_nearest_weights_that_meet_the_margins(crowd):
    indicators = np.stack(
        [*((crowd["age"] == v).to_numpy(float) for v in AGE), (crowd["party"] == "left").to_numpy(float)]
    )
    target = np.array([*AGE.values(), PARTY["left"]])
    solved = minimize(
        lambda w: np.sum(w * np.log(60 * w)),
        np.full(60, 1 / 60),
        jac=lambda w: np.log(60 * w) + 1,
        bounds=[(1e-9, 1)] * 60,
        constraints={"type": "eq", "fun": lambda w: indicators @ w - target, "jac": lambda w: indicators},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    raking = rake(crowd, {"age": AGE, "party": PARTY}, tol=1e-10)
    np.testing.assert_allclose(raking.weights, 60 * solved.x, atol=1e-4)


def test_one_trait_is_post_stratification():
    raking = rake({"region": ["north"] * 3 + ["south"]}, {"region": {"north": 0.5, "south": 0.5}})
    np.testing.assert_allclose(raking.weights, [2 / 3, 2 / 3, 2 / 3, 2])
    # Kish by hand: 4 · (3 · 4/9 + 4) / 16 = 4/3.
    assert raking.design_effect == pytest.approx(4 / 3)
    assert raking.effective_n == pytest.approx(3)


def test_shares_that_were_rounded_count_as_parts_of_their_sum():
    raking = rake(
        {"region": ["north", "south", "south", "west"]}, {"region": dict.fromkeys(("north", "south", "west"), 0.3333)}
    )
    np.testing.assert_allclose(raking.weights, [4 / 3, 2 / 3, 2 / 3, 4 / 3])
    assert raking.worst_gap <= 1e-12


def test_a_sample_like_the_population_is_left_alone():
    raking = rake({"sex": ["f", "m"] * 5}, {"sex": {"f": 0.5, "m": 0.5}})
    np.testing.assert_allclose(raking.weights, 1)
    assert (raking.design_effect, raking.effective_n, raking.iterations) == (1, 10, 1)


def test_trimming_bounds_the_weights_and_says_what_it_cost():
    traits = {"region": ["north"] * 18 + ["south"] * 2, "sex": ["f", "m"] * 10}
    margins = {"region": {"north": 0.5, "south": 0.5}, "sex": {"f": 0.5, "m": 0.5}}
    free, trimmed = rake(traits, margins), rake(traits, margins, trim=3.0)
    assert free.weights.max() == pytest.approx(5)
    assert trimmed.weights.max() == pytest.approx(3)
    assert trimmed.weights.mean() == pytest.approx(1)
    assert trimmed.design_effect < free.design_effect
    # Two raters of three times the mean are 6 of 20.
    assert trimmed.worst_gap == pytest.approx(0.5 - 0.3)
    assert trimmed.worst_trait[0] == "region"
    loose = rake(traits, margins, trim=6.0)
    np.testing.assert_allclose(loose.weights, free.weights)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_raters_who_did_not_say(missing):
    traits = {"sex": ["f", "f", "f", "m", missing], "town": ["x", "y", "x", "y", "x"]}
    margins = {"sex": {"f": 0.5, "m": 0.5}}
    kept = rake(traits, margins)
    np.testing.assert_allclose(kept.weights, [2 / 3, 2 / 3, 2 / 3, 2, 1])
    dropped = rake(traits, margins, missing="drop")
    np.testing.assert_allclose(dropped.weights, [2 / 3, 2 / 3, 2 / 3, 2, 0])
    assert dropped.effective_n == pytest.approx(3)
    with pytest.raises(JudgementError, match="1 raters have no value"):
        rake(traits, margins, missing="error")


def test_every_contradiction_is_named_at_once():
    traits = {"age": ["young", "young", "old"], "sex": ["f", "m", "x"]}
    with pytest.raises(JudgementError, match="regoin") as error:
        rake(
            traits,
            {
                "age": {"young": 0.4, "old": 0.4, "ancient": 0.2, "unborn": 0.1},
                "sex": {"f": 0.5, "m": 0.5},
                "regoin": {"north": 1},
            },
        )
    message = str(error.value)
    assert "the shares sum to 1.1" in message
    assert "no rater has the value 'ancient', whose share is 0.2" in message
    assert "1 raters have the value 'x', which has no share" in message
    assert "no rater has a trait 'regoin'" in message


def test_a_share_of_zero_leaves_raters_out():
    raking = rake({"sex": ["f", "m", "x"]}, {"sex": {"f": 0.5, "m": 0.5, "x": 0}})
    assert raking.weights.tolist() == pytest.approx([1, 1, 0])
    assert raking.effective_n == pytest.approx(2)


def test_margins_that_empty_cells_make_impossible():
    # All the old are on the right: 40 % old and 30 % right cannot be.
    traits = {"age": ["old", "old", "young", "young"], "party": ["right", "right", "left", "right"]}
    margins = {"age": {"old": 0.4, "young": 0.6}, "party": {"left": 0.7, "right": 0.3}}
    with pytest.raises(
        JudgementError, match=r"did not converge in 50 rounds: the share of (age|party)='\w+' is still"
    ):
        rake(traits, margins, max_iter=50)


def test_zero_shares_that_leave_nobody():
    traits = {"age": ["old", "young"], "party": ["left", "right"]}
    margins = {"age": {"old": 0, "young": 1}, "party": {"left": 1, "right": 0}}
    with pytest.raises(JudgementError, match="did not converge"):
        rake(traits, margins, max_iter=5)


def test_dropping_everybody_of_a_value_is_refused():
    traits = {"sex": ["f", "m"], "age": ["old", None]}
    with pytest.raises(JudgementError, match="every rater with sex='m' lacks another trait"):
        rake(traits, {"sex": {"f": 0.5, "m": 0.5}, "age": {"old": 1.0}}, missing="drop")


@pytest.mark.parametrize("option", [{"max_iter": 0}, {"tol": 0.0}, {"trim": 1.0}, {"missing": "ignore"}])
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        rake({"sex": ["f", "m"]}, {"sex": {"f": 0.5, "m": 0.5}}, **option)


def judgements(**columns) -> Judgements:
    frame = pd.DataFrame(
        {
            "rater_id": ["ann", "ann", "bob", "bob", "cem", "cem"],
            "prompt": ["Tea or coffee?", "Cats or dogs?"] * 3,
            "options": [["tea", "coffee"], ["cats", "dogs"]] * 3,
            "choice": [0, 1, 1, 1, 0, 0],
            **columns,
        }
    )
    return Judgements.from_frame(frame)


def test_the_traits_of_a_judgement_table():
    table = judgements(**{"rater:age": [30, 30, None, None, 50, 50], "rater:sex": ["f", "f", "m", "m", "m", "m"]})
    traits = rater_traits(table)
    assert traits.index.tolist() == table.raters
    assert traits["age"].tolist()[::2] == ["30", "50"]
    # Of three: Ann is the women, a fifth; Cem thrice as much as Ann; Bob, whose age is unknown, the rest of the men.
    raking = rake(traits, {"age": {30: 0.25, 50: 0.75}, "sex": {"f": 0.2, "m": 0.8}})
    np.testing.assert_allclose(raking.weights, [0.6, 0.6, 1.8], atol=1e-4)


def test_a_table_without_traits():
    with pytest.raises(JudgementError, match="3 raters and 0 columns rater:<trait>"):
        rater_traits(judgements())
