"""What a user gets who says nothing: the defaults of every public class, function and setting, and constant numbers.

A changed default changes the numbers of everybody who did not set it, and a changed constant (a threshold, a number of
draws, a least number of raters) those of everybody. After a change that is meant and measured, write the file again
and read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/project/test_defaults.py`, `git diff`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import plural_rlhf
import reward_models


STORED = Path(__file__).with_name("defaults.json")


def modules() -> Iterator[ModuleType]:
    for package in (plural_rlhf, reward_models):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", "bench_task")):
                yield importlib.import_module(found.name)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Classes and functions that the module itself defines and that it or a caller elsewhere may use."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_") and callable(value):
            yield name, value


def callables(name: str, value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    yield name, value
    if inspect.isclass(value):
        for method, function in vars(value).items():
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}", function


def defaults() -> dict[str, dict[str, str]]:
    """The defaults of every public callable by its full name: parameter -> value as text."""
    values: dict[str, dict[str, str]] = {}
    for module in modules():
        for name, value in public(module):
            for full, function in callables(f"{module.__name__}.{name}", value):
                try:
                    parameters = inspect.signature(function).parameters.values()
                except (TypeError, ValueError):
                    continue
                fields = getattr(function, "model_fields", {})
                given = {p.name: text(fields.get(p.name, p)) for p in parameters if p.default is not p.empty}
                if given:
                    values[full] = given
            attributes = {} if hasattr(value, "model_fields") else class_attributes(value)
            if attributes:
                values[f"{module.__name__}.{name}"] = values.get(f"{module.__name__}.{name}", {}) | attributes
    return values


def class_attributes(value: Any) -> dict[str, str]:
    """The plain values that a class gives its annotated attributes, which objects have that set nothing."""
    if not inspect.isclass(value) or dataclasses.is_dataclass(value):
        return {}
    given = {name: vars(value)[name] for name in inspect.get_annotations(value) if name in vars(value)}
    return {
        name: repr(default)
        for name, default in given.items()
        if not name.startswith("_") and isinstance(default, int | float | str | tuple | None)
    }


def constants() -> dict[str, dict[str, str]]:
    """The numbers that a module sets in capitals, alone or in a collection, by the name of the module."""
    values: dict[str, dict[str, str]] = {}
    for module in modules():
        names = re.findall(r"^(_?[A-Z][A-Z0-9_]+)\b.*=", inspect.getsource(module), re.MULTILINE)
        found = {name: list(numbers(vars(module)[name])) for name in names if name in vars(module)}
        if any(found.values()):
            values[module.__name__] = {name: ", ".join(map(repr, of)) for name, of in found.items() if of}
    return values


def numbers(value: Any) -> Iterator[float]:
    """The numbers in a constant, in order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value) if isinstance(value, float) else int(value)
    elif isinstance(value, Mapping):
        yield from numbers([*value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from numbers([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, set | frozenset):
        yield from sorted(number for item in value for number in numbers(item))


def text(parameter: Any) -> str:
    value = parameter.default
    if hasattr(parameter, "get_default"):  # of a setting
        value = parameter.get_default(call_default_factory=True)
    elif type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        value = "(made anew)"
    return re.sub(r"<(function|class|bound method)[^<>]*(<lambda>)?[^<>]*>", r"<\1>", repr(value))


def test_no_default_changes_unseen():
    today = defaults() | constants()
    if os.environ.get("UPDATE_GOLDEN"):
        STORED.write_text(json.dumps(today, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    stored: dict[str, dict[str, str]] = json.loads(STORED.read_text(encoding="utf-8"))
    changed = {
        f"{name}({parameter})": (value, today[name][parameter])
        for name, values in stored.items()
        for parameter, value in values.items()
        if name in today and parameter in today[name] and today[name][parameter] != value
    }
    assert changed == {}, "(stored, today): a new default or constant gives other numbers; see the head of this file"
    known = sum(parameter in stored.get(name, {}) for name, values in today.items() for parameter in values)
    assert known >= 0.95 * sum(map(len, today.values())), "many new defaults are not stored: write the file again"
