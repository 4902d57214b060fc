"""The page on architecture names every room, and no file that is not there; rooms stay small."""

from __future__ import annotations

import re

import pytest

from tests.paths import ROOT


PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("reward_models", "plural_rlhf")
MOST_FILES, MOST_LINES = 15, 450


def folders(package):
    """The package's folders that hold modules."""
    return sorted({path.parent for path in (ROOT / package).rglob("*.py")})


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_on_the_page(package):
    rooms = [path.name for path in folders(package) if path.name != package and "releases" not in path.parts]
    assert [room for room in rooms if f"`{room}/`" not in PAGE] == []


def test_every_file_that_the_page_names_is_there():
    files = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", PAGE))
    assert files, "the page names files in backticks"
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for path in modules]
    assert [name for name in sorted(files) if not any(path.endswith(f"/{name}") for path in paths)] == []


def test_rooms_that_are_to_come_are_not_made_before_there_is_something_in_them():
    made = [path for p in PACKAGES for path in folders(p)[1:] if len(list(path.rglob("*.py"))) < 2]
    assert [path.name for path in made] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_and_files_stay_small(package):
    modules = {path.name: len(list(path.glob("*.py"))) - 1 for path in folders(package)}  # __init__.py aside
    crowded = {name: n for name, n in modules.items() if n > MOST_FILES}
    long = {
        path.name: n
        for path in (ROOT / package).rglob("*.py")
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert (crowded, long) == ({}, {})
