"""Public names whose modules are imported when a name is first used.

A package lists its public names once, in the stub `__init__.pyi` beside its `__init__.py`: type checkers read the
stub, and `lazy_names` reads the same file at run time. Knows nothing of what the names are.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reward_models.errors import did_you_mean


def lazy_names(package: str, init_file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make a package's `__getattr__`, `__dir__` and `__all__` from the stub beside its `__init__.py`.

    The stub holds lines `from .module import Name as Name`. A name may also be a module (`from .room import module as
    module`).

    Args:
        package: `__name__` of the package.
        init_file: `__file__` of the package.

    Returns:
        The functions `__getattr__` and `__dir__` (PEP 562) and the list of public names.

    Example:
        >>> import reward_models
        >>> get, names, public = lazy_names("reward_models", reward_models.__file__)
        >>> "Judgements" in public, get("KINDS")
        (True, ('preference', 'rating', 'choice', 'soft'))
    """
    stub = ast.parse(Path(init_file).with_suffix(".pyi").read_text(encoding="utf-8"))
    modules = {
        alias.name: importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }

    def get(name: str) -> Any:
        """Import the module of a public name when the name is first used."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}.{did_you_mean(name, modules)}")
        module = importlib.import_module(modules[name])
        value = getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{modules[name]}.{name}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        """List the public names, loaded or not."""
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names, list(modules)
