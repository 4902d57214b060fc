"""Bars are shown where somebody asks for them, and nowhere else; they change no result."""

from __future__ import annotations

import time

import pytest

from reward_models import headroom, planted_judgements, progress
from reward_models.progress import counting, progress_bars, track, with_progress_bars


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "PAUSE_IN_A_FILE", 0.001)


def slow(steps):
    for step in steps:
        time.sleep(0.01)
        yield step


def test_bars_are_shown_only_inside_a_block_that_asks_for_them(capsys):
    list(track(slow(range(5)), "quiet"))
    with progress_bars():
        list(track(slow(range(5)), "loud", 5))
        with progress_bars(False):
            list(track(slow(range(5)), "hushed"))
        with counting("optimiser", 3) as step_done:
            for _ in slow(range(3)):
                step_done()
    list(track(slow(range(5)), "quiet"))
    shown = capsys.readouterr().err
    assert "loud" in shown
    assert "optimiser" in shown
    assert "quiet" not in shown
    assert "hushed" not in shown


def test_a_function_shows_bars_unless_it_is_told_not_to(capsys):
    @with_progress_bars
    def count(*, progress=True):
        return len(list(track(slow(range(5)), "counting", 5)))

    assert count(progress=False) == 5
    assert capsys.readouterr().err == ""
    assert count() == 5
    assert "counting" in capsys.readouterr().err


def test_headroom_names_what_it_does_and_finds_the_same(capsys):
    table = planted_judgements("choice", num_raters=30, num_items=8).judgements
    alone = headroom(table, max_clusters=2)
    assert capsys.readouterr().err == ""
    with progress_bars():
        assert headroom(table, max_clusters=2) == alone
    assert "headroom" in capsys.readouterr().err
