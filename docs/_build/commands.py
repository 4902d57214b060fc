"""The reference of the command line, the run file and the suite file, read off the typer app and the pydantic models."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo

from plural_rlhf.cli import app
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.suites.config import ModelSection, SuiteConfig
from plural_rlhf.suites.tasks.catalogue import SUITES, TASKS, make_tasks


ROOT = Path(__file__).resolve().parents[2]


def commands_page() -> str:
    """All commands of `plural-rlhf`: what each does, its arguments and options."""
    out = ["# Commands", str(app.info.help), _overview()]
    for name, command in _commands().items():
        out += [f"## plural-rlhf {name}", inspect.getdoc(command.callback) or ""]
        if (command.context_settings or {}).get("ignore_unknown_options"):  # another parser has the options
            out.append(f"```text\n{_printed(name)}\n```")
            continue
        parameters = _parameters(command.callback)
        usage = " ".join([f"plural-rlhf {name}", *(parameter.usage for parameter in parameters)])
        out += [f"```text\n{usage}\n```", _table(parameters)]
    return "\n\n".join(out) + "\n"


def run_file_page() -> str:
    """All keys of a run file, a table for each section, and the run files that are shipped."""
    out = [
        "# The run file",
        _summary(RunConfig) + " A section is a mapping under its name; on the command line a key is set by "
        "`--set section.key=value`. Unknown keys are refused.",
        _keys(RunConfig, ""),
        "## Run files that are shipped",
    ]
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        text = path.read_text(encoding="utf-8").strip()
        out += [f"### configs/{path.name}", f"```yaml\n{text}\n```"]
    return "\n\n".join(out) + "\n"


def suite_file_page() -> str:
    """All keys of a suite file and of its models, the suites, and the suite files that are shipped."""
    out = [
        "# The suite file",
        _summary(SuiteConfig) + " On the command line a key is set by `--set key=value`. Unknown keys are refused.",
        _keys(SuiteConfig, ""),
        "## models",
        "Each entry of `models` is a mapping with these keys, or a path alone.",
        _keys(ModelSection, ""),
        "## Tasks by name",
        "\n".join(["| task | shape | what it measures | source |", "|---|---|---|---|", *_tasks()]),
        "## Suites",
        "\n".join(f"- `{name}`: {', '.join(f'`{task}`' for task in tasks)}" for name, tasks in SUITES.items()),
        "## Suite files that are shipped",
    ]
    for path in sorted((ROOT / "configs" / "eval").glob("*.yaml")):
        text = path.read_text(encoding="utf-8").strip()
        out += [f"### configs/eval/{path.name}", f"```yaml\n{text}\n```"]
    return "\n\n".join(out) + "\n"


def _tasks() -> list[str]:
    return [f"| `{t.name}` | {t.shape} | {_cell(t.title)} | {_cell(t.source)} |" for t in make_tasks(list(TASKS))]


@dataclass
class Parameter:
    """An argument or option of a command, as text."""

    usage: str
    spelling: str
    default: str
    meaning: str


def _commands() -> dict[str, Any]:
    return {
        command.name or command.callback.__name__.replace("_", "-"): command
        for command in app.registered_commands
        if command.callback is not None
    }


def _overview() -> str:
    rows = ["| command | what it does |", "|---|---|"]
    for name, command in _commands().items():
        rows.append(
            f"| [`{name}`](#plural-rlhf-{name}) | {(inspect.getdoc(command.callback) or '').splitlines()[0]} |"
        )
    return "\n".join(rows)


def _parameters(callback: Callable[..., Any]) -> list[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    return [
        _parameter(name, hints[name], found.default) for name, found in inspect.signature(callback).parameters.items()
    ]


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    annotation, info = get_args(hint)[0], get_args(hint)[1]
    wanted = default is inspect.Parameter.empty
    if isinstance(info, ArgumentInfo):
        metavar = info.metavar or name.upper()
        usage = metavar if wanted else f"[{metavar}]"
        return Parameter(usage, metavar, "required" if wanted else _unless_null(default), info.help or "")
    first = [info.default] if isinstance(info.default, str) else []  # where typer keeps the first spelling
    spellings = [*first, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]
    value = "" if annotation is bool else f" {info.metavar or _metavar(annotation)}"
    usage = f"{spellings[-1]}{value}"
    several = (
        " ..." if get_origin(annotation) is list or list in [get_origin(one) for one in get_args(annotation)] else ""
    )
    shown = "" if default is False else _unless_null(default)
    return Parameter(
        usage if wanted else f"[{usage}]{several}",
        f"{', '.join(spellings)}{value}",
        "required" if wanted else shown,
        info.help or "",
    )


def _unless_null(default: Any) -> str:
    return "" if default is None else _default(default)


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    inner = [one for one in get_args(annotation) if one is not type(None)]
    return (
        _metavar(inner[0])
        if inner
        else {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(annotation, "VALUE")
    )


def _table(parameters: list[Parameter]) -> str:
    rows = ["| argument or option | default | meaning |", "|---|---|---|"]
    for parameter in parameters:
        rows.append(f"| `{_cell(parameter.spelling)}` | {parameter.default} | {_cell(parameter.meaning)} |")
    return "\n".join(rows)


def _printed(command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", "from plural_rlhf.cli import main; main()", command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _keys(section: type[BaseModel], prefix: str) -> str:
    """The table of a section, followed by those of the sections inside it."""
    rows, inner = ["| key | type | default | meaning |", "|---|---|---|---|"], []
    for key, info in section.model_fields.items():
        path = f"{prefix}{key}"
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            rows.append(f"| [`{path}`](#{path.replace('.', '')}) | section | | {info.description} |")
            inner.append(f"## {path}\n\n{_summary(info.annotation)}\n\n{_keys(info.annotation, f'{path}.')}")
        else:
            text = _cell(info.description or "")
            rows.append(f"| `{path}` | {_type(info.annotation, info)} | {_default(info.default)} | {text} |")
    return "\n\n".join(["\n".join(rows), *inner])


def _summary(model: type[BaseModel]) -> str:
    """The first paragraph of a model's docstring, without its example."""
    return (inspect.getdoc(model) or "").split("\n\n")[0]


def _type(annotation: Any, info: FieldInfo | None = None) -> str:
    """A type in words, with its bounds: `integer, ≥ 1`, `survey, table or release`, `list of text or null`."""
    bounds = list(info.metadata) if info else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _or([f"`{value}`" for value in arguments])
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0]) + _bounds(list(annotation.__metadata__))
    words = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        Path: "path",
        Any: "anything",
    }
    if annotation in words:
        return words[annotation] + _bounds(bounds)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}" + _bounds(bounds)
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if arguments:
        return _or([_type(argument) for argument in arguments])
    return getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: list[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "not empty"}
    found = []
    for item in metadata:
        items = item.metadata if isinstance(item, FieldInfo) else [item]
        found += [
            sign if name == "min_length" else f"{sign} {getattr(one, name):g}"
            for one in items
            for name, sign in signs.items()
            if getattr(one, name, None) is not None
        ]
    return f", {', '.join(found)}" if found else ""


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined or value is inspect.Parameter.empty:
        return "" if value is not None else "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{json.dumps(value) if isinstance(value, list | dict) else value}`"
