"""The commands let threads sleep while they wait, before torch reads how; what the user has set stands."""

from __future__ import annotations

import os

import pytest

import plural_rlhf.cli
from tests.processes import run_script


SHOWN = 'import atexit, os\natexit.register(lambda: print("policy", os.environ.get("OMP_WAIT_POLICY")))\n'


@pytest.mark.parametrize(("before", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_the_commands_sleep_unless_the_user_says_otherwise(monkeypatch, before, wanted):
    seen = []
    monkeypatch.setattr(plural_rlhf.cli, "app", lambda: seen.append(os.environ["OMP_WAIT_POLICY"]))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    plural_rlhf.cli.main()
    assert seen == [wanted]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_the_module_that_measures_juries_sleep_too(monkeypatch, before, wanted):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    code = (
        SHOWN
        + 'import runpy, sys\nsys.argv = ["evaluate"]\nrunpy.run_module("reward_models.evaluate", run_name="__main__")'
    )
    assert f"policy {wanted}" in run_script(code, check=False).stdout
