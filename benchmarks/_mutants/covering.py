"""Which tests run which line, measured once with `coverage`, so that a fault is tried against those tests only.

What a fixture of a module or session runs belongs to every test that asks for it. Of lines that run when a module is
imported nothing is known, and of tests that start processes only what they run themselves. Knows nothing of faults.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


__all__ = ["Covered", "Recorder"]


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

    def tests(self, file: str, source: str, line: int) -> list[str]:
        """The tests that run the statement at a line, by file, the quickest first; empty if none is known."""
        chosen = self._tests_of(self.lines.get(file, {}), statement(source, line))
        by_file: dict[str, list[str]] = {}
        for test in sorted(chosen, key=self.seconds.__getitem__):
            by_file.setdefault(test.split("::")[0], []).append(test)
        mean = {name: sum(self.seconds[test] for test in of) / len(of) for name, of in by_file.items()}
        return [test for name in sorted(by_file, key=mean.__getitem__) for test in by_file[name]]

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
