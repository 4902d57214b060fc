"""Who sits: composed juries keep their floors, stand wherever weights do, and their draws have their shares."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from plural_rlhf.weights.jury import Jury
from reward_models.errors import JuryError
from reward_models.weights import parse_weights
from tests.juries import eleven_answers


NAMES = ["progressive", "rural", "urban"]


def test_a_jury_is_weights():
    jury = Jury.compose({"progressive": 7, "rural": 5}, name="twelve")
    np.testing.assert_allclose(parse_weights(jury, NAMES, [0.5, 0.3, 0.2]), [7 / 12, 5 / 12, 0])
    assert (jury.size, jury.name, dict(jury)) == (12, "twelve", {"progressive": 7, "rural": 5})
    with pytest.raises(JuryError, match=r"'rurall'.*Did you mean 'rural'"):
        parse_weights(Jury({"rurall": 1}), NAMES, [0.5, 0.3, 0.2])


def test_a_jury_cannot_be_changed_and_survives_pickling():
    jury = Jury({"rural": 5, "urban": 7}, name="twelve")
    with pytest.raises(TypeError):
        jury["rural"] = 6
    with pytest.raises(AttributeError):
        jury.name = "other"
    copy = pickle.loads(pickle.dumps(jury))
    assert copy == jury
    assert copy.name == "twelve"
    assert {jury: 1}[copy] == 1
    assert jury == {"urban": 7, "rural": 5}


def test_a_floor_is_paid_for_in_proportion():
    jury = Jury.compose({"a": 60, "b": 30, "c": 8, "d": 2}, floors={"c": 0.1, "d": 0.1})
    # 80 seats are left for a and b, two to one.
    assert jury.shares() == pytest.approx({"a": 0.8 * 2 / 3, "b": 0.8 / 3, "c": 0.1, "d": 0.1})
    assert jury.size == pytest.approx(100)


def test_paying_may_push_another_below_the_floor():
    # c's raise leaves .7 of .9 to a and b: b would fall from .22 to .171, so it stays at .2, and a pays.
    jury = Jury.compose({"a": 0.68, "b": 0.22, "c": 0.1}, floors={"b": 0.2, "c": 0.3})
    assert jury.shares() == pytest.approx({"a": 0.5, "b": 0.2, "c": 0.3})


def test_a_floor_can_seat_who_was_left_out():
    jury = Jury.compose({"urban": 9}, floors={"rural": 1 / 3})
    assert dict(jury) == pytest.approx({"urban": 6, "rural": 3})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=2, max_size=6).filter(
        lambda rows: max(seats for seats, _ in rows) > 0.1
    ),
    st.floats(0, 1),
)
def test_floors_hold_and_nothing_else_moves_out_of_proportion(rows, part):
    seats, floors = np.array(rows).T
    seats, floors = 100 * seats / seats.max(), part * floors / max(floors.sum(), 1e-9)
    names = [str(k) for k in range(len(rows))]
    share = seats / seats.sum()
    jury = Jury.compose(dict(zip(names, seats, strict=True)), floors=dict(zip(names, floors, strict=True)))
    result = np.array([jury.shares()[name] for name in names])
    assert (result >= floors - 1e-9).all()
    assert result.sum() == pytest.approx(1)
    above = (result > floors + 1e-6) & (share > 1e-9)
    factors = result[above] / share[above]
    if above.any():
        assert np.ptp(factors) < 1e-6
        assert factors.max() <= 1 + 1e-6


def test_the_nearest_jury_that_keeps_the_floors():
    share, floors = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.0, 0.25, 0.2, 0.2])
    solved = minimize(
        lambda v: np.sum(v * np.log(v / share)),
        np.full(4, 0.25),
        bounds=[(max(f, 1e-6), 1) for f in floors],
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1},
        options={"ftol": 1e-14},
    )
    jury = Jury.compose(dict(zip("abcd", share, strict=True)), floors=dict(zip("abcd", floors, strict=True)))
    np.testing.assert_allclose(list(jury.shares().values()), solved.x, atol=1e-5)


def test_floors_that_fill_the_jury_are_the_jury():
    jury = Jury.compose({"a": 98, "b": 1, "c": 1}, floors={"a": 0.2, "b": 0.5, "c": 0.3})
    assert jury.shares() == pytest.approx({"a": 0.2, "b": 0.5, "c": 0.3})


@pytest.mark.parametrize(
    ("floors", "message"),
    [(0.4, "sum to 1.2"), ({"a": -0.1}, "at least 0"), ({"b": float("nan")}, "at least 0")],
)
def test_floors_that_cannot_be_kept(floors, message):
    with pytest.raises(JuryError, match=message):
        Jury.compose({"a": 1, "b": 1, "c": 1}, floors=floors)


def test_the_population():
    scorer = eleven_answers()
    assert Jury.population(scorer) == {"most": 0.6, "some": 0.3, "few": 0.1}
    assert Jury.population(["a", "b"], [3, 1]).shares() == {"a": 0.75, "b": 0.25}
    with pytest.raises(JuryError, match=r"2 names need .* not None"):
        Jury.population(["a", "b"])


def test_who_would_sit_instead():
    jury = Jury({"progressive": 7, "rural": 5})
    assert jury.counterfactual({"rural": 3, "urban": 2}) == {"progressive": 7, "rural": 8, "urban": 2}
    assert jury.replace(rural=8) == jury.counterfactual({"rural": +3})
    assert jury.replace({"far north": 1}) == {"progressive": 7, "rural": 5, "far north": 1}
    assert jury.counterfactual({"rural": -5})["rural"] == 0
    assert jury == {"progressive": 7, "rural": 5}
    with pytest.raises(JuryError, match="'rural' has 5 seats and cannot lose 6"):
        jury.counterfactual({"rural": -6})


def test_a_mixture_is_between_the_two():
    mixed = Jury({"a": 6, "b": 6}).mix({"b": 1, "c": 3}, share=0.25)
    assert dict(mixed) == pytest.approx({"a": 4.5, "b": 4.5 + 0.75, "c": 2.25})
    with pytest.raises(JuryError, match="from 0 to 1"):
        mixed.mix(mixed, 1.5)


def test_drawn_juries_have_the_shares_on_average():
    jury = Jury({"progressive": 7, "rural": 5})
    seats = jury.sample(n_seats=12, draws=20_000, seed=1, cluster_names=NAMES)
    assert seats.shape == (20_000, 3)
    assert (seats.sum(axis=1) == 12).all()
    np.testing.assert_allclose(seats.mean(axis=0), [7, 5, 0], atol=0.05)
    # The seats of the rural are binomial: 12 · 5/12 · 7/12.
    assert seats[:, 1].var() == pytest.approx(35 / 12, rel=0.05)
    assert (jury.sample(seed=3) == jury.sample(seed=3)).all()
    with pytest.raises(JuryError, match="n_seats is 0"):
        jury.sample(n_seats=0)


def test_raters_make_up_a_jury():
    memberships = [[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]
    assert Jury.from_memberships(NAMES, memberships).shares() == pytest.approx(
        {"progressive": 0.4, "rural": 0.8 / 3, "urban": 1 / 3}
    )
    weighted = Jury.from_memberships(NAMES, memberships, rater_weights=[0, 2, 2])
    assert weighted.shares() == pytest.approx({"progressive": 0.1, "rural": 0.4, "urban": 0.5})
    with pytest.raises(JuryError, match="rater 1 are"):
        Jury.from_memberships(["a", "b"], [[0.5, 0.5], [0.5, 0.6]])
    with pytest.raises(JuryError, match="do not fit 3 clusters"):
        Jury.from_memberships(NAMES, [[0.5, 0.5]])
    with pytest.raises(JuryError, match="rater weights"):
        Jury.from_memberships(["a", "b"], [[0.5, 0.5]], rater_weights=[0])


def test_a_wish_listed_twice_counts_once():
    rng = np.random.default_rng(0)
    wishes = rng.normal(size=(400, 2))
    # The second of three heads is the first on another scale, and shifted by a number per prompt.
    prompt = np.repeat(np.arange(40), 10)
    shift = rng.normal(scale=5, size=40)[prompt]
    rewards = np.column_stack([wishes[:, 0], 3 * wishes[:, 0] + shift, wishes[:, 1]])
    jury = Jury.clone_robust(NAMES, [1, 1, 1], rewards, group=prompt)
    np.testing.assert_allclose(list(jury.values()), [1 / 4, 1 / 4, 1 / 2])
    apart = Jury.clone_robust(NAMES, [1, 1, 1], np.column_stack([wishes, rng.normal(size=400)]))
    np.testing.assert_allclose(list(apart.values()), np.full(3, 1 / 3))
    with pytest.raises(JuryError, match="'rural' gives all texts"):
        Jury.clone_robust(NAMES, [1, 1, 1], np.column_stack([wishes[:, 0], prompt, wishes[:, 1]]), group=prompt)


def test_clusters_share_by_degrees():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(200, 3))
    basis = np.linalg.qr(scores - scores.mean(axis=0))[0]  # orthonormal and centred: correlations are exact
    alike = 0.95 * basis[:, 0] + np.sqrt(1 - 0.95**2) * basis[:, 1]
    jury = Jury.clone_robust(NAMES, [1, 1, 1], np.column_stack([basis[:, 0], alike, basis[:, 2]]), threshold=0.9)
    density = 1 + ((0.95 - 0.9) / 0.1) ** 2
    expected = np.array([1 / density, 1 / density, 1])
    np.testing.assert_allclose(list(jury.values()), expected / expected.sum())


@pytest.mark.parametrize(
    ("seats", "message"),
    [
        ({"a": -1, "b": 2}, r"\[-1.0, 2.0\]: every one must be a number of at least 0"),
        ({"a": float("nan")}, r"\[nan\]: every one must be a number of at least 0"),
        ({"a": 0, "b": 0}, "all zero, so nobody is on the jury"),
        ({}, "all zero, so nobody is on the jury"),
    ],
)
def test_seats_that_are_no_weights_have_no_shares(seats, message):
    with pytest.raises(JuryError, match=message):
        Jury(seats).shares()
