"""Which tests run which line, measured once with `coverage`, so that a fault is tried against those tests only.

What a fixture of a module or session runs belongs to every test that asks for it. Of lines that run when a module is
imported nothing is known, and of tests that start processes only what they run themselves. Knows nothing of faults.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


__all__ = ["Covered", "FirstFailure", "Recorder", "changed_tests", "merge", "runs_on_import"]


class Recorder:
    """A pytest plugin that writes the lines each test runs, and its processor seconds, into a JSON file."""

    def __init__(self, file: Path, packages: list[str]) -> None:
        import coverage

        self.file = file
        self.coverage = coverage.Coverage(data_file=None, include=[f"{os.getcwd()}/{name}/*" for name in packages])
        self.coverage.start()
        self.contexts = [""]
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}

    def _within(self, context: str) -> Iterator[None]:
        self.contexts.append(context)
        self.coverage.switch_context(context)
        yield
        self.contexts.pop()
        self.coverage.switch_context(self.contexts[-1])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Note what a test runs, from its setup to its teardown."""
        self.fixtures[item.nodeid] = list(item.fixturenames)
        start = sum(os.times()[:2])
        yield from self._within(item.nodeid)
        self.seconds[item.nodeid] = sum(os.times()[:2]) - start

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Note what a shared fixture runs as its own, whichever test asks first."""
        if fixturedef.scope == "function":
            yield
        else:
            yield from self._within(f"fixture {fixturedef.argname}")

    def pytest_unconfigure(self) -> None:
        """Write everything down."""
        self.coverage.stop()
        data, root = self.coverage.get_data(), os.getcwd() + "/"
        lines = {file.removeprefix(root): data.contexts_by_lineno(file) for file in data.measured_files()}
        self.file.write_text(
            json.dumps({"lines": lines, "seconds": self.seconds, "fixtures": self.fixtures}), encoding="utf-8"
        )


class FirstFailure:
    """A pytest plugin that writes the name of the first test that fails, or of its file if that cannot be imported."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failed test."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file without tests because of an error."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.file.exists():
            self.file.write_text(report.nodeid, encoding="utf-8")


class Covered:
    """What a `Recorder` wrote."""

    def __init__(self, file: Path) -> None:
        values = json.loads(file.read_text(encoding="utf-8"))
        self.lines: dict[str, dict[str, list[str]]] = values["lines"]
        self.seconds: dict[str, float] = values["seconds"]
        self.of_fixture: dict[str, list[str]] = {}
        for test, names in values["fixtures"].items():
            for name in names:
                self.of_fixture.setdefault(f"fixture {name}", []).append(test)

    def tests(
        self, file: str, source: str, line: int, near: Sequence[str] = (), seconds: float = float("inf")
    ) -> list[str]:
        """The tests that run the statement at a line, by file, the quickest first; empty if none is known.

        Those of the files `near` come before the others. What would take longer than `seconds` together is left out.
        """
        chosen = self._tests_of(self.lines.get(file, {}), statement(source, line))
        by_file: dict[str, list[str]] = {}
        for test in sorted(chosen, key=self.seconds.__getitem__):
            by_file.setdefault(test.split("::")[0], []).append(test)
        mean = {name: self.takes(of) / len(of) for name, of in by_file.items()}
        ordered = sorted(by_file, key=lambda name: (name not in (file, *near), mean[name]))
        tests: list[str] = []
        for test in (test for name in ordered for test in by_file[name]):
            if self.seconds[test] <= seconds or not tests:
                tests.append(test)
                seconds -= self.seconds[test]
        return tests

    def takes(self, tests: Sequence[str]) -> float:
        """The processor seconds of some tests, by the record."""
        return sum(self.seconds[test] for test in tests)

    def files_of_tests(self, file: str) -> set[str]:
        """The files with tests that run any line of a file."""
        ran = self.lines.get(file, {})
        return {test.split("::")[0] for test in self._tests_of(ran, [int(number) for number in ran])}

    def _tests_of(self, ran: dict[str, list[str]], numbers: list[int]) -> set[str]:
        contexts = {context for number in numbers for context in ran.get(str(number), [])}
        of_fixtures = (test for context in contexts for test in self.of_fixture.get(context, []))
        return {*(contexts & self.seconds.keys()), *of_fixtures}


def statement(source: str, line: int) -> list[int]:
    """The lines of the innermost statement at a line: only the head of a block, but all of a function or class."""

    def first(node: ast.stmt) -> int:
        return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])

    heads = (ast.If, ast.For, ast.While, ast.With)
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt)
        and min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        <= line
        <= (node.end_lineno or 0)
    ]
    if not around:
        return []
    inner = max(around, key=lambda node: node.lineno)
    end = inner.body[0].lineno - 1 if isinstance(inner, heads) else inner.end_lineno or inner.lineno
    return list(range(inner.lineno, max(end, inner.lineno) + 1))


def runs_on_import(source: str, line: int) -> bool:
    """Whether a line lies in no body of a function, so that importing its module runs it: constants, defaults."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return not any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions)


def fingerprints(root: Path) -> dict[str, str]:
    """The hash of every module and test of the repository, by its path."""
    files = [path for folder in ("plural_rlhf", "reward_models", "tests") for path in (root / folder).rglob("*.py")]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def changed_tests(record: Path, root: Path, everything: Sequence[str]) -> list[str]:
    """The files whose tests a record must note anew: what has changed, and what runs it; `everything` without one."""
    if not record.exists():
        return list(everything)
    known: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))["files"]
    covered, now = Covered(record), fingerprints(root)
    changed = {file for file, digest in now.items() if known.get(file) != digest}
    tests = {file for file in changed if not file.startswith("tests/") or Path(file).name.startswith("test_")}
    around = tuple(f"{folder}/" for folder in everything)
    running = (covered.files_of_tests(file) for file in changed)
    return sorted(file for file in tests.union(*running) if file.startswith(around) and (root / file).exists())


def merge(record: Path, newer: Path, files: Sequence[str], root: Path) -> None:
    """Put what the tests of some files ran in place of what a record says of them."""
    now, values = fingerprints(root), json.loads(newer.read_text(encoding="utf-8"))
    if record.exists():
        old = json.loads(record.read_text(encoding="utf-8"))
        for file, lines in old["lines"].items():
            if old["files"].get(file) != now.get(file):
                continue
            ran = values["lines"].setdefault(file, {})
            for number, contexts in lines.items():
                kept = (context for context in contexts if context.split("::")[0] not in files)
                ran[number] = sorted({*ran.get(number, []), *kept})
        for key in ("seconds", "fixtures"):
            kept_tests = {test: value for test, value in old[key].items() if test.split("::")[0] not in files}
            values[key] = {**kept_tests, **values[key]}
    values["files"] = now
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(values), encoding="utf-8")
