"""Ctrl-C and SIGTERM during a run: `plural_rlhf.recipe.interruption`."""

from __future__ import annotations

import signal
import threading

import pytest

from plural_rlhf.recipe.interruption import Interruption, RunInterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_once_and_says_what_is_kept(number):
    said = []
    interruption = Interruption(said.append, kept=lambda: "Kept: jury.")
    interruption.check()
    with pytest.raises(RunInterrupted, match=r"Kept: jury\.") as caught, interruption.handled():
        signal.raise_signal(number)
    assert caught.value.signal == interruption.requested == number
    assert said == []
    with pytest.raises(RunInterrupted):
        interruption.check()


def test_inside_a_step_the_first_signal_waits_and_the_second_does_not():
    said = []
    interruption = Interruption(said.append)
    reached = []
    with interruption.handled(), interruption.deferred():
        signal.raise_signal(signal.SIGINT)
        reached.append(interruption.requested)
        with pytest.raises(RunInterrupted):
            signal.raise_signal(signal.SIGTERM)
    assert reached == [signal.SIGINT]
    assert said == ["stopping after this step, with a checkpoint (once more: at once)"]


def test_after_a_step_a_signal_ends_the_run_at_once_again():
    interruption = Interruption(lambda _: None)
    with interruption.handled():
        with interruption.deferred():
            pass
        with pytest.raises(RunInterrupted):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back_and_another_thread_has_none():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    interruption, inside = Interruption(lambda _: None), []

    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with interruption.handled():
        assert all(new != old for new, old in zip(handlers(), before, strict=True))
    assert handlers() == before

    def in_thread() -> None:
        with interruption.handled():
            inside.append(handlers())

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert inside == [before]
