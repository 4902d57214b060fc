"""Borders that text and files cross, looked for in the source: UTF-8 under any locale, and no code from a folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT


SOURCES = [
    path
    for folder in ("reward_models", "plural_rlhf", "benchmarks", "examples", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TEXT_CALLS = {"read_text", "write_text", "open", "TextIOWrapper", "NamedTemporaryFile"}
PACKAGES = ("reward_models/", "plural_rlhf/")
LOADERS = {"from_pretrained", "from_config"}


def calls(path: Path, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if name in names:
                yield node


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call opens text in the encoding of the locale; os.open and tables that are opened are no text."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id in {"os", "zipfile", "tarfile", "Image"}:
        return False
    words = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    words += [k.value.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
    binary = any("b" in word and set(word) <= set("rwxab+t") for word in words)
    return not binary and not any(k.arg == "encoding" for k in call.keywords)


def places(names: set[str], fault) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{call.lineno}" for path in SOURCES for call in calls(path, names) if fault(call)
    ]


def test_text_files_are_utf_8_under_any_locale():
    assert places(TEXT_CALLS, is_text_without_encoding) == []


def test_no_folder_is_asked_to_run_its_code():
    """Every loader of transformers that our packages call says `trust_remote_code`, False but for the user's word."""

    def is_silent(call: ast.Call) -> bool:
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        auto = isinstance(owner, ast.Name) and owner.id.startswith("Auto")
        return auto and not any(k.arg == "trust_remote_code" for k in call.keywords)

    assert [place for place in places(LOADERS, is_silent) if place.startswith(PACKAGES)] == []


def test_nothing_is_unpickled():
    def is_unsafe(call: ast.Call) -> bool:
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if not isinstance(owner, ast.Name) or owner.id not in {"torch", "pickle", "joblib", "dill", "np"}:
            return False
        safe = {"torch": "weights_only", "np": None}.get(owner.id, "")
        values = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
        return values.get("allow_pickle", False) if owner.id == "np" else values.get(safe) is not True

    # The bench of faults reads what its own forked children write.
    assert [place for place in places({"load", "loads"}, is_unsafe) if place.startswith(PACKAGES)] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("open(path)", True),
        ("path.open('r')", True),
        ("path.read_text()", True),
        ("path.open('rb')", False),
        ("open(path, mode='wb')", False),
        ("path.write_text(text, encoding='utf-8')", False),
        ("os.open(path, 0)", False),
    ],
)
def test_the_search_finds_what_it_looks_for(line, wrong):
    (call,) = (node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call))
    assert is_text_without_encoding(call) == wrong
