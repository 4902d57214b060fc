"""Where CI=1 a skip fails the session, unless its reason is on the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.paths import NO_SHARED_DATA, ROOT


def run_tests(folder, source: str, *arguments: str, ci: str = "1") -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(f"import pytest\n{source}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)]
    env = {**os.environ, "CI": ci}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)


IN_TEST = "def test_it(): pytest.skip('{}')"
WHOLE_MODULE = "pytest.skip('{}', allow_module_level=True)"
MARKED = "@pytest.mark.skipif(True, reason='{}')\ndef test_it(): pass"
FINE = "\ndef test_fine(): pass"


@pytest.mark.slow
@pytest.mark.parametrize("source", [IN_TEST, MARKED, WHOLE_MODULE])
def test_an_unexpected_skip_fails_the_session_and_is_named(tmp_path, source):
    (tmp_path / "test_other.py").write_text("def test_other(): pass", encoding="utf-8")
    done = run_tests(tmp_path, source.format("MiniLM is not installed"))
    assert done.returncode == 1
    assert "skips that are not expected" in done.stdout
    assert "test_it.py" in done.stdout.split("skips that are not expected")[1]
    assert "MiniLM is not installed" in done.stdout.split("skips that are not expected")[1]


@pytest.mark.slow
def test_the_shared_data_may_be_missing_and_without_ci_everything_may(tmp_path):
    assert run_tests(tmp_path, IN_TEST.format(NO_SHARED_DATA) + FINE).returncode == 0
    assert run_tests(tmp_path, IN_TEST.format("whatever") + FINE, ci="").returncode == 0
    expected_failure = "@pytest.mark.xfail\ndef test_it(): assert False"
    assert run_tests(tmp_path, expected_failure + FINE).returncode == 0


@pytest.mark.slow
def test_it_holds_with_several_processes_too(tmp_path):
    done = run_tests(tmp_path, IN_TEST.format("MiniLM is not installed") + FINE, "-n", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MiniLM is not installed" in done.stdout.split("skips that are not expected")[1]
