"""What the packages import is what `pyproject.toml` declares and `constraints.txt` pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.paths import ROOT


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("reward_models", "plural_rlhf")
ON_REQUEST = ("demo", "envs", "files", "evaluation", "harness")
"""Extras whose libraries the packages import where they are needed, with a message where they are missing."""


def canonical(requirement: str) -> str:
    """The name of a distribution as pip compares it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def declared(*extras: str) -> set[str]:
    wanted = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {canonical(requirement) for part in wanted for requirement in part}


def imported_modules() -> dict[str, str]:
    """Top-level names that are imported anywhere, each with a file that does it."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                modules |= {name.split(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    return {name: path for name, path in modules.items() if name not in {*sys.stdlib_module_names, *PACKAGES}}


def test_every_library_that_is_imported_is_declared():
    distributions, allowed = packages_distributions(), declared(*ON_REQUEST)
    undeclared = {
        name: path
        for name, path in imported_modules().items()
        if not {canonical(d) for d in distributions.get(name, [name])} & allowed
    }
    assert undeclared == {}


def test_every_library_that_is_always_installed_is_imported():
    distributions = packages_distributions()
    used = {canonical(d) for name in imported_modules() for d in distributions.get(name, [])}
    assert declared() - used == set()


@pytest.mark.parametrize("name", sorted(declared(*ON_REQUEST, "docs", "mutants")))
def test_every_declared_library_is_pinned(name):
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    assert name in {canonical(pin) for pin in pins}
