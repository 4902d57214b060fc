"""A choice of clusters that was stopped goes on: nothing is fitted twice, and the result is an unbroken one's."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models import planted_judgements
from reward_models.content_hashes import arrays_hash
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint import choice
from reward_models.fitting.joint.choice import choose_joint
from reward_models.judgements.texts import Text


PLANTED = planted_judgements("rating", num_raters=24, num_items=16)
CANDIDATES = [("mixture", 2), ("factor", 1)]


class Stopped(Exception):
    pass


@pytest.fixture
def fits(monkeypatch):
    """Sizes that were fitted, in order; set `stops_before` to fail as many fits later."""
    real, made = choice.fit_around, []

    def counted(tables, consensus, membership, size, config):
        if len(made) == counted.stops_before:
            raise Stopped
        made.append((membership, size))
        return real(tables, consensus, membership, size, config)

    counted.stops_before = -1
    monkeypatch.setattr(choice, "fit_around", counted)
    return made, counted


def choose(folder, rewards=PLANTED.rewards, **config):
    settings = FitConfig(restarts=1, **config)
    return choose_joint(PLANTED.judgements.encode(), rewards, CANDIDATES, config=settings, cache_dir=folder)


def same(one, other) -> bool:
    return one.table == other.table and one.reason == other.reason and arrays_hash(one.fit) == arrays_hash(other.fit)


@pytest.mark.slow
def test_a_stopped_choice_goes_on_where_it_was(fits, tmp_path):
    made, counted = fits
    unbroken = choose(None)
    every = list(made)
    assert len(every) == 5 * 3 + 1  # five folds with one cluster and two candidates, and the fit to all
    assert not list(tmp_path.iterdir())
    made.clear()
    counted.stops_before = 8
    with pytest.raises(Stopped):
        choose(tmp_path)
    counted.stops_before = -1
    resumed = choose(tmp_path)
    assert made == every
    assert same(resumed, unbroken)
    made.clear()
    assert same(choose(tmp_path), unbroken)
    assert made == every[-1:]


@pytest.mark.slow
def test_what_was_cut_short_or_changed_is_computed_again_and_other_data_never_meets_it(fits, tmp_path):
    made, counted = fits
    unbroken = choose(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 15
    whole = files[0].read_text(encoding="utf-8")
    digit = next(i for i, letter in enumerate(whole) if letter in "123456789")
    files[0].write_text(whole[: len(whole) // 2], encoding="utf-8")
    files[1].write_text("", encoding="utf-8")
    changed = files[2].read_text(encoding="utf-8")
    files[2].write_text(changed[:digit] + str(9 - int(changed[digit])) + changed[digit + 1 :], encoding="utf-8")
    made.clear()
    assert same(choose(tmp_path), unbroken)
    assert len(made) == 3 + 1
    counted.stops_before = len(made)  # the first fit fails: nothing stored was of use
    for other in ({"seed": 1}, {"smoothing": 2.0}, {"rewards": PLANTED.rewards * 1.01}):
        with pytest.raises(Stopped):
            choose(tmp_path, **other)


def test_hashes_of_arrays_tell_bits_types_shapes_and_nesting_apart():
    values = [
        np.zeros(2), np.zeros(2, dtype=np.float32), np.zeros((1, 2)), np.zeros((2, 1)), np.array([0.0, -0.0]),
        [np.zeros(1), np.zeros(1)], [[np.zeros(1)], np.zeros(1)], (np.zeros(2),), {"a": np.zeros(2)},
        {"b": np.zeros(2)}, None, 0, "0", Text("a", "b"), Text("ab", ""), [Text("a", "b")], ["a", "b"], ["ab", ""],
    ]  # fmt: skip
    assert len({arrays_hash(value) for value in values}) == len(values)
    assert arrays_hash(np.arange(6.0).reshape(2, 3).T) == arrays_hash(np.arange(6.0).reshape(2, 3).T.copy())
