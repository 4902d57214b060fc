"""The pages of the documentation hold together: navigation, links, names, words, papers. No site is built."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
import yaml

from docs._build import gallery, reference
from tests.paths import ROOT


DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("methods/*.md")])
MADE = {
    "index.md",
    "contributing.md",
    "changelog.md",
    "reference/commands.md",
    "reference/run_file.md",
    "reference/suite_file.md",
}
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
CODE = re.compile(r"^ *```.*?^ *```|`(?:(?!\n\n)[^`])+`", re.MULTILINE | re.DOTALL)
UNDOCUMENTED = {"reward_models.MixtureFit", "reward_models.KINDS", "reward_models.SURVEYS", "plural_rlhf.recipe.Until"}
"""Names that still want a docstring; none may be added."""


class Loader(yaml.SafeLoader):
    """YAML without the Python objects that MkDocs may have in its settings."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def leaves(entry):
    if isinstance(entry, str):
        return [entry]
    return [leaf for inner in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(inner)]


def navigation() -> list[str]:
    return leaves(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])


def test_every_page_is_in_the_navigation_once():
    found = navigation()
    assert sorted(found) == sorted(set(found))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} <= set(found)
    there = {page.relative_to(DOCS).as_posix() for page in PAGES} | MADE
    assert {entry for entry in found if "*" not in entry} <= there


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))], ids=lambda p: p.name
)
def test_relative_links_lead_somewhere(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", text)
    missing = [target for target in targets if not (page.parent / target).exists() and target not in MADE]
    assert not missing


def test_links_inside_a_page_have_a_heading():
    for page in PAGES:
        text = CODE.sub(lambda m: m[0].strip("`") if "\n" not in m[0] else "", page.read_text(encoding="utf-8"))
        headings = {
            re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
            for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings, page.name


def defined(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    names = {node.name for node in tree.body if isinstance(node, kinds)}
    return names | {
        f"{node.name}.{inner.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, kinds)
    }


def test_papers_name_files_and_functions_that_exist():
    text = (DOCS / "papers.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and ".py`" in line]
    assert len(rows) > 40
    for row in rows:
        assert len(row) == 4, row
        for place in row[2].split("; "):
            path, *names = re.findall(r"`([^`]+)`", place)
            assert (ROOT / path).is_file(), path
            assert names, place
            assert set(names) <= defined(path), (path, names)


def test_every_paper_that_docstrings_link_to_is_in_the_index():
    """An arXiv number or a DOI in the packages has its row."""
    index = (DOCS / "papers.md").read_text(encoding="utf-8")
    number = re.compile(
        r"(?:arxiv\.org/abs/|arXiv\s+|papers/|[ (])(\d{4}\.\d{5})\b|doi\.org/(10\.\d{4,}/[\w./()-]*\w)"
    )
    missing = {
        (path.relative_to(ROOT).as_posix(), found)
        for package in reference.PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for match in number.finditer(path.read_text(encoding="utf-8"))
        for found in match.groups()
        if found and found not in index
    }
    assert not missing


@pytest.mark.slow
def test_every_public_name_has_a_place_in_the_reference():
    pytest.importorskip("gymnasium")
    known = reference.public_names()
    for face in reference.faces():
        offered = {name for name in importlib.import_module(face).__all__ if not name.startswith("_")}
        assert {public.name for public in known if public.face == face} == offered, face
    pages = reference.make_pages()
    places = {public.place for names in reference.rooms().values() for public in names}
    assert places == {public.place for public in known}
    for room, names in reference.rooms().items():
        page = pages[reference.page_path(room)]
        for public in names:
            assert f"\n::: {public.path}\n" in page
            assert f"[`{public.name}`][{public.path}]" in pages["reference/index.md"]


def test_every_public_name_says_what_it_is():
    silent = {public.path for public in reference.public_names() if not reference.summary(public)}
    assert silent <= UNDOCUMENTED


def test_glossary_is_in_alphabetical_order_and_says_each_word_once():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms, meanings = zip(*re.findall(r"^### (.+)\n\n(.+)$", text, re.MULTILINE), strict=True)
    assert len(terms) == text.count("### ")
    assert list(terms) == sorted(set(terms), key=str.lower)
    assert all(meaning.strip() for meaning in meanings)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_examples_have_the_format_of_the_gallery(script):
    source = script.read_text(encoding="utf-8")
    docstring, cells = gallery.split_cells(source)
    title, blank = docstring.strip("\n").split("\n")[:2]
    assert title.endswith(".")
    assert len(title) <= 110
    assert not blank
    assert len(cells) > 2
    assert all(cell.title for cell in cells[1:])
    assert cells[-1].title == "What to take away"
    assert [kind for kind, _, _ in cells[-1].blocks] == ["prose"]


def test_cells_keep_code_in_its_line_and_take_prose_out():
    source = '''"""A title.

Text.
"""

import os


# %% One
#
# Prose of the cell.

# stays with the code
a = """
# text, no comment
"""

# More prose,
# in two lines.

b = a
# %% Two
# Prose.
c = b
'''
    docstring, (before, one, two) = gallery.split_cells(source)
    assert docstring.startswith("A title.")
    assert [before.title, one.title, two.title] == ["", "One", "Two"]
    kinds = [(kind, text.strip().split("\n")[0]) for kind, text, _ in one.blocks]
    assert kinds == [
        ("prose", "Prose of the cell."),
        ("code", "# stays with the code"),
        ("prose", "More prose,"),
        ("code", "b = a"),
    ]
    lines = source.split("\n")
    for cell in (before, one, two):
        for number, line in enumerate(cell.code().split("\n")):
            assert line in ("", lines[number])
    assert two.code().split("\n")[-1] == "c = b"
