"""YAML as users write it, read with one set of rules: strict, and bounded in time and memory.

Only what YAML 1.2 calls the core schema, with the truth values of YAML 1.1, because the places that read a bare `yes`
say so: `010` is ten and not eight, `1:30` and `2020-01-01` are text. A key that is written twice is an error, tags
(`!!python/...`) are too. Size, depth and the size with all aliases written out are bounded. Knows nothing of which
keys a file may have.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


__all__ = ["YamlError", "parse_yaml", "read_yaml"]

MAX_CHARACTERS = 500_000
MAX_DEPTH = 40
MAX_NODES = 100_000
"""Keys and values of a file, with each alias written out."""


class YamlError(ValueError):
    r"""A text that is no YAML, or YAML that is not read; the message says the place and the reason.

    Example:
        >>> parse_yaml("a: 1\na: 2")
        Traceback (most recent call last):
        reward_models.yaml_text.YamlError: the key 'a' is written twice; keep one of the two, at line 2, column 1
    """


def read_yaml(path: str | Path) -> Any:
    r"""Read a YAML file in UTF-8, with or without a byte order mark; see `parse_yaml`.

    Raises:
        YamlError: The file is not in UTF-8, too large, or see `parse_yaml`.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "map.yaml").write_bytes(b"\xef\xbb\xbfkind: choice")
        ...     read_yaml(Path(folder) / "map.yaml")
        {'kind': 'choice'}
    """
    with open(path, "rb") as file:
        content = file.read(4 * MAX_CHARACTERS + 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise YamlError(
            f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}. Save the file as UTF-8 (in an editor: "
            "save with encoding)"
        ) from error
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document; an empty one is None.

    Returns:
        Mappings, lists, text, numbers, truth values and None.

    Raises:
        YamlError: See the class and the head of this module.

    Example:
        >>> parse_yaml("{code: 010, time: 1:30, day: 2020-01-01, rate: 1e-3, agreed: yes}")
        {'code': 10, 'time': '1:30', 'day': '2020-01-01', 'rate': 0.001, 'agreed': True}
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"it has more than {MAX_CHARACTERS:,} characters, which is more than is read")
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _check_aliases(node, {}, set())
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise YamlError(_one_line(error)) from error
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, IndexError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"a value cannot be read ({_one_line(error)})") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader with the rules of this module for keys, tags and plain values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice; keep one of the two", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {}  # not those of SafeLoader: times, dates, octal numbers
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {
    "bool": (r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _check_depth(text: str) -> None:
    """Raise if collections lie in one another too deeply, or a value has a tag, before any of it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise YamlError(f"the tag {tag!r} is not read; write the value alone, {_place(event.start_mark)}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise YamlError(f"more than {MAX_DEPTH} levels lie in one another, {_place(event.start_mark)}")


def _check_aliases(node: yaml.Node | None, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return the number of nodes and of levels below a node with all aliases written out, or raise if there are many.

    Args:
        node: The node.
        known: Results by id of the node.
        above: Ids of the nodes that this one lies in.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1, 0
    if id(node) in above:
        raise YamlError(f"an alias stands inside what it stands for, {_place(node.start_mark)}")
    if id(node) not in known:
        above.add(id(node))
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        below = [_check_aliases(part, known, above) for part in parts]
        known[id(node)] = (1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0))
        above.remove(id(node))
    size, depth = known[id(node)]
    if size > MAX_NODES or depth > MAX_DEPTH:
        raise YamlError(
            f"with its aliases written out it has more than {MAX_NODES:,} values, or {MAX_DEPTH} levels in one another"
        )
    return size, depth


def _place(mark: Any) -> str:
    return f"at line {mark.line + 1}, column {mark.column + 1}"


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem is not None:
        mark = error.problem_mark or error.context_mark
        context = f"{error.context}: " if error.context else ""
        return f"{context}{error.problem}{'' if mark is None else ', ' + _place(mark)}"
    text = " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")
    return text if len(text) <= 200 else f"{text[:199]}…"
