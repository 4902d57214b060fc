"""All small faults of a file, one changed token each, by the operators of cosmic-ray. Knows nothing of tests."""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


__all__ = ["Mutant", "mutants"]

SWAPS = {
    "Add": ("Sub",),
    "Sub": ("Add",),
    "Mul": ("Div",),
    "Div": ("Mul",),
    "FloorDiv": ("Div",),
    "Mod": ("Mul",),
    "Pow": ("Mul",),
    "BitAnd": ("BitOr",),
    "BitOr": ("BitAnd",),
    "Lt": ("LtE", "Gt"),
    "LtE": ("Lt", "GtE"),
    "Gt": ("GtE", "Lt"),
    "GtE": ("Gt", "LtE"),
    "Eq": ("NotEq",),
    "NotEq": ("Eq",),
    "Is": ("IsNot",),
    "IsNot": ("Is",),
}
"""Plausible slips only: a replacement that raises at once, such as `<<` between floats, proves nothing."""
OTHERS = (
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "ZeroIterationForLoop",
    "ReplaceUnaryOperator_USub_UAdd",
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_Invert",
)


DRAWING = (
    *(f"plural_rlhf/report/{name}.py" for name in ("plots", "canvas", "rules", "points", "survey", "texts/figures")),
    "reward_models/evaluation/candidates/plots.py",
)
"""Files whose numbers say where something is drawn; no test should pin them, and they are left alone."""


@dataclass(frozen=True)
class Mutant:
    """One changed place: the file, its whole text with the fault, the line, and that line before and after."""

    file: str
    code: str
    line: int
    was: str
    became: str


def operators() -> list[str]:
    swaps = [f"{a}_{b}" for a, changes in SWAPS.items() for b in changes]
    binary = [f"ReplaceBinaryOperator_{s}" for s in swaps] + [f"ReplaceComparisonOperator_{s}" for s in swaps]
    from cosmic_ray.plugins import operator_names

    known = set(operator_names())
    return [name for name in (f"core/{op}" for op in (*binary, *OTHERS)) if name in known]


def mutants(file: Path, root: Path, rng: random.Random) -> Iterator[Mutant]:
    """All faults of a file in random order: first a place, then what happens to it."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = file.read_text(encoding="utf-8")
    plain = meaning(source)
    places: dict[tuple[int, int], list[tuple[str, int]]] = {}
    tree = get_ast(source)
    for name in operators():
        operator = get_operator(name)()
        occurrence = 0
        stack = [tree]
        while stack:
            node = stack.pop()
            for start, _ in operator.mutation_positions(node):
                places.setdefault(tuple(start), []).append((name, occurrence))
                occurrence += 1
            stack.extend(reversed(getattr(node, "children", [])))
    order = sorted(places)
    rng.shuffle(order)
    for place in order:
        name, occurrence = rng.choice(places[place])
        if file.relative_to(root).as_posix() in DRAWING and any(
            word in name for word in ("Number", "Unary", "Binary")
        ):
            continue
        code = mutate_code(source, get_operator(name)(), occurrence)
        if code is None or code == source or meaning(code) in (plain, None):
            continue
        old, new = source.splitlines(), code.splitlines()
        changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        _, i, j, k, m = next(change for change in changes if change[0] != "equal")
        was, became = ("\n".join(line.strip() for line in part) for part in (old[i:j], new[k:m]))
        yield Mutant(file.relative_to(root).as_posix(), code, i + 1, was, became)


def meaning(source: str) -> str | None:
    """The syntax tree without what no run looks at: annotations, their imports, guards of `zip`.

    None for broken syntax.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
        if isinstance(node, ast.arguments):  # a changed `*` between arguments is the style of calls, not their result
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.posonlyargs, node.kwonlyargs = [], []
            node.defaults, node.kw_defaults = [*node.defaults, *filter(None, node.kw_defaults)], []
        # `strict` of `zip` guards against faults elsewhere; `optimize` of `einsum` is for speed.
        if isinstance(node, ast.keyword) and node.arg in ("strict", "optimize"):
            node.value = ast.Constant(None)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):  # imports for annotations only
            node.test = ast.Constant(None)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            node.value.op = (
                ast.BitOr() if isinstance(node.value.op, ast.BitAnd) else node.value.op
            )  # a name for a type
    return ast.dump(tree)
