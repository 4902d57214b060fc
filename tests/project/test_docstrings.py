"""Every public name explains itself and shows an example that runs."""

from __future__ import annotations

import ast

import pytest

import plural_rlhf
import reward_models
from tests.paths import ROOT


PACKAGES = ("reward_models", "plural_rlhf")
FACES = {"reward_models": reward_models, "plural_rlhf": plural_rlhf}
SHARE_WITH_AN_EXAMPLE = 0.6


def public_definitions(package: str) -> dict[str, str | None]:
    """`module.name` to docstring, for every class and function in the `__all__` of the module that defines it."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        listed = {
            name
            for node in tree.body
            if isinstance(node, ast.Assign)
            and getattr(node.targets[0], "id", "") == "__all__"
            and isinstance(node.value, ast.List)
            for name in ast.literal_eval(node.value)
        }
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name in listed:
                methods = (
                    [m for m in node.body if isinstance(m, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
                )
                text = ast.get_docstring(node)
                examples = any(">>>" in (ast.get_docstring(m) or "") for m in methods)
                found[f"{module}.{node.name}"] = None if text is None else text + (" >>>" if examples else "")
    return found


DEFINITIONS = {package: public_definitions(package) for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_has_a_docstring(package):
    assert [name for name, text in DEFINITIONS[package].items() if not text] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_most_public_classes_and_functions_have_an_example(package):
    texts = DEFINITIONS[package]
    without = [name for name, text in texts.items() if ">>>" not in (text or "")]
    share = 1 - len(without) / len(texts)
    assert share >= SHARE_WITH_AN_EXAMPLE, f"{share:.0%} of {len(texts)}; without: {without}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_face_has_an_example(package):
    with_example = {name.rsplit(".", 1)[1] for name, text in DEFINITIONS[package].items() if ">>>" in (text or "")}
    defined = {name.rsplit(".", 1)[1] for name in DEFINITIONS[package]}
    assert [name for name in FACES[package].__all__ if name in defined - with_example] == []
