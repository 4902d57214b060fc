"""Code that comes with a model is never run: every loader of transformers says so, whatever its default is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
FILES = [path for package in ("plural_rlhf", "reward_models") for path in sorted((ROOT / package).rglob("*.py"))]
CHOSEN_BY_THE_USER = {"reward_models/trainer/heads.py": "args.trust_remote_code"}
"""TRL's own setting, which its users know."""


def loaders(path: Path) -> list[ast.Call]:
    """Return the calls of `AutoX.from_pretrained`."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id.startswith("Auto")
    ]


def test_there_are_loaders_to_look_at():
    assert sum(len(loaders(path)) for path in FILES) > 25


@pytest.mark.parametrize("path", [path for path in FILES if loaders(path)], ids=lambda path: path.stem)
def test_a_loader_refuses_code_of_the_model(path):
    allowed = CHOSEN_BY_THE_USER.get(path.relative_to(ROOT).as_posix(), "False")
    for call in loaders(path):
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert said.get("trust_remote_code") == allowed, f"{path.name}:{call.lineno}"
