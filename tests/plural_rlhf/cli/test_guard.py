"""Errors of a disk, and Ctrl-C, end every command in one message and with the status that a shell expects."""

from __future__ import annotations

import errno
import os

import pytest
import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.recipe import RunInterrupted


def test_a_full_disk_is_one_message_of_any_command(capsys):
    def full():
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")

    with pytest.raises(typer.Exit) as ended:
        guarded(full, traceback=False)
    assert ended.value.exit_code == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "No space left on device" in printed
    assert "the disk is full. Fix: make room" in printed


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda folder: (folder / "a-file").mkdir(), "a file is where a folder has to be"),
        (lambda folder: (folder / "a-file" / "run").mkdir(), "a file is where a folder has to be"),
        (lambda folder: folder.write_text("x"), "a folder is where a file has to be"),
        (lambda folder: (folder / ("a" * 300)).write_text("x"), "the name is longer than the disk allows"),
    ],
)
def test_a_path_that_is_blocked_is_one_message_of_any_command(write, reason, tmp_path, capsys):
    (tmp_path / "a-file").write_text("in the way")
    with pytest.raises(typer.Exit) as ended:
        guarded(lambda: write(tmp_path), traceback=False)
    assert ended.value.exit_code == 2
    assert f"{reason}. Fix: give another path" in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_an_error_of_the_system_that_is_no_fault_of_the_disk_keeps_its_traceback():
    with pytest.raises(OSError, match="Connection refused"):
        guarded(lambda: (_ for _ in ()).throw(OSError(errno.ECONNREFUSED, "Connection refused")), traceback=False)


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (RunInterrupted(15, "Kept: jury."), 143)])
def test_a_command_that_is_stopped_ends_with_the_status_of_its_signal(stop, status, capsys):
    def body():
        raise stop

    with pytest.raises(typer.Exit) as ended:
        guarded(body, traceback=False)
    assert ended.value.exit_code == status
    assert capsys.readouterr().err.startswith("Stopped.")
