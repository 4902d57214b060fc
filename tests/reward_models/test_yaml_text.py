"""YAML of users: values as they are written, and whatever is no such YAML is refused at once."""

from __future__ import annotations

import ast
import math
import random

import pytest

from reward_models import JudgementError
from reward_models.sources.column_map import load_map
from reward_models.yaml_text import MAX_CHARACTERS, YamlError, parse_yaml, read_yaml
from tests.benchmark_modules import benchmark_module
from tests.paths import ROOT


fuzz = benchmark_module("_faults.fuzz")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),  # eight in YAML 1.1
        ("08", 8),
        ("-7", -7),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),  # ninety in YAML 1.1
        ("1:30:00", "1:30:00"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("2020-99-99", "2020-99-99"),  # a ValueError of PyYAML
        ("1e3", 1000.0),  # text in YAML 1.1
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("yes", True),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("=", "="),
        ("{a: &a {x: 1}, b: *a}", {"a": {"x": 1}, "b": {"x": 1}}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
    ],
)
def test_values_are_what_is_written(text, value):
    read = parse_yaml(text)
    assert (read, type(read)) == (value, type(value))
    assert math.isnan(parse_yaml(".nan"))


BOMB = "a: &a [x]\n" + "".join(
    f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"the key 'a' is written twice; keep one of the two, at line 3, column 1"),
        ("010: a\n10: b", r"the key 10 is written twice"),
        (BOMB, "with its aliases written out it has more than 100,000 values"),
        (CHAIN, "or 40 levels in one another"),
        ("&a [*a]", "an alias stands inside what it stands for, at line 1, column 1"),
        ("[" * 400_000, "more than 40 levels lie in one another, at line 1, column 41"),
        ("? " * 100_000, "more than 40 levels"),
        ("{a: " * 50 + "}" * 50, "more than 40 levels"),
        ("x" * (MAX_CHARACTERS + 1), "more than 500,000 characters"),
        ("!!python/object/apply:os.system [ls]", "the tag .*python/object/apply:os.system' is not read"),
        ("!!int abc", "is not read"),
        ("!!binary =", "is not read"),
        ("9" * 5000, "a value cannot be read"),
        ("a: [", "expected the node content"),
        ("a: 1\n--- b", "expected a single document|document"),
        ("? [a]\n: b", "unhashable key"),
        ("a\x00b", "not allowed"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_yaml_of_ours_is_refused_at_once(text, message):
    # Without bounds some need hours, or all memory.
    with pytest.raises(YamlError, match=message):
        parse_yaml(text)


def test_files_are_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_bytes("\ufeffkind: Straße".encode())
    assert read_yaml(path) == {"kind": "Straße"}
    path.write_bytes("kind: choice\nconstants: {prompt: Straße}".encode("cp1252"))
    with pytest.raises(YamlError, match=r"not UTF-8: byte 0xdf in line 2. Save the file as UTF-8"):
        read_yaml(path)
    with pytest.raises(JudgementError, match=r"map.yaml is not YAML: not UTF-8: byte 0xdf in line 2"):
        load_map(path)


@pytest.mark.slow
def test_one_loader_reads_all_yaml():
    """`yaml.load` and its kin appear in `yaml_text` only."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for package in ("reward_models", "plural_rlhf")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "yaml"
        and node.attr in {"load", "safe_load", "load_all", "full_load", "unsafe_load", "parse", "SafeLoader"}
    }
    assert readers == {"reward_models/yaml_text.py"}


@pytest.mark.slow
def test_mutated_maps_are_read_or_refused():
    """A thousand texts near YAML; 20,000 were tried once, by `benchmarks/faults.py`."""
    seed = (
        "columns: {rater_id: person, item_id: &q question}\nvalues:\n  choice: {1: 'agree', 010: disagree}\nindex: 1\n"
    )
    draw = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1000):
        try:
            parse_yaml(fuzz.mutated(seed, draw))
            outcomes["read"] += 1
        except YamlError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
