"""Strict reading of a run file, and its faults in sentences: the key, the value seen, the reason, the fix.

Knows YAML and pydantic's error records; knows nothing of which settings a file has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reward_models import yaml_text
from reward_models.errors import did_you_mean


__all__ = ["ConfigError", "apply_overrides", "explain", "load_settings", "read_yaml", "validated"]

SectionPath = tuple[str, ...]
Settings = TypeVar("Settings", bound=BaseModel)


class ConfigError(ValueError):
    """A run file that cannot be used.

    Args:
        origin: The file (or option) at fault.
        faults: One line per fault: the key, the value seen, the reason and the fix.

    Example:
        >>> print(ConfigError("run.yaml", ["plural.beta = 0: must be greater than 0"]))
        run.yaml: 1 fault
          - plural.beta = 0: must be greater than 0
    """

    def __init__(self, origin: str, faults: Sequence[str]) -> None:
        self.origin = origin
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{origin}: {count}", *(f"  - {fault}" for fault in self.faults)]))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; an empty file is an empty mapping.

    Args:
        path: The file.

    Raises:
        ConfigError: There is no such file, or it is not YAML, not a mapping, or has a key twice.

    Example:
        >>> read_yaml(Path("no_such.yaml"))
        Traceback (most recent call last):
        plural_rlhf.settings.faults.ConfigError: no_such.yaml: 1 fault
          - there is no such file...
    """
    if not path.is_file():
        raise ConfigError(str(path), [_no_file(path)])
    try:
        values = yaml_text.read_yaml(path)
    except yaml_text.YamlError as error:
        raise ConfigError(str(path), [f"is not valid YAML: {error}"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(str(path), [f"holds {_show(values)}, not a mapping of sections such as `data:` and `jury:`"])
    return values


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write settings of the form `section.key=value` (value in YAML) into `values`.

    Args:
        values: The settings of a run file; changed in place.
        overrides: The settings to write.

    Raises:
        ConfigError: Some are not of that form, or name a key inside a value that is not a section.

    Example:
        >>> values = {"plural": {"steps": 60}}
        >>> apply_overrides(values, ["plural.steps=10", "jury.clusters=[2, 3]"])
        >>> values
        {'plural': {'steps': 10}, 'jury': {'clusters': [2, 3]}}
    """
    faults = [fault for override in overrides for fault in _apply_override(values, override)]
    if faults:
        raise ConfigError("--set", faults)


def validated(root: type[Settings], values: dict[str, Any], overrides: Sequence[str], origin: str) -> Settings:
    """Validate settings under overrides, or raise with every fault explained.

    Args:
        root: The model of the file.
        values: A mapping as the file holds it; the overrides are written into it.
        overrides: Settings of the form `section.key=value`.
        origin: Where the values come from, for messages.

    Raises:
        ConfigError: Unknown keys or invalid values.

    Example:
        >>> class Trial(BaseModel):
        ...     steps: int = 60
        >>> validated(Trial, {}, ["steps=10"], "notebook").steps
        10
    """
    apply_overrides(values, overrides)
    try:
        return root.model_validate(values)
    except ValidationError as error:
        raise ConfigError(origin, list(explain(error, values, root))) from error


def load_settings(root: type[Settings], path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a file of settings.

    Args:
        root: The model of the file.
        path: YAML file with any of its keys.
        overrides: Settings that replace those of the file, each `section.key=value` with a YAML value.

    Raises:
        ConfigError: The file is missing or is not a YAML mapping, or has unknown keys or invalid values.

    Example:
        >>> import tempfile
        >>> class Trial(BaseModel):
        ...     steps: int = 60
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.yaml"
        ...     _ = path.write_text("steps: 20")
        ...     load_settings(Trial, path).steps, load_settings(Trial, path, ["steps=10"]).steps
        (20, 10)
    """
    return validated(root, read_yaml(Path(path)), overrides, str(path))


def explain(error: ValidationError, values: Mapping[str, Any], root: type[BaseModel]) -> Iterator[str]:
    """Explain each faulty key in one line; the branches of a union are one fault.

    Args:
        error: The errors of pydantic.
        values: The mapping that was validated.
        root: The model it was validated as; nested sections are models too, and every field has a description.

    Example:
        >>> from pydantic import Field
        >>> class Training(BaseModel):
        ...     steps: int = Field(default=60, description="Optimiser steps.")
        >>> try:
        ...     Training.model_validate({"steps": "many"})
        ... except ValidationError as error:
        ...     print(next(explain(error, {"steps": "many"}, Training)))
        steps = "many": must be a valid integer, ... Fix: Optimiser steps. (default: 60)
    """
    grouped: dict[SectionPath, list[ErrorDetails]] = {}
    for details in error.errors():
        path = _known_prefix(root, details["loc"])
        if details["type"] == "extra_forbidden":
            # Of an entry of a list, its number from 1.
            path += tuple(str(part + 1 if isinstance(part, int) else part) for part in details["loc"][len(path) :])
        grouped.setdefault(path, []).append(details)
    for path, details_list in grouped.items():
        key = ".".join(path)
        first = details_list[0]
        if first["type"] == "extra_forbidden":
            yield _unknown_key(root, path)
        elif first["type"] == "model_type":
            section = _model_at(root, path)
            entry = "" if _is_model(section) else f"entry {next(p for p in first['loc'] if isinstance(p, int)) + 1} "
            example = next(iter((section if _is_model(section) else get_args(section)[-1]).model_fields))
            yield f"{key} = {_show(first['input'])}: {entry}is a section. Fix: give it keys, such as `{example}:`"
        elif not path:
            yield _reason(first)
        else:
            reasons = dict.fromkeys(_reason(details) for details in details_list)
            field = _model_at(root, path[:-1]).model_fields[path[-1]]
            yield (
                f"{key} = {_show(_value_at(values, path))}: {', or '.join(reasons)}. "
                f"Fix: {field.description} (default: {_show(field.default)})"
            )


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder. Fix: give the YAML file itself"
    siblings = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    there = f" {path.parent} has: {', '.join(siblings)}." if siblings else ""
    return f"there is no such file.{did_you_mean(path.name, siblings)}{there}"


def _apply_override(values: dict[str, Any], override: str) -> Iterator[str]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        yield f"{override!r} is not of the form section.key=value. Fix: write it like plural.steps=10"
        return
    try:
        value = yaml_text.parse_yaml(text)
    except yaml_text.YamlError as error:
        yield f"{override!r}: the value is not valid YAML ({error})"
        return
    for depth, part in enumerate(parts[:-1], start=1):
        inner = values.get(part)
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            above = ".".join(parts[:depth])
            yield f"{override!r}: `{above}` is a value, not a section, so it has no key {parts[depth]!r}"
            return
        values = inner
    values[parts[-1]] = value


def _unknown_key(root: type[BaseModel], path: SectionPath) -> str:
    *above, name = path
    valid = list(_model_at(root, tuple(above)).model_fields)
    place = f"in section `{'.'.join(above)}`" if above else "at the top level"
    homes = [
        s for s in root.model_fields if _is_model(_annotation(root, s)) and name in _annotation(root, s).model_fields
    ]
    if homes and not above:
        hint = f" It belongs in {' or '.join(f'`{home}`' for home in homes)}."
    else:
        hint = did_you_mean(name, valid)
    return f"{'.'.join(path)}: unknown key {name!r} {place}.{hint} Valid keys: {', '.join(valid)}"


def _annotation(model: type[BaseModel], field: str) -> Any:
    return model.model_fields[field].annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model_at(root: type[BaseModel], path: SectionPath) -> type[BaseModel]:
    """The section at a path, which may go through an entry of a list or a mapping of sections."""
    at: Any = root
    for part in path:
        at = _annotation(at, part) if _is_model(at) else get_args(at)[-1]
        while get_origin(at) in (Annotated, Union, UnionType):
            at = get_args(at)[0]
    section: type[BaseModel] = at
    return section


def _known_prefix(root: type[BaseModel], loc: tuple[int | str, ...]) -> SectionPath:
    """The part of a pydantic location that names settings; the rest are union branches and list positions."""
    path: SectionPath = ()
    model: Any = root
    for part in loc:
        if not _is_model(model) or part not in model.model_fields:
            break
        path = (*path, str(part))
        model = _annotation(model, str(part))
    return path


def _value_at(values: Mapping[str, Any], path: SectionPath) -> Any:
    inner: Any = values
    for part in path:
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return inner


def _reason(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be "):
        message = "must be " + message.removeprefix("Input should be ")
    position = [part for part in details["loc"] if isinstance(part, int)]
    return f"entry {position[0] + 1} {message}" if position else message


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
